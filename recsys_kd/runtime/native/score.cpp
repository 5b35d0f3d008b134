// Scores of a batch; compiled once per instruction set, RK_NAME being the name it is exported by.
//
// Candidates go through in blocks. While one block is computed, the next one's rows, the keys of the one after and the
// buckets of the third are on their way from memory.
#include <cstdlib>

#include "request.h"

namespace {

constexpr int AHEAD = 4;  // stages before the arithmetic: bucket, keys, row, row behind a code
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
  Place* places;   // [terms, RING, B]
  int64_t* rows;   // [terms, RING, B]
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
  const int64_t places = static_cast<int64_t>(model.candidate_terms) * RING * B;
  Work work;
  work.sums = room.take<float>(all);
  work.part = room.take<float>(all);
  work.start = room.take<float>(model.first + model.squares + 1);
  work.z = room.take<float>(most * B);
  work.x = room.take<float>(most * B);
  work.y = room.take<float>(most * B);
  work.out = room.take<float>(B);
  work.places = room.take<Place>(places);
  work.rows = room.take<int64_t>(places);
  return work;
}

// The candidates [begin, end) of one request.
struct Span {
  int64_t begin, end;
  int64_t blocks() const { return (end - begin + B - 1) / B; }
  int64_t at(int64_t block) const { return begin + block * B; }
  int size(int64_t block) const { return static_cast<int>(end - at(block) < B ? end - at(block) : B); }
};

inline int64_t code_at(const rk_term& term, int64_t row) {
  const uint8_t* at = term.codes + row * term.code_bytes;
  if (term.code_bytes == 1) return *at;
  return term.code_bytes == 2 ? load<uint16_t>(at) : load<int32_t>(at);
}

inline bool has_key(const rk_term& term) { return term.source == RK_KEY || term.source == RK_ITEM; }

// One stage of one block, over all terms that need it. The term of the items comes before those coded by them.
inline void lookup_stage(const rk_model& model, const rk_batch& batch, const Span& span, int64_t block, int stage,
                         Work& work, int64_t* misses) {
  const int size = span.size(block);
  const int64_t ring = block % RING * B;
  const int64_t* items = nullptr;
  for (int t = 0; t < model.candidate_terms; t++) {
    const rk_term& term = model.candidate_term[t];
    if (term.source == RK_NUMBERS) continue;
    const rk_table& table = model.table[term.table];
    Place* places = work.places + static_cast<int64_t>(t) * RING * B + ring;
    int64_t* rows = work.rows + static_cast<int64_t>(t) * RING * B + ring;
    if (term.source == RK_ITEM) items = rows;
    if (stage == 0 && has_key(term)) {
      const int64_t* keys = (term.source == RK_ITEM ? batch.items : batch.candidate_keys[term.slot]) + span.at(block);
      for (int c = 0; c < size; c++) places[c] = hash(table.index, keys[c]);
    } else if (stage == 1 && has_key(term)) {
      for (int c = 0; c < size; c++) open_bucket(table.index, places[c]);
    } else if (stage == 2 && has_key(term)) {
      for (int c = 0; c < B; c++) {
        const int64_t row = c < size ? find(table.index, places[c]) : table.index.count;
        misses[t] += c < size && row == table.index.count;
        rows[c] = checked(table, row);
        prefetch_row(table, rows[c]);
      }
    } else if (stage == 2) {
      for (int c = 0; c < B; c++) prefetch(term.codes + items[c] * term.code_bytes);
    } else if (stage == 3 && term.source == RK_CODES) {
      for (int c = 0; c < B; c++) {
        rows[c] = checked(table, code_at(term, items[c]));
        prefetch_row(table, rows[c]);
      }
    }
  }
}

