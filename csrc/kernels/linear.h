// Linear layers: out = activation(X W^T + bias) + residual with W packed in panels.
//
// packed[panel][k][lane]: a panel holds 256 bytes of output features, whatever the ISA, so that a row of
// it is 4 vectors of AVX-512. X (M, K) is read where it lies.
#pragma once
#include "../parallel.h"
#include "../simd/math.h"
#include "tile.h"

namespace {

template <class T>
constexpr i64 kPanelLanes = 256 / sizeof(T);

struct Identity {
  template <class V>
  static V apply(V x) {
    return x;
  }
};
struct Relu {
  template <class T>
  static Vec<T> apply(Vec<T> x) {
    return Vec<T>::max(Vec<T>::zero(), x);  // this order keeps a NaN
  }
};
// x Phi(x) with the normal distribution's Phi, by erf (Hendrycks and Gimpel, 2016).
struct Gelu {
  template <class T>
  static HEADWISE_INLINE Vec<T> apply(Vec<T> x) {
    const Vec<T> half = x * Vec<T>::broadcast(T(0.5));
    return Vec<T>::fma(half, erf(x * Vec<T>::broadcast(T(0.70710678118654752440))), half);
  }
};

// Rows [begin, end) of the output against one panel.
template <class Activation, class T>
void linear_panel(const hw_linear_params& a, i64 begin, i64 end, i64 panel) {
  using V = Vec<T>;
  const T* weight = static_cast<const T*>(a.packed_weight) + panel * a.in_features * kPanelLanes<T>;
  const T* input = static_cast<const T*>(a.input);
  const T* bias = static_cast<const T*>(a.bias);
  const T* residual = static_cast<const T*>(a.residual);
  const Factor<T> rows(input + begin * a.input_stride, a.input_stride * i64(sizeof(T)), 1);
  for (i64 column = 0; column < kPanelLanes<T>; column += kMaxTileVectors * V::kLanes) {
    const i64 first = panel * kPanelLanes<T> + column;
    multiply_rows<kMaxTileVectors, false>(
        rows, end - begin, weight + column, kPanelLanes<T>, [&](i64) { return a.in_features; },
        V::first_lanes(0),
        [&]<int R, int C>(i64 row, V(&sum)[R][C]) HEADWISE_INLINE_LAMBDA {
          unroll<C>([&](auto c) HEADWISE_INLINE_LAMBDA {
            const i64 n = first + c * V::kLanes;
            const auto inside = V::first_lanes(a.out_features - n);
            const V b = bias ? V::load(bias + n, inside) : V::zero();
            unroll<R>([&](auto r) HEADWISE_INLINE_LAMBDA {
              const i64 m = begin + row + r;
              V y = Activation::apply(sum[r][c] + b);
              if (residual) y = y + V::load(residual + m * a.residual_stride + n, inside);
              y.store(static_cast<T*>(a.out) + m * a.out_stride + n, inside);
            });
          });
        });
  }
}

// A block of rows stays in L2 (256 KB of its 1 MB) while the panels pass by.
template <class T>
i64 rows_per_block(i64 in_features) {
  const i64 fit = i64(256 << 10) / max_of(i64(1), in_features * i64(sizeof(T)));
  return round_up(max_of(i64(24), min_of(i64(192), fit)), max_tile_rows(kMaxTileVectors));
}

template <class Activation, class T>
hw_status linear(const hw_linear_params& a) {
  const i64 panels = ceil_div(a.out_features, kPanelLanes<T>);
  const i64 block = rows_per_block<T>(a.in_features), blocks = ceil_div(a.rows, block);
  const double flops = 2.0 * double(a.rows) * double(a.out_features) * double(a.in_features);
  const int threads = threads_for(flops, panels * blocks);
  // With few blocks of rows the panels are dealt out too, in groups.
  const i64 groups = min_of(panels, ceil_div(i64(4) * threads, blocks));
  return parallel_for(threads, blocks * groups, [&](TaskCounter& counter) {
    for (i64 task; (task = counter.next()) >= 0;) {
      const i64 begin = task / groups * block, group = task % groups;
      for (i64 p = panels * group / groups; p < panels * (group + 1) / groups; ++p)
        linear_panel<Activation, T>(a, begin, min_of(a.rows, begin + block), p);
    }
  });
}

template <class T>
hw_status linear(const hw_linear_params& a) {
  if (a.rows == 0 || a.out_features == 0) return HW_OK;
  switch (a.activation) {
    case HW_IDENTITY:
      return linear<Identity, T>(a);
    case HW_RELU:
      return linear<Relu, T>(a);
    case HW_GELU:
      return linear<Gelu, T>(a);
  }
  return HW_INVALID_ARGUMENT;
}

}  // namespace
