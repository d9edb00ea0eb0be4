// float32 products two at a time, for CPUs whose adders work beside their multipliers.
//
//   x1 y1 + x2 y2 = (x1 + y2) (x2 + y1) - x1 x2 - y1 y2 = x1 x2 + y1 y2 - (y2 - x1) (y1 - x2)
//
// (Winograd, "A New Algorithm for Inner Product", 1968): one multiplication for two, and two additions, which
// other units do. x1 x2 depends on the row alone and y1 y2 on the column alone, so that both are summed once,
// and each chain of sums begins with them. Of six steps four are in pairs: then 4 additions and 4
// multiply-adds stand for 6 multiply-adds, and both kinds of units are busy all the time.
//
// Rounding is relative to (|x1| + |y2|) (|x2| + |y1|). It is that of plain products where x and y are about
// as large: each row of the input and of the weight is multiplied by a power of 2, which is exact, to be
// about 1. The two forms take turns, as the sum of x1 x2 would grow with the length of a row of one sign.
#pragma once
#include "../chain.h"
#include "linear_epilogue.h"
#include "linear_input.h"

namespace {

// A number of such a row.
struct paired_float {
  float value;
};

template <>
struct Element<paired_float> : Element<float> {};

template <>
struct Vec<paired_float> {
  using Sum = Vec<float>;
  static constexpr int kOperandRegisters = 1;
};

// Of steps, a whole number of vectors and of cycles of pairs.
constexpr int kSignPeriod = 48;
static_assert(kSignPeriod % Vec<float>::kLanes == 0 && kSignPeriod % kPairCycle == 0 &&
              kChain % kSignPeriod == 0);
struct PairSigns {
  float number[kSignPeriod];
};
constexpr PairSigns kSigns = [] {
  PairSigns signs{};
  for (int i = 0; i < kSignPeriod; ++i) signs.number[i] = float(pair_sign(i));
  return signs;
}();

template <>
class LinearInput<paired_float> {
  using V = Vec<float>;

 public:
  LinearInput(const hw_linear_params& a, i64 steps, i64 rows, Arena& arena)
      : a_(a),
        steps_(steps),
        row_(round_up(steps, V::kLanes) + V::kLanes),  // zeros, for all lanes of the last load; rows a power
                                                       // of 2 apart would share cache sets
        chains_(ceil_div(steps, kChain)),
        scaled_(arena.take<float>(rows * row_)),
        offsets_(arena.take<float>(rows * chains_)),
        scales_(arena.take<RowScale>(rows)) {}

  void read(i64 begin, i64 end) {
    constexpr i64 kFew = 4;
    const float* x = static_cast<const float*>(a_.input) + begin * a_.input_stride;
    for (i64 first = 0, last; first < end - begin; first = last) {
      last = min_of(end - begin, first + kFew);
      for (i64 m = first; m < last; ++m) scale(m, x + m * a_.input_stride);
      // Rows later: a load that spans two stores would wait for both.
      for (i64 m = first; m < last; ++m)
        for (i64 begin_of_chain = 0; begin_of_chain < steps_; begin_of_chain += kChain)
          offsets_[m * chains_ + begin_of_chain / kChain] =
              -sum_of_pairs(scaled_ + m * row_ + begin_of_chain, min_of(kChain, steps_ - begin_of_chain));
    }
  }

  Factor<paired_float> rows() const {
    return {reinterpret_cast<const paired_float*>(scaled_), row_ * i64(sizeof(float)), 1};
  }
  i64 steps() const { return steps_; }
  const RowScale* scales() const { return scales_; }
  // [row][chain]: what the chain of each sum of the row begins with.
  const float* offsets() const { return offsets_; }
  i64 chains() const { return chains_; }

 private:
  static float power_of_2(int exponent) { return __builtin_bit_cast(float, uint32_t(exponent + 127) << 23); }

  // By the power of 2 nearest to the root mean square, if the row is normally distributed; from the mean of
  // its magnitudes, which a few large ones do not decide.
  void scale(i64 m, const float* x) {
    const float mean = mean_magnitude(x);
    const float size = mean * 1.7724539f;  // sqrt(pi / 2) sqrt(2)
    const int exponent = int(__builtin_bit_cast(uint32_t, size) >> 23) - 127;
    const float power = power_of_2(max_of(-126, min_of(126, exponent)));
    const bool finite = mean <= 3.4028235e38f;
    scales_[m] = {mean == 0 ? 0 : finite ? power : NAN, 0};
    const V inverse = V::broadcast(1 / power);
    float* to = scaled_ + m * row_;
    const i64 n = a_.in_features, row = row_;
    for (i64 i = 0; i < row; i += V::kLanes) (load_of_row<V>(x, i, n) * inverse).store(to + i);
  }

  float mean_magnitude(const float* x) const {
    const i64 n = a_.in_features, whole = n / V::kLanes;
    const V share = V::broadcast(1 / float(n));
    const V rest = V::abs(V::load(x + whole * V::kLanes, V::first_lanes(n % V::kLanes))) * share;
    const V mean = sum_of_few<V>(
        0, whole, [&](i64 i) HEADWISE_INLINE_LAMBDA { return V::abs(V::load(x + i * V::kLanes)) * share; });
    return (mean + rest).sum();
  }

