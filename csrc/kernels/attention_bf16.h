// The two products of attention for bfloat16, on pairs: one instruction multiplies two numbers by two and
// adds both products to a float32. Keys are read where they lie; the values of two keys are interleaved, a
// block at a time; probabilities are rounded to bfloat16.
#pragma once
#include "attention_products.h"

namespace {

class Bf16Products {
  using V = Vec<float>;
  using Pairs = Vec<bf16_pair>;
  static constexpr int W = V::kLanes;
  static constexpr i64 kRows = kTileRows<float>;

 public:
  using Real = float;
  using Number = bf16;
  static constexpr int kKeysPerStep = 2;
  static constexpr i64 kFirstKeys = kKeysOfTile<bf16_pair, kKeysPerStep>;
  template <class Columns>
  static HEADWISE_INLINE Columns exp2(Columns x) {
    return power_of_2<Columns, CoarseExp2>(x);
  }

  Bf16Products(const hw_attention_params& a, Arena& arena)
      : query_t_(arena.take<bf16_pair>(kRows * pairs_of(a.head_dim))),
        keys_(arena.take<bf16>(a.head_dim % 2 ? kKeyBlock * (a.head_dim + 1) : 0)),
        block_pairs_(pairs_of(kKeyBlock) * round_up(a.value_dim, W)),
        kept_blocks_(clamp(kKeptBytes / max_of(i64(1), block_pairs_ * i64(sizeof(bf16_pair))), 1, kMaxKept)),
        kept_values_(arena.take<bf16_pair>(kept_blocks_ * block_pairs_)),
        probabilities_(arena.take<bf16_pair>(pairs_of(kKeyBlock) * kRows)) {}

  // query_t[d / 2][r] = Q[r][d], Q[r][d + 1]; the lanes past the last row repeat it, the number past the last
  // is 0. Queries of bfloat16 are not multiplied by the scale: products are, at once or as the maximum is
  // subtracted.
  void pack_queries(const HeadProblem<float>& p, i64 first, i64 rows, i64 lanes) {
    const bool later = p.scores_are_products();
    scale_now_ = later ? 1 : p.scale;
    scale_later_ = later ? p.scale : 1;
    for (i64 r = 0; r < lanes; r += W) {
      const bf16* row[W];
      p.find_queries(first + r, min_of(i64(W), rows - r), row);
      for (i64 d = 0; d < p.head_dim; d += 2 * W) {
        const i64 pairs = min_of(i64(W), pairs_of(p.head_dim - d));
        V block[W];  // pairs, which only move here
        if (d + 2 * W <= p.head_dim)
          unroll<W>([&](auto i) HEADWISE_INLINE_LAMBDA {
            block[i] = V::load(reinterpret_cast<const float*>(row[i] + d));
          });
        else
          for (i64 i = 0; i < W; ++i) {
            bf16 some[2 * W] = {};
            __builtin_memcpy(some, row[i] + d, size_t(2 * (p.head_dim - d)));
            block[i] = V::load(reinterpret_cast<const float*>(some));
          }
        V::transpose(block);
        for (i64 i = 0; i < pairs; ++i)
          block[i].store(reinterpret_cast<float*>(query_t_ + (d / 2 + i) * lanes + r));
      }
    }
  }

  template <class KeysOf, class Finish, class Ahead>
  HEADWISE_INLINE void score(const HeadProblem<float>& p, i64 begin, i64 count, i64 rows, i64 lanes,
                             float* scores, KeysOf&& keys_of, Finish&& finish, const Ahead& ask_ahead) {
    score_keys(block_of_keys(p, begin, count), query_t_, rows, lanes, pairs_of(p.head_dim), scores, keys_of,
               scaled(finish), ask_ahead);
  }

  static i64 steps_of_scores(const HeadProblem<float>& p, i64 count, i64 lanes) {
    return steps_of<bf16_pair>(count, lanes, pairs_of(p.head_dim));
  }
  static i64 steps_of_sums(const HeadProblem<float>& p, i64 rows) {
    return steps_of<bf16_pair, kAccumulatedRows>(rows, p.value_dim, pairs_of(kKeyBlock));
  }

