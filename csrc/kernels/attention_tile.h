// One tile of attention: up to kTileRows queries of one key/value head against all their keys, by a
// blockwise online softmax (Milakov and Gimelshein, 2018; Dao et al., 2022).
//
// Lanes are queries. Q lies transposed, so that max, exp2 and sum run down the lanes with no
// horizontal step, and K and V are read where they lie.
#pragma once
#include <math.h>

#include "../simd/math.h"
#include "tile.h"

namespace {

// One (sequence, key/value head). The `group` query heads that share the head also share tiles:
// row r is query r / group of head r % group.
template <class T>
struct HeadProblem {
  const T *query, *key, *value;
  T *out, *lse;
  hw_strides query_strides, out_strides, lse_strides;  // of head and row
  i64 key_row, value_row;
  i64 queries, keys, readable_keys, group, head_dim, value_dim;  // keys past readable_keys are masked
  T scale;      // times log2(e): softmax is computed in powers of 2
  bool causal;  // query i attends keys j <= i + offset
  i64 offset;

  i64 rows() const { return queries * group; }
  template <class P>
  P* at(P* base, const hw_strides& s, i64 r) const {
    return base + r / group * s.row + r % group * s.head;
  }
};

// 64 queries: each key read from L2 serves 64; 128 would push Q out of L1.
template <class T>
constexpr i64 kTileRows = Vec<T>::kLanes == 1 ? 16 : 256 / sizeof(T);

// Keys a block: a block of V and of the scores share L1 with part of the queries. A multiple of 6, the
// height of the main register tile. Depends on the head dimension alone, as sums are formed by block.
template <class T>
constexpr i64 key_block(i64 head_dim) {
  return head_dim * i64(sizeof(T)) <= 256 ? 96 : 48;
}

// What one thread needs for a tile, carved out of its workspace. lanes is the tile's number of rows
// rounded up to whole vectors.
template <class T>
struct TileMemory {
  T* query_t;    // [D][lanes]
  T* scores;     // [keys of a block][lanes]: scores, then probabilities
  T* out;        // [rows][padded(Dv)]: not yet divided by sum
  T* max;        // [lanes]: of all scores so far
  T* block_max;  // [lanes]: of this block's
  T* sum;        // [lanes]: of 2^(score - max)
  T* rescale;    // [lanes]: 2^(old max - new max)

  static i64 padded(i64 value_dim) { return round_up(value_dim, Vec<T>::kLanes); }
  static size_t bytes(i64 head_dim, i64 value_dim) {
    const i64 columns = head_dim + key_block<T>(head_dim) + padded(value_dim) + 4;
    return size_t(kTileRows<T> * columns) * sizeof(T);
  }

  TileMemory(void* workspace, i64 head_dim, i64 value_dim) {
    T* free = static_cast<T*>(workspace);
    const auto take = [&](i64 columns) {
      T* taken = free;
      free += kTileRows<T> * columns;
      return taken;
    };
    query_t = take(head_dim);
    scores = take(key_block<T>(head_dim));
    out = take(padded(value_dim));
    max = take(1);
    block_max = take(1);
    sum = take(1);
    rescale = take(1);
  }
};

template <class T>
class AttentionTile {
  using V = Vec<T>;
  static constexpr int W = V::kLanes;

 public:
  AttentionTile(const HeadProblem<T>& problem, i64 first_row, const TileMemory<T>& memory)
      : p_(problem),
        m_(memory),
        first_(first_row),
        rows_(min_of(kTileRows<T>, problem.rows() - first_row)),
        lanes_(round_up(rows_, W)),
        full_end_(p_.readable_keys),
        end_(p_.readable_keys) {
    if (p_.causal) {
      full_end_ = clamp(p_.offset + first_ / p_.group + 1, p_.readable_keys);
      end_ = clamp(p_.offset + (first_ + rows_ - 1) / p_.group + 1, p_.readable_keys);
    }
    pack_queries();
    for (i64 r = 0; r < lanes_; r += W) {
      V::broadcast(-kInfinity<T>).store(m_.max + r);
      V::zero().store(m_.sum + r);
    }
  }

  // The attention of the tile's rows, and their log-sum-exp if wanted.
  void attend() {
    const i64 width = m_.padded(p_.value_dim);
    for (i64 i = 0; i < rows_ * width; i += W) V::zero().store(m_.out + i);
    for_each_block([&](i64 begin, i64 count) {
      score(begin, count);
      exponentiate(count);
      accumulate(begin, count, width);
    });
    for (i64 r = 0; r < rows_; ++r) {
      // A row that attended nothing is 0, not 0 / 0.
      const V inverse = V::broadcast(m_.sum[r] == 0 ? T(0) : T(1) / m_.sum[r]);
      T* out = p_.at(p_.out, p_.out_strides, first_ + r);
      for (i64 d = 0; d < p_.value_dim; d += W) {
        // Adding 0 turns the -0 of an underflow into the +0 that a masked key's 0 would have made.
        const V value = V::fma(V::load(m_.out + r * width + d), inverse, V::zero());
        value.store(out + d, V::first_lanes(p_.value_dim - d));
      }
      if (p_.lse) *p_.at(p_.lse, p_.lse_strides, first_ + r) = log_sum_exp(r);
    }
  }

