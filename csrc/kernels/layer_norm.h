// Layer normalisation (Ba, Kiros and Hinton, 2016) and RMSNorm (Zhang and Sennrich, 2019) of rows, with the
// residual added first.
#pragma once
#include <math.h>

#include "rows.h"

namespace {

template <class T>
void layer_norm_row(const hw_layer_norm_params& a, i64 m) {
  using V = Vec<T>;
  constexpr int W = V::kLanes;
  const i64 n = a.columns;
  const T* x = static_cast<const T*>(a.input) + m * a.input_stride;
  const T* residual = static_cast<const T*>(a.residual);
  if (residual) residual += m * a.residual_stride;
  const T* weight = static_cast<const T*>(a.weight);
  const T* bias = static_cast<const T*>(a.bias);
  T* out = static_cast<T*>(a.out) + m * a.out_stride;

  // pass 1: the mean of x + residual, which is kept in the output.
  const i64 vectors = ceil_div(n, W);
  const T* added = x;
  if (residual) {
    for (i64 i = 0; i < n; i += W)
      store_to_row(load_of_row<V>(x, i, n) + load_of_row<V>(residual, i, n), out, i, n);
    added = out;
  }
  const auto number = [&](i64 v) HEADWISE_INLINE_LAMBDA { return load_of_row<V>(added, v * W, n); };
  const V mean = V::broadcast(a.rms ? T(0) : pairwise_sum<V>(0, vectors, number).sum() / T(n));

  // pass 2: the variance about the mean; E[x^2] - mean^2 would cancel.
  const auto squared = [&](i64 v) HEADWISE_INLINE_LAMBDA {
    const V d = number(v) - mean;
    return n - v * W >= W ? d * d : V::select(V::first_lanes(n - v * W), d * d, V::zero());
  };
  const T variance = pairwise_sum<V>(0, vectors, squared).sum() / T(n);
  const V scale = V::broadcast(T(1) / T(sqrt(double(variance) + a.epsilon)));

  // pass 3: normalise.
  for (i64 i = 0; i < n; i += W) {
    V v = (number(i / W) - mean) * scale;
    const V shift = bias ? load_of_row<V>(bias, i, n) : V::zero();
    v = weight ? V::fma(v, load_of_row<V>(weight, i, n), shift) : v + shift;
    store_to_row(v, out, i, n);
  }
}

template <class T>
hw_status layer_norm(const hw_layer_norm_params& a) {
  return for_each_row(a.rows, a.columns, 8.0, [&](i64 m) { layer_norm_row<T>(a, m); });
}

}  // namespace
