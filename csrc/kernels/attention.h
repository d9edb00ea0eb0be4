// Attention over a batch: tiles of every sequence and head dealt to the threads.
#pragma once
#include "../parallel.h"
#include "attention_tile.h"

namespace {

// The problem of sequence b and key/value head g.
template <class T>
HeadProblem<T> head_problem(const hw_attention_params& a, i64 b, i64 g) {
  const bool packed = a.query_starts != nullptr;
  const i64 group = a.num_heads / a.num_kv_heads;
  const i64 q_row = packed ? a.query_starts[b] : 0, k_row = packed ? a.key_starts[b] : 0;
  const auto at = [&](const void* base, const hw_strides& s, i64 head, i64 row) {
    return static_cast<const T*>(base) + (packed ? row * s.row : b * s.batch) + head * s.head;
  };
  HeadProblem<T> p{};
  p.query = at(a.query, a.query_strides, g * group, q_row);
  p.key = at(a.key, a.key_strides, g, k_row);
  p.value = at(a.value, a.value_strides, g, k_row);
  p.out = const_cast<T*>(at(a.out, a.out_strides, g * group, q_row));
  if (a.lse) p.lse = const_cast<T*>(at(a.lse, a.lse_strides, g * group, q_row));
  p.query_strides = a.query_strides;
  p.out_strides = a.out_strides;
  p.lse_strides = a.lse_strides;
  p.key_row = a.key_strides.row;
  p.value_row = a.value_strides.row;
  p.queries = packed ? a.query_starts[b + 1] - q_row : a.query_length;
  p.keys = packed ? a.key_starts[b + 1] - k_row : a.key_length;
  p.readable_keys = a.key_lengths ? min_of(p.keys, a.key_lengths[b]) : p.keys;
  p.group = group;
  p.head_dim = a.head_dim;
  p.value_dim = a.value_dim;
  p.scale = T(a.scale * kLog2E<double>);
  p.causal = a.causal != 0;
  // Past these bounds no query, or every query, attends all keys; clamped, sums cannot overflow.
  if (a.query_offsets) p.offset = max_of(-p.queries, min_of(a.query_offsets[b], p.keys));
  return p;
}

// run(tile) for all tiles of all heads of all sequences.
template <class T, class Run>
hw_status for_each_tile(const hw_attention_params& a, Run&& run) {
  const i64 group = a.num_heads / a.num_kv_heads;
  const auto tiles_of = [&](i64 b) {
    const i64 queries = a.query_starts ? a.query_starts[b + 1] - a.query_starts[b] : a.query_length;
    return ceil_div(queries * group, kTileRows<T>);
  };
  i64 tasks = 0;
  double flops = 0;
  for (i64 b = 0; b < a.batch; ++b) {
    const i64 keys = a.key_starts ? a.key_starts[b + 1] - a.key_starts[b] : a.key_length;
    tasks += tiles_of(b) * a.num_kv_heads;
    flops += 2.0 * double(tiles_of(b) * kTileRows<T> * a.num_kv_heads) * double(keys) *
             double(a.head_dim + a.value_dim);
  }
  bool out_of_memory = false;
  parallel_for(threads_for(flops, tasks), tasks, [&](TaskCounter& counter) {
    void* workspace = headwise::thread_workspace(TileMemory<T>::bytes(a.head_dim, a.value_dim));
    if (!workspace) {
      __atomic_store_n(&out_of_memory, true, __ATOMIC_RELAXED);
      return;
    }
    const TileMemory<T> memory(workspace, a.head_dim, a.value_dim);
    i64 b = 0, first_task = 0;  // tasks only ascend: each thread walks the sequences once
    for (i64 task; (task = counter.next()) >= 0;) {
      while (task >= first_task + tiles_of(b) * a.num_kv_heads) first_task += tiles_of(b++) * a.num_kv_heads;
      const i64 head = (task - first_task) / tiles_of(b), tile = (task - first_task) % tiles_of(b);
      const HeadProblem<T> problem = head_problem<T>(a, b, head);
      // Under a causal mask the last queries attend most keys: the long tiles first.
      AttentionTile<T> attention(problem, (tiles_of(b) - 1 - tile) * kTileRows<T>, memory);
      run(attention);
    }
  });
  return out_of_memory ? HW_OUT_OF_MEMORY : HW_OK;
}

template <class T>
hw_status attention(const hw_attention_params& a) {
  return for_each_tile<T>(a, [](AttentionTile<T>& tile) { tile.attend(); });
}

template <class T>
hw_status attention_weights(const hw_attention_params& a) {
  return for_each_tile<T>(a, [](AttentionTile<T>& tile) { tile.write_probabilities(); });
}

}  // namespace
