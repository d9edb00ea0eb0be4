// What happens to a tile of sums on its way out: scales, bias, activation, residual, and where it is written.
#pragma once
#include "../simd/gelu.h"
#include "linear_input.h"

namespace {

struct Identity {
  template <class V>
  static HEADWISE_INLINE V apply(V x) {
    return x;
  }
};
struct Relu {
  template <class V>
  static HEADWISE_INLINE V apply(V x) {
    return V::max(V::zero(), x);  // this order keeps a NaN
  }
};
struct Gelu {
  template <class V>
  static HEADWISE_INLINE V apply(V x) {
    return gelu(x);
  }
};
// The same for layers whose factors are rounded to 9 bits and less.
struct CoarseGelu {
  template <class V>
  static HEADWISE_INLINE V apply(V x) {
    return coarse_gelu(x);
  }
};
// x / (1 + e^-x) (Elfwing, Uchibe and Doya, 2017).
struct Silu {
  template <class V>
  static HEADWISE_INLINE V apply(V x) {
    return x * sigmoid(x);
  }
};
// The same paper's approximation of x Phi(x): (x / 2) (1 + tanh(u)) = x sigmoid(2 u), u = sqrt(2 / pi) (x +
// 0.044715 x^3).
struct GeluTanh {
  template <class V>
  static HEADWISE_INLINE V apply(V x) {
    using T = typename V::Number;
    const V cubic = V::fma(x * x, V::broadcast(T(2 * 0.79788456080286535588 * 0.044715)),
                           V::broadcast(T(2 * 0.79788456080286535588)));
    return x * sigmoid(x * cubic);
  }
};

// Some rows of sums, [rows][kLinearTileVectors vectors], and what belongs to them.
template <class E>
struct SumTile {
  const typename Element<E>::Sum* sums;
  i64 first_row, rows, first_column;
  const RowScale* row_scales;
  const PackedWeight& layout;
  const void* packed;
  const typename Element<E>::Real* bias;
  bool gates;  // of the second weight of a gated layer
};

// What turns sums of a vector of columns into numbers: nothing, if they are numbers.
template <class E>
struct ColumnScale {
  ColumnScale() = default;
  ColumnScale(const SumTile<E>&, i64) {}
  HEADWISE_INLINE auto apply(typename Vec<E>::Sum sum, const RowScale*) const { return sum; }
};
template <>
struct ColumnScale<float> {
  Vec<float> scale;

  ColumnScale() = default;
  ColumnScale(const SumTile<float>& tile, i64 n)
      : scale(tile.layout.has_scales() ? Vec<float>::load(tile.layout.scales(tile.packed) + n)
                                       : Vec<float>::broadcast(1)) {}
  HEADWISE_INLINE Vec<float> apply(Vec<float> sum, const RowScale*) const { return sum * scale; }
};
template <>
struct ColumnScale<int8_quad> {
  Vec<float> scale;
  Vec<int32_t> weight_sum;

  ColumnScale() = default;
  ColumnScale(const SumTile<int8_quad>& tile, i64 n)
      : scale(Vec<float>::load(tile.layout.scales(tile.packed) + n)),
        weight_sum(Vec<int32_t>::load(tile.layout.weight_sums(tile.packed) + n)) {}
  // scale_m scale_n sum((byte - zero_point) q) = scale_m scale_n (sum(byte q) - zero_point sum(q)).
  HEADWISE_INLINE Vec<float> apply(Vec<int32_t> sum, const RowScale* row) const {
    const Vec<int32_t> exact = sum - Vec<int32_t>::broadcast(row->zero_point) * weight_sum;
    return exact.to_float() * (Vec<float>::broadcast(row->scale) * scale);
  }
};

inline void put_number(float x, float& out) { out = x; }
inline void put_number(double x, double& out) { out = x; }
inline void put_number(float x, bf16& out) { narrow(x, out); }

// Where outputs n, n + 1, ... of the rows go; split into heads, each goes to its head's rows.
template <class Number>
class OutputColumns {
 public:
  OutputColumns() = default;
  OutputColumns(const hw_linear_params& a, i64 n, i64 count)
      : head_dim_(a.out_head_dim),
        head_stride_(a.out_head_stride),
        row_stride_(a.out_stride),
        n_(n),
        count_(count) {
    Number* out = static_cast<Number*>(a.out);
    const i64 head = head_dim_ ? n / head_dim_ : 0, column = n - head * head_dim_;
    straddles_ = head_dim_ && column + count > head_dim_;
    start_ = straddles_ ? out : out + head * head_stride_ + column;
  }

