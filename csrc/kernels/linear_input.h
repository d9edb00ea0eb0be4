// The rows of a linear layer's input as elements that its weight is multiplied with: where they lie, rounded
// to bfloat16, or quantised to 8 bits.
#pragma once
#include <math.h>

#include "../packed_weight.h"
#include "arena.h"
#include "rows.h"
#include "tile.h"

namespace {

// A quantised row: x = scale * (byte - zero_point).
struct RowScale {
  float scale;
  int32_t zero_point;
};

// row(pointer to its numbers) for rows begin .. end - 1, of float32 or bfloat16.
template <class Row>
HEADWISE_INLINE void for_each_input(const hw_linear_params& a, i64 begin, i64 end, Row&& row) {
  for (i64 m = begin; m < end; ++m) {
    if (a.input_dtype == HW_BFLOAT16)
      row(m, static_cast<const bf16*>(a.input) + m * a.input_stride);
    else
      row(m, static_cast<const float*>(a.input) + m * a.input_stride);
  }
}

template <class E>
class LinearInput {
 public:
  LinearInput(const hw_linear_params& a, i64, i64, Arena&) : a_(a) {}
  void read(i64 begin, i64) { begin_ = begin; }
  Factor<E> rows() const {
    return {static_cast<const E*>(a_.input) + begin_ * a_.input_stride, a_.input_stride * i64(sizeof(E)), 1};
  }
  i64 steps() const { return a_.in_features; }
  const RowScale* scales() const { return nullptr; }

 private:
  const hw_linear_params& a_;
  i64 begin_ = 0;
};

template <>
class LinearInput<bf16_pair> {
  using V = Vec<float>;

 public:
  LinearInput(const hw_linear_params& a, i64 steps, i64 rows, Arena& arena)
      : a_(a),
        steps_(steps),
        in_place_(a.input_dtype == HW_BFLOAT16 && a.in_features % 2 == 0),
        row_(round_up(2 * steps, V::kLanes)),
        rounded_(in_place_ ? nullptr : arena.take<bf16>(rows * row_)) {}

  void read(i64 begin, i64 end) {
    begin_ = begin;
    if (in_place_) return;
    for_each_input(a_, begin, end, [&](i64 m, const auto* x) {
      bf16* to = rounded_ + (m - begin) * row_;
      for (i64 i = 0; i < row_; i += V::kLanes)
        load_of_row<V>(x, i, a_.in_features).store(to + i, V::first_lanes(V::kLanes));
    });
  }
  Factor<bf16_pair> rows() const {
    const bf16* first = in_place_ ? static_cast<const bf16*>(a_.input) + begin_ * a_.input_stride : rounded_;
    return {reinterpret_cast<const bf16_pair*>(first),
            (in_place_ ? a_.input_stride : row_) * i64(sizeof(bf16)), 1};
  }
  i64 steps() const { return steps_; }
  const RowScale* scales() const { return nullptr; }

 private:
  const hw_linear_params& a_;
  i64 steps_;
  bool in_place_;
  i64 row_;
  bf16* rounded_;
  i64 begin_ = 0;
};

// The bytes 0 .. 255 span the row from its least number to its largest, and 0. They are the same on every
// instruction set: each number is multiplied, rounded, and that is all.
template <>
class LinearInput<int8_quad> {
  using V = Vec<float>;

 public:
  LinearInput(const hw_linear_params& a, i64 steps, i64 rows, Arena& arena)
      : a_(a),
        steps_(steps),
        row_(round_up(4 * steps, V::kLanes)),
        bytes_(arena.take<uint8_t>(rows * row_)),
        scales_(arena.take<RowScale>(rows)) {}

  void read(i64 begin, i64 end) {
    for_each_input(a_, begin, end, [&](i64 m, const auto* x) {
      // pass 1: the ends of the row, and NaN if a number is not finite.
      V least = V::zero(), most = V::zero(), finite = V::zero();
      for (i64 i = 0; i < a_.in_features; i += V::kLanes) {
        const V v = load_of_row<V>(x, i, a_.in_features);
        least = V::min(v, least);
        most = V::max(v, most);
        finite = V::fma(v, V::zero(), finite);
      }
      const float low = -(V::zero() - least).largest(), scale = most.largest() / 255 - low / 255;
      const bool usable = scale > 1e-37f;  // its inverse would be infinite
      const float inverse = usable ? 1 / scale : 0;
      const int32_t zero_point = usable ? int32_t(rintf(-low * inverse)) : 0;
      scales_[m - begin] = {(usable ? scale : 0) + finite.sum(), zero_point};
      // pass 2: the bytes.
      uint8_t* to = bytes_ + (m - begin) * row_;
      for (i64 i = 0; i < row_; i += V::kLanes)
        (load_of_row<V>(x, i, a_.in_features) * V::broadcast(inverse)).store_bytes(to + i, zero_point);
    });
  }
  Factor<int8_quad> rows() const { return {reinterpret_cast<const int8_quad*>(bytes_), row_, 1}; }
  i64 steps() const { return steps_; }
  const RowScale* scales() const { return scales_; }

 private:
  const hw_linear_params& a_;
  i64 steps_, row_;
  uint8_t* bytes_;
  RowScale* scales_;
};

}  // namespace