  // Of x1 x2, with the sign of each pair, over steps of one chain.
  static float sum_of_pairs(const float* x, i64 steps) {
    constexpr int kVectors = kSignPeriod / V::kLanes;
    V sum[kVectors] = {V::zero(), V::zero(), V::zero()};
    const auto add = [&](i64 i, auto j) HEADWISE_INLINE_LAMBDA {
      const float* p = x + i + j * V::kLanes;
      sum[j] = V::fma(V::load(kSigns.number + j * V::kLanes) * V::load(p), V::load(p + 1), sum[j]);
    };
    i64 i = 0;
    for (; i + kSignPeriod <= steps; i += kSignPeriod)
      unroll<kVectors>([&](auto j) HEADWISE_INLINE_LAMBDA { add(i, j); });
    unroll<kVectors>([&](auto j) HEADWISE_INLINE_LAMBDA {
      if (i + j * V::kLanes < steps) add(i, j);
    });
    return (sum[0] + sum[1] + sum[2]).sum();
  }

  const hw_linear_params& a_;
  i64 steps_, row_, chains_;
  float *scaled_, *offsets_;
  RowScale* scales_;
};

template <>
struct ColumnScale<paired_float> {
  Vec<float> scale;

  ColumnScale() = default;
  ColumnScale(const SumTile<paired_float>& tile, i64 n)
      : scale(Vec<float>::load(tile.layout.scales(tile.packed) + n)) {}
  HEADWISE_INLINE Vec<float> apply(Vec<float> sum, const RowScale* row) const {
    return sum * (Vec<float>::broadcast(row->scale) * scale);
  }
};

template <>
class Chains<paired_float> {
  using V = Vec<float>;

 public:
  Chains(const LinearInput<paired_float>& input, const PackedWeight& layout, const void* packed, i64 column)
      : row_(input.offsets()),
        row_step_(input.chains()),
        column_(layout.pair_offsets(packed) + column),
        column_step_(layout.panels * layout.lanes) {}

  Chains from(i64 row) const {
    Chains rest = *this;
    rest.row_ += row * row_step_;
    return rest;
  }

  template <int Rows, int Columns>
  HEADWISE_INLINE void begin(V (&c)[Rows][Columns], i64 chain) const {
    unroll<Rows>([&](auto r) HEADWISE_INLINE_LAMBDA {
      const V row = V::broadcast(row_[r * row_step_ + chain]);
      unroll<Columns>([&](auto j) HEADWISE_INLINE_LAMBDA {
        c[r][j] = row + V::load(column_ + chain * column_step_ + j * V::kLanes);
      });
    });
  }

  // Steps begin .. end - 1, whole cycles.
  template <int Rows, int Columns, class Ahead>
  static HEADWISE_INLINE void add(Factor<paired_float> a, const paired_float* b, i64 b_step, i64 begin,
                                  i64 end, V (&c)[Rows][Columns], const Ahead& ask_ahead) {
    for (i64 k = begin; k < end; k += kPairCycle) {
      add_pair<true>(a, b, b_step, k, c, ask_ahead);
      add_one(a, b, b_step, k + 2, c, ask_ahead);
      add_pair<false>(a, b, b_step, k + 3, c, ask_ahead);
      add_one(a, b, b_step, k + 5, c, ask_ahead);
    }
  }

 private:
  template <bool Adds, int Rows, int Columns, class Ahead>
  static HEADWISE_INLINE void add_pair(Factor<paired_float> a, const paired_float* b, i64 b_step, i64 k,
                                       V (&c)[Rows][Columns], const Ahead& ask_ahead) {
    ask_ahead(k);
    ask_ahead(k + 1);
    unroll<Columns>([&](auto j) HEADWISE_INLINE_LAMBDA {
      const V first = V::load(&b[k * b_step + j * V::kLanes].value);
      const V second = V::load(&b[(k + 1) * b_step + j * V::kLanes].value);
      unroll<Rows>([&](auto r) HEADWISE_INLINE_LAMBDA {
        const paired_float* x = a.row(r) + k;
        c[r][j] = Adds ? V::add_product_of_sums(second, x[0].value, first, x[1].value, c[r][j])
                       : V::subtract_product_of_differences(second, x[0].value, first, x[1].value, c[r][j]);
      });
    });
  }

  template <int Rows, int Columns, class Ahead>
  static HEADWISE_INLINE void add_one(Factor<paired_float> a, const paired_float* b, i64 b_step, i64 k,
                                      V (&c)[Rows][Columns], const Ahead& ask_ahead) {
    ask_ahead(k);
    unroll<Columns>([&](auto j) HEADWISE_INLINE_LAMBDA {
      const V y = V::load(&b[k * b_step + j * V::kLanes].value);
      unroll<Rows>([&](auto r)
                       HEADWISE_INLINE_LAMBDA { c[r][j] = V::add_product(y, a.row(r)[k].value, c[r][j]); });
    });
  }

  const float* row_;
  i64 row_step_;
  const float* column_;
  i64 column_step_;
};

}  // namespace
