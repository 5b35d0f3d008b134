// Raw key -> row: the lookup of recsys_kd/index.py in three steps, so that each waits for memory while others work.
#pragma once
#include "abi.h"
#include "simd.h"

namespace {

constexpr int64_t NOWHERE = -1;

struct Place {
  int64_t bucket, low, high;
  uint64_t rest;
};

// Step 1: spread the key, and ask for its bucket.
inline Place hash(const rk_index& index, int64_t key) {
  const uint64_t mask = index.bits == 64 ? ~0ull : (1ull << index.bits) - 1;
  const int shift = (index.bits + 1) / 2, rest_bits = index.kept - index.top;
  uint64_t x = static_cast<uint64_t>(key) - static_cast<uint64_t>(index.base);
  const bool inside = x <= mask && index.count > 0;
  x = (x * 0x9E3779B97F4A7C15ull) & mask;
  x ^= x >> shift;
  x = (x * 0xBF58476D1CE4E5B9ull) & mask;
  x ^= x >> shift;
  x >>= index.bits - index.kept;
  const int64_t bucket = rest_bits < 64 ? static_cast<int64_t>(x >> rest_bits) : 0;
  const uint64_t rest = rest_bits < 64 ? x & ((1ull << rest_bits) - 1) : x;
  if (!inside || bucket < 0 || bucket >= index.buckets) return {NOWHERE, 0, 0, 0};
  prefetch(index.starts + 4 * bucket);
  return {bucket, 0, 0, rest};
}

// Step 2: read where the bucket lies, and ask for its keys.
inline void open_bucket(const rk_index& index, Place& place) {
  if (place.bucket == NOWHERE) return;
  place.low = load<uint32_t>(index.starts + 4 * place.bucket);
  place.high = load<uint32_t>(index.starts + 4 * place.bucket + 4);
  if (place.low > place.high || place.high > index.count) place.low = place.high = 0;
  if (place.low == place.high) return;
  prefetch(index.rests + place.low * index.width);
  prefetch(index.rests + place.high * index.width - 1);
}

inline uint64_t rest_at(const rk_index& index, int64_t row) {
  uint64_t value = 0;
  memcpy(&value, index.rests + row * index.width, static_cast<size_t>(index.width));
  return value;
}

// Keys of a bucket rise, whatever their width: bisection.
inline int64_t bisect(const rk_index& index, int64_t low, int64_t high, uint64_t rest) {
  const int64_t end = high;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (rest_at(index, middle) < rest) low = middle + 1;
    else high = middle;
  }
  return low < end && rest_at(index, low) == rest ? low : index.count;
}

#if defined(__AVX512BW__)
// All keys of a bucket (8 to 16 on average) in one comparison; the mask keeps from reading past its end.
template <int WIDTH>
inline int64_t scan(const rk_index& index, int64_t low, int64_t high, uint64_t rest) {
  constexpr int LANES = 64 / WIDTH;
  for (; low < high; low += LANES) {
    const int64_t left = high - low;
    const uint64_t live = left >= LANES ? ~0ull >> (64 - LANES) : (1ull << left) - 1;
    const uint8_t* at = index.rests + low * WIDTH;
    uint64_t hits;
    if (WIDTH == 1) hits = _mm512_mask_cmpeq_epi8_mask(live, _mm512_maskz_loadu_epi8(live, at), _mm512_set1_epi8(static_cast<char>(rest)));
    else if (WIDTH == 2) hits = _mm512_mask_cmpeq_epi16_mask(static_cast<__mmask32>(live), _mm512_maskz_loadu_epi16(static_cast<__mmask32>(live), at), _mm512_set1_epi16(static_cast<short>(rest)));
    else hits = _mm512_mask_cmpeq_epi32_mask(static_cast<__mmask16>(live), _mm512_maskz_loadu_epi32(static_cast<__mmask16>(live), at), _mm512_set1_epi32(static_cast<int>(rest)));
    if (hits) return low + __builtin_ctzll(hits);
  }
  return index.count;
}
#endif

// Step 3: the key's row; the fallback's, index.count, where it has none.
inline int64_t find(const rk_index& index, const Place& place) {
  if (place.low >= place.high) return index.count;
#if defined(__AVX512BW__)
  if (index.width == 1) return scan<1>(index, place.low, place.high, place.rest);
  if (index.width == 2) return scan<2>(index, place.low, place.high, place.rest);
  if (index.width == 4) return scan<4>(index, place.low, place.high, place.rest);
#endif
  return bisect(index, place.low, place.high, place.rest);
}

inline int64_t row_of(const rk_index& index, int64_t key) {
  Place place = hash(index, key);
  open_bucket(index, place);
  return find(index, place);
}

}  // namespace
