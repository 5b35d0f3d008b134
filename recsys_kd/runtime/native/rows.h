// Coded rows -> numbers. One cache line or two per row: the scale lies in the row itself.
#pragma once
#include "abi.h"
#include "simd.h"

namespace {

constexpr int OVERHEAD = 2;

inline int64_t code_bytes(const rk_table& table) { return (static_cast<int64_t>(table.dim) * table.bits + 7) / 8; }

inline int64_t stride(const rk_table& table) { return code_bytes(table) + OVERHEAD; }

// The code, between two others, that stands for zero.
inline float middle(const rk_table& table) { return static_cast<float>((1 << table.bits) - 1) * 0.5f; }

// A row that lies in the table whatever was asked for.
inline int64_t checked(const rk_table& table, int64_t row) {
  return static_cast<uint64_t>(row) < static_cast<uint64_t>(table.rows) ? row : table.rows - 1;
}

// The row that `codes` names for a row, of 1, 2 or 4 bytes each; it may lie anywhere.
inline int64_t code_at(const uint8_t* codes, int32_t bytes, int64_t row) {
  const uint8_t* at = codes + row * bytes;
  if (bytes == 1) return *at;
  return bytes == 2 ? load<uint16_t>(at) : load<int32_t>(at);
}

// Makes a block's rows ones that lie in the table, and asks for them.
inline void fetch_rows(const rk_table& table, int64_t* rows, Fetches& fetches) {
  const uint64_t step = static_cast<uint64_t>(stride(table)), count = static_cast<uint64_t>(table.rows);
  for (int c = 0; c < B; c += PAIRS) {
    const Words asked = load<Words>(rows + c), right = (Words)(asked < count);
    const Words row = (asked & right) | (~right & (count - 1));  // whatever was asked for, it lies in the table
    store(rows + c, row);
    const Words first = addresses(table.data, row * step);
    fetches.add(first, first + (step - 1));
  }
}

// float16 -> float32; subnormal numbers too, also where the host flushes those of float32 to zero.
inline float half(uint32_t bits) {
  const uint32_t sign = (bits & 0x8000u) << 16, rest = bits & 0x7fffu;
  const uint32_t normal = (rest << 13) + (112u << 23) + (rest >= 0x7c00u ? 112u << 23 : 0u);
  const float small = static_cast<float>(static_cast<int32_t>(rest)) * 0x1p-24f;
  uint32_t small_bits;
  memcpy(&small_bits, &small, 4);
  const uint32_t all = sign | (rest < 0x400u ? small_bits : normal);
  float value;
  memcpy(&value, &all, 4);
  return value;
}

// A block's float16 -> scales.
inline void halves(const uint32_t* bits, float* scale) {
#if defined(__F16C__) && defined(__AVX512F__)
  for (int c = 0; c < B; c += 16) {
    _mm512_storeu_ps(scale + c, _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_loadu_si512(bits + c))));
  }
#else
  for (int c = 0; c < B; c++) scale[c] = half(bits[c]);
#endif
}

// The last 1 to 4 bytes of codes as a word. Four bytes are read where the row has them, never one beyond it.
template <int LEFT>
inline uint32_t last_word(const uint8_t* at) {
  if constexpr (LEFT == 4) return load<uint32_t>(at);
  if constexpr (LEFT == 3) return load<uint16_t>(at) | static_cast<uint32_t>(at[2]) << 16;
  return load<uint16_t>(at);
}

template <int LEFT>
inline void last_words(const rk_table& table, const int64_t* rows, int64_t from, uint32_t* room) {
  for (int c = 0; c < B; c++) room[c] = last_word<LEFT>(table.data + rows[c] * stride(table) + from);
}

inline int words(const rk_table& table) { return static_cast<int>((code_bytes(table) + 3) / 4) + 1; }

#if defined(__AVX512BW__)
inline __m128i sixteen(const uint8_t* at) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(at)); }

// Four words of every row, turned in registers: vectors can't be loaded soon after their lanes were stored one by one.
inline void read_four(const uint8_t* at, const int64_t* rows, int64_t step, uint32_t* room) {
  for (int half = 0; half < B; half += RK_LANES, rows += RK_LANES) {
    __m512i q[4];
    for (int j = 0; j < 4; j++) {
      q[j] = _mm512_castsi128_si512(sixteen(at + rows[j] * step));
      q[j] = _mm512_inserti32x4(q[j], sixteen(at + rows[4 + j] * step), 1);
      q[j] = _mm512_inserti32x4(q[j], sixteen(at + rows[8 + j] * step), 2);
      q[j] = _mm512_inserti32x4(q[j], sixteen(at + rows[12 + j] * step), 3);
    }
    const __m512i a = _mm512_unpacklo_epi32(q[0], q[1]), b = _mm512_unpackhi_epi32(q[0], q[1]);
    const __m512i c = _mm512_unpacklo_epi32(q[2], q[3]), d = _mm512_unpackhi_epi32(q[2], q[3]);
    store(room + half, _mm512_unpacklo_epi64(a, c));
    store(room + half + B, _mm512_unpackhi_epi64(a, c));
    store(room + half + 2 * B, _mm512_unpacklo_epi64(b, d));
    store(room + half + 3 * B, _mm512_unpackhi_epi64(b, d));
  }
}