  // The probabilities, in the place of the output: row r has p_.keys columns.
  void write_probabilities() {
    for_each_block([&](i64 begin, i64 count) {
      score(begin, count);
      exponentiate(count);
    });
    for_each_block([&](i64 begin, i64 count) {  // the scores again, now that max and sum are known
      score(begin, count);
      for (i64 r = 0; r < lanes_; r += W) {
        const V sum = V::load(m_.sum + r), max = finite(V::load(m_.max + r));
        const V inverse = V::select(V::equal(sum, V::zero()), V::zero(), V::broadcast(T(1)) / sum);
        for (i64 j = 0; j < count; ++j) {
          T* s = m_.scores + j * lanes_ + r;
          const V score = V::load(s), p = exp2_nonpositive(score - max) * inverse;
          // A masked key gets 0, even in a row that is NaN.
          V::select(V::equal(score, V::broadcast(-kInfinity<T>)), V::zero(), p).store(s);
        }
      }
      store_transposed(begin, count);
    });
    for (i64 r = 0; r < rows_; ++r) {
      T* row = p_.at(p_.out, p_.out_strides, first_ + r);
      for (i64 j = end_; j < p_.keys; ++j) row[j] = T(0);
    }
  }

 private:
  static i64 clamp(i64 n, i64 end) { return max_of(i64(0), min_of(n, end)); }

  // -inf - -inf is NaN: a row without a score so far subtracts 0.
  static V finite(V max) { return V::select(V::equal(max, V::broadcast(-kInfinity<T>)), V::zero(), max); }

  // f(first key, number of keys) in ascending order, from multiples of key_block whatever the tile.
  template <class F>
  void for_each_block(F&& f) {
    const i64 block = key_block<T>(p_.head_dim);
    for (i64 begin = 0; begin < end_; begin += block) f(begin, min_of(block, end_ - begin));
  }

  // query_t[d][r] = scale Q[r][d]; the lanes past the last row hold 0.
  void pack_queries() {
    const V scale = V::broadcast(p_.scale);
    for (i64 r = 0; r < lanes_; r += W) {
      const i64 present = min_of(i64(W), rows_ - r);
      const T* row[W];
      for (i64 i = 0; i < present; ++i) row[i] = p_.at(p_.query, p_.query_strides, first_ + r + i);
      for (i64 d = 0; d < p_.head_dim; d += W) {
        const auto inside = V::first_lanes(p_.head_dim - d);
        V block[W];
        for (i64 i = 0; i < W; ++i) block[i] = i < present ? V::load(row[i] + d, inside) * scale : V::zero();
        V::transpose(block);
        const i64 count = min_of(i64(W), p_.head_dim - d);
        for (i64 i = 0; i < count; ++i) block[i].store(m_.query_t + (d + i) * lanes_ + r);
      }
    }
  }

  // scores = K Q^T for one block of keys, and block_max down its columns.
  void score(i64 begin, i64 count) {
    for (i64 r = 0; r < lanes_; r += W) V::broadcast(-kInfinity<T>).store(m_.block_max + r);
    const Factor<T> keys{p_.key + begin * p_.key_row, p_.key_row, 1};
    multiply<false>(keys, count, m_.query_t, lanes_, lanes_, p_.head_dim,
                    [&]<int R, int C>(i64 j, i64 lane, V(&s)[R][C]) HEADWISE_INLINE_LAMBDA {
                      unroll<C>([&](auto c) HEADWISE_INLINE_LAMBDA {
                        V largest = V::load(m_.block_max + lane + c * W);
                        unroll<R>([&](auto r) HEADWISE_INLINE_LAMBDA {
                          s[r][c].store(m_.scores + (j + r) * lanes_ + lane + c * W);
                          largest = V::max(s[r][c], largest);  // this order skips a NaN
                        });
                        largest.store(m_.block_max + lane + c * W);
                      });
                    });
    if (begin + count > full_end_) mask(begin, count);
  }

  // The first row of the tile that attends key j; all rows after it do too.
  i64 first_row_attending(i64 j) const { return clamp((j - p_.offset) * p_.group - first_, rows_); }

  // In a block that some rows attend in part: -inf where a row does not, and block_max anew.
  void mask(i64 begin, i64 count) {
    const V minus_infinity = V::broadcast(-kInfinity<T>);
    for (i64 r = 0; r < lanes_; r += W) {
      V largest = minus_infinity;
      for (i64 j = 0; j < count; ++j) {
        T* s = m_.scores + j * lanes_ + r;
        const auto outside = V::first_lanes(first_row_attending(begin + j) - r);
        const V masked = V::select(outside, minus_infinity, V::load(s));
        masked.store(s);
        largest = V::max(masked, largest);
      }
      largest.store(m_.block_max + r);
    }
  }

