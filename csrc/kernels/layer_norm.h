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

  // pass 1: x + residual, and its mean.
  const i64 vectors = ceil_div(n, W);
  const auto added = [&](i64 vector) {
    const i64 i = vector * W;
    const auto inside = V::first_lanes(n - i);
    V v = V::load(x + i, inside);
    if (residual) v = v + V::load(residual + i, inside);
    v.store(out + i, inside);
    return v;
  };
  const T sum = pairwise_sum<V>(0, vectors, added).sum();
  const V mean = V::broadcast(a.rms ? T(0) : sum / T(n));

  // pass 2: the variance about the mean; E[x^2] - mean^2 would cancel.
  const auto squared = [&](i64 vector) {
    const i64 i = vector * W;
    const auto inside = V::first_lanes(n - i);
    const V d = V::select(inside, V::load(out + i, inside) - mean, V::zero());
    return d * d;
  };
  const T variance = pairwise_sum<V>(0, vectors, squared).sum() / T(n);
  const V scale = V::broadcast(T(1) / T(sqrt(double(variance) + a.epsilon)));

  // pass 3: normalise.
  for (i64 i = 0; i < n; i += W) {
    const auto inside = V::first_lanes(n - i);
    V v = (V::load(out + i, inside) - mean) * scale;
    const V shift = bias ? V::load(bias + i, inside) : V::zero();
    v = weight ? V::fma(v, V::load(weight + i, inside), shift) : v + shift;
    v.store(out + i, inside);
  }
}

template <class T>
hw_status layer_norm(const hw_layer_norm_params& a) {
  return for_each_row(a.rows, a.columns, 8.0, [&](i64 m) { layer_norm_row<T>(a, m); });
}

}  // namespace