// z [inputs, B] of a block whose rows have come.
inline void gather(const rk_model& model, const rk_batch& batch, const Span& span, int64_t block, Work& work) {
  float* z = work.z;
  const int size = span.size(block);
  for (int t = 0; t < model.candidate_terms; t++) {
    const rk_term& term = model.candidate_term[t];
    if (term.source == RK_NUMBERS) {
      const float* from = batch.candidate_numbers[term.slot] + span.at(block) * term.dim;
      for (int k = 0; k < term.dim; k++)
        for (int c = 0; c < B; c++) z[k * B + c] = c < size ? from[static_cast<int64_t>(c) * term.dim + k] : 0.0f;
    } else {
      decode(model.table[term.table], work.rows + static_cast<int64_t>(t) * RING * B + block % RING * B, z);
    }
    z += term.dim * B;
  }
}

// Logits [B] of a block from its z.
inline void compute(const rk_model& model, Work& work) {
  const int first = model.first, squares = model.squares;
  affine(work.z, model.inputs, model.matrix, first + squares + 1, work.start, work.x);
  float* wide = work.out;
  const float *sums = work.x + first * B, *s = sums + squares * B;
  for (int c = 0; c < B; c++) wide[c] = s[c];
  for (int j = 0; j < squares; j++)
    for (int c = 0; c < B; c++) wide[c] += model.weight[j] * (sums[j * B + c] * sums[j * B + c]);
  float *in = work.x, *out = work.y;
  for (int i = 0; i < model.layers; i++) {
    relu(in, model.layer[i].in);
    affine(in, model.layer[i].in, model.layer[i].weight, model.layer[i].out, model.layer[i].bias, out);
    float* swap = in;
    in = out;
    out = swap;
  }
  for (int c = 0; c < B; c++) wide[c] = model.slope * (wide[c] + in[c]) + model.offset;
}

inline void score_span(const rk_model& model, const rk_batch& batch, const Span& span, Work& work, float* out,
                       int64_t* misses) {
  const int64_t blocks = span.blocks();
  for (int64_t step = 0; step < blocks + AHEAD; step++) {
    for (int stage = 0; stage < AHEAD; stage++)
      if (step - stage >= 0 && step - stage < blocks)
        lookup_stage(model, batch, span, step - stage, stage, work, misses);
    const int64_t ready = step - AHEAD;
    if (ready < 0) continue;
    gather(model, batch, span, ready, work);
    compute(model, work);
    memcpy(out + span.at(ready), work.out, sizeof(float) * static_cast<size_t>(span.size(ready)));
  }
}

}  // namespace

// Logits [N] of all candidates; misses [request terms + candidate terms] counts lookups that used a fallback row.
// Returns 0, or 1 where memory ran out.
RK_EXPORT int RK_FOR_ISA(rk_score)(const rk_model* model, const rk_batch* batch, float* out, int64_t* misses) {
  Room size{nullptr, 0};
  carve(size, *model);
  Room room{static_cast<char*>(aligned_alloc(64, size.bytes)), 0};
  if (!room.memory) return 1;
  Work work = carve(room, *model);
  Request request{batch->keys, batch->bag_ends, 0, batch->numbers};
  int64_t begin = 0;
  for (int64_t r = 0; r < batch->requests; r++) {
    const int all = model->first + model->width + 1;
    memcpy(work.sums, model->base, sizeof(float) * static_cast<size_t>(all));
    for (int t = 0; t < model->request_terms; t++) {
      const rk_term& term = model->request_term[t];
      if (read_term(*model, term, *batch, request, work.z, misses + t) || term.source != RK_BAG)
        add_term(*model, term, work.z, work.part, work.sums);
    }
    turn(*model, work.sums, work.start);
    score_span(*model, *batch, {begin, batch->ends[r]}, work, out, misses + model->request_terms);
    begin = batch->ends[r];
    request.keys += model->keys;
    request.numbers += model->numbers;
    if (model->bags) {
      request.bag_start = request.bag_ends[model->bags - 1];
      request.bag_ends += model->bags;
    }
  }
  free(room.memory);
  return 0;
}
