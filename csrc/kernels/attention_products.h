// The two products of attention, K Q^T and P V, in float32 or float64. 16-bit keys and values are widened
// to float32 a block at a time; others are read where they lie.
#pragma once
#include "arena.h"
#include "attention_problem.h"
#include "tile.h"

namespace {

// Rows of a tile. 64 queries: each key read from L2 serves 64; 128 would push Q out of L1.
template <class T>
constexpr i64 kTileRows = Vec<T>::kLanes == 1 ? 16 : 256 / sizeof(T);

// Keys a block: long enough that adding a block's P V to the output costs little, short enough that its
// scores and values come from L1 and L2. One number for all, as sums are formed by block.
constexpr i64 kKeyBlock = 128;

// Products of a score that are summed in one chain; longer ones add up chains as linear layers do. Shorter
// than theirs, as what NumPy multiplies for a few queries it sums in many.
constexpr i64 kScoreChain = 256;

// Rows of a register tile of P V: half a cache line of each key's probabilities, which are read anew by the
// tiles that share a line.
constexpr int kAccumulatedRows = 8;

// Rows of keys or values that a product can read.
template <class T>
struct RowView {
  const T* data;
  i64 row;
};

// Queries that are scored with keys as lanes; they take less time to multiply than keys and values take to
// arrive.
template <class E>
constexpr int kFewQueries = min_of(kRegisters == 32 ? 8 : 6, Vec<E>::Sum::kLanes);

// scores[j][r] = A[j] . B[r] with the queries B transposed, for the first keys_of(r) keys of each row r,
// which only grow with r. finish(j, lane, C) for each tile, C being Sum[keys][vectors of lanes]. Where the
// depth is more than a chain, the sums of those before the last wait in `scores`.
template <class E, class KeysOf, class Finish, class Ahead>
HEADWISE_INLINE void score_keys(Factor<E> keys, const E* query_t, i64 rows, i64 lanes, i64 depth,
                                typename Element<E>::Sum* scores, KeysOf&& keys_of, Finish&& finish,
                                const Ahead& ask_ahead) {
  using V = typename Vec<E>::Sum;
  // Some keys that the first rows need, then those that only rows from a later vector on do.
  i64 done = 0;
  for (i64 lane = 0; lane < lanes; lane += V::kLanes) {
    const i64 end = keys_of(min_of(rows, lane + V::kLanes) - 1);
    if (end <= done) continue;
    i64 begin = 0;
    do {
      const i64 steps = min_of(kScoreChain, depth - begin);
      multiply<false>(
          keys.from(done).after(begin), end - done, query_t + begin * lanes + lane, lanes, lanes - lane,
          [=](i64) { return steps; },
          [&]<int R, int C>(i64 j, i64 first, V(&sums)[R][C]) HEADWISE_INLINE_LAMBDA {
            auto* so_far = scores + (done + j) * lanes + lane + first;
            if (begin > 0)
              unroll<R>([&](auto r) HEADWISE_INLINE_LAMBDA {
                unroll<C>([&](auto c) HEADWISE_INLINE_LAMBDA {
                  sums[r][c] = V::load(so_far + r * lanes + c * V::kLanes) + sums[r][c];
                });
              });
            if (begin + steps == depth) return finish(done + j, lane + first, sums);
            unroll<R>([&](auto r) HEADWISE_INLINE_LAMBDA {
              unroll<C>([&](auto c)
                            HEADWISE_INLINE_LAMBDA { sums[r][c].store(so_far + r * lanes + c * V::kLanes); });
            });
          },
          ask_ahead);
      begin += steps;
    } while (begin < depth);
    done = end;
  }
}

// The same for few rows, with keys as lanes. finish(j, scores) for each vector of keys, V[rows].
template <class E, class Finish>
HEADWISE_INLINE void score_few(Factor<E> keys, i64 count, const E* query_t, i64 rows, i64 depth,
                               LinesAhead& ahead, Finish&& finish) {
  with_constant<kFewQueries<E>>(int(rows), [&](auto r) {
    multiply_transposed<r, kScoreChain>(keys, count, query_t, depth, ahead, finish);
  });
}

// Keys of the tiles of score_all(): of its first one, and of none has more. A multiple of Unit.
template <class E, int Unit>
constexpr int kKeysOfTile = max_tile_rows<E>(kMaxTileVectors) / Unit * Unit;

// The same for a whole tile whose rows all attend the keys: a multiple of Unit, and kManyKeys at least, of
// which all C have nearly as many as fit; over a depth of one chain.
constexpr i64 kManyKeys = 32;
template <int Unit, class E, class Finish, class Ahead>
HEADWISE_INLINE void score_all(Factor<E> keys, i64 count, const E* query_t, i64 lanes, i64 depth,
                               Finish&& finish, const Ahead& ask_ahead) {
  constexpr i64 kWidth = kMaxTileVectors * Vec<E>::Sum::kLanes;
  constexpr int kHeight = kKeysOfTile<E, Unit>;
  static_assert(kManyKeys >= kHeight * (kHeight - Unit) / Unit);
  for (i64 lane = 0; lane < lanes; lane += kWidth)
    for_each_height<kHeight, Unit, kHeight - Unit>(count, [&](i64 j, auto h) HEADWISE_INLINE_LAMBDA {
      multiply_tile<decltype(h)::value, kMaxTileVectors, false>(
          keys.from(j), query_t + lane, lanes, depth, typename Vec<E>::Mask{},
          [&](auto& scores) HEADWISE_INLINE_LAMBDA { finish(j, lane, scores); }, ask_ahead);
    });
}

// Each element of a row, widened.
template <class E, class T>
void widen_row(const char* from, T* to, i64 count) {
  for (i64 i = 0; i < count; i += Vec<T>::kLanes) load_as<E, T>(from, i, count).store(to + i);
}

template <class T>
class NativeProducts {
  using V = Vec<T>;
  static constexpr int W = V::kLanes;