  // scores -> 2^(score - max), with max and sum brought up to date.
  void exponentiate(i64 count) {
    for (i64 r = 0; r < lanes_;) {
      const int vectors = int(min_of(i64(kMaxTileVectors), (lanes_ - r) / W));
      with_constant<kMaxTileVectors>(vectors, [&](auto n) { exponentiate_columns<n>(r, count); });
      r += vectors * W;
    }
  }

  template <int N>
  HEADWISE_INLINE void exponentiate_columns(i64 r, i64 count) {
    V max[N], sum[N];
    unroll<N>([&](auto c) HEADWISE_INLINE_LAMBDA {
      const V old_max = V::load(m_.max + r + c * W);
      const V new_max = V::max(V::load(m_.block_max + r + c * W), old_max);
      new_max.store(m_.max + r + c * W);
      max[c] = finite(new_max);
      exp2_nonpositive(old_max - max[c]).store(m_.rescale + r + c * W);
      sum[c] = V::zero();
    });
    for (i64 j = 0; j < count; ++j) {
      T* s = m_.scores + j * lanes_ + r;
      unroll<N>([&](auto c) HEADWISE_INLINE_LAMBDA {
        const V p = exp2_nonpositive(V::load(s + c * W) - max[c]);
        sum[c] = sum[c] + p;
        p.store(s + c * W);
      });
    }
    unroll<N>([&](auto c) HEADWISE_INLINE_LAMBDA {
      T* total = m_.sum + r + c * W;
      V::fma(V::load(total), V::load(m_.rescale + r + c * W), sum[c]).store(total);
    });
  }

  // out = rescale out + P V. A block is summed by itself and then added: less rounding than one chain.
  void accumulate(i64 begin, i64 count, i64 width) {
    const T* values = p_.value + begin * p_.value_row;
    if (begin + count > full_end_ && !all_finite(values, count))
      return accumulate_attended(begin, count, width);
    const Factor<T> probabilities{m_.scores, 1, lanes_};
    multiply<true>(probabilities, rows_, values, p_.value_row, p_.value_dim, count,
                   [&]<int R, int C>(i64 row, i64 d, V(&sum)[R][C]) HEADWISE_INLINE_LAMBDA {
                     unroll<R>([&](auto r) HEADWISE_INLINE_LAMBDA {
                       const V rescale = V::broadcast(m_.rescale[row + r]);
                       unroll<C>([&](auto c) HEADWISE_INLINE_LAMBDA {
                         T* out = m_.out + (row + r) * width + d + c * W;
                         V::fma(V::load(out), rescale, sum[r][c]).store(out);
                       });
                     });
                   });
  }

  bool all_finite(const T* values, i64 count) const {
    V zeros = V::zero();  // x * 0 is NaN for an infinity or a NaN
    for (i64 j = 0; j < count; ++j)
      for (i64 d = 0; d < p_.value_dim; d += W)
        zeros = V::fma(V::load(values + j * p_.value_row + d, V::first_lanes(p_.value_dim - d)), V::zero(),
                       zeros);
    return zeros.sum() == 0;
  }

  // The same sums over attended keys alone, since 0 times an infinity or a NaN is not 0.
  void accumulate_attended(i64 begin, i64 count, i64 width) {
    for (i64 r = 0; r < rows_; ++r)
      for (i64 d = 0; d < p_.value_dim; d += W) {
        V sum = V::zero();
        for (i64 j = 0; j < count && first_row_attending(begin + j) <= r; ++j)
          sum = V::fma(V::broadcast(m_.scores[j * lanes_ + r]),
                       V::load(p_.value + (begin + j) * p_.value_row + d, V::first_lanes(p_.value_dim - d)),
                       sum);
        T* out = m_.out + r * width + d;
        V::fma(V::load(out), V::broadcast(m_.rescale[r]), sum).store(out);
      }
  }

  T log_sum_exp(i64 r) const {
    return m_.sum[r] == 0 ? -kInfinity<T> : m_.max[r] * kLn2<T> + T(log(double(m_.sum[r])));
  }

  // out[r][begin + j] = scores[j][r].
  void store_transposed(i64 begin, i64 count) {
    for (i64 r = 0; r < rows_; r += W) {
      const i64 present = min_of(i64(W), rows_ - r);
      for (i64 j = 0; j < count; j += W) {
        V block[W];
        for (i64 i = 0; i < W; ++i)
          block[i] = j + i < count ? V::load(m_.scores + (j + i) * lanes_ + r) : V::zero();
        V::transpose(block);
        for (i64 i = 0; i < present; ++i)
          block[i].store(p_.at(p_.out, p_.out_strides, first_ + r + i) + begin + j,
                         V::first_lanes(count - j));
      }
    }
  }

  const HeadProblem<T>& p_;
  const TileMemory<T>& m_;
  i64 first_, rows_, lanes_;
  i64 full_end_, end_;  // every row attends the keys below full_end_; no row those from end_ on
};

}  // namespace
