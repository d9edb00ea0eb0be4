// Linear layers: out = activation(X W^T + bias) + residual with W packed in panels (packed_weight.h).
//
// A block of rows of X (M, K) is turned into elements, which float32 and float64 are already; then each panel
// passes by: tiles of sums in registers, finished while they are in L1.
#pragma once
#include "../packed_weight.h"
#include "../parallel.h"
#include "arena.h"
#include "linear_epilogue.h"
#include "linear_few_rows.h"
#include "linear_input.h"
#include "tile.h"

namespace {

// Rows whose elements take at most this much memory, but a few at least.
template <class E>
i64 rows_that_fit(i64 bytes, i64 steps) {
  return max_of(i64(24), bytes / max_of(i64(1), steps * i64(sizeof(E))));
}

// Few rows pass all panels as one block, which stays in L2.
template <class E>
bool has_few_rows(const hw_linear_params& a, i64 steps) {
  return a.rows <= min_of(kFewRows, rows_that_fit<E>(i64(1) << 20, steps));
}

template <class E>
class LinearBlock {
  using Sum = typename Vec<E>::Sum;
  static constexpr i64 kLanes = kPanelRowBytes / sizeof(E);
  static constexpr i64 kColumns = kLinearTileVectors * Sum::kLanes;

 public:
  LinearBlock(const hw_linear_params& a, i64 rows, Arena& arena)
      : a_(a),
        layout_(a.weight_dtype, a.out_features, a.in_features),
        input_(a, layout_.steps, rows, arena) {}

  void read(i64 begin, i64 end) {
    begin_ = begin, end_ = end;
    input_.read(begin, end);
  }

  // The block's rows of the output for one panel; the second weight of a gated layer lies after the first.
  void multiply(i64 panel) {
    multiply(panel, 0);
    if (a_.gated) multiply(panel, 1);
  }

 private:
  void multiply(i64 panel, int half) {
    const char* packed = static_cast<const char*>(a_.packed_weight) + half * i64(layout_.bytes());
    const auto* weight = reinterpret_cast<const E*>(packed + panel * layout_.panel_bytes());
    const auto* bias = static_cast<const typename Element<E>::Real*>(a_.bias);
    if (bias) bias += half * a_.out_features;
    for (i64 column = 0; column < kLanes; column += kColumns) {
      const i64 first = panel * kLanes + column;
      if (first >= a_.out_features) return;
      const auto finish_rows = [&](i64 row, i64 rows) {
        finish_tile(a_, SumTile<E>{sums_, begin_ + row, rows, first, input_.scales() + row, layout_, packed,
                                   bias, half == 1});
      };
      const Chains<E> chains(input_, layout_, packed, first);
      if (has_few_rows<E>(a_, layout_.steps)) {
        FewRows<E>::multiply(chains, input_.rows(), end_ - begin_, input_.steps(), weight + column, sums_);
        finish_rows(0, end_ - begin_);
      } else {
        const i64 vectors = ceil_div(a_.out_features - first, i64(Sum::kLanes));
        with_constant<kLinearTileVectors>(int(min_of(i64(kLinearTileVectors), vectors)), [&](auto width) {
          multiply_many<decltype(width)::value>(chains, weight + column, first, finish_rows);
        });
      }
    }
  }

  // Of the last panel only the vectors that hold a column of the output.
  template <int Vectors, class FinishRows>
  HEADWISE_NOINLINE void multiply_many(const Chains<E>& chains, const E* weight, i64 first_column,
                                       FinishRows&& finish_rows) {
    constexpr int kMaxHeight = max_tile_rows<E>(kLinearTileVectors);
    if (Vectors < kLinearTileVectors)  // what is read past them is not written, but defined
      for (typename Element<E>::Sum& sum : sums_) sum = 0;
    const OutputAhead out(a_, i64(sizeof(typename Element<E>::Real)), first_column, Vectors * Sum::kLanes);
    // All rows of a tile at once would hold up its weight.
    const i64 pieces = out.is_far() ? 3 : 1;
    for_each_height<kMaxHeight>(end_ - begin_, [&](i64 row, auto h) {
      const i64 rows = ceil_div(h, pieces);
      multiply_into<decltype(h)::value, Vectors, kLinearTileVectors>(
          sums_, chains.from(row), input_.rows().from(row), weight, kLanes, input_.steps(), pieces,
          [&](i64 i) HEADWISE_INLINE_LAMBDA {
            if (pieces > 1) out.ask(begin_ + row + i * rows, rows);
          });
      finish_rows(row, h);
    });
  }

