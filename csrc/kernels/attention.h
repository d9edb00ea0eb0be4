// Attention over a batch: tiles of every sequence and head dealt to the threads.
#pragma once
#include <stdlib.h>

#include "../parallel.h"
#include "attention_tile.h"

namespace {

// Keys and values of a head up to this size stay in a core's own cache.
constexpr i64 kCoreCache = 768 << 10;

// What a call reads and writes comes fast enough from a shared cache of this size.
constexpr i64 kSharedCache = 7 << 20;

// A tile: which rows of which head.
template <class T>
struct TileProblem {
  HeadProblem<T> head;
  i64 first_row;
};

// The tiles of all key/value heads of all sequences, numbered.
template <class T>
class TileGrid {
  static constexpr i64 kRows = kTileRows<T>;

 public:
  explicit TileGrid(const hw_attention_params& a) : a_(a) {
    for (i64 b = 0; b < a.batch; ++b) {
      const i64 keys = a.key_starts ? a.key_starts[b + 1] - a.key_starts[b] : a.key_length;
      tiles_ += tiles_of(b) * a.num_kv_heads;
      elements_ += (tiles_of(b) * kRows + keys) * a.num_kv_heads * (a.head_dim + a.value_dim);
      most_keys_ = max_of(most_keys_, keys);
      flops_ += 2.0 * double(tiles_of(b) * kRows * a.num_kv_heads) * double(keys) *
                double(a.head_dim + a.value_dim);
    }
  }

  i64 tiles() const { return tiles_; }
  i64 most_keys() const { return most_keys_; }
  i64 elements() const { return elements_; }  // of queries, keys, values and output
  double flops() const { return flops_; }

  // Finds tiles whose numbers ascend: walks the sequences once.
  class Walk {
   public:
    explicit Walk(const TileGrid& grid) : grid_(grid) {}
    TileProblem<T> at(i64 tile) {
      i64 here;
      while (tile >= first_ + (here = grid_.tiles_of(b_)) * grid_.a_.num_kv_heads)
        first_ += here * grid_.a_.num_kv_heads, ++b_;
      // Under a causal mask the last queries attend most keys: the long tiles first.
      const i64 number = tile - first_;
      return {head_problem<T>(grid_.a_, b_, number / here), (here - 1 - number % here) * kRows};
    }

   private:
    const TileGrid& grid_;
    i64 b_ = 0, first_ = 0;
  };

 private:
  i64 tiles_of(i64 b) const {
    const i64 queries = a_.query_starts ? a_.query_starts[b + 1] - a_.query_starts[b] : a_.query_length;
    return ceil_div(queries * (a_.num_heads / a_.num_kv_heads), kRows);
  }

