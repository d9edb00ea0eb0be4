// The two ends of an encoder: sums of table rows in, one vector a sequence out. float32.
#pragma once
#include <math.h>

#include "rows.h"

namespace {

// The sequence that row m belongs to.
inline i64 sequence_of(const hw_embed_params& a, i64 m) {
  i64 low = 0, high = a.batch;  // starts[low] <= m < starts[high]
  while (high - low > 1) {
    const i64 middle = (low + high) / 2;
    (a.starts[middle] <= m ? low : high) = middle;
  }
  return low;
}

inline bool indices_fit(const hw_embed_params& a, i64 t) {
  if (!a.indices[t]) {
    for (i64 b = 0; a.rows > 0 && b < a.batch; ++b)
      if (a.starts[b + 1] - a.starts[b] > a.table_rows[t]) return false;
    return true;
  }
  for (i64 m = 0; m < a.rows; ++m)
    if (uint64_t(a.indices[t][m]) >= uint64_t(a.table_rows[t])) return false;
  return true;
}

inline hw_status embed(const hw_embed_params& a) {
  using V = Vec<float>;
  bool places = false;
  for (i64 t = 0; t < a.num_tables; ++t) {
    if (!indices_fit(a, t)) return HW_INDEX_OUT_OF_RANGE;
    places = places || !a.indices[t];
  }
  return for_each_row(a.rows, a.columns, double(a.num_tables), [&](i64 m) {
    const i64 place = places ? m - a.starts[sequence_of(a, m)] : 0;
    const float* row[HEADWISE_MAX_TABLES];
    for (i64 t = 0; t < a.num_tables; ++t)
      row[t] = a.tables[t] + (a.indices[t] ? a.indices[t][m] : place) * a.columns;
    for (i64 i = 0; i < a.columns; i += V::kLanes) {
      V sum = V::zero();
      for (i64 t = 0; t < a.num_tables; ++t) sum = sum + load_of_row<V>(row[t], i, a.columns);
      store_to_row(sum, a.out + m * a.columns, i, a.columns);
    }
  });
}

inline void pool_sequence(const hw_pool_params& a, i64 b) {
  using V = Vec<float>;
  const i64 begin = a.starts[b];
  const i64 end = a.mode == HW_POOL_CLS ? min_of(begin + 1, a.starts[b + 1]) : a.starts[b + 1];
  const float inverse = a.mode == HW_POOL_MEAN && end > begin ? 1.0f / float(end - begin) : 1.0f;
  float* out = a.out + b * a.columns;
  V squares = V::zero();
  for (i64 i = 0; i < a.columns; i += V::kLanes) {
    const auto inside = V::first_lanes(a.columns - i);
    V pooled = begin < end ? V::load(a.input + begin * a.columns + i, inside) : V::zero();
    for (i64 m = begin + 1; m < end; ++m) {
      const V x = V::load(a.input + m * a.columns + i, inside);
      // max gives its second operand if one is NaN: a NaN in the first is kept by hand.
      pooled =
          a.mode == HW_POOL_MAX ? V::select(V::equal(pooled, pooled), V::max(pooled, x), pooled) : pooled + x;
    }
    pooled = pooled * V::broadcast(inverse);
    pooled.store(out + i, inside);
    squares = V::fma(pooled, pooled, squares);
  }
  if (!a.normalize) return;
  // A zero vector stays one: 1e-12 is the floor torch.nn.functional.normalize has.
  const float norm = sqrtf(squares.sum());
  const V scale = V::broadcast(1.0f / (norm > 1e-12f ? norm : 1e-12f));
  for (i64 i = 0; i < a.columns; i += V::kLanes) {
    const auto inside = V::first_lanes(a.columns - i);
    (V::load(out + i, inside) * scale).store(out + i, inside);
  }
}

inline hw_status pool(const hw_pool_params& a) {
  const i64 tokens = a.starts[a.batch] - a.starts[0];
  const int threads = threads_for(double(tokens) * double(a.columns), a.batch);
  return parallel_for(threads, a.batch, [&](TaskCounter& counter) {
    for (i64 b; (b = counter.next()) >= 0;) pool_sequence(a, b);
  });
}

}  // namespace
