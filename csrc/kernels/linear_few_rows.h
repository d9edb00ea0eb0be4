// The sums of a linear layer for few rows of input, which take less time to multiply than their weight takes
// to arrive.
#pragma once
#include "../packed_weight.h"
#include "tile.h"

namespace {

// With more rows the time goes into multiplying, for which tiles over the whole depth do better.
constexpr i64 kFewRows = 96;

// The weight is cut into pieces, parts of a chain of sums. All tiles of rows work on one piece, and meanwhile
// fetch the next into L2, each its share of the cache lines. The results are those of multiply_into().
template <class E>
class FewRows {
  using Sum = typename Vec<E>::Sum;
  using Number = typename Element<E>::Sum;
  static constexpr i64 kLanes = kPanelRowBytes / sizeof(E);
  static constexpr i64 kColumns = kLinearTileVectors * Sum::kLanes;
  static constexpr i64 kLine = 64 / sizeof(E);
  static constexpr int kLinesPerStep = int(kColumns / kLine);
  static constexpr i64 kPiece = 192;
  static_assert(kChain % kPiece == 0);

 public:
  // sums[row][column] = x[row] . column, for kColumns columns of a panel.
  static HEADWISE_NOINLINE void multiply(const Chains<E>& chains, Factor<E> x, i64 rows, i64 steps,
                                         const E* panel, Number* sums) {
    constexpr int kMaxHeight = max_tile_rows<E>(kLinearTileVectors);
    const i64 tiles = ceil_div(rows, i64(kMaxHeight));
    // For one row the weight is read as fast as it comes, and in order: the CPU foresees that by itself.
    const i64 share = rows == 1 ? 0 : ceil_div(i64(kLinesPerStep), tiles);
    alignas(64) Number begun[kFewRows * kColumns];  // chains, by earlier pieces
    for (i64 begin = 0; begin < steps; begin += kPiece) {
      const i64 end = min_of(steps, begin + kPiece);
      const bool ends_chain = end % kChain == 0 || end == steps;
      i64 row = 0;
      for (i64 tile = 0; tile < tiles; ++tile) {
        const i64 line = tile * share;
        const E* ahead = panel + kPiece * kLanes + line * kLine;
        const int height = int(ceil_div(rows - row, tiles - tile));
        with_constant<kMaxHeight>(height, [&](auto h) {
          with_lines<kLinesPerStep>(line < kLinesPerStep ? share : 0, [&](auto lines) {
            add_piece<decltype(h)::value, decltype(lines)::value>(
                chains.from(row), x.from(row), panel, begin, end, ahead, begun + row * kColumns,
                ends_chain ? sums + row * kColumns : nullptr);
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

  // Goes on with each sum's chain, and adds it to the sums where it ends.
  template <int Rows, int Lines>
  static HEADWISE_INLINE void add_piece(const Chains<E>& chains, Factor<E> x, const E* panel, i64 begin,
                                        i64 end, const E* ahead, Number* begun, Number* sums) {
    Sum c[Rows][kLinearTileVectors];
    if (begin % kChain == 0)
      chains.begin(c, begin / kChain);
    else
      for_each_vector<kLinearTileVectors>(
          c, [&](Sum& s, i64 at) HEADWISE_INLINE_LAMBDA { s = Sum::load(begun + at); });
    chains.add(x, panel, kLanes, begin, end, c, [&](i64 k) HEADWISE_INLINE_LAMBDA {
      unroll<Lines>([&](auto line) HEADWISE_INLINE_LAMBDA {
        __builtin_prefetch(ahead + k * kLanes + line * kLine, 0, 2);
      });
    });
    if (sums && begin >= kChain)
      for_each_vector<kLinearTileVectors>(
          c, [&](Sum& s, i64 at) HEADWISE_INLINE_LAMBDA { s = Sum::load(sums + at) + s; });
    Number* const to = sums ? sums : begun;
    for_each_vector<kLinearTileVectors>(c, [&](Sum& s, i64 at) HEADWISE_INLINE_LAMBDA { s.store(to + at); });
  }
};

}  // namespace