  template <class V>
  HEADWISE_INLINE V load(i64 m, typename V::Mask inside) const {
    return V::load(start_ + m * row_stride_, inside);
  }
  template <class V>
  HEADWISE_INLINE void store(V y, i64 m, typename V::Mask inside) const {
    if (!straddles_) return y.store(start_ + m * row_stride_, inside);
    decltype(y.sum()) lanes[V::kLanes];
    y.store(lanes);
    for (i64 i = 0; i < count_; ++i)
      put_number(lanes[i],
                 start_[(n_ + i) / head_dim_ * head_stride_ + m * row_stride_ + (n_ + i) % head_dim_]);
  }

 private:
  i64 head_dim_, head_stride_, row_stride_, n_, count_;
  bool straddles_;
  Number* start_;
};

// A piece of each output row, which is asked for some time before it is written: of an output larger than a
// core's cache, it would else be waited for.
class OutputAhead {
 public:
  OutputAhead(const hw_linear_params& a, i64 real_size, i64 column, i64 columns) {
    const i64 size = a.out_dtype == HW_BFLOAT16 ? 2 : real_size;
    const i64 head = a.out_head_dim ? column / a.out_head_dim : 0;
    const i64 start = head * a.out_head_stride + column - head * a.out_head_dim;
    first_ = static_cast<const char*>(a.out) + start * size;
    row_bytes_ = a.out_stride * size, bytes_ = columns * size;
    is_far_ = a.rows * a.out_features * size > kFarBytes;
  }

  bool is_far() const { return is_far_; }
  HEADWISE_INLINE void ask(i64 row, i64 rows) const {
    const char* p = first_ + row * row_bytes_;
    for (i64 r = 0; r < rows; ++r, p += row_bytes_)
      for (i64 byte = 0; byte < bytes_; byte += 64) __builtin_prefetch(p + byte, 1, 3);
  }

 private:
  static constexpr i64 kFarBytes = i64(512) << 10;  // of a core's own cache others have their part

  const char* first_;
  i64 row_bytes_, bytes_;
  bool is_far_;
};

// The second half of a gated layer: y times the first half, which is in the output, plus the residual.
struct Gate {};

// Row by row, so that the cache lines of the output are written whole.
template <class Activation, class Number, class E>
HEADWISE_NOINLINE void finish_rows(const hw_linear_params& a, const SumTile<E>& tile) {
  using T = typename Element<E>::Real;
  using V = Vec<T>;
  using Sum = typename Vec<E>::Sum;
  constexpr bool kGate = __is_same(Activation, Gate);
  constexpr int kVectors = kLinearTileVectors;
  using Row = Vecs<T, kVectors>;
  typename V::Mask inside[kVectors];
  V bias[kVectors];
  ColumnScale<E> scale[kVectors];
  OutputColumns<Number> out[kVectors];
  unroll<kVectors>([&](auto c) HEADWISE_INLINE_LAMBDA {
    const i64 n = tile.first_column + c * V::kLanes, count = min_of(i64(V::kLanes), a.out_features - n);
    inside[c] = V::first_lanes(count);
    bias[c] = tile.bias ? V::load(tile.bias + n, inside[c]) : V::zero();
    scale[c] = ColumnScale<E>(tile, n);
    out[c] = OutputColumns<Number>(a, n, count);
  });
  const i64 first = tile.first_row, rows = tile.rows, residual_stride = a.residual_stride;
  const bool adds = a.residual && (kGate || !a.gated);
  const T* residual =
      adds ? static_cast<const T*>(a.residual) + first * residual_stride + tile.first_column : nullptr;
  const typename Element<E>::Sum* sums = tile.sums;
  const RowScale* row_scale = tile.row_scales;
  for (i64 r = 0; r < rows; ++r, sums += kVectors * V::kLanes, ++row_scale) {
    Row y = Row::of([&](auto c) HEADWISE_INLINE_LAMBDA {
      return scale[c].apply(Sum::load(sums + c * V::kLanes), row_scale) + bias[c];
    });
    if constexpr (kGate)
      y = y * Row::of([&](auto c)
                          HEADWISE_INLINE_LAMBDA { return out[c].template load<V>(first + r, inside[c]); });
    else
      y = Activation::apply(y);
    if (adds)
      y = y + Row::of([&](auto c) HEADWISE_INLINE_LAMBDA {
            return V::load(residual + r * residual_stride + c * V::kLanes, inside[c]);
          });
    unroll<kVectors>([&](auto c) HEADWISE_INLINE_LAMBDA { out[c].store(y.each[c], first + r, inside[c]); });
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
  if (tile.gates) return finish_as<Gate>(a, tile);
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
