// Scores of a batch; compiled once per instruction set, RK_NAME being the name it is exported by.
//
// Candidates go through in blocks. While one block is computed, the next one's rows, the keys of the one after and the
// buckets of the third are on their way from memory.
#include <cstdlib>

#include "layers.h"
#include "probability.h"
#include "request.h"

namespace {

constexpr int AHEAD = 4;  // stages before the arithmetic: hash, buckets, keys, rows
constexpr int RING = 8;   // blocks in flight, a power of two above AHEAD

// One allocation for a call, cut into pieces that start on cache lines. Without memory it only counts.
struct Room {
  char* memory;
  size_t bytes;
  template <class T>
  T* take(int64_t count) {
    T* piece = memory ? reinterpret_cast<T*>(memory + bytes) : nullptr;
    bytes += (sizeof(T) * static_cast<size_t>(count) + 63) / 64 * 64;
    return piece;
  }
};

struct Work {
  float *sums, *part, *start, *z, *x, *y, *out;
  uint32_t* words;  // a block's rows as they lie
  Ints* steps;      // a layer's inputs as integers
  Ints* codes;      // [dim + 1, RK_LANES] of every term with whole codes, one after another
  int64_t* code_at;   // [terms]: where each begins
  Floats* code_step;  // [terms, 2]
  Lookup* lookups;  // [terms, RING]
  int64_t* rows;    // [terms, RING, B]
  Fetches fetches;
};

inline int widest(const rk_model& model) {
  int most = model.first + model.width + 1;
  if (model.first + model.squares + 1 > most) most = model.first + model.squares + 1;
  for (int i = 0; i < model.layers; i++)
    if (model.layer[i].out > most) most = model.layer[i].out;
  for (int i = 0; i < model.request_terms; i++)
    if (model.request_term[i].dim > most) most = model.request_term[i].dim;
  return most > model.inputs ? most : model.inputs;
}

inline Work carve(Room& room, const rk_model& model) {
  const int64_t most = widest(model), all = model.first + model.width + 1;
  const int64_t blocks = static_cast<int64_t>(model.candidate_terms) * RING;
  int most_words = 0;
  for (int i = 0; i < model.tables; i++)
    if (words(model.table[i]) > most_words) most_words = words(model.table[i]);
  Work work;
  work.sums = room.take<float>(all);
  work.part = room.take<float>(all);
  work.start = room.take<float>(model.first + model.squares + 1);
  work.z = room.take<float>(most * B);
  work.x = room.take<float>(most * B);
  work.y = room.take<float>(most * B);
  work.out = room.take<float>(B);
  work.words = room.take<uint32_t>(static_cast<int64_t>(most_words) * B);
  work.steps = room.take<Ints>(most + 1);
  work.code_at = room.take<int64_t>(model.candidate_terms);
  work.code_step = room.take<Floats>(2 * model.candidate_terms);
  int64_t codes = 0;
  for (int t = 0; t < model.candidate_terms; t++) {
    if (room.memory) work.code_at[t] = codes;
    codes += t < model.whole ? model.candidate_term[t].dim + 1 : 0;
  }
  work.codes = room.take<Ints>(codes);
  work.lookups = room.take<Lookup>(blocks);
  work.rows = room.take<int64_t>(blocks * B);
  // Four stages of every term ask for seven lines per candidate at most.
  work.fetches = {room.take<uint64_t>((static_cast<int64_t>(model.candidate_terms) + 1) * 7 * B + PAIRS), 0, 0, 0};
  return work;
}

// The candidates [begin, end) of one request.
struct Span {
  int64_t begin, end;
  int64_t blocks() const { return (end - begin + B - 1) / B; }
  int64_t at(int64_t block) const { return begin + block * B; }
  int size(int64_t block) const { return static_cast<int>(end - at(block) < B ? end - at(block) : B); }
};

inline bool has_key(const rk_term& term) { return term.source == RK_KEY || term.source == RK_ITEM; }

// One stage of one block of one term; `items` are the block's item rows, found in stage 2.
inline void lookup_stage(const rk_model& model, const rk_batch& batch, const rk_term& term, int stage, int64_t at, int size,
                         Lookup& lookup, int64_t* rows, const int64_t* items, Fetches& fetches, int64_t* misses) {
  const rk_table& table = model.table[term.table];
  if (stage == 0 && has_key(term)) {
    hash(table.index, (term.source == RK_ITEM ? batch.items : batch.candidate_keys[term.slot]) + at, size, lookup,
         fetches);
  } else if (stage == 1 && has_key(term)) {
    open_buckets(table.index, lookup, fetches);
  } else if (stage == 2 && has_key(term)) {
    find(table.index, lookup, rows);
  } else if (stage == 3 && has_key(term)) {  // by now they have left the store buffer, and can be read as vectors
    *misses += count_missed(table.index, rows, size);
    fetch_rows(table, rows, fetches);
  } else if (stage == 2 && term.source == RK_CODES) {
    for (int c = 0; c < B; c++) fetches.add(term.codes + items[c] * term.code_bytes);
  } else if (stage == 3 && term.source == RK_CODES) {
    for (int c = 0; c < B; c++) rows[c] = code_at(term.codes, term.code_bytes, items[c]);
    fetch_rows(table, rows, fetches);
  }
}

// One stage of one block. The term of the items comes before those coded by them.
inline void lookup_stage(const rk_model& model, const rk_batch& batch, const Span& span, int64_t block, int stage,
                         Work& work, int64_t* misses) {
  const int64_t* items = nullptr;
  for (int t = 0; t < model.candidate_terms; t++) {
    const rk_term& term = model.candidate_term[t];
    if (term.source == RK_NUMBERS) continue;
    const int64_t place = static_cast<int64_t>(t) * RING + block % RING;
    int64_t* rows = work.rows + place * B;
    if (term.source == RK_ITEM) items = rows;
    lookup_stage(model, batch, term, stage, span.at(block), span.size(block), work.lookups[place], rows, items,
                 work.fetches, misses + t);
  }
}

// One term's numbers of a block whose rows have come: z [dim, B], and whole codes where it has pairs.
inline void read_term(const rk_model& model, const rk_batch& batch, const Span& span, int64_t block, int t, Work& work,
                      float* z, Ints* codes, Floats* step) {
  const rk_term& term = model.candidate_term[t];
  const int size = span.size(block);
  if (term.source == RK_NUMBERS) {
    const float* from = batch.candidate_numbers[term.slot] + span.at(block) * term.dim;
    for (int k = 0; k < term.dim; k++)
      for (int c = 0; c < B; c++) z[k * B + c] = c < size ? from[static_cast<int64_t>(c) * term.dim + k] : 0.0f;
    return;
  }
  const rk_table& table = model.table[term.table];
  const int64_t place = static_cast<int64_t>(t) * RING + block % RING;
  alignas(64) float scale[B];
  read_rows(table, work.rows + place * B, work.words, scale);
  decode(table, work.words, scale, z);
  if (t < model.whole) whole_codes(table, work.words, scale, codes, step);
}

// All terms' numbers of a block.
inline void gather(const rk_model& model, const rk_batch& batch, const Span& span, int64_t block, Work& work) {
  int64_t at = 0;
  for (int t = 0; t < model.candidate_terms; t++) {
    read_term(model, batch, span, block, t, work, work.z + at * B, work.codes + work.code_at[t], work.code_step + 2 * t);
    at += model.candidate_term[t].dim;
  }
}

// x [first, B] = relu(h): terms of floats first, then those of whole numbers, each adding to what is there.
inline void first_layer(const rk_model& model, Work& work) {
  const int first = model.first;
  const int64_t step = first + model.squares + 1;
  int whole = 0;
  for (int t = 0; t < model.whole; t++) whole += model.candidate_term[t].dim;
  const float *z = work.z + whole * B, *matrix = model.matrix + whole * step;
  if (!model.whole) return affine<true>(z, model.inputs, matrix, step, first, work.start, work.x, work.fetches);
  bool more = model.inputs > whole;
  if (more) affine<false>(z, model.inputs - whole, matrix, step, first, work.start, work.x, work.fetches);
  for (int t = 0; t < model.whole; t++) {
    const rk_term& term = model.candidate_term[t];
    const Whole sums{term.dim, first, term.pairs, term.grid, work.start, work.codes + work.code_at[t], work.code_step + 2 * t};
    const bool last = t + 1 == model.whole;
    if (more) last ? sums.run<true, true>(work.x, work.fetches) : sums.run<true, false>(work.x, work.fetches);
    else last ? sums.run<false, true>(work.x, work.fetches) : sums.run<false, false>(work.x, work.fetches);
    more = true;
  }
}

// Logits [B] of a block from its numbers.
inline void compute(const rk_model& model, Work& work) {
  const int first = model.first, squares = model.squares;
  const int64_t step = first + squares + 1;
  first_layer(model, work);
  affine<false>(work.z, model.inputs, model.matrix + first, step, squares + 1, work.start + first, work.x + first * B,
                work.fetches);
  const float* sums = work.x + first * B;
  Floats wide[2] = {load<Floats>(sums + squares * B), load<Floats>(sums + squares * B + RK_LANES)};
  for (int j = 0; j < squares; j++)
    for (int half = 0; half < 2; half++) {
      const Floats own = load<Floats>(sums + j * B + half * RK_LANES);
      wide[half] += model.weight[j] * (own * own);
    }
  const float* deep = through(model.layer, model.layers, work.x, work.y, work.steps, work.fetches);
  for (int half = 0; half < 2; half++)
    store(work.out + half * RK_LANES, model.slope * (wide[half] + load<Floats>(deep + half * RK_LANES)) + model.offset);
}

// Whole tiles of a block's arithmetic, between which lines are asked for.
inline int tiles(const rk_model& model) {
  int count = 1 + model.first / RK_TILE + (model.squares + 1) / RK_TILE;
  for (int i = 0; i < model.layers; i++) count += model.layer[i].out / RK_TILE;
  return count;
}

inline void score_span(const rk_model& model, const rk_batch& batch, const Span& span, Work& work, int probable,
                       float* out, int64_t* misses) {
  const int64_t blocks = span.blocks();
  for (int64_t step = 0; step < blocks + AHEAD; step++) {
    for (int stage = 0; stage < AHEAD; stage++)
      if (step - stage >= 0 && step - stage < blocks)
        lookup_stage(model, batch, span, step - stage, stage, work, misses);
    const int64_t ready = step - AHEAD;
    if (ready < 0) {
      work.fetches.rest();
      continue;
    }
    work.fetches.share(tiles(model));
    gather(model, batch, span, ready, work);
    compute(model, work);
    if (probable) probabilities(work.out);
    work.fetches.rest();
    memcpy(out + span.at(ready), work.out, sizeof(float) * static_cast<size_t>(span.size(ready)));
  }
}

// What every candidate of a request starts from, into work.start.
inline void fold_request(const rk_model& model, const rk_batch& batch, const Request& request, Work& work,
                         int64_t* misses) {
  memcpy(work.sums, model.base, sizeof(float) * static_cast<size_t>(model.first + model.width + 1));
  for (int t = 0; t < model.request_terms; t++) {
    const rk_term& term = model.request_term[t];
    if (read_term(model, term, batch, request, work.z, work.fetches, misses + t))
      add_term(model, term, work.z, work.part, work.sums);
  }
  turn(model, work.sums, work.start);
}

}  // namespace

