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

// Makes a block's rows ones that lie in the table, and asks for them.
inline void fetch_rows(const rk_table& table, int64_t* rows, Fetches& fetches) {
  const uint64_t step = static_cast<uint64_t>(stride(table));
  for (int c = 0; c < B; c += PAIRS) {
    for (int i = c; i < c + PAIRS; i++) rows[i] = checked(table, rows[i]);
    const Words first = addresses(table.data, load<Words>(rows + c) * step);
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

// z[k, c] = (code k of candidate c's row - middle) * scale; `room` [words(table), B] is for the rows as they lie.
inline void decode(const rk_table& table, const int64_t* rows, uint32_t* room, float* z) {
  const int64_t bytes = code_bytes(table), step = bytes + OVERHEAD;
  const int per_word = 32 / table.bits, count = words(table) - 1;
  const uint32_t mask = (1u << table.bits) - 1;
  for (int c = 0; c < B; c++) {
    const uint8_t* at = table.data + rows[c] * step;
    for (int i = 0; i < count - 1; i++) room[i * B + c] = load<uint32_t>(at + 4 * i);
    room[count * B + c] = load<uint16_t>(at + bytes);
  }
  const int64_t from = 4 * static_cast<int64_t>(count - 1);
  uint32_t* last = room + static_cast<int64_t>(count - 1) * B;
  switch (bytes - from) {
    case 4: last_words<4>(table, rows, from, last); break;
    case 3: last_words<3>(table, rows, from, last); break;
    default: last_words<2>(table, rows, from, last);
  }
  alignas(64) float scale[B];
  halves(room + count * B, scale);
  const float zero = middle(table);
  for (int k = 0; k < table.dim; k++, z += B) {
    const uint32_t* word = room + k / per_word * B;
    const int shift = k % per_word * table.bits;
    for (int c = 0; c < B; c++) z[c] = (static_cast<float>(static_cast<int32_t>((word[c] >> shift) & mask)) - zero) * scale[c];
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