 public:
  using Real = T;
  using Number = T;  // of queries, keys, values and output, if they are not to be widened
  static constexpr int kKeysPerStep = 1;
  static constexpr i64 kFirstKeys = kKeysOfTile<T, kKeysPerStep>;
  template <class Columns>
  static HEADWISE_INLINE Columns exp2(Columns x) {
    return power_of_2(x);
  }

  NativeProducts(const hw_attention_params& a, Arena& arena)
      : query_t_(arena.take<T>(kTileRows<T> * a.head_dim)),
        wide_(size_of(a.dtype) != i64(sizeof(T))),
        keys_(arena.take<T>(wide_ ? kKeyBlock * round_up(a.head_dim, W) : 0)),
        values_(arena.take<T>(wide_ ? kKeyBlock * round_up(a.value_dim, W) : 0)) {}

  // query_t[d][r] = scale Q[r][d]; the lanes past the last row repeat it.
  void pack_queries(const HeadProblem<T>& p, i64 first, i64 rows, i64 lanes) {
    with_element<T>(p.dtype, [&](auto e) { pack_queries_of<decltype(e)>(p, first, rows, lanes); });
  }

  // scores[j][r] = K[begin + j] . Q[r] for the first keys_of(r) of a block of keys. finish(j, lane, C) for
  // each tile, C being V[keys][vectors of lanes], after which it is stored at scores[j][lane].
  template <class KeysOf, class Finish, class Ahead>
  HEADWISE_INLINE void score(const HeadProblem<T>& p, i64 begin, i64 count, i64 rows, i64 lanes, T* scores,
                             KeysOf&& keys_of, Finish&& finish, const Ahead& ask_ahead) {
    const RowView<T> keys = rows_of(p, p.key, p.key_row, p.head_dim, keys_, begin, count);
    score_keys(Factor<T>(keys.data, keys.row * i64(sizeof(T)), 1), query_t_, rows, lanes, p.head_dim, scores,
               keys_of, finish, ask_ahead);
  }

  // With how many steps of score() and accumulate() memory can be asked for.
  static i64 steps_of_scores(const HeadProblem<T>& p, i64 count, i64 lanes) {
    return steps_of<T>(count, lanes, p.head_dim);
  }
  static i64 steps_of_sums(const HeadProblem<T>& p, i64 rows) {
    return steps_of<T, kAccumulatedRows>(rows, p.value_dim, kKeyBlock);
  }

  static bool can_score_all() { return true; }
  template <class Finish, class Ahead>
  HEADWISE_INLINE void score_all(const HeadProblem<T>& p, i64 begin, i64 count, i64 lanes, Finish&& finish,
                                 const Ahead& ask_ahead) {
    const RowView<T> keys = rows_of(p, p.key, p.key_row, p.head_dim, keys_, begin, count);
    ::score_all<1>(Factor<T>(keys.data, keys.row * i64(sizeof(T)), 1), count, query_t_, lanes, p.head_dim,
                   finish, ask_ahead);
  }

  template <class Finish>
  HEADWISE_INLINE void score_few(const HeadProblem<T>& p, i64 begin, i64 count, i64 rows, LinesAhead& ahead,
                                 Finish&& finish) {
    const RowView<T> keys = rows_of(p, p.key, p.key_row, p.head_dim, keys_, begin, count);
    ::score_few(Factor<T>(keys.data, keys.row * i64(sizeof(T)), 1), count, query_t_, rows, p.head_dim, ahead,
                finish);
  }

  // What scores are still to be multiplied by: nothing, as the queries were.
  struct Scale {
    HEADWISE_INLINE V times(V score) const { return score; }
    HEADWISE_INLINE V times_less(V score, V max) const { return score - max; }
  };
  static Scale scale() { return {}; }

  // Where probabilities go: in place of the scores.
  static T* probabilities(T* scores) { return scores; }
  static HEADWISE_INLINE void store(const V (&p)[1], T* to) { p[0].store(to); }
  // Of one row, from its key j on.
  HEADWISE_INLINE void store_few(i64, i64, V) const {}

  static bool keeps_values(const HeadProblem<T>&) { return false; }
  void load_values(const HeadProblem<T>& p, i64 begin, i64 count) {
    loaded_ = rows_of(p, p.value, p.value_row, p.value_dim, values_, begin, count);
  }