// Logits [N] of all candidates of a batch, or their probabilities; its parts are those of rk_batch. misses [request terms + candidate terms],
// zero at first, counts lookups that used a fallback row. Returns 0, or 1 where memory ran out.
RK_EXPORT int RK_FOR_ISA(rk_score)(const rk_model* model, int64_t requests, const int64_t* keys, const int64_t* bag_ends,
                                   const int64_t* ends, const int64_t* bag_values, const float* numbers,
                                   const int64_t* items, const int64_t* const* candidate_keys,
                                   const float* const* candidate_numbers, int probable, float* out, int64_t* misses) {
  const rk_batch batch{requests, keys, bag_ends, bag_values, ends, numbers, items, candidate_keys, candidate_numbers};
  Room size{nullptr, 0};
  carve(size, *model);
  Room room{static_cast<char*>(aligned_alloc(64, size.bytes)), 0};
  if (!room.memory) return 1;
  Work work = carve(room, *model);
  int64_t begin = 0;
  for (int64_t r = 0; r < requests; r++) {
    const Request request{keys + r * model->keys, bag_ends + r * model->bags, r && model->bags ? bag_ends[r * model->bags - 1] : 0,
                          numbers + r * model->numbers};
    fold_request(*model, batch, request, work, misses);
    score_span(*model, batch, {begin, ends[r]}, work, probable, out, misses + model->request_terms);
    begin = ends[r];
  }
  free(room.memory);
  return 0;
}

// Logits [n] -> probabilities, in place: bit for bit as rk_score gives them.
RK_EXPORT void RK_FOR_ISA(rk_probabilities)(float* logits, int64_t n) {
  alignas(64) float block[B] = {};
  for (int64_t at = 0; at < n; at += B) {
    const size_t bytes = sizeof(float) * static_cast<size_t>(n - at < B ? n - at : B);
    memcpy(block, logits + at, bytes);
    probabilities(block);
    memcpy(logits + at, block, bytes);
  }
}