  const hw_attention_params& a_;
  i64 tiles_ = 0, most_keys_ = 0, elements_ = 0;
  double flops_ = 0;
};

// work(counter, memory) on each thread, memory being its TileMemory<Products>.
template <class Products, class Work>
hw_status with_tile_memory(const hw_attention_params& a, int threads, i64 tasks, Work&& work) {
  Arena needed;
  TileMemory<Products>(a, needed);
  return parallel_for(threads, tasks, [&](TaskCounter& counter) {
    void* workspace = headwise::thread_workspace(needed.used());
    if (!workspace) return counter.stop(HW_OUT_OF_MEMORY);
    Arena arena(workspace);
    TileMemory<Products> memory(a, arena);
    work(counter, memory);
  });
}

template <class Products>
using GridOf = TileGrid<typename Products::Real>;

// run(problem, tile, counter, task) for all tasks, `each` of them a tile: task / each is the tile's number.
template <class Products, class Run>
hw_status for_each_tile(const hw_attention_params& a, const GridOf<Products>& grid, int threads, i64 each,
                        Run&& run) {
  using T = typename Products::Real;
  if (grid.tiles() == 0) return HW_OK;
  // Where its cache holds a head a thread takes several tiles at once, and whole heads if there are many or
  // they divide evenly, but few enough that all threads end together.
  const i64 tasks = grid.tiles() * each, heads = a.batch * a.num_kv_heads;
  const i64 head_bytes = grid.most_keys() * (a.head_dim + a.value_dim) * size_of(a.dtype);
  i64 several = 1;
  if (head_bytes <= kCoreCache) {
    several = threads == 1 ? tasks : max_of(several, tasks / (32 * threads));
    const bool end_together = heads >= 16 * threads || (heads >= 4 * threads && heads % threads == 0);
    if (end_together) several = round_up(several, ceil_div(grid.tiles(), heads));
  }
  // Then what a tile needs is asked for during the one before, for which the next task is taken early.
  const bool far = several > 1 && grid.elements() * size_of(a.dtype) > kSharedCache;
  return with_tile_memory<Products>(
      a, threads, ceil_div(tasks, several), [&](TaskCounter& counter, auto& memory) {
        typename GridOf<Products>::Walk walk(grid);
        i64 begin = 0, end = 0;  // of those taken and not yet begun
        const auto next_task = [&]() -> i64 {
          if (begin == end) {
            const i64 taken = counter.next();
            if (taken < 0) return -1;
            begin = taken * several, end = min_of(tasks, begin + several);
          }
          return begin++;
        };
        for (i64 task = next_task(), next = -1; task >= 0 && !counter.stopped(); task = next) {
          const TileProblem<T> present = walk.at(task / each);
          AttentionTile<Products> tile(present.head, present.first_row, memory);
          if (far && (next = next_task()) >= 0) {
            const TileProblem<T> ahead = walk.at(next / each);
            tile.expect(ahead.head, ahead.first_row);
          }
          run(present.head, tile, counter, task);
          if (!far) next = next_task();
        }
      });
}

// For few tiles of many keys: the splits of a tile are dealt out, in waves, and merged in order.
template <class Products>
hw_status attention_by_splits(const hw_attention_params& a, const GridOf<Products>& grid, int threads) {
  using T = typename Products::Real;
  Arena counted;
  SoftmaxState<T>(a.value_dim, counted);
  constexpr i64 kBytesPerThread = 1 << 19;  // for the states of a wave; beside the tile's own memory
  const i64 splits = ceil_div(grid.most_keys(), kSplit), state_bytes = i64(counted.used());
  const i64 fit = threads * kBytesPerThread / (state_bytes * grid.tiles());
  const i64 wave = clamp(fit - 1, 1, splits);
  void* memory = aligned_alloc(64, size_t(state_bytes * grid.tiles() * (wave + 1)));
  if (!memory) return HW_OUT_OF_MEMORY;
  const auto state = [&](i64 tile, i64 i) {  // i < wave: a part; i = wave: the total
    Arena arena(static_cast<char*>(memory) + (tile * (wave + 1) + i) * state_bytes);
    return SoftmaxState<T>(a.value_dim, arena);
  };
  hw_status status = HW_OK;
  for (i64 first = 0; first < splits && status == HW_OK; first += wave) {
    const i64 count = min_of(wave, splits - first);
    status = for_each_tile<Products>(a, grid, threads, count, [&](auto&, auto& tile, auto&, i64 task) {
      tile.pack_queries();
      tile.attend_split(first + task % count, state(task / count, task % count));
    });
    if (status != HW_OK) break;
    status = for_each_tile<Products>(a, grid, threads, 1, [&](auto&, auto& tile, auto&, i64 number) {
      const SoftmaxState<T> total = state(number, wave);
      if (first == 0) tile.reset_to_sinks(total);
      for (i64 i = 0; i < count; ++i) tile.output().merge(total, state(number, i));
      if (first + count == splits) tile.output().write(total);
    });
  }
  free(memory);
  return status;
}

template <class Products>
hw_status attention(const hw_attention_params& a) {
  const GridOf<Products> grid(a);
  const i64 splits = ceil_div(grid.most_keys(), kSplit);
  const int threads = threads_for(grid.flops(), grid.tiles() * splits);
  // A team shares tasks but no memory, which the parts would need.
  if (!headwise::membership() && threads > 1 && splits > 1 && grid.tiles() < 4 * i64(threads))
    return attention_by_splits<Products>(a, grid, threads);
  return for_each_tile<Products>(
      a, grid, threads_for(grid.flops(), grid.tiles()), 1,
      [](auto&, auto& tile, TaskCounter& counter, i64) { tile.attend([&] { return counter.stopped(); }); });
}

template <class T>
hw_status attention_weights(const hw_attention_params& a) {
  const GridOf<NativeProducts<T>> grid(a);
  const int threads = threads_for(grid.flops(), grid.tiles());
  return for_each_tile<NativeProducts<T>>(a, grid, threads, 1, [](auto& problem, auto& tile, auto&, i64) {
    with_element<T>(problem.dtype, [&](auto element) {
      tile.probabilities([&](i64 row, i64 begin, i64 count, Vec<T> p) {
        auto* out = reinterpret_cast<decltype(element)*>(problem.out_of(row));
        p.store(out + begin, Vec<T>::first_lanes(count));
      });
    });
  });
}

// One task a key/value head, as its tiles add to the same sums: in order, or bits would change.
template <class T>
hw_status attention_column_sums(const hw_attention_params& a) {
  const GridOf<NativeProducts<T>> grid(a);
  const i64 tasks = a.batch * a.num_kv_heads, group = a.num_heads / a.num_kv_heads;
  return with_tile_memory<NativeProducts<T>>(
      a, threads_for(grid.flops(), tasks), tasks, [&](TaskCounter& counter, auto& memory) {
        for (i64 task; (task = counter.next()) >= 0;) {
          const i64 b = task / a.num_kv_heads, head = task % a.num_kv_heads;
          const HeadProblem<T> problem = head_problem<T>(a, b, head);
          const auto sums_of = [&](i64 h) {
            return static_cast<T*>(a.out) + b * a.out_strides.batch + (head * group + h) * a.out_strides.head;
          };
          for (i64 h = 0; h < group; ++h)
            for (i64 j = 0; j < a.key_length; ++j) sums_of(h)[j] = T(0);
          for (i64 first = 0; first < problem.rows() && !counter.stopped(); first += kTileRows<T>)
            AttentionTile<NativeProducts<T>>(problem, first, memory)
                .probabilities([&](i64 row, i64 begin, i64 count, Vec<T> p) {
                  T* sum = sums_of(row % group) + begin;
                  const auto inside = Vec<T>::first_lanes(count);
                  (Vec<T>::load(sum, inside) + p).store(sum, inside);
                });
        }
      });
}

}  // namespace
