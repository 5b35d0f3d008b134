// Keys of string ids: the first 8 bytes of BLAKE2b-64 (RFC 7693), several strings at once, one per lane.
#pragma once
#include "simd.h"

namespace {

constexpr int STRINGS = PAIRS;
constexpr int64_t BLOCK = 128;
constexpr uint64_t IV[8] = {0x6A09E667F3BCC908, 0xBB67AE8584CAA73B, 0x3C6EF372FE94F82B, 0xA54FF53A5F1D36F1,
                            0x510E527FADE682D1, 0x9B05688C2B3E6C1F, 0x1F83D9ABFB41BD6B, 0x5BE0CD19137E2179};
constexpr uint8_t SIGMA[12][16] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
    {11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4}, {7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
    {9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13}, {2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
    {12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11}, {13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
    {6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5}, {10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0},
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3}};

inline Words turned(Words x, int right) { return (x >> right) | (x << (64 - right)); }

inline void mix(Words* v, int a, int b, int c, int d, Words x, Words y) {
  v[a] += v[b] + x;
  v[d] = turned(v[d] ^ v[a], 32);
  v[c] += v[d];
  v[b] = turned(v[b] ^ v[c], 24);
  v[a] += v[b] + y;
  v[d] = turned(v[d] ^ v[a], 16);
  v[c] += v[d];
  v[b] = turned(v[b] ^ v[c], 63);
}

inline void compress(Words* h, const Words* m, Words length, bool last) {
  Words v[16];
  for (int i = 0; i < 8; i++) v[i] = h[i], v[i + 8] = Words{} + IV[i];
  v[12] ^= length;
  if (last) v[14] = ~v[14];
#pragma GCC unroll 12
  for (int r = 0; r < 12; r++) {
    const uint8_t* s = SIGMA[r];
    for (int i = 0; i < 4; i++) mix(v, i, i + 4, i + 8, i + 12, m[s[2 * i]], m[s[2 * i + 1]]);
    for (int i = 0; i < 4; i++)
      mix(v, i, (i + 1) % 4 + 4, (i + 2) % 4 + 8, (i + 3) % 4 + 12, m[s[2 * i + 8]], m[s[2 * i + 9]]);
  }
  for (int i = 0; i < 8; i++) h[i] ^= v[i] ^ v[i + 8];
}

// Hashes strings that take the same number of blocks, one per lane.
inline void hash_lanes(const char* const* text, const int64_t* bytes, int count, int64_t* keys) {
  Words h[8] = {}, m[16];
  for (int i = 0; i < 8; i++) h[i] += IV[i];
  h[0] ^= Words{} + (0x01010000ull ^ 8);
  const int64_t blocks = bytes[0] > BLOCK ? (bytes[0] + BLOCK - 1) / BLOCK : 1;
  for (int64_t block = 0; block < blocks; block++) {
    uint64_t words[16][STRINGS] = {};
    Words length = {};
    for (int i = 0; i < count; i++) {
      const int64_t left = bytes[i] - block * BLOCK, here = left < BLOCK ? left : BLOCK;
      uint64_t own[16] = {};
      memcpy(own, text[i] + block * BLOCK, static_cast<size_t>(here));
      for (int k = 0; k < 16; k++) words[k][i] = own[k];
      length[i] = static_cast<uint64_t>(block * BLOCK + here);
    }
    for (int k = 0; k < 16; k++) m[k] = load<Words>(words[k]);
    compress(h, m, length, block == blocks - 1);
  }
  for (int i = 0; i < count; i++) keys[i] = static_cast<int64_t>(h[0][i]);
}

// Collects strings until a vector of them is full; one of several blocks goes alone.
struct Hasher {
  int64_t* keys;  // of the strings that wait, then of those to come
  const char* text[STRINGS];
  int64_t bytes[STRINGS];
  int waiting;

  void flush() {
    if (waiting) hash_lanes(text, bytes, waiting, keys);
    keys += waiting;
    waiting = 0;
  }

  void add(const char* from, int64_t length) {
    if (length > BLOCK) flush();
    text[waiting] = from;
    bytes[waiting++] = length;
    if (length > BLOCK || waiting == STRINGS) flush();
  }
};

}  // namespace