// Scales of rows that have two bytes of codes or more: the word that ends with each is read.
inline void read_scales(const uint8_t* end, const int64_t* rows, int64_t step, float* scale) {
  for (int c = 0; c < B; c += RK_LANES) {
    const Words low = load<Words>(rows + c) * static_cast<uint64_t>(step);
    const Words high = load<Words>(rows + c + PAIRS) * static_cast<uint64_t>(step);
    const __m256i a = _mm512_i64gather_epi32((__m512i)low, end - 4, 1), b = _mm512_i64gather_epi32((__m512i)high, end - 4, 1);
    const __m512i bits = _mm512_srli_epi32(_mm512_inserti64x4(_mm512_castsi256_si512(a), b, 1), 16);
    store(scale + c, _mm512_cvtph_ps(_mm512_cvtepi32_epi16(bits)));
  }
}
#endif

// A block's rows as they lie, into `room` [words(table), B], and their scales.
inline void read_rows(const rk_table& table, const int64_t* rows, uint32_t* room, float* scale) {
  const int64_t bytes = code_bytes(table), step = bytes + OVERHEAD;
  const int count = words(table) - 1;
  int word = 0;
#if defined(__AVX512BW__)
  for (; 4 * (word + 4) <= bytes; word += 4) read_four(table.data + 4 * word, rows, step, room + word * B);
  if (bytes > 1) {
    read_scales(table.data + step, rows, step, scale);
    if (word == count) return;
  }
#endif
  for (int c = 0; c < B; c++) {
    const uint8_t* at = table.data + rows[c] * step;
    for (int i = word; i < count - 1; i++) room[i * B + c] = load<uint32_t>(at + 4 * i);
    room[count * B + c] = load<uint16_t>(at + bytes);
  }
  const int64_t from = 4 * static_cast<int64_t>(count - 1);
  uint32_t* last = room + static_cast<int64_t>(count - 1) * B;
  switch (bytes - from) {
    case 4: last_words<4>(table, rows, from, last); break;
    case 3: last_words<3>(table, rows, from, last); break;
    default: last_words<2>(table, rows, from, last);
  }
  halves(room + count * B, scale);
}

// z[k, c] = (code k of candidate c's row - middle) * scale.
inline void decode(const rk_table& table, const uint32_t* room, const float* scale, float* z) {
  const uint32_t mask = (1u << table.bits) - 1;
  const float zero = middle(table);
  for (int half = 0; half < B; half += RK_LANES) {
    const Floats own = load<Floats>(scale + half);
    float* to = z + half;
    for (int k = 0, word = half; k < table.dim; word += B) {
      const Ints codes = load<Ints>(room + word);
      for (int shift = 0; shift < 32 && k < table.dim; shift += table.bits, k++, to += B)
        store(to, (__builtin_convertvector((Wholes)((codes >> shift) & mask), Floats) - zero) * own);
    }
  }
}

// Twice (code - middle), whole numbers, two to an entry: pairs [dim, RK_LANES], and half the scale for each candidate.
inline void whole_codes(const rk_table& table, const uint32_t* room, const float* scale, Ints* pairs, Floats* step) {
  const int bits = table.bits;
  const uint32_t mask = (1u << bits) - 1;
  const Shorts both = Shorts{} + static_cast<uint16_t>(mask);
  for (int half = 0; half < 2; half++) {
    step[half] = load<Floats>(scale + half * RK_LANES) * 0.5f;
    Ints* to = pairs + half;
    for (int k = 0, word = half * RK_LANES; k < table.dim; word += B) {
      Ints left = load<Ints>(room + word);
      for (int shift = 0; shift < 32 && k < table.dim; shift += 2 * bits, k += 2, to += 2, left >>= 2 * bits) {
        const Shorts codes = (Shorts)((left & mask) | ((left << (16 - bits)) & (mask << 16)));
        *to = (Ints)(codes + codes - both);
      }
    }
  }
}

// z[k] += (code k of one row - middle) * scale.
inline void add_row(const rk_table& table, int64_t row, float* z) {
  const int64_t bytes = code_bytes(table);
  const uint8_t* at = table.data + row * (bytes + OVERHEAD);
  const float scale = half(load<uint16_t>(at + bytes)), zero = middle(table);
  for (int k = 0; k < table.dim; k++) {
    const int code = table.bits == 8 ? at[k] : (at[k / 2] >> (k % 2 * 4)) & 15;
    z[k] += (static_cast<float>(code) - zero) * scale;
  }
}

}  // namespace
