// The request side, folded once per request: what every candidate's sums start from.
#pragma once
#include "index.h"
#include "rows.h"

namespace {

struct Request {
  const int64_t* keys;
  const int64_t* bag_ends;  // of this request; the entry before it, where the first bag starts
  int64_t bag_start;
  const float* numbers;
};

// z [dim] of one term: a row, a mean of rows (0 for none), or numbers. Returns false where the term adds nothing.
inline bool read_term(const rk_model& model, const rk_term& term, const rk_batch& batch, const Request& request, float* z,
                      Fetches& fetches, int64_t* misses) {
  if (term.source == RK_NUMBERS) {
    memcpy(z, request.numbers + term.slot, sizeof(float) * static_cast<size_t>(term.dim));
    return true;
  }
  const rk_table& table = model.table[term.table];
  const int64_t *from = request.keys + term.slot, *to = from + 1;
  if (term.source == RK_BAG) {
    from = batch.bag_values + (term.slot ? request.bag_ends[term.slot - 1] : request.bag_start);
    to = batch.bag_values + request.bag_ends[term.slot];
  }
  memset(z, 0, sizeof(float) * static_cast<size_t>(term.dim));
  for (const int64_t* key = from; key < to; key += B) {
    const int size = static_cast<int>(to - key < B ? to - key : B);
    int64_t rows[B];
    Lookup found;
    hash(table.index, key, size, found, fetches);
    fetches.rest();
    open_buckets(table.index, found, fetches);
    fetches.rest();
    find(table.index, found, rows);
    *misses += count_missed(table.index, rows, size);
    fetch_rows(table, rows, fetches);
    fetches.rest();
    for (int c = 0; c < size; c++) add_row(table, rows[c], z);
    if (!table.more_rows) continue;
    const rk_table& more = model.table[table.more];
    for (int c = 0; c < size; c++) add_row(more, checked(more, code_at(table.more_rows, table.more_bytes, rows[c])), z);
  }
  const int64_t count = to - from;
  for (int k = 0; count > 1 && k < term.dim; k++) z[k] /= static_cast<float>(count);
  return count > 0;
}

// sums [first + width + 1] += what one term adds; `part` is room for as many.
inline void add_term(const rk_model& model, const rk_term& term, const float* z, float* part, float* sums) {
  const int all = model.first + model.width + 1;
  memcpy(part, term.mean, sizeof(float) * static_cast<size_t>(all));
  for (int k = 0; k < term.dim; k++) {
    const float x = z[k], *row = term.matrix + static_cast<int64_t>(k) * all;
    for (int j = 0; j < all; j++) part[j] += x * row[j];
  }
  for (int j = 0; j < all; j++) sums[j] += part[j];
  if (!term.square) return;
  float squares = 0.0f;
  for (int j = model.first; j < all - 1; j++) squares += part[j] * part[j];
  sums[all - 1] -= 0.5f * squares;
}

// start [first + squares + 1] for the candidates: h, S turned as in rk_model.rotation, what only they square, and s
// with the part of |S|^2 / 2 that lies outside of the candidates' reach.
inline void turn(const rk_model& model, const float* sums, float* start) {
  const int first = model.first, width = model.width, turned = model.rotated;
  memcpy(start, sums, sizeof(float) * static_cast<size_t>(first));
  float* s = start + first;
  float rest = sums[first + width];
  if (!model.rotation) {
    memcpy(s, sums + first, sizeof(float) * static_cast<size_t>(width));
  } else {
    memset(s, 0, sizeof(float) * static_cast<size_t>(turned));
    for (int i = 0; i < width; i++)
      for (int j = 0; j < turned; j++) s[j] += sums[first + i] * model.rotation[i * turned + j];
    for (int i = 0; i < width; i++) {
      float outside = sums[first + i];
      for (int j = 0; j < turned; j++) outside -= model.rotation[i * turned + j] * s[j];
      rest += 0.5f * outside * outside;
    }
  }
  memcpy(s + turned, model.constant, sizeof(float) * static_cast<size_t>(model.squares - turned));
  s[model.squares] = rest;
}

}  // namespace
