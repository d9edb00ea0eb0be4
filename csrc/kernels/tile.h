// The register tile: the one inner loop of attention's two products and of the linear layers.
#pragma once
#include "../chain.h"
#include "lines_ahead.h"

namespace {

// What an element is made from, and what products of it are summed in.
template <class E>
struct Element {
  using Real = E;
  using Sum = E;
  static constexpr int kNumbers = 1;
};
template <>
struct Element<bf16_pair> {
  using Real = float;
  using Sum = float;
  static constexpr int kNumbers = 2;
};
template <>
struct Element<int8_quad> {
  using Real = float;
  using Sum = int32_t;
  static constexpr int kNumbers = 4;
};

// Of a pointer that goes from row to row: else the compiler works out the addresses of many rows ahead, and
// keeps them in memory.
template <class P>
HEADWISE_INLINE void forget_origin(P*& p) {
  __asm__("" : "+r"(p));
}

// The left factor: element (row r, step k) is E number k * step of row r. An element is a number, or a pair
// of them that one instruction multiplies and adds up; Vec<E>::Sum is what sums are kept in.
template <class E>
class Factor {
 public:
  Factor(const E* data, i64 row_bytes, i64 step)
      : data_(reinterpret_cast<const char*>(data)), row_bytes_(row_bytes), step_(step) {}

  const E* row(i64 r) const { return reinterpret_cast<const E*>(data_ + r * row_bytes_); }
  E at(i64 r, i64 k) const { return row(r)[k * step_]; }
  Factor from(i64 r) const { return {row(r), row_bytes_, step_}; }
  void forget_origin() { ::forget_origin(data_); }
  Factor after(i64 k) const { return {row(0) + k * step_, row_bytes_, step_}; }

 private:
  const char* data_;
  i64 row_bytes_, step_;
};

// C += A B for Rows rows of A, Columns vectors of B and the steps begin .. end - 1, ascending: each element
// of C is a chain of fused multiply-adds, whatever the tile's height. Row k of B is at b[k * b_step]; with
// Tail, its last vector is read under `tail`. With each row of B comes ask_ahead(k).
template <int Rows, int Columns, bool Tail, class E, class V = typename Vec<E>::Sum,
          class Ahead = NothingAhead>
HEADWISE_INLINE void multiply_steps(Factor<E> a, const E* b, i64 b_step, i64 begin, i64 end,
                                    typename Vec<E>::Mask tail, V (&c)[Rows][Columns],
                                    const Ahead& ask_ahead = {}) {
  using Factors = Vec<E>;
  for (i64 k = begin; k < end; ++k) {
    Factors row[Columns];
    unroll<Columns>([&](auto j) HEADWISE_INLINE_LAMBDA {
      const E* p = b + k * b_step + j * V::kLanes;
      if constexpr (Tail && j == Columns - 1)
        row[j] = Factors::load(p, tail);
      else
        row[j] = Factors::load(p);
    });
    ask_ahead(k);
    unroll<Rows>([&](auto r) HEADWISE_INLINE_LAMBDA {
      const Factors x = Factors::broadcast(a.at(r, k));
      unroll<Columns>([&](auto j) HEADWISE_INLINE_LAMBDA { c[r][j] = Factors::fma(x, row[j], c[r][j]); });
    });
  }
}

// How the chains of a tile of sums begin, from zero, and go on, by a multiply-add a step.
template <class E>
class Chains {
  using V = typename Vec<E>::Sum;

 public:
  template <class... Anything>
  explicit Chains(const Anything&...) {}

