// Coded rows -> numbers. One cache line or two per row: scale and offset lie in the row itself.
#pragma once
#include "abi.h"
#include "simd.h"

namespace {

constexpr int OVERHEAD = 4;

inline int64_t code_bytes(const rk_table& table) { return (static_cast<int64_t>(table.dim) * table.bits + 7) / 8; }

inline int64_t stride(const rk_table& table) { return code_bytes(table) + OVERHEAD; }

// A row that lies in the table whatever was asked for.
inline int64_t checked(const rk_table& table, int64_t row) {
  return static_cast<uint64_t>(row) < static_cast<uint64_t>(table.rows) ? row : table.rows - 1;
}

inline void prefetch_row(const rk_table& table, int64_t row) {
  const uint8_t* at = table.data + row * stride(table);
  prefetch(at);
  prefetch(at + stride(table) - 1);
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

// z[k, c] = code k of candidate c's row * scale + offset.
inline void decode(const rk_table& table, const int64_t* rows, float* z) {
  const int64_t bytes = code_bytes(table), step = bytes + OVERHEAD;
  const int per_word = 32 / table.bits;
  const uint32_t mask = (1u << table.bits) - 1;
  const uint8_t* at[B];
  uint32_t words[B];
  alignas(64) float scale[B], offset[B];
  for (int c = 0; c < B; c++) {
    at[c] = table.data + rows[c] * step;
    words[c] = load<uint32_t>(at[c] + bytes);
  }
  for (int c = 0; c < B; c++) {
    scale[c] = half(words[c] & 0xffffu);
    offset[c] = half(words[c] >> 16);
  }
  for (int k = 0; k < table.dim; k += per_word) {
    // A word that starts with the last code ends within scale and offset, so in the row.
    for (int c = 0; c < B; c++) words[c] = load<uint32_t>(at[c] + static_cast<int64_t>(k) * table.bits / 8);
    const int count = table.dim - k < per_word ? table.dim - k : per_word;
    for (int i = 0; i < count; i++, z += B)
      for (int c = 0; c < B; c++)
        z[c] = static_cast<float>(static_cast<int32_t>((words[c] >> (i * table.bits)) & mask)) * scale[c] + offset[c];
  }
}

// z[k] += code k of one row * scale + offset.
inline void add_row(const rk_table& table, int64_t row, float* z) {
  const int64_t bytes = code_bytes(table);
  const uint8_t* at = table.data + row * (bytes + OVERHEAD);
  const uint32_t tail = load<uint32_t>(at + bytes);
  const float scale = half(tail & 0xffffu), offset = half(tail >> 16);
  for (int k = 0; k < table.dim; k++) {
    const int code = table.bits == 8 ? at[k] : (at[k / 2] >> (k % 2 * 4)) & 15;
    z[k] += static_cast<float>(code) * scale + offset;
  }
}

}  // namespace
