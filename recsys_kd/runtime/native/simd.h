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

// For pieces of inner loops, which must not become calls with sums in memory.
#define RK_ALWAYS inline __attribute__((always_inline))

namespace {

constexpr int B = 2 * RK_LANES;  // candidates per block: two vectors, so that every weight is loaded once for both
typedef float Floats __attribute__((vector_size(RK_LANES * 4)));
typedef uint32_t Ints __attribute__((vector_size(RK_LANES * 4)));
typedef int32_t Wholes __attribute__((vector_size(RK_LANES * 4)));
typedef uint16_t Shorts __attribute__((vector_size(RK_LANES * 4)));
typedef uint64_t Words __attribute__((vector_size(RK_LANES * 4)));
constexpr int PAIRS = RK_LANES / 2;  // 64-bit lanes

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

static_assert(sizeof(void*) == sizeof(uint64_t), "addresses are computed in 64-bit lanes");

inline Words addresses(const uint8_t* base, Words offset) { return offset + reinterpret_cast<uintptr_t>(base); }

// Cache lines to ask for. Asking for many at once stalls, since a core has few line buffers (16 at Intel's): they are
// collected, and asked for a few at a time between pieces of arithmetic.
struct Fetches {
  uint64_t* lines;  // with room for a vector more than are collected
  int count, next, each;

  inline void add(const uint8_t* at) { lines[count++] = reinterpret_cast<uintptr_t>(at); }
  inline void add(Words at) {
    store(lines + count, at);
    count += PAIRS;
  }
  // Both ends of things shorter than a cache line; the second where it lies in another.
  inline void add(Words first, Words last) {
    add(first);
    const Words apart = (first ^ last) >> 6;
#if defined(__AVX512F__)
    const __mmask8 mask = _mm512_test_epi64_mask((__m512i)apart, (__m512i)apart);
    store(lines + count, _mm512_maskz_compress_epi64(mask, (__m512i)last));
    count += __builtin_popcount(mask);
#else
    for (int i = 0; i < PAIRS; i++) {
      lines[count] = last[i];
      count += apart[i] != 0;
    }
#endif
  }
  // Shares what was collected out over so many pieces of arithmetic.
  inline void share(int pieces) { each = count / pieces + 1; }
  inline void some() { until(next + each < count ? next + each : count); }
  inline void rest() {
    until(count);
    count = next = 0;
  }
  inline void until(int end) {
    for (; next < end; next++) __builtin_prefetch(reinterpret_cast<const void*>(lines[next]), 0, 3);
  }
};

}  // namespace
