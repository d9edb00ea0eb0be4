// What happens to a tile of sums on its way out: scales, bias, activation, residual, and where it is written.
#pragma once
#include "../simd/math.h"
#include "linear_input.h"

namespace {

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
// The same for layers whose factors are rounded to 9 bits and less.
struct CoarseGelu {
  static HEADWISE_INLINE Vec<float> apply(Vec<float> x) { return x * coarse_normal_cdf(x); }
};
// x / (1 + e^-x) (Elfwing, Uchibe and Doya, 2017).
struct Silu {
  template <class T>
  static HEADWISE_INLINE Vec<T> apply(Vec<T> x) {
    return x * sigmoid(x);
  }
};
// The same paper's approximation of x Phi(x): (x / 2) (1 + tanh(u)) = x sigmoid(2 u), u = sqrt(2 / pi) (x +
// 0.044715 x^3).
struct GeluTanh {
  template <class T>
  static HEADWISE_INLINE Vec<T> apply(Vec<T> x) {
    using V = Vec<T>;
    const V cubic = V::fma(x * x, V::broadcast(T(2 * 0.79788456080286535588 * 0.044715)),
                           V::broadcast(T(2 * 0.79788456080286535588)));
    return x * sigmoid(x * cubic);
  }
};

// The factor of each column that turns integer sums into numbers; other sums are what they are.
template <class E>
struct ColumnScales {
  ColumnScales(const PackedWeight&, const void*) {}
  HEADWISE_INLINE auto operator()(typename Vec<E>::Sum sum, i64, const RowScale*) const { return sum; }
};
template <>
struct ColumnScales<int8_quad> {
  const float* scales;
  const int32_t* weight_sums;

  ColumnScales(const PackedWeight& layout, const void* packed)
      : scales(layout.scales(packed)), weight_sums(layout.weight_sums(packed)) {}
  // scale_m scale_n sum((byte - zero_point) q) = scale_m scale_n (sum(byte q) - zero_point sum(q)).
  HEADWISE_INLINE Vec<float> operator()(Vec<int32_t> sum, i64 n, const RowScale* row) const {
    const Vec<int32_t> shift = Vec<int32_t>::broadcast(row->zero_point) * Vec<int32_t>::load(weight_sums + n);
    return (sum - shift).to_float() * (Vec<float>::broadcast(row->scale) * Vec<float>::load(scales + n));
  }
};

// Some rows of sums, [rows][kMaxTileVectors vectors], and what belongs to their columns.
template <class E>
struct SumTile {
  const typename Element<E>::Sum* sums;
  i64 first_row, rows, first_column;
  const RowScale* row_scales;
  ColumnScales<E> scales;
  const typename Element<E>::Real* bias;
};

inline void put_number(float x, float& out) { out = x; }
inline void put_number(double x, double& out) { out = x; }
inline void put_number(float x, bf16& out) { narrow(x, out); }

// Writes outputs n, n + 1, ... of row m; split into heads, each goes to its head's rows.
template <class V, class Number>
HEADWISE_INLINE void write_outputs(const hw_linear_params& a, V y, i64 m, i64 n) {
  Number* row = static_cast<Number*>(a.out) + m * a.out_stride;
  const i64 count = min_of(i64(V::kLanes), a.out_features - n);
  if (a.out_head_dim == 0) return y.store(row + n, V::first_lanes(count));
  const i64 column = n % a.out_head_dim;
  if (column + count <= a.out_head_dim)
    return y.store(row + n / a.out_head_dim * a.out_head_stride + column, V::first_lanes(count));
  decltype(y.sum()) lanes[V::kLanes];
  y.store(lanes);
  for (i64 i = 0; i < count; ++i)
    put_number(lanes[i], row[(n + i) / a.out_head_dim * a.out_head_stride + (n + i) % a.out_head_dim]);
}

// The second half of a gated layer: y times the first half, which is in the output, plus the residual.
struct Gate {};

template <class Activation, class Number, class E>
HEADWISE_NOINLINE void finish_rows(const hw_linear_params& a, const SumTile<E>& tile) {
  using T = typename Element<E>::Real;
  using V = Vec<T>;
  constexpr bool kGate = __is_same(Activation, Gate);
  const T* residual = a.gated && !kGate ? nullptr : static_cast<const T*>(a.residual);
  for (i64 c = 0; c < kMaxTileVectors; ++c) {
    const i64 n = tile.first_column + c * V::kLanes;
    if (n >= a.out_features) return;
    const auto inside = V::first_lanes(a.out_features - n);
    const V bias = tile.bias ? V::load(tile.bias + n, inside) : V::zero();
    for (i64 r = 0; r < tile.rows; ++r) {
      const i64 m = tile.first_row + r;
      const auto sum = Vec<E>::Sum::load(tile.sums + (r * kMaxTileVectors + c) * V::kLanes);
      V y = tile.scales(sum, n, tile.row_scales + r) + bias;
      if constexpr (kGate)
        y = y * V::load(static_cast<const Number*>(a.out) + m * a.out_stride + n, inside);
      else
        y = Activation::apply(y);
      if (residual) y = y + V::load(residual + m * a.residual_stride + n, inside);
      write_outputs<V, Number>(a, y, m, n);
    }
  }
}

template <class Activation, class E>
void finish_as(const hw_linear_params& a, const SumTile<E>& tile) {
  if constexpr (!__is_same(E, double))
    if (a.out_dtype == HW_BFLOAT16) return finish_rows<Activation, bf16>(a, tile);
  finish_rows<Activation, typename Element<E>::Real>(a, tile);
}

template <class E>
void finish_tile(const hw_linear_params& a, const SumTile<E>& tile) {
  switch (a.activation) {
    case HW_IDENTITY:
      return finish_as<Identity>(a, tile);
    case HW_RELU:
      return finish_as<Relu>(a, tile);
    case HW_GELU:
      if constexpr (Element<E>::kNumbers > 1)
        return finish_as<CoarseGelu>(a, tile);
      else
        return finish_as<Gelu>(a, tile);
    case HW_GELU_TANH:
      return finish_as<GeluTanh>(a, tile);
    case HW_SILU:
      return finish_as<Silu>(a, tile);
  }
}

}  // namespace
