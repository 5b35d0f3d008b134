// Fuzz target of the native kernel: models and requests whose every value is made of the input's bytes, in memory of the
// exact sizes, so that a read outside is seen by the address sanitizer. Lengths and pointers are right, since Python
// makes those; rows, buckets, codes, keys and scales are not.
//
// Built with -fsanitize=address,undefined. With clang's -fsanitize=fuzzer, LLVMFuzzerTestOneInput is its entry;
// otherwise main runs every file that it is given.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>
#include <vector>

#include "abi.h"

#define DECLARE(name)                                                                                              \
  extern "C" int rk_score_##name(const rk_model*, int64_t, const int64_t*, const int64_t*, const int64_t*,          \
                                 const int64_t*, const float*, const int64_t*, const int64_t* const*,               \
                                 const float* const*, int, float*, int64_t*);
DECLARE(baseline)
#if defined(__x86_64__) && !defined(RK_BASELINE_ONLY)
DECLARE(avx2)
DECLARE(avx512)
DECLARE(vnni)
#endif
extern "C" int rk_level();

namespace {

struct Input {
  const uint8_t* at;
  const uint8_t* end;
  uint8_t byte() { return at < end ? *at++ : 0; }
  int64_t below(int64_t n) { return (byte() | byte() << 8) % n; }
  int64_t wide() {
    int64_t value = 0;
    for (int i = 0; i < 8; i++) value = value << 8 | byte();
    return byte() % 3 ? value : value & 0xff;  // small keys are often found
  }
};

// Memory of its exact size, filled from the input.
struct Memory {
  std::vector<std::unique_ptr<uint8_t[]>> pieces;
  template <class T>
  T* make(int64_t count, Input& input, bool hostile) {
    const size_t bytes = sizeof(T) * static_cast<size_t>(count);
    pieces.emplace_back(new uint8_t[bytes]);
    for (size_t i = 0; i < bytes; i++) pieces.back()[i] = hostile ? input.byte() : 0;
    return reinterpret_cast<T*>(pieces.back().get());
  }
  float* floats(int64_t count, Input& input) {
    float* made = make<float>(count, input, false);
    for (int64_t i = 0; i < count; i++) made[i] = static_cast<float>(input.byte() - 128) / 64.0f;
    return made;
  }
};

int top_of(int64_t count, int kept) {
  int top = 0;
  for (int64_t n = count / 16; n; n >>= 1) top++;
  return top < kept ? top : kept;
}

rk_table table(Memory& memory, Input& input) {
  rk_table made{};
  made.bits = input.byte() % 2 ? 4 : 8;
  made.dim = static_cast<int32_t>(1 + input.below(20));
  rk_index& index = made.index;
  index.count = input.below(90);
  made.rows = index.count + 1;
  index.bits = static_cast<int32_t>(1 + input.below(64));
  index.kept = static_cast<int32_t>(1 + input.below(index.bits));
  index.top = top_of(index.count, index.kept);
  index.width = (index.kept - index.top + 7) / 8 > 1 ? (index.kept - index.top + 7) / 8 : 1;
  index.base = input.wide();
  index.buckets = 1ll << index.top;
  uint32_t* starts = memory.make<uint32_t>(index.buckets + 1, input, true);
  if (input.byte() % 4)  // mostly buckets that follow each other, so that keys are compared at all
    for (int64_t i = 0; i <= index.buckets; i++) starts[i] = static_cast<uint32_t>(i * index.count / index.buckets);
  index.starts = reinterpret_cast<uint8_t*>(starts);
  index.rests = memory.make<uint8_t>(index.count * index.width, input, true);
  made.data = memory.make<uint8_t>(made.rows * ((static_cast<int64_t>(made.dim) * made.bits + 7) / 8 + 2), input, true);
  return made;
}

void run(Input input) {
  Memory memory;
  rk_model model{};
  model.first = static_cast<int32_t>(1 + input.below(20));
  model.width = static_cast<int32_t>(1 + input.below(12));
  const int all = model.first + model.width + 1;
  rk_table tables[3] = {table(memory, input), table(memory, input), table(memory, input)};
  if (input.byte() % 2) {  // the second table's rows refine the first's
    tables[0].more = 1;
    tables[0].more_bytes = 1 << input.below(3);
    tables[0].more_rows = memory.make<uint8_t>(tables[0].rows * tables[0].more_bytes, input, true);
  }
  model.tables = 3;
  model.table = tables;
  model.keys = 2;
  model.bags = 1;
  model.numbers = 3;
  auto term = [&](int source, int slot, int which, int dim, int square) {
    rk_term made{source, slot, which, dim, square, 0, nullptr, nullptr, nullptr, nullptr, nullptr};
    made.matrix = memory.floats(static_cast<int64_t>(dim) * all, input);
    made.mean = memory.floats(all, input);
    return made;
  };
  const int refined = tables[0].more_rows && tables[1].dim > tables[0].dim ? tables[1].dim : tables[0].dim;
  rk_term own[4] = {term(RK_KEY, 0, 0, refined, 1), term(RK_KEY, 1, 1, tables[1].dim, 0),
                    term(RK_BAG, 0, 2, tables[2].dim, 1), term(RK_NUMBERS, 0, 0, 3, 0)};
  rk_term each[4] = {term(RK_ITEM, 0, 2, tables[2].dim, 0), term(RK_CODES, 0, 1, tables[1].dim, 0),
                     term(RK_KEY, 0, 0, tables[0].dim, 1), term(RK_NUMBERS, 0, 0, 2, 0)};
  each[1].code_bytes = 1 << input.below(3);
  each[1].codes = memory.make<uint8_t>(tables[2].rows * each[1].code_bytes, input, true);
  model.request_terms = model.candidate_terms = 4;
  model.request_term = own;
  model.candidate_term = each;
  for (const rk_term& t : each) model.inputs += t.dim;
  model.whole = static_cast<int32_t>(input.below(4));  // any of the coded ones, which come first
  for (int i = 0; i < model.whole; i++) {
    each[i].pairs = memory.make<uint32_t>(static_cast<int64_t>(each[i].dim + 1) / 2 * model.first, input, true);
    each[i].grid = memory.floats(model.first, input);
  }
  const bool turned = model.inputs < model.width;
  model.rotated = turned ? model.inputs : model.width;
  model.squares = model.rotated + model.width;
  model.base = memory.floats(all, input);
  model.rotation = turned ? memory.floats(static_cast<int64_t>(model.width) * model.rotated, input) : nullptr;
  model.matrix = memory.floats(static_cast<int64_t>(model.inputs) * (model.first + model.squares + 1), input);
  model.constant = memory.floats(model.width, input);
  model.weight = memory.floats(model.squares, input);
  const int hidden = static_cast<int>(1 + input.below(18));
  const int64_t weights = static_cast<int64_t>(model.first) * hidden;
  const bool coded = input.byte() % 2;
  rk_layer layers[2] = {{model.first, hidden, memory.floats(weights, input), memory.floats(hidden, input),
                         coded ? memory.make<uint32_t>((model.first + 1) / 2 * hidden, input, true) : nullptr,
                         coded ? memory.floats(hidden, input) : nullptr},
                        {hidden, 1, memory.floats(hidden, input), memory.floats(1, input), nullptr, nullptr}};
  model.layers = 2;
  model.layer = layers;
  model.slope = 1.0f;

  const int64_t requests = input.below(4);
  int64_t* bag_ends = memory.make<int64_t>(requests, input, false);
  int64_t* ends = memory.make<int64_t>(requests, input, false);
  int64_t bag = 0, n = 0;
  for (int64_t r = 0; r < requests; r++) {
    bag_ends[r] = bag += input.below(50);
    ends[r] = n += input.below(90);
  }
  auto keys = [&](int64_t count) {
    int64_t* made = memory.make<int64_t>(count, input, false);
    for (int64_t i = 0; i < count; i++) made[i] = input.wide();
    return made;
  };
  const int64_t *own_keys = keys(2 * requests), *bag_values = keys(bag), *items = keys(n), *column = keys(n);
  const float *numbers = memory.floats(3 * requests, input), *values = memory.floats(2 * n, input);
  float* out = memory.make<float>(n, input, false);
  const int probable = input.byte() % 2;
  auto call = [&](decltype(rk_score_baseline)* score) {
    int64_t misses[8] = {};
    score(&model, requests, own_keys, bag_ends, ends, bag_values, numbers, items, &column, &values, probable, out, misses);
    for (int64_t missed : misses)
      if (missed < 0 || missed > bag + n + 2 * requests) __builtin_trap();
  };
  call(rk_score_baseline);
#if defined(__x86_64__) && !defined(RK_BASELINE_ONLY)
  if (rk_level() >= 1) call(rk_score_avx2);
  if (rk_level() >= 2) call(rk_score_avx512);
  if (rk_level() >= 3) call(rk_score_vnni);
#endif
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  run({data, data + size});
  return 0;
}

#ifndef RK_LIBFUZZER
int main(int count, char** names) {
  for (int i = 1; i < count; i++) {
    FILE* file = fopen(names[i], "rb");
    if (!file) return 2;
    std::vector<uint8_t> data(1 << 16);
    data.resize(fread(data.data(), 1, data.size(), file));
    fclose(file);
    LLVMFuzzerTestOneInput(data.data(), data.size());
  }
  printf("%d inputs\n", count - 1);
}
#endif
