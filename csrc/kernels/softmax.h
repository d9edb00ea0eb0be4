// Softmax of rows: exp(x - max) / sum.
#pragma once
#include "../simd/math.h"
#include "rows.h"

namespace {

template <class T>
void softmax_row(const T* x, T* out, i64 n) {
  using V = Vec<T>;
  constexpr int W = V::kLanes;
  const auto load = [&](const T* p, i64 i, V other) {
    const auto inside = V::first_lanes(n - i);
    return i + W <= n ? V::load(p + i) : V::select(inside, V::load(p + i, inside), other);
  };
  const V minus_infinity = V::broadcast(-kInfinity<T>);

  // pass 1: the maximum. A NaN is skipped here and met again in pass 2.
  V largest = minus_infinity;
  for (i64 i = 0; i < n; i += W) largest = V::max(load(x, i, minus_infinity), largest);
  const T max = largest.largest();
  // A row of -inf has no probabilities: 0, as attention gives for a row that attends nothing.
  const V shift = V::broadcast(max == -kInfinity<T> ? T(0) : max);

  // pass 2: exp and sum.
  const auto exponential = [&](i64 vector) {
    const i64 i = vector * W;
    const V e = exp_nonpositive(load(x, i, minus_infinity) - shift);
    e.store(out + i, V::first_lanes(n - i));
    return e;
  };
  const T total = pairwise_sum<V>(0, ceil_div(n, W), exponential).sum();

  // pass 3: divide.
  const V inverse = V::broadcast(total == 0 ? T(0) : T(1) / total);
  for (i64 i = 0; i < n; i += W) {
    const auto inside = V::first_lanes(n - i);
    (V::load(out + i, inside) * inverse).store(out + i, inside);
  }
}

template <class T>
hw_status softmax(const hw_softmax_params& a) {
  return for_each_row(a.rows, a.columns, 16.0, [&](i64 m) {
    softmax_row(static_cast<const T*>(a.input) + m * a.input_stride,
                static_cast<T*>(a.out) + m * a.out_stride, a.columns);
  });
}

}  // namespace
