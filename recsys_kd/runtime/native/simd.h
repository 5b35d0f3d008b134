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
#define RK_LANES 16
#define RK_TILE 8
#elif defined(__AVX2__)
#define RK_LANES 8
#define RK_TILE 4
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
typedef uint64_t Words __attribute__((vector_size(RK_LANES * 4)));

template <class T>
inline T load(const void* from) {
  T value;
  memcpy(&value, from, sizeof value);
  return value;
}

inline void store(float* to, Floats value) { memcpy(to, &value, sizeof value); }

inline void prefetch(const void* at) { __builtin_prefetch(at, 0, 3); }

// y[j] = init[j] + sum over k of x[k] * weight[k, j], for J of the outputs and both vectors of a block.
template <int J>
inline void tile(const float* x, int in, const float* weight, int out, const float* init, float* y) {
  Floats low[J], high[J];
  for (int j = 0; j < J; j++) low[j] = high[j] = init[j] - Floats{};
  for (int k = 0; k < in; k++) {
    const Floats a = load<Floats>(x + k * B), b = load<Floats>(x + k * B + RK_LANES);
    for (int j = 0; j < J; j++) {
      const float w = weight[static_cast<int64_t>(k) * out + j];
      low[j] += a * w;
      high[j] += b * w;
    }
  }
  for (int j = 0; j < J; j++) {
    store(y + j * B, low[j]);
    store(y + j * B + RK_LANES, high[j]);
  }
}

// A layer for one block: x [in, B] -> y [out, B].
inline void affine(const float* x, int in, const float* weight, int out, const float* init, float* y) {
  int j = 0;
  for (; j + RK_TILE <= out; j += RK_TILE) tile<RK_TILE>(x, in, weight + j, out, init + j, y + j * B);
  if (RK_TILE > 4 && j + 4 <= out) {
    tile<4>(x, in, weight + j, out, init + j, y + j * B);
    j += 4;
  }
  for (; j < out; j++) tile<1>(x, in, weight + j, out, init + j, y + j * B);
}

inline void relu(float* x, int count) {
  for (int i = 0; i < count * B; i++) x[i] = x[i] > 0.0f ? x[i] : 0.0f;
}

}  // namespace
