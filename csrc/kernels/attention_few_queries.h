// A block of keys of a tile of few rows, with keys as lanes: there are not enough rows to fill a vector. Each
// row's operations and their order are those of a tile of many, and so are its bits.
//
// Few rows wait for keys and values, so memory must never rest: values are asked for with each line of keys
// scored, in the order in which they lie, and the next keys with each value multiplied.
#pragma once
#include "attention_softmax.h"

namespace {

template <class Products>
class FewQueries {
  using T = typename Products::Real;
  using V = Vec<T>;
  static constexpr int W = V::kLanes;
  using Keys = Vecs<T, 4>;  // vectors that take the steps of a power of 2 together
  static constexpr i64 kStep = 4 * W;
  static_assert(kKeyBlock % kStep == 0);

 public:
  // scores: [rows][kKeyBlock].
  FewQueries(const HeadProblem<T>& problem, Products& products, T* scores, i64 rows)
      : p_(problem), products_(products), scores_(scores), rows_(rows) {}

  // The scores of all rows; -inf past the last key.
  HEADWISE_NOINLINE void score(i64 begin, i64 count) {
    T* const scores = scores_;
    const V minus_infinity = V::broadcast(-kInfinity<T>);
    LinesAhead values = p_.values_ahead(begin, count);
    products_.score_few(p_, begin, count, rows_, values, [&]<int R>(i64 j, V(&s)[R]) HEADWISE_INLINE_LAMBDA {
      const auto present = V::first_lanes(count - j);
      unroll<R>([&](auto r) HEADWISE_INLINE_LAMBDA {
        V::select(present, s[r], minus_infinity).store(scores + r * kKeyBlock + j);
      });
    });
    values.ask_for_rest();
    for (i64 r = 0; r < rows_; ++r)
      for (i64 j = round_up(count, W); j < round_up(count, kStep); j += W)
        minus_infinity.store(scores + r * kKeyBlock + j);
  }

  // scores -> 2^(score - max), with max and sum brought up to date, and what the output so far is to be
  // multiplied by.
  HEADWISE_NOINLINE void exponentiate(const SoftmaxState<T>& state, T* rescale, i64 begin, i64 count) {
    const i64 first = clamp(Products::kFirstKeys - begin % kKeyBlock, 0, count);
    T largest[W], first_largest[W], max[W], sums[W];
    V::broadcast(-kInfinity<T>).store(largest);
    V::broadcast(-kInfinity<T>).store(first_largest);
    V::zero().store(sums);
    for (i64 r = 0; r < rows_; ++r) {
      largest[r] = largest_of(scores_ + r * kKeyBlock, count);
      first_largest[r] = largest_of(scores_ + r * kKeyBlock, first);
    }
    const auto scale = products_.scale();
    const V old_max = V::load(state.max);
    const V new_max = raised(old_max, scale.times(V::load(first_largest)), scale.times(V::load(largest)));
    new_max.store(state.max);
    finite(new_max).store(max);
    power_of_2(old_max - finite(new_max)).store(rescale);
    with_constant<kFewQueries<T>>(int(rows_), [&](auto rows) {
      for (i64 j = 0; j < count; j += kStep) {
        T* const scores = scores_ + j;
        unroll<rows>([&](auto r) HEADWISE_INLINE_LAMBDA {
          T* const s = scores + r * kKeyBlock;
          const V row_max = V::broadcast(max[r]);
          const Keys p = Products::exp2(Keys::of(
              [&](auto i) HEADWISE_INLINE_LAMBDA { return scale.times_less(V::load(s + i * W), row_max); }));
          unroll<4>([&](auto i) HEADWISE_INLINE_LAMBDA {
            p.each[i].store(s + i * W);
            products_.store_few(r, j + i * W, p.each[i]);
          });
        });
        for (i64 k = 0; k < min_of(count - j, kStep); ++k)  // one after the other, as in lanes of rows
          unroll<rows>([&](auto r) HEADWISE_INLINE_LAMBDA { sums[r] += scores[r * kKeyBlock + k]; });
      }
    });
    V::fma(V::load(state.sum), V::load(rescale), V::load(sums)).store(state.sum);
  }

  // P V. The keys from the block's end to `next_end` are asked for.
  template <class Add>
  HEADWISE_NOINLINE void accumulate(i64 begin, i64 count, i64 next_end, Add&& add) {
    products_.load_values(p_, begin, count);
    const i64 size = size_of(p_.dtype), row_bytes = p_.key_row * size, next_count = next_end - begin - count;
    const char* const next = p_.key + (begin + count) * row_bytes;
    const i64 bytes = p_.head_dim * size;
    const bool apart = row_bytes != bytes;  // a row that does not begin on a line ends in one more
    products_.accumulate_few(p_, scores_, rows_, count, add,
                             [=](i64 step, i64 column, i64 columns) HEADWISE_INLINE_LAMBDA {
                               unroll<Products::kKeysPerStep>([&](auto k) HEADWISE_INLINE_LAMBDA {
                                 const i64 key = step * Products::kKeysPerStep + k;
                                 if (key >= next_count) return;
                                 const char* const row = next + key * row_bytes;
                                 const i64 end = (column + columns) * size;
                                 for (i64 byte = column * size; byte < end; byte += kLineBytes)
                                   ask_for_line(row + byte);
                                 if (apart && end >= bytes) ask_for_line(row + bytes - 1);
                               });
                             });
  }

  // turned[j][r] = scores[r][j], as the scores of many rows lie, for what goes by those; and each row's
  // largest.
  void turn(i64 count, T* turned, T* block_max) const {
    V largest = V::broadcast(-kInfinity<T>);
    for (i64 j = 0; j < count; j += W) {
      V block[W];
      for (i64 r = 0; r < W; ++r) block[r] = r < rows_ ? V::load(scores_ + r * kKeyBlock + j) : V::zero();
      V::transpose(block);
      for (i64 i = 0; i < min_of(i64(W), count - j); ++i) {
        block[i].store(turned + (j + i) * W);
        largest = V::max(block[i], largest);  // this order skips a NaN
      }
    }
    largest.store(block_max);
  }
  void turn_back(i64 count, const T* turned) {
    for (i64 j = 0; j < count; j += W) {
      V block[W];
      for (i64 i = 0; i < W; ++i)
        block[i] = j + i < count ? V::load(turned + (j + i) * W) : V::broadcast(-kInfinity<T>);
      V::transpose(block);
      for (i64 r = 0; r < rows_; ++r) block[r].store(scores_ + r * kKeyBlock + j);
    }
  }

 private:
  static T largest_of(const T* scores, i64 count) {
    V largest = V::broadcast(-kInfinity<T>);
    for (i64 j = 0; j < count; j += W) {
      const V s = V::select(V::first_lanes(count - j), V::load(scores + j), V::broadcast(-kInfinity<T>));
      largest = V::max(s, largest);  // this order skips a NaN
    }
    return largest.largest();
  }

  const HeadProblem<T>& p_;
  Products& products_;
  T* scores_;
  i64 rows_;
};

}  // namespace
