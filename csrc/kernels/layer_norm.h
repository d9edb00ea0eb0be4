// Layer normalisation (Ba, Kiros and Hinton, 2016) and RMSNorm (Zhang and Sennrich, 2019) of rows, with the
// residual added first.
#pragma once
#include <math.h>

#include "rows.h"

namespace {

// Rows begin .. end - 1, at most kRowsAtOnce. Each pass goes over all of them, as a row by itself would
// mostly wait for the end of its sum, its quotient, its root.
constexpr i64 kRowsAtOnce = 4;

template <class T>
void layer_norm_rows(const hw_layer_norm_params& a, i64 begin, i64 end) {
  using V = Vec<T>;
  constexpr int W = V::kLanes;
  const i64 n = a.columns, vectors = ceil_div(n, W);
  const T* weight = static_cast<const T*>(a.weight);
  const T* bias = static_cast<const T*>(a.bias);
  const auto input = [&](i64 m) { return static_cast<const T*>(a.input) + m * a.input_stride; };
  const auto out = [&](i64 m) { return static_cast<T*>(a.out) + m * a.out_stride; };
  const auto added = [&](i64 m) { return a.residual ? out(m) : input(m); };
  V mean[kRowsAtOnce], scale[kRowsAtOnce];

  // pass 1: the mean of x + residual, which is kept in the output.
  for (i64 m = begin; m < end; ++m) {
    if (a.residual) {
      const T* residual = static_cast<const T*>(a.residual) + m * a.residual_stride;
      for (i64 i = 0; i < n; i += W)
        store_to_row(load_of_row<V>(input(m), i, n) + load_of_row<V>(residual, i, n), out(m), i, n);
    }
    const T* x = added(m);
    const auto number = [&](i64 v) HEADWISE_INLINE_LAMBDA { return load_of_row<V>(x, v * W, n); };
    mean[m - begin] = V::broadcast(a.rms ? T(0) : pairwise_sum<V>(0, vectors, number).sum() / T(n));
  }

  // pass 2: the variance about the mean; E[x^2] - mean^2 would cancel.
  for (i64 m = begin; m < end; ++m) {
    const T* x = added(m);
    const V about = mean[m - begin];
    const auto squared = [&](i64 v) HEADWISE_INLINE_LAMBDA {
      const V d = load_of_row<V>(x, v * W, n) - about;
      return n - v * W >= W ? d * d : V::select(V::first_lanes(n - v * W), d * d, V::zero());
    };
    const T variance = pairwise_sum<V>(0, vectors, squared).sum() / T(n);
    scale[m - begin] = V::broadcast(T(1) / T(sqrt(double(variance) + a.epsilon)));
  }

  // pass 3: normalise.
  for (i64 m = begin; m < end; ++m) {
    const T* x = added(m);
    T* y = out(m);
    const V about = mean[m - begin], factor = scale[m - begin];
    for (i64 i = 0; i < n; i += W) {
      V v = (load_of_row<V>(x, i, n) - about) * factor;
      const V shift = bias ? load_of_row<V>(bias, i, n) : V::zero();
      v = weight ? V::fma(v, load_of_row<V>(weight, i, n), shift) : v + shift;
      store_to_row(v, y, i, n);
    }
  }
}

template <class T>
hw_status layer_norm(const hw_layer_norm_params& a) {
  return for_each_rows<kRowsAtOnce>(a.rows, a.columns, 8.0,
                                    [&](i64 begin, i64 end) { layer_norm_rows<T>(a, begin, end); });
}

}  // namespace