  HEADWISE_NOINLINE bool values_finite(const HeadProblem<T>& p, i64 count) const {
    V zeros[4] = {V::zero(), V::zero(), V::zero(), V::zero()};  // x * 0 is NaN for an infinity or a NaN
    for (i64 j = 0; j < count; ++j)
      for (i64 d = 0; d < p.value_dim; d += 4 * W)
        unroll<4>([&](auto c) { zeros[c] = V::fma(value(p, j, d + c * W), V::zero(), zeros[c]); });
    return (zeros[0] + zeros[1] + zeros[2] + zeros[3]).sum() == 0;
  }

  // P V over the loaded values, P[r][j] being probabilities[j][r]. finish(r, d, C), C[rows][vectors of Dv].
  // The keys past keys_of(r) have probability 0.
  template <class KeysOf, class Finish, class Ahead>
  HEADWISE_INLINE void accumulate(const HeadProblem<T>& p, T* probabilities, i64 rows, i64 lanes,
                                  KeysOf&& keys_of, Finish&& finish, const Ahead& ask_ahead) {
    multiply<true, kAccumulatedRows>(Factor<T>(probabilities, sizeof(T), lanes), rows, loaded_.data,
                                     loaded_.row, p.value_dim, keys_of, finish, ask_ahead);
  }

  // The same for few rows that attend all keys, P[r][j] being probabilities[r][j].
  template <class Finish, class Ahead>
  HEADWISE_INLINE void accumulate_few(const HeadProblem<T>& p, T* probabilities, i64 rows, i64 count,
                                      Finish&& finish, const Ahead& ask_ahead) {
    multiply<true, kFewQueries<T>>(
        Factor<T>(probabilities, kKeyBlock * i64(sizeof(T)), 1), rows, loaded_.data, loaded_.row, p.value_dim,
        [=](i64) { return count; }, finish, ask_ahead);
  }

  // The same sums over attended keys alone, since 0 times an infinity or a NaN is not 0.
  template <class Mask, class Finish>
  HEADWISE_NOINLINE void accumulate_attended(const HeadProblem<T>& p, const Mask& mask, T* probabilities,
                                             i64 count, i64 rows, i64 lanes, Finish&& finish) {
    for (i64 r = 0; r < rows; ++r)
      for (i64 d = 0; d < p.value_dim; d += W) {
        V sum[1][1] = {{V::zero()}};
        for (i64 j = 0; j < count; ++j)
          if (mask.attended(j, r))
            sum[0][0] = V::fma(V::broadcast(probabilities[j * lanes + r]), value(p, j, d), sum[0][0]);
        finish(r, d, sum);
      }
  }

 private:
  template <class E>
  void pack_queries_of(const HeadProblem<T>& p, i64 first, i64 rows, i64 lanes) {
    const V scale = V::broadcast(p.scale);
    const auto all = V::first_lanes(W);
    for (i64 r = 0; r < lanes; r += W) {
      const E* row[W];
      p.find_queries(first + r, min_of(i64(W), rows - r), row);
      const auto at = [&](i64 i) { return p.element(p.query_strides, first + r + i); };
      const i64 next = r + W < lanes ? at(W) - at(0) : 0;
      T* to = query_t_ + r;
      i64 d = 0;
      for (; d + W <= p.head_dim; d += W) {
        V block[W];
        unroll<W>([&](auto i) HEADWISE_INLINE_LAMBDA { block[i] = V::load(row[i] + d, all) * scale; });
        if (next != 0)
          unroll<W>([&](auto i) HEADWISE_INLINE_LAMBDA { __builtin_prefetch(row[i] + d + next); });
        V::transpose(block);
        unroll<W>([&](auto i) HEADWISE_INLINE_LAMBDA { block[i].store(to + (d + i) * lanes); });
      }
      if (d < p.head_dim) {
        const auto inside = V::first_lanes(p.head_dim - d);
        V block[W];
        for (i64 i = 0; i < W; ++i) block[i] = V::load(row[i] + d, inside) * scale;
        V::transpose(block);
        for (i64 i = 0; i < p.head_dim - d; ++i) block[i].store(to + (d + i) * lanes);
      }
    }
  }

  RowView<T> rows_of(const HeadProblem<T>& p, const char* data, i64 row, i64 columns, T* wide, i64 begin,
                     i64 count) const {
    data += begin * row * size_of(p.dtype);
    if (!wide_) return {reinterpret_cast<const T*>(data), row};
    const i64 wide_row = round_up(columns, W);
    with_element<T>(p.dtype, [&](auto e) {
      using E = decltype(e);
      for (i64 j = 0; j < count; ++j)
        widen_row<E, T>(data + j * row * i64(sizeof(E)), wide + j * wide_row, columns);
    });
    return {wide, wide_row};
  }

  V value(const HeadProblem<T>& p, i64 j, i64 d) const {
    return V::load(loaded_.data + j * loaded_.row + d, V::first_lanes(p.value_dim - d));
  }

  T* query_t_;  // [D][lanes]
  bool wide_;
  T *keys_, *values_;  // [block][columns]: widened; unused otherwise
  RowView<T> loaded_{};
};

}  // namespace
