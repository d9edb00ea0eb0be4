// The rows of a tile's output: sums of values that grow block by block, merged if they were formed in parts,
// and written once the softmax knows its sums.
#pragma once
#include "attention_softmax.h"

namespace {

template <class Products>
class TileOutput {
  using T = typename Products::Real;
  using Number = typename Products::Number;
  using V = Vec<T>;
  static constexpr int W = V::kLanes;

 public:
  // For rows first .. first + rows - 1. rescale: [lanes], by what the softmax wants the sums so far
  // multiplied. factors: [lanes], working memory.
  TileOutput(const HeadProblem<T>& problem, i64 first, i64 rows, T* rescale, T* factors)
      : p_(problem),
        first_(first),
        rows_(rows),
        lanes_(round_up(rows, W)),
        width_(SoftmaxState<T>::padded(problem.value_dim)),
        rescale_(rescale),
        factors_(factors) {}

  void reset(const SoftmaxState<T>& state) const {
    for (i64 i = 0; i < rows_ * width_; i += W) V::zero().store(state.out + i);
  }

  // out = rescale out + sum, or the sum where out is still empty: for register tiles of P V.
  auto added_to(const SoftmaxState<T>& state, bool empty) const {
    return [&state, empty, this]<int R, int C>(i64 row, i64 d, V(&sum)[R][C]) HEADWISE_INLINE_LAMBDA {
      const i64 width = width_;
      T* out = state.out + row * width + d;
      const T* rescale = rescale_ + row;
      const bool first = empty;
      unroll<R>([&](auto r) HEADWISE_INLINE_LAMBDA {
        const V weight = V::broadcast(rescale[r]);
        unroll<C>([&](auto c) HEADWISE_INLINE_LAMBDA {
          T* o = out + c * W;
          (first ? sum[r][c] : V::fma(V::load(o), weight, sum[r][c])).store(o);
        });
        out += width;
        forget_origin(out);
      });
    };
  }

  // Where a register tile of P V holds whole rows, of numbers as they are to lie in memory.
  bool can_be_written_by_tiles() const {
    return width_ <= kMaxTileVectors * W && size_of(p_.dtype) == i64(sizeof(Number));
  }

  // As added_to(), for the last block: what out would be is written, divided by the softmax's sum.
  auto written_after(const SoftmaxState<T>& state, bool empty) {
    invert(state.sum);
    is_written_ = true;
    return [&state, empty, this, walk = p_.walk(p_.out_strides, first_)]<int R, int C>(
               i64 row, i64, V(&sum)[R][C]) mutable HEADWISE_INLINE_LAMBDA {
      const i64 width = width_;
      const T *out = state.out + row * width, *rescale = rescale_ + row, *inverses = factors_ + row;
      const bool first = empty;
      const auto all = V::first_lanes(W), tail = V::first_lanes(p_.value_dim - (C - 1) * W);
      unroll<R>([&](auto r) HEADWISE_INLINE_LAMBDA {
        auto* to = reinterpret_cast<Number*>(p_.out) + walk.next();
        const V weight = V::broadcast(rescale[r]), inverse = V::broadcast(inverses[r]);
        unroll<C>([&](auto c) HEADWISE_INLINE_LAMBDA {
          const V whole = first ? sum[r][c] : V::fma(V::load(out + c * W), weight, sum[r][c]);
          normalized(whole, inverse).store(to + c * W, c + 1 < C ? all : tail);
        });
        out += width;
        forget_origin(out);
      });
    };
  }

  // total = total and part, weighted by 2^(their max - the larger one).
  void merge(const SoftmaxState<T>& total, const SoftmaxState<T>& part) const {
    for (i64 r = 0; r < lanes_; r += W) {
      const V total_max = V::load(total.max + r), part_max = V::load(part.max + r);
      const V max = V::max(part_max, total_max);
      const V total_weight = power_of_2(total_max - finite(max));
      const V part_weight = power_of_2(part_max - finite(max));
      max.store(total.max + r);
      V::fma(V::load(total.sum + r), total_weight, V::load(part.sum + r) * part_weight).store(total.sum + r);
      total_weight.store(rescale_ + r);
      part_weight.store(factors_ + r);
    }
    for (i64 r = 0; r < rows_; ++r)
      for (i64 d = r * width_; d < (r + 1) * width_; d += W) {
        const V part_out = V::load(part.out + d) * V::broadcast(factors_[r]);
        V::fma(V::load(total.out + d), V::broadcast(rescale_[r]), part_out).store(total.out + d);
      }
  }

  // Unless it is written: the state's output, and the rows' log-sum-exp if wanted.
  void write(const SoftmaxState<T>& state) const {
    if (!is_written_) write_rows(state);
    if (p_.lse)
      for (i64 r = 0; r < rows_; ++r)
        p_.lse[p_.element(p_.lse_strides, first_ + r)] = log_sum_exp(state.max[r], state.sum[r]);
  }

 private:
  void write_rows(const SoftmaxState<T>& state) const {
    invert(state.sum);
    with_element<T>(p_.dtype, [&](auto element) {
      auto* out = reinterpret_cast<decltype(element)*>(p_.out);
      const T *from = state.out, *inverses = factors_;
      const i64 width = width_, count = p_.value_dim;
      const auto all = V::first_lanes(W), tail = V::first_lanes(count - (width - W));
      RowWalk walk = p_.walk(p_.out_strides, first_);
      for (i64 r = 0; r < rows_; ++r, from += width) {
        auto* to = out + walk.next();
        const V inverse = V::broadcast(inverses[r]);
        const auto put = [&](i64 d, auto lanes) {
          normalized(V::load(from + d), inverse).store(to + d, lanes);
        };
        for (i64 d = 0; d < width - W; d += W) put(d, all);
        put(width - W, tail);
      }
    });
  }

  void invert(const T* sum) const {
    for (i64 r = 0; r < lanes_; r += W) reciprocal(V::load(sum + r)).store(factors_ + r);
  }

  // Adding 0 turns the -0 of an underflow into the +0 that a masked key's 0 would have made.
  static HEADWISE_INLINE V normalized(V out, V inverse) { return V::fma(out, inverse, V::zero()); }

  const HeadProblem<T>& p_;
  i64 first_, rows_, lanes_, width_;
  T *rescale_, *factors_;
  bool is_written_ = false;
};

}  // namespace