  Chains from(i64) const { return *this; }
  template <int Rows, int Columns>
  HEADWISE_INLINE void begin(V (&c)[Rows][Columns], i64) const {
    unroll<Rows>([&](auto r) HEADWISE_INLINE_LAMBDA {
      unroll<Columns>([&](auto j) HEADWISE_INLINE_LAMBDA { c[r][j] = V::zero(); });
    });
  }
  template <int Rows, int Columns, class Ahead>
  static HEADWISE_INLINE void add(Factor<E> a, const E* b, i64 b_step, i64 begin, i64 end,
                                  V (&c)[Rows][Columns], const Ahead& ask_ahead) {
    multiply_steps<Rows, Columns, false>(a, b, b_step, begin, end, typename Vec<E>::Mask{}, c, ask_ahead);
  }
};

// f(C's vector, the number of the first element of `sums` that it is or becomes), C lying row by row there, a
// row every RowVectors vectors.
template <int RowVectors, int Rows, int Columns, class V, class F>
HEADWISE_INLINE void for_each_vector(V (&c)[Rows][Columns], F&& f) {
  unroll<Rows>([&](auto r) HEADWISE_INLINE_LAMBDA {
    unroll<Columns>([&](auto j) HEADWISE_INLINE_LAMBDA { f(c[r][j], i64(r * RowVectors + j) * V::kLanes); });
  });
}

// sums = A B, a chain for each element or several, added up. Here and not in registers, where a tile's sums
// so far and those of the present chain do not fit together. The steps are taken in pieces, the start of each
// of which costs about as much as one step; before_piece(i) comes before piece i.
template <int Rows, int Columns, int RowVectors, class E, class Number, class BeforePiece>
HEADWISE_INLINE void multiply_into(Number* sums, const Chains<E>& chains, Factor<E> a, const E* b, i64 b_step,
                                   i64 depth, i64 pieces, BeforePiece&& before_piece) {
  using V = typename Vec<E>::Sum;
  const i64 piece = round_up(ceil_div(depth, pieces), kPairCycle);
  i64 begin = 0, next_piece = 0;
  do {
    V c[Rows][Columns];
    chains.begin(c, begin / kChain);
    const i64 end = min_of(depth, begin + kChain);
    for (i64 k = begin, stop; k < end; k = stop) {
      if (k == next_piece * piece) before_piece(next_piece++);
      stop = min_of(end, next_piece * piece);
      chains.add(a, b, b_step, k, stop, c, NothingAhead{});
    }
    if (begin > 0)
      for_each_vector<RowVectors>(c,
                                  [&](V& v, i64 at) HEADWISE_INLINE_LAMBDA { v = V::load(sums + at) + v; });
    for_each_vector<RowVectors>(c, [&](V& v, i64 at) HEADWISE_INLINE_LAMBDA { v.store(sums + at); });
    begin += kChain;
  } while (begin < depth);
}

// C = A B likewise, over a depth of one chain: in registers. Then finish(C).
template <int Rows, int Columns, bool Tail, class E, class Finish, class Ahead = NothingAhead>
HEADWISE_INLINE void multiply_tile(Factor<E> a, const E* b, i64 b_step, i64 depth, typename Vec<E>::Mask tail,
                                   Finish&& finish, const Ahead& ask_ahead = {}) {
  using V = typename Vec<E>::Sum;
  V c[Rows][Columns];
  for_each_vector<Columns>(c, [&](V& v, i64) HEADWISE_INLINE_LAMBDA { v = V::zero(); });
  multiply_steps<Rows, Columns, Tail>(a, b, b_step, 0, depth, tail, c, ask_ahead);
  finish(c);
}

// f(first row, Int<height>) for tiles of nearly equal height: a last one of one or two rows would wait for
// the latency of its few chains. Heights, and rows, are multiples of Unit.
template <int MaxHeight, int Unit = 1, int MinHeight = Unit, class F>
HEADWISE_INLINE void for_each_height(i64 rows, F&& f) {
  constexpr int kMaxUnits = MaxHeight / Unit, kMinUnits = MinHeight / Unit;
  i64 units = rows / Unit, tiles = ceil_div(units, kMaxUnits);
  for (i64 first = 0; first < rows; --tiles) {
    const int height = int(ceil_div(units, tiles));
    with_constant<kMaxUnits, kMinUnits>(height, [&](auto h) { f(first, Int<h * Unit>{}); });
    first += height * Unit, units -= height;
  }
}

// All rows of A against Columns vectors of B. A tile is depth_of(its last row) deep.
// finish(first row, C) for each tile.
template <int Columns, bool Tail, int MaxRows, class E, class Depth, class Finish, class Ahead>
HEADWISE_INLINE void multiply_rows(Factor<E> a, i64 rows, const E* b, i64 b_step, Depth&& depth_of,
                                   typename Vec<E>::Mask tail, Finish&& finish, const Ahead& ask_ahead) {
  for_each_height<min_of(MaxRows, max_tile_rows<E>(Columns))>(
      rows, [&](i64 first, auto h) HEADWISE_INLINE_LAMBDA {
        multiply_tile<decltype(h)::value, Columns, Tail>(
            a.from(first), b, b_step, depth_of(first + decltype(h)::value - 1), tail,
            [&](auto& c) HEADWISE_INLINE_LAMBDA { finish(first, c); }, ask_ahead);
      });
}

// All rows of A against `columns` elements of B's rows, in groups of at most kMaxTileVectors vectors,
// nearly equal for the same reason. B's rows may end at the last column: what lies past is not read
// when Tail. finish(first row, first column, C) for each tile, C being Vec<E>::Sum[tile rows][tile vectors],
// and ask_ahead(k, first column, columns) with each of its steps. A tile has at most MaxRows rows.
template <bool Tail, int MaxRows = kMaxTileRows, class E, class Depth, class Finish,
          class Ahead = NothingAhead>
HEADWISE_INLINE void multiply(Factor<E> a, i64 rows, const E* b, i64 b_step, i64 columns, Depth&& depth_of,
                              Finish&& finish, const Ahead& ask_ahead = {}) {
  using V = typename Vec<E>::Sum;
  const i64 vectors = ceil_div(columns, V::kLanes);
  const auto tail = V::first_lanes(columns - (vectors - 1) * V::kLanes);
  i64 groups = ceil_div(vectors, kMaxTileVectors);
  for (i64 first = 0; first < vectors; --groups) {
    const int width = int(ceil_div(vectors - first, groups));
    const i64 column = first * V::kLanes;
    const bool masked = Tail && groups == 1 && columns % V::kLanes != 0;
    const auto store = [&](i64 row, auto& c) HEADWISE_INLINE_LAMBDA { finish(row, column, c); };
    with_constant<kMaxTileVectors>(width, [&](auto w) {
      const auto ask = [&](i64 k) HEADWISE_INLINE_LAMBDA { ask_ahead(k, column, w * V::kLanes); };
      if (masked)
        multiply_rows<w, Tail, MaxRows>(a, rows, b + column, b_step, depth_of, tail, store, ask);
      else
        multiply_rows<w, false, MaxRows>(a, rows, b + column, b_step, depth_of, tail, store, ask);
    });
    first += width;
  }
}

// How often multiply() calls ask_ahead(), if all its tiles are equally deep.
template <class E, int MaxRows = kMaxTileRows>
i64 steps_of(i64 rows, i64 columns, i64 depth) {
  const i64 vectors = ceil_div(columns, Vec<E>::Sum::kLanes), groups = ceil_div(vectors, kMaxTileVectors);
  const int height = min_of(MaxRows, max_tile_rows<E>(int(ceil_div(vectors, groups))));
  return groups * ceil_div(rows, height) * depth;
}

// For multiply_transposed(): Groups vectors of rows, of which `present` rows each are there.
template <int R, int Groups, i64 Chain, class E, class Finish>
HEADWISE_INLINE void multiply_transposed_rows(Factor<E> a, i64 present, const E* b, i64 depth,
                                              LinesAhead& ahead, Finish&& finish) {
  using Factors = Vec<E>;
  using V = typename Factors::Sum;
  constexpr int W = V::kLanes;
  static_assert(Chain % W == 0);
  const auto for_each_sum = [](auto&& f) HEADWISE_INLINE_LAMBDA {
    unroll<Groups>(
        [&](auto g) HEADWISE_INLINE_LAMBDA { unroll<R>([&](auto r) HEADWISE_INLINE_LAMBDA { f(g, r); }); });
  };
  V total[Groups][R], chain[Groups][R];
  for_each_sum([&](auto g, auto r) HEADWISE_INLINE_LAMBDA { total[g][r] = chain[g][r] = V::zero(); });
  LinesAhead ask_ahead = ahead;  // in registers
  // Steps k .. k + W - 1, of which `left` are there.
  const auto steps = [&](auto whole, i64 k, i64 left) HEADWISE_INLINE_LAMBDA {
    const auto inside = V::first_lanes(left);
    Factor<E> row = a.after(k);
    unroll<Groups>([&](auto g) HEADWISE_INLINE_LAMBDA {
      Factors block[W];
      unroll<W>([&](auto i) HEADWISE_INLINE_LAMBDA {
        if constexpr (whole) {
          block[i] = Factors::load(row.row(0));
          // W rows at once is no order that the CPU foresees: without this a third of the bandwidth is lost.
          __builtin_prefetch(row.row(Groups * W), 0, 2);
          ask_ahead();
        } else {
          block[i] = i < present ? Factors::load(row.row(0), inside) : Factors::zero();
        }
        row = row.from(1);
        row.forget_origin();
      });
      Factors::transpose(block);
      unroll<W>([&](auto i) HEADWISE_INLINE_LAMBDA {
        if (whole || i < left)
          unroll<R>([&](auto r) HEADWISE_INLINE_LAMBDA {
            chain[g][r] = Factors::fma(Factors::broadcast(b[(k + i) * W + r]), block[i], chain[g][r]);
          });
      });
    });
  };
  for (i64 begin = 0; begin < depth; begin += Chain) {
    const i64 end = min_of(depth, begin + Chain);
    i64 k = begin;
    if (present == W)
      for (; k + W <= end; k += W) steps(Int<1>{}, k, W);
    for (; k < end; k += W) steps(Int<0>{}, k, end - k);
    if (depth > Chain)
      for_each_sum([&](auto g, auto r) HEADWISE_INLINE_LAMBDA {
        total[g][r] = total[g][r] + chain[g][r];
        chain[g][r] = V::zero();
      });
  }
  ahead = ask_ahead;
  unroll<Groups>([&](auto g) HEADWISE_INLINE_LAMBDA {
    V sums[R];
    unroll<R>([&](auto r) HEADWISE_INLINE_LAMBDA { sums[r] = depth > Chain ? total[g][r] : chain[g][r]; });
    finish(g * W, sums);
  });
}

// Chains of so many products for a single vector of B's columns, of which R are wanted, with the rows of A as
// lanes: a vector of rows by a vector of steps is transposed in registers. Faster than broadcasts for small
// R. finish(first row, sums) for each vector of rows, sums[R] having 0 in the lanes past the last. A's steps
// are 1. With each row's vector of steps comes ahead().
template <int R, i64 Chain, class E, class Finish>
HEADWISE_INLINE void multiply_transposed(Factor<E> a, i64 rows, const E* b, i64 depth, LinesAhead& ahead,
                                         Finish&& finish) {
  constexpr int W = Vec<E>::Sum::kLanes;
  i64 first = 0;
  const auto finish_rows = [&](i64 row, auto& sums) HEADWISE_INLINE_LAMBDA { finish(first + row, sums); };
  // Each step of a few chains would be waited for, so that two vectors of rows take turns: short rows, as of
  // long ones memory does not deliver so many at a time.
  if constexpr (R < 4)
    if (depth * i64(sizeof(E)) <= 256)
      for (; first + 2 * W <= rows; first += 2 * W)
        multiply_transposed_rows<R, 2, Chain>(a.from(first), W, b, depth, ahead, finish_rows);
  for (; first < rows; first += W)
    multiply_transposed_rows<R, 1, Chain>(a.from(first), min_of(i64(W), rows - first), b, depth, ahead,
                                          finish_rows);
}

}  // namespace