  // Without a factor for each product.
  bool can_score_all() const { return scale_now_ == 1; }
  template <class Finish, class Ahead>
  HEADWISE_INLINE void score_all(const HeadProblem<float>& p, i64 begin, i64 count, i64 lanes,
                                 Finish&& finish, const Ahead& ask_ahead) {
    ::score_all<2>(block_of_keys(p, begin, count), count, query_t_, lanes, pairs_of(p.head_dim), finish,
                   ask_ahead);
  }

  template <class Finish>
  HEADWISE_INLINE void score_few(const HeadProblem<float>& p, i64 begin, i64 count, i64 rows,
                                 LinesAhead& ahead, Finish&& finish) {
    const V scale = V::broadcast(scale_now_);
    ::score_few(block_of_keys(p, begin, count), count, query_t_, rows, pairs_of(p.head_dim), ahead,
                [&]<int R>(i64 j, V(&s)[R]) HEADWISE_INLINE_LAMBDA {
                  unroll<R>([&](auto r) HEADWISE_INLINE_LAMBDA { s[r] = s[r] * scale; });
                  finish(j, s);
                });
  }

  struct Scale {
    V by;
    HEADWISE_INLINE V times(V score) const { return score * by; }
    HEADWISE_INLINE V times_less(V score, V max) const { return V::fms(score, by, max); }
  };
  Scale scale() const { return {V::broadcast(scale_later_)}; }

  // Whether a head's later tiles find its values interleaved.
  bool keeps_values(const HeadProblem<float>& p) const {
    return p.rows() > kRows && p.keys <= kept_blocks_ * kKeyBlock;
  }

  // Interleaves a block of values, unless an earlier tile of the head has done so and its values fit.
  void load_values(const HeadProblem<float>& p, i64 begin, i64 count) {
    columns_ = round_up(p.value_dim, W);
    const i64 number = keeps_values(p) ? begin / kKeyBlock : 0;
    values_ = kept_values_ + number * block_pairs_;
    Kept& kept = kept_[number];
    // The last of an odd number of values is paired with 0.
    const bool serves = kept.count == count || (kept.count > count && count % 2 == 0);
    if (kept.value == p.value && kept.begin == begin && serves) return;
    kept = {p.value, begin, count};
    interleave_values(p, begin, count);
  }

  HEADWISE_NOINLINE bool values_finite(const HeadProblem<float>& p, i64 count) const {
    V zeros = V::zero();  // x * 0 is NaN for an infinity or a NaN
    for (i64 j = 0; j < pairs_of(count); ++j)
      for (i64 d = 0; d < p.value_dim; d += W)
        zeros = Pairs::fma(Pairs::load(values_ + j * columns_ + d), Pairs::broadcast({}), zeros);
    return zeros.sum() == 0;
  }

  bf16_pair* probabilities(float*) const { return probabilities_; }
  // Of two keys, for a vector of rows.
  static HEADWISE_INLINE void store(const V (&p)[2], bf16_pair* to) { Pairs::pair(p[0], p[1]).store(to); }
  // Of one row, from its key j on.
  HEADWISE_INLINE void store_few(i64 r, i64 j, V p) const {
    p.store(reinterpret_cast<bf16*>(probabilities_) + r * kKeyBlock + j, V::first_lanes(W));
  }

  template <class KeysOf, class Finish, class Ahead>
  HEADWISE_INLINE void accumulate(const HeadProblem<float>& p, float*, i64 rows, i64 lanes, KeysOf&& keys_of,
                                  Finish&& finish, const Ahead& ask_ahead) {
    multiply<false, kAccumulatedRows>(
        Factor<bf16_pair>(probabilities_, sizeof(bf16_pair), lanes), rows, values_, columns_, p.value_dim,
        [&](i64 r) { return pairs_of(keys_of(r)); }, finish, ask_ahead);
  }

  template <class Finish, class Ahead>
  HEADWISE_INLINE void accumulate_few(const HeadProblem<float>& p, float*, i64 rows, i64 count,
                                      Finish&& finish, const Ahead& ask_ahead) {
    multiply<false, kFewQueries<bf16_pair>>(
        Factor<bf16_pair>(probabilities_, pairs_of(kKeyBlock) * i64(sizeof(bf16_pair)), 1), rows, values_,
        columns_, p.value_dim, [=](i64) { return pairs_of(count); }, finish, ask_ahead);
  }

