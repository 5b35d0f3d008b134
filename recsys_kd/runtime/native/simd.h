// Vectors of one instruction set, by the compiler's vector extension: the same source serves AVX-512, AVX2, SSE2, NEON.
//
// Lanes are candidates, so a candidate's numbers never meet another's, and its score is the same, bit for bit, in
// whatever company and on whatever thread.
#pragma once
#include <cstdint>
#include <cstring>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
// RK_TILE: outputs at once, as many as there are registers for twice their sums.
#define RK_LANES 16
#define RK_TILE 8
#elif defined(__AVX2__)
#define RK_LANES 8
#define RK_TILE 6
#else
#define RK_LANES 4
#define RK_TILE 4
#endif

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "artifacts are little-endian, and read as they lie"
#endif

namespace {

constexpr int B = 2 * RK_LANES;  // candidates per block: two vectors, so that every weight is loaded once for both
typedef float Floats __attribute__((vector_size(RK_LANES * 4)));
typedef uint32_t Ints __attribute__((vector_size(RK_LANES * 4)));
typedef uint64_t Words __attribute__((vector_size(RK_LANES * 4)));

template <class T>
inline T load(const void* from) {
  T value;
  memcpy(&value, from, sizeof value);
  return value;
}

inline void store(float* to, Floats value) { memcpy(to, &value, sizeof value); }

inline Floats positive(Floats x) { return x > 0.0f ? x : Floats{}; }

// Cache lines to ask for. Asking for many at once stalls, since a core has few line buffers (16 at Intel's): they are
// collected, and asked for a few at a time between pieces of arithmetic.
struct Fetches {
  const uint8_t** lines;
  int count, next, each;

  inline void add(const uint8_t* at) { lines[count++] = at; }
  // Both ends of something shorter than a cache line; the second where it lies in another.
  inline void add(const uint8_t* first, const uint8_t* last) {
    lines[count] = first;
    lines[count + 1] = last;
    count += 1 + (((reinterpret_cast<uintptr_t>(first) ^ reinterpret_cast<uintptr_t>(last)) >> 6) != 0);
  }
  // Shares what was collected out over so many pieces of arithmetic.
  inline void share(int pieces) { each = count / pieces + 1; }
  inline void some() {
    for (int i = 0; i < each && next < count; i++) __builtin_prefetch(lines[next++], 0, 3);
  }
  inline void rest() {
    while (next < count) __builtin_prefetch(lines[next++], 0, 3);
    count = next = 0;
  }
};

// The sums of outputs 0 .. J-1 for both vectors of a block. A chain of members, not arrays: compilers keep the members
// in registers from the first to the last instruction, which they do not do for arrays.
template <int J>
struct Sums : Sums<J - 1> {
  Floats low, high;
  inline explicit Sums(const float* init) : Sums<J - 1>(init) { low = high = Floats{} + init[J - 1]; }
  inline void add(Floats a, Floats b, const float* weight) {
    Sums<J - 1>::add(a, b, weight);
    low += a * weight[J - 1];
    high += b * weight[J - 1];
  }
  template <bool RELU>
  inline void write(float* y) const {
    Sums<J - 1>::template write<RELU>(y);
    store(y + (J - 1) * B, RELU ? positive(low) : low);
    store(y + (J - 1) * B + RK_LANES, RELU ? positive(high) : high);
  }
};

template <>
struct Sums<0> {
  inline explicit Sums(const float*) {}
  inline void add(Floats, Floats, const float*) {}
  template <bool RELU>
  inline void write(float*) const {}
};

template <int J, bool RELU>
inline void tile(const float* x, int in, const float* weight, int64_t step, const float* init, float* y) {
  Sums<J> sums(init);
  for (int k = 0; k < in; k++, x += B, weight += step) sums.add(load<Floats>(x), load<Floats>(x + RK_LANES), weight);
  sums.template write<RELU>(y);
}

// One block through a layer: y [out, B] = init [out] + weight [in, step] (the first `out` of each row) x [in, B].
template <bool RELU>
inline void affine(const float* x, int in, const float* weight, int64_t step, int out, const float* init, float* y,
                   Fetches& fetches) {
  int j = 0;
  for (; j + RK_TILE <= out; j += RK_TILE) {
    tile<RK_TILE, RELU>(x, in, weight + j, step, init + j, y + j * B);
    fetches.some();
  }
  for (; j + 4 <= out; j += 4) tile<4, RELU>(x, in, weight + j, step, init + j, y + j * B);
  for (; j < out; j++) tile<1, RELU>(x, in, weight + j, step, init + j, y + j * B);
}

}  // namespace
