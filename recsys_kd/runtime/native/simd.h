// Vectors of one instruction set, by the compiler's vector extension: the same source serves AVX-512, AVX2, SSE2, NEON.
//
// Lanes are candidates, so a candidate's numbers never meet another's, and its score is the same, bit for bit, in
// whatever company and on whatever thread.
#pragma once
#include <cstdint>
#include <cstring>
#if defined(__SSE2__)
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
typedef int32_t Wholes __attribute__((vector_size(RK_LANES * 4)));
typedef uint64_t Words __attribute__((vector_size(RK_LANES * 4)));

template <class T>
inline T load(const void* from) {
  T value;
  memcpy(&value, from, sizeof value);
  return value;
}

template <class T>
inline void store(void* to, T value) {
  memcpy(to, &value, sizeof value);
}

inline Floats larger(Floats x, Floats y) {
#if defined(__AVX512F__)
  return _mm512_max_ps(x, y);
#elif defined(__AVX2__)
  return _mm256_max_ps(x, y);
#elif defined(__SSE2__)
  return _mm_max_ps(x, y);
#else
  return x > y ? x : y;
#endif
}

inline Floats positive(Floats x) { return larger(x, Floats{}); }  // NaN becomes 0

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

}  // namespace
