// The sums of a linear layer for few rows of input, which take less time to multiply than their weight takes
// to arrive.
#pragma once
#include "../packed_weight.h"
#include "tile.h"

namespace {

// With more rows the time goes into multiplying, for which tiles over the whole depth do better.
constexpr i64 kFewRows = 96;

// The weight is cut into pieces of one chain of sums. All tiles of rows work on one piece, and meanwhile
// fetch the next into L2, each its share of the cache lines. The results are those of multiply_into().
template <class E>
class FewRows {
  using Sum = typename Vec<E>::Sum;
  using Number = typename Element<E>::Sum;
  static constexpr i64 kLanes = kPanelRowBytes / sizeof(E);
  static constexpr i64 kColumns = kLinearTileVectors * Sum::kLanes;
  static constexpr i64 kLine = 64 / sizeof(E);
  static constexpr int kLinesPerStep = int(kColumns / kLine);

 public:
  // sums[row][column] = x[row] . column, for kColumns columns of a panel.
  static HEADWISE_NOINLINE void multiply(Factor<E> x, i64 rows, i64 steps, const E* panel, Number* sums) {
    constexpr int kMaxHeight = max_tile_rows<E>(kLinearTileVectors);
    const i64 tiles = ceil_div(rows, i64(kMaxHeight));
    // For one row the weight is read as fast as it comes, and in order: the CPU foresees that by itself.
    const i64 share = rows == 1 ? 0 : ceil_div(i64(kLinesPerStep), tiles);
    for (i64 begin = 0; begin < steps; begin += kChain) {
      const i64 end = min_of(steps, begin + kChain);
      i64 row = 0;
      for (i64 tile = 0; tile < tiles; ++tile) {
        const i64 line = tile * share;
        const E* ahead = panel + kChain * kLanes + line * kLine;
        const int height = int(ceil_div(rows - row, tiles - tile));
        with_constant<kMaxHeight>(height, [&](auto h) {
          with_lines<kLinesPerStep>(line < kLinesPerStep ? share : 0, [&](auto lines) {
            add_piece<decltype(h)::value, decltype(lines)::value>(x.from(row), panel, begin, end, ahead,
                                                                  sums + row * kColumns);
          });
        });
        row += height;
      }
    }
  }

 private:
  template <int Max, class F>
  static HEADWISE_INLINE void with_lines(i64 lines, F&& f) {
    if constexpr (Max > 0) {
      if (lines != Max) return with_lines<Max - 1>(lines, f);
    }
    f(Int<Max>{});
  }

  template <int Rows, int Lines>
  static HEADWISE_INLINE void add_piece(Factor<E> x, const E* panel, i64 begin, i64 end, const E* ahead,
                                        Number* sums) {
    Sum c[Rows][kLinearTileVectors];
    for_each_vector<kLinearTileVectors>(c, [&](Sum& s, i64) HEADWISE_INLINE_LAMBDA { s = Sum::zero(); });
    multiply_steps<Rows, kLinearTileVectors, false>(
        x, panel, kLanes, begin, end, typename Vec<E>::Mask{}, c, [&](i64 k) HEADWISE_INLINE_LAMBDA {
          unroll<Lines>([&](auto line) HEADWISE_INLINE_LAMBDA {
            __builtin_prefetch(ahead + k * kLanes + line * kLine, 0, 2);
          });
        });
    if (begin > 0)
      for_each_vector<kLinearTileVectors>(
          c, [&](Sum& s, i64 at) HEADWISE_INLINE_LAMBDA { s = Sum::load(sums + at) + s; });
    for_each_vector<kLinearTileVectors>(c,
                                        [&](Sum& s, i64 at) HEADWISE_INLINE_LAMBDA { s.store(sums + at); });
  }
};

}  // namespace