  const hw_linear_params& a_;
  PackedWeight layout_;
  LinearInput<E> input_;
  i64 begin_ = 0, end_ = 0;
  alignas(64) typename Element<E>::Sum sums_[kFewRows * kColumns];
};

// What a core multiplies while it reads a byte of a weight from the shared cache, about.
constexpr double kFlopsPerByte = 3;

// How a layer is dealt to threads: whole blocks of rows, and at last, so that all threads end at about the
// same time, blocks by groups of panels. Each group turns the block's rows into elements anew.
struct LinearTasks {
  i64 panels, whole, split, groups;

  LinearTasks(i64 panels, i64 blocks, int threads) : panels(panels) {
    split = threads == 1 ? 0 : min_of(blocks, blocks % threads + threads);
    whole = blocks - split;
    groups = min_of(panels, ceil_div(i64(4) * threads, max_of(i64(1), split)));
    // Of so many groups or up to twice as many those with which the last thread ends first.
    const auto longest = [&](i64 n) { return ceil_div(split * n, i64(threads)) * ceil_div(panels, n); };
    for (i64 n = groups, most = min_of(panels, 2 * n); n <= most; ++n)
      if (longest(n) < longest(groups)) groups = n;
  }

  i64 count() const { return whole + split * groups; }

  struct Task {
    i64 block, first_panel, end_panel;
  };
  Task operator[](i64 task) const {
    if (task < whole) return {task, 0, panels};
    const i64 group = (task - whole) % groups;
    return {whole + (task - whole) / groups, panels * group / groups, panels * (group + 1) / groups};
  }
};

template <class E>
hw_status linear(const hw_linear_params& a) {
  if (a.rows == 0 || a.out_features == 0) return HW_OK;
  const PackedWeight layout(a.weight_dtype, a.out_features, a.in_features);
  const double weights = double(a.out_features) * double(a.in_features) * (1 + a.gated);
  const double reading = kFlopsPerByte * double(layout.bytes()) * (1 + a.gated);
  // A panel serves as many rows as stay in L2 beside it.
  const bool few = has_few_rows<E>(a, layout.steps);
  const i64 fit = min_of(i64(448), rows_that_fit<E>(i64(640) << 10, layout.steps));
  const i64 most_blocks = few ? 1 : ceil_div(a.rows, fit);
  const i64 block = round_up(ceil_div(a.rows, most_blocks), max_tile_rows<E>(kLinearTileVectors));
  const i64 blocks = ceil_div(a.rows, block);
  const int threads = threads_for(max_of(2.0 * double(a.rows) * weights, reading), layout.panels * blocks);
  LinearTasks tasks(layout.panels, blocks, threads);
  if (few) tasks.groups = threads;  // each thread should read on and on
  Arena needed;
  LinearInput<E>(a, layout.steps, block, needed);
  return parallel_for(threads, tasks.count(), [&](TaskCounter& counter) {
    void* workspace = headwise::thread_workspace(needed.used());
    if (!workspace) return counter.stop(HW_OUT_OF_MEMORY);
    Arena arena(workspace);
    LinearBlock<E> rows(a, block, arena);
    i64 present = -1;
    for (i64 number; (number = counter.next()) >= 0;) {
      const LinearTasks::Task task = tasks[number];
      if (task.block != present) rows.read(task.block * block, min_of(a.rows, (task.block + 1) * block));
      present = task.block;
      for (i64 panel = task.first_panel; panel < task.end_panel; ++panel) rows.multiply(panel);
    }
  });
}

}  // namespace
