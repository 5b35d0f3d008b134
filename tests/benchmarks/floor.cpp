// The floor of scoring: what nothing that scores these rows can do without. Ids to rows to bytes; and the MLP alone.
#define RK_NAME unused
#include "score.cpp"

// Looks up n keys and reads every row's bytes, prefetched; returns their sum so that nothing is skipped.
RK_EXPORT uint64_t floor_gather(const rk_model* model, const int64_t* keys, int64_t n) {
  const rk_table& table = model->table[model->candidate_term[0].table];
  const Span span{0, n};
  static Lookup lookups[RING];
  static int64_t rows[RING][B];
  static uint64_t lines[8 * B];
  Fetches fetches{lines, 0, 0, 0};
  const int64_t blocks = span.blocks(), step = stride(table);
  uint64_t sum = 0;
  for (int64_t i = 0; i < blocks + 3; i++) {
    if (i < blocks) hash(table.index, keys + span.at(i), span.size(i), lookups[i % RING], fetches);
    if (i >= 1 && i - 1 < blocks) open_buckets(table.index, lookups[(i - 1) % RING], fetches);
    if (i >= 2 && i - 2 < blocks) {
      int64_t* found = rows[(i - 2) % RING];
      find(table.index, lookups[(i - 2) % RING], found);
      fetch_rows(table, found, fetches);
    }
    fetches.rest();
    if (i < 3) continue;
    for (int c = 0; c < span.size(i - 3); c++) {
      const uint8_t* at = table.data + rows[(i - 3) % RING][c] * step;
      for (int64_t k = 0; k + 4 <= step; k += 4) sum += load<uint32_t>(at + k);
    }
  }
  return sum;
}

// The layers after the first for n candidates whose sums lie in the cache.
RK_EXPORT float floor_mlp(const rk_model* model, int64_t n) {
  static Room none{nullptr, 0};
  none.bytes = 0;
  carve(none, *model);
  static char memory[1 << 22] __attribute__((aligned(64)));
  if (none.bytes > sizeof memory) return -1.0f;
  Room room{memory, 0};
  Work work = carve(room, *model);
  for (int i = 0; i < model->first * B; i++) work.x[i] = 0.01f;
  float sum = 0.0f;
  for (int64_t at = 0; at < n; at += B)
    sum += through(model->layer, model->layers, work.x, work.y, work.steps, work.fetches)[0];
  return sum;
}
