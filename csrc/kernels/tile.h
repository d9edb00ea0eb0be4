// The register tile: the one inner loop of attention's two products and of the linear layers.
#pragma once
#include "../simd/vec.h"

namespace {

// The left factor: element (row r, step k) is at data[r * row + k * step].
template <class T>
struct Factor {
  const T* data;
  i64 row, step;
};

// Products summed in one chain. A longer sum adds up such chains, in order: one chain of 1536 would round
// 2.5 times as much as a BLAS does, and 24 additions an element and 192 products are lost in the noise.
constexpr i64 kChain = 192;

// C = A B for Rows rows of A and Columns vectors of B, k ascending: each element of C is a chain of fused
// multiply-adds (or several, added up), whatever the tile's height. Row k of B is at b[k * b_step]; with
// Tail, its last vector is read under `tail`. Then finish(C).
template <int Rows, int Columns, bool Tail, class T, class Finish>
HEADWISE_INLINE void multiply_tile(Factor<T> a, const T* b, i64 b_step, i64 depth, typename Vec<T>::Mask tail,
                                   Finish&& finish) {
  using V = Vec<T>;
  const bool several = depth > kChain;
  V total[Rows][Columns];  // of the chains so far, in memory; a single chain never touches it
  if (several)
    unroll<Rows>([&](auto r) HEADWISE_INLINE_LAMBDA {
      unroll<Columns>([&](auto j) HEADWISE_INLINE_LAMBDA { total[r][j] = V::zero(); });
    });
  for (i64 begin = 0;; begin += kChain) {
    V c[Rows][Columns];
    unroll<Rows>([&](auto r) HEADWISE_INLINE_LAMBDA {
      unroll<Columns>([&](auto j) HEADWISE_INLINE_LAMBDA { c[r][j] = V::zero(); });
    });
    const i64 end = min_of(depth, begin + kChain);
    for (i64 k = begin; k < end; ++k) {
      V row[Columns];
      unroll<Columns>([&](auto j) HEADWISE_INLINE_LAMBDA {
        const T* p = b + k * b_step + j * V::kLanes;
        row[j] = Tail && j == Columns - 1 ? V::load(p, tail) : V::load(p);
      });
      unroll<Rows>([&](auto r) HEADWISE_INLINE_LAMBDA {
        const V x = V::broadcast(a.data[r * a.row + k * a.step]);
        unroll<Columns>([&](auto j) HEADWISE_INLINE_LAMBDA { c[r][j] = V::fma(x, row[j], c[r][j]); });
      });
    }
    if (several)
      unroll<Rows>([&](auto r) HEADWISE_INLINE_LAMBDA {
        unroll<Columns>([&](auto j) HEADWISE_INLINE_LAMBDA { c[r][j] = total[r][j] + c[r][j]; });
      });
    if (end == depth) return finish(c);
    unroll<Rows>([&](auto r) HEADWISE_INLINE_LAMBDA {
      unroll<Columns>([&](auto j) HEADWISE_INLINE_LAMBDA { total[r][j] = c[r][j]; });
    });
  }
}

// All rows of A against Columns vectors of B, in tiles of nearly equal height: a last tile of one or
// two rows would wait for the latency of its few chains. finish(first row, C) for each tile.
template <int Columns, bool Tail, class T, class Finish>
HEADWISE_INLINE void multiply_rows(Factor<T> a, i64 rows, const T* b, i64 b_step, i64 depth,
                                   typename Vec<T>::Mask tail, Finish&& finish) {
  constexpr int kMaxRows = max_tile_rows(Columns);
  i64 tiles = ceil_div(rows, kMaxRows);
  for (i64 first = 0; first < rows; --tiles) {
    const int height = int(ceil_div(rows - first, tiles));
    with_constant<kMaxRows>(height, [&](auto h) {
      multiply_tile<decltype(h)::value, Columns, Tail>(
          Factor<T>{a.data + first * a.row, a.row, a.step}, b, b_step, depth, tail,
          [&](auto& c) HEADWISE_INLINE_LAMBDA { finish(first, c); });
    });
    first += height;
  }
}

// All rows of A against `columns` elements of B's rows, in groups of at most kMaxTileVectors vectors,
// nearly equal for the same reason. B's rows may end at the last column: what lies past is not read
// when Tail. finish(first row, first column, C) for each tile, C being Vec<T>[tile rows][tile vectors].
template <bool Tail, class T, class Finish>
HEADWISE_INLINE void multiply(Factor<T> a, i64 rows, const T* b, i64 b_step, i64 columns, i64 depth,
                              Finish&& finish) {
  using V = Vec<T>;
  const i64 vectors = ceil_div(columns, V::kLanes);
  const auto tail = V::first_lanes(columns - (vectors - 1) * V::kLanes);
  i64 groups = ceil_div(vectors, kMaxTileVectors);
  for (i64 first = 0; first < vectors; --groups) {
    const int width = int(ceil_div(vectors - first, groups));
    const i64 column = first * V::kLanes;
    const bool masked = Tail && groups == 1 && columns % V::kLanes != 0;
    const auto store = [&](i64 row, auto& c) HEADWISE_INLINE_LAMBDA { finish(row, column, c); };
    with_constant<kMaxTileVectors>(width, [&](auto w) {
      if (masked)
        multiply_rows<decltype(w)::value, Tail>(a, rows, b + column, b_step, depth, tail, store);
      else
        multiply_rows<decltype(w)::value, false>(a, rows, b + column, b_step, depth, tail, store);
    });
    first += width;
  }
}

}  // namespace