  // As accumulate(), but what a row does not attend is 0 and not its value times 0.
  template <class Mask, class Finish>
  HEADWISE_NOINLINE void accumulate_attended(const HeadProblem<float>& p, const Mask& mask, float*, i64 count,
                                             i64 rows, i64 lanes, Finish&& finish) {
    for (i64 r = 0; r < rows; ++r)
      for (i64 d = 0; d < p.value_dim; d += W) {
        V sum[1][1] = {{V::zero()}};
        for (i64 j = 0; j < count; j += 2) {
          const bool second = j + 1 < count && mask.attended(j + 1, r);
          const Pairs value = Pairs::load(values_ + j / 2 * columns_ + d).only(mask.attended(j, r), second);
          sum[0][0] = Pairs::fma(Pairs::broadcast(probabilities_[j / 2 * lanes + r]), value, sum[0][0]);
        }
        finish(r, d, sum);
      }
  }

 private:
  // A block of interleaved values, of which head and which it is.
  struct Kept {
    const char* value = nullptr;
    i64 begin = 0, count = 0;
  };
  // 4096 keys of 128 values.
  static constexpr i64 kMaxKept = 32, kKeptBytes = i64(1) << 20;

  // values[j / 2][d] = V[j][d], V[j + 1][d]; a last key without a partner is paired with 0.
  HEADWISE_NOINLINE void interleave_values(const HeadProblem<float>& p, i64 begin, i64 count) {
    for (i64 j = 0; j < count; j += 2) {
      const bf16* first = reinterpret_cast<const bf16*>(p.value) + (begin + j) * p.value_row;
      const bf16* second = first + p.value_row;
      i64 d = 0;
      if (j + 1 < count)
        for (; d + 2 * W <= p.value_dim; d += 2 * W)
          Pairs::pairs(first + d, second + d, values_ + j / 2 * columns_ + d);
      for (; d < p.value_dim; d += W) {
        const i64 left = p.value_dim - d;
        const Pairs pairs = j + 1 < count ? Pairs::pair(first + d, second + d, left)
                                          : Pairs::pair(first + d, first + d, left).only(true, false);
        pairs.store(values_ + j / 2 * columns_ + d);
      }
    }
  }

  template <class Finish>
  HEADWISE_INLINE auto scaled(Finish& finish) const {
    return [&finish, scale = V::broadcast(scale_now_)]<int R, int C>(i64 j, i64 lane, V(&s)[R][C])
               HEADWISE_INLINE_LAMBDA {
                 unroll<R>([&](auto r) HEADWISE_INLINE_LAMBDA {
                   unroll<C>([&](auto c) HEADWISE_INLINE_LAMBDA { s[r][c] = s[r][c] * scale; });
                 });
                 finish(j, lane, s);
               };
  }

  static i64 pairs_of(i64 n) { return ceil_div(n, 2); }

  // Where they lie; copied if a last number without a partner would be paired with what follows the row.
  Factor<bf16_pair> block_of_keys(const HeadProblem<float>& p, i64 begin, i64 count) {
    const bf16* keys = reinterpret_cast<const bf16*>(p.key) + begin * p.key_row;
    i64 row = p.key_row;
    if (p.head_dim % 2) {
      for (i64 j = 0; j < count; ++j) {
        bf16* to = keys_ + j * (p.head_dim + 1);
        __builtin_memcpy(to, keys + j * row, size_t(2 * p.head_dim));
        to[p.head_dim] = {};
      }
      keys = keys_, row = p.head_dim + 1;
    }
    return {reinterpret_cast<const bf16_pair*>(keys), row * 2, 1};
  }

  bf16_pair* query_t_;  // [pairs of D][lanes]
  bf16* keys_;          // [block][D + 1], for odd D alone
  i64 block_pairs_, kept_blocks_;
  bf16_pair* kept_values_;  // [kept blocks][pairs of a block][columns]
  Kept kept_[kMaxKept];
  bf16_pair* values_ = nullptr;  // the present one of these
  bf16_pair* probabilities_;     // [pairs of a block][lanes]
  i64 columns_ = 0;
  float scale_now_ = 1, scale_later_ = 1;
};

}  // namespace
