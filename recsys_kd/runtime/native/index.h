// Raw keys -> rows: the lookup of recsys_kd/index.py for a block of keys, in three steps, so that a step's reads are on
// their way from memory while other blocks are worked on.
#pragma once
#include "abi.h"
#include "simd.h"

namespace {

// A block of keys on their way. `low` and `high` are rows between which a key must lie; equal where it is nowhere.
struct Lookup {
  uint64_t rest[B];
  uint64_t bucket[B];
  int64_t low[B], high[B];
};

inline Words lanes_below(int size) {
  constexpr uint64_t LANE[8] = {0, 1, 2, 3, 4, 5, 6, 7};
  return (Words)(load<Words>(LANE) < static_cast<uint64_t>(size > 0 ? size : 0));
}

// The last keys of a request, fewer than a vector.
inline Words some_keys(const int64_t* keys, int count) {
  Words found = {};
  for (int i = 0; i < count; i++) found[i] = static_cast<uint64_t>(keys[i]);
  return found;
}

// Step 1: spread the keys, and ask for their buckets. Lanes from `size` on hold no key.
inline void hash(const rk_index& index, const int64_t* keys, int size, Lookup& found, Fetches& fetches) {
  const uint64_t mask = index.bits == 64 ? ~0ull : (1ull << index.bits) - 1;
  const int shift = (index.bits + 1) / 2, drop = index.bits - index.kept, rest_bits = index.kept - index.top;
  const bool single = rest_bits >= 64;  // of 64 bits there is one bucket
  const uint64_t rest_mask = single ? ~0ull : (1ull << rest_bits) - 1, buckets = single ? 1 : index.buckets;
  for (int c = 0; c < B; c += PAIRS) {
    const int left = size - c;
    Words x = (left >= PAIRS ? load<Words>(keys + c) : some_keys(keys + c, left)) - static_cast<uint64_t>(index.base);
    const Words inside = (Words)(x <= mask) & lanes_below(left);
    x = (x * 0x9E3779B97F4A7C15ull) & mask;
    x ^= x >> shift;
    x = (x * 0xBF58476D1CE4E5B9ull) & mask;
    x ^= x >> shift;
    x >>= drop;
    const Words bucket = single ? Words{} : x >> rest_bits, right = inside & (Words)(bucket < buckets);
    store(found.rest + c, x & rest_mask);
    store(found.high + c, right);  // step 2 needs to know no more
    store(found.bucket + c, bucket & right);
    fetches.add(addresses(index.starts, (bucket & right) * 4));
  }
}

// Where buckets begin, in the low half of each lane, and where they end.
inline Words bounds_at(const rk_index& index, Words bucket) {
#if defined(__AVX512F__)
  return (Words)_mm512_i64gather_epi64((__m512i)bucket, index.starts, 4);
#else
  Words found;
  for (int i = 0; i < PAIRS; i++) found[i] = load<uint64_t>(index.starts + 4 * bucket[i]);
  return found;
#endif
}

// Step 2: read where the buckets lie, and ask for their keys.
inline void open_buckets(const rk_index& index, Lookup& found, Fetches& fetches) {
  for (int c = 0; c < B; c += PAIRS) {
    const Words bounds = bounds_at(index, load<Words>(found.bucket + c));
    Words low = bounds & 0xffffffffull, high = bounds >> 32;
    const Words right = load<Words>(found.high + c) & (Words)(low < high) & (Words)(high <= static_cast<uint64_t>(index.count));
    low &= right;
    high &= right;
    store(found.low + c, low);
    store(found.high + c, high);
    const uint64_t width = static_cast<uint64_t>(index.width);
    fetches.add(addresses(index.rests, low * width), addresses(index.rests, high * width - (right & 1)));
  }
}

inline uint64_t rest_at(const rk_index& index, int64_t row) {
  uint64_t value = 0;
  memcpy(&value, index.rests + row * index.width, static_cast<size_t>(index.width));
  return value;
}

// The keys of a bucket rise: bisection serves any width.
template <int WIDTH>
struct Search {
  static inline int64_t find(const rk_index& index, int64_t low, int64_t high, uint64_t rest) {
    const int64_t end = high;
    while (low < high) {
      const int64_t middle = (low + high) / 2;
      if (rest_at(index, middle) < rest) low = middle + 1;
      else high = middle;
    }
    return low < end && rest_at(index, low) == rest ? low : index.count;
  }
};

#if defined(__AVX512BW__)
// Which of `live` keys at `at` equal `rest`, one bit each; the mask keeps from reading past the last.
template <int WIDTH>
inline uint64_t equal(const uint8_t* at, uint64_t live, uint64_t rest);

template <>
inline uint64_t equal<1>(const uint8_t* at, uint64_t live, uint64_t rest) {
  return _mm512_mask_cmpeq_epi8_mask(live, _mm512_maskz_loadu_epi8(live, at), _mm512_set1_epi8(static_cast<char>(rest)));
}

template <>
inline uint64_t equal<2>(const uint8_t* at, uint64_t live, uint64_t rest) {
  const __mmask32 mask = static_cast<__mmask32>(live);
  return _mm512_mask_cmpeq_epi16_mask(mask, _mm512_maskz_loadu_epi16(mask, at),
                                      _mm512_set1_epi16(static_cast<short>(rest)));
}

template <>
inline uint64_t equal<4>(const uint8_t* at, uint64_t live, uint64_t rest) {
  const __mmask16 mask = static_cast<__mmask16>(live);
  return _mm512_mask_cmpeq_epi32_mask(mask, _mm512_maskz_loadu_epi32(mask, at),
                                      _mm512_set1_epi32(static_cast<int>(rest)));
}

// All keys of a bucket (8 to 16 on average) in one comparison.
template <int WIDTH>
struct Scan {
  static inline int64_t find(const rk_index& index, int64_t low, int64_t high, uint64_t rest) {
    constexpr int LANES = 64 / WIDTH;
    for (; low < high; low += LANES) {
      const int64_t left = high - low;
      const uint64_t live = left >= LANES ? ~0ull >> (64 - LANES) : (1ull << left) - 1;
      const uint64_t hits = equal<WIDTH>(index.rests + low * WIDTH, live, rest);
      if (hits) return low + __builtin_ctzll(hits);
    }
    return index.count;
  }
};
template <>
struct Search<1> : Scan<1> {};
template <>
struct Search<2> : Scan<2> {};
template <>
struct Search<4> : Scan<4> {};
#endif

template <int WIDTH>
inline void find_all(const rk_index& index, const Lookup& found, int64_t* rows) {
  for (int c = 0; c < B; c++) rows[c] = Search<WIDTH>::find(index, found.low[c], found.high[c], found.rest[c]);
}

// Step 3: every key's row; the fallback's, index.count, where it has none.
inline void find(const rk_index& index, const Lookup& found, int64_t* rows) {
  if (index.width == 1) find_all<1>(index, found, rows);
  else if (index.width == 2) find_all<2>(index, found, rows);
  else if (index.width == 4) find_all<4>(index, found, rows);
  else find_all<0>(index, found, rows);
}

// How many of the first `size` keys have no row.
inline int64_t count_missed(const rk_index& index, const int64_t* rows, int size) {
  Words missed = {};
  for (int c = 0; c < B; c += PAIRS)
    missed -= (Words)(load<Words>(rows + c) == static_cast<uint64_t>(index.count)) & lanes_below(size - c);
  int64_t sum = 0;
  for (int i = 0; i < PAIRS; i++) sum += static_cast<int64_t>(missed[i]);
  return sum;
}

}  // namespace
