// Packing a weight, once, when a layer is made.
#include "packed_weight.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "simd/half.h"
#include "simd/quad.h"

namespace {

template <class T>
struct Source {
  const T* weight;
  int64_t row_stride, out_features, in_features;

  const T* row(int64_t n) const { return weight + n * row_stride; }
};

// put(element, row, k) for each element of the panels; row is null past the last.
template <class Element, class T, class Put>
void fill_panels(const PackedWeight& layout, const Source<T>& from, void* packed, int64_t features_per_step,
                 Put&& put) {
  Element* element = static_cast<Element*>(packed);
  for (int64_t first = 0; first < layout.panels * layout.lanes; first += layout.lanes)
    for (int64_t step = 0; step < layout.steps; ++step)
      for (int64_t n = first; n < first + layout.lanes; ++n)
        put(*element++, n < from.out_features ? n : -1, step * features_per_step);
}

template <class T>
void pack_plain(const PackedWeight& layout, const Source<T>& from, void* packed) {
  fill_panels<T>(layout, from, packed, 1,
                 [&](T& out, int64_t n, int64_t k) { out = n < 0 ? T(0) : from.row(n)[k]; });
}

// Output features that hold inf or NaN get a scale of NaN, those of zeros alone 0.
void pack_pairs(const PackedWeight& layout, const Source<float>& from, void* packed) {
  float* scales = const_cast<float*>(layout.scales(packed));
  float* offsets = const_cast<float*>(layout.pair_offsets(packed));
  const int64_t lanes = layout.panels * layout.lanes;
  std::vector<float> inverse(static_cast<size_t>(lanes), 1.0f);
  for (int64_t n = 0; n < lanes; ++n) {
    const bool present = n < from.out_features;
    double squares = 0;
    for (int64_t k = 0; present && k < from.in_features; ++k)
      squares += double(from.row(n)[k]) * double(from.row(n)[k]);
    scales[n] = std::isfinite(squares) ? 0 : std::numeric_limits<float>::quiet_NaN();
    if (std::isfinite(squares) && squares > 0) {
      const int exponent = std::ilogb(std::sqrt(2 * squares / double(from.in_features)));
      scales[n] = std::ldexp(1.0f, std::clamp(exponent, -126, 126));
      inverse[static_cast<size_t>(n)] = 1 / scales[n];
    }
    const double by = inverse[static_cast<size_t>(n)];
    for (int64_t begin = 0; begin < layout.steps; begin += kChain) {
      double sum = 0;
      for (int64_t k = begin; present && k < begin + kChain && k + 1 < from.in_features; ++k)
        sum += pair_sign(k) * (by * double(from.row(n)[k])) * (by * double(from.row(n)[k + 1]));
      offsets[begin / kChain * lanes + n] = static_cast<float>(-sum);
    }
  }
  fill_panels<float>(layout, from, packed, 1, [&](float& out, int64_t n, int64_t k) {
    out = n < 0 || k >= from.in_features ? 0.0f : from.row(n)[k] * inverse[static_cast<size_t>(n)];
  });
}

void pack_bfloat16(const PackedWeight& layout, const Source<float>& from, void* packed) {
  const auto at = [&](int64_t n, int64_t k) {
    return n < 0 || k >= from.in_features ? 0.0f : from.row(n)[k];
  };
  fill_panels<bf16_pair>(layout, from, packed, 2, [&](bf16_pair& out, int64_t n, int64_t k) {
    narrow(at(n, k), out.first);
    narrow(at(n, k + 1), out.second);
  });
}

void pack_int8(const PackedWeight& layout, const Source<float>& from, void* packed) {
  float* scales = const_cast<float*>(layout.scales(packed));
  int32_t* weight_sums = const_cast<int32_t*>(layout.weight_sums(packed));
  for (int64_t n = 0; n < layout.panels * layout.lanes; ++n) {
    float largest = 0;
    bool finite = true;
    for (int64_t k = 0; n < from.out_features && k < from.in_features; ++k) {
      const float magnitude = std::fabs(from.row(n)[k]);
      finite = finite && magnitude <= std::numeric_limits<float>::max();
      largest = magnitude > largest ? magnitude : largest;
    }
    scales[n] = finite ? largest / 127 : std::numeric_limits<float>::quiet_NaN();
    weight_sums[n] = 0;
  }
  fill_panels<int8_quad>(layout, from, packed, 4, [&](int8_quad& out, int64_t n, int64_t k) {
    out.bytes = 0;
    for (int64_t i = 0; n >= 0 && i < 4 && k + i < from.in_features; ++i) {
      const float scale = scales[n];
      const int q = scale > 0 ? static_cast<int>(std::nearbyint(from.row(n)[k + i] / scale)) : 0;
      out.bytes |= uint32_t(uint8_t(q)) << (8 * i);
      weight_sums[n] += q;
    }
  });
}

}  // namespace

extern "C" {

size_t hw_packed_weight_size(hw_dtype dtype, int64_t out_features, int64_t in_features) {
  return PackedWeight(dtype, out_features, in_features).bytes();
}

hw_status hw_pack_weight(hw_dtype dtype, const void* weight, int64_t row_stride, int64_t out_features,
                         int64_t in_features, void* packed) {
  if (out_features < 0 || in_features < 0) return HW_INVALID_ARGUMENT;
  if (out_features * in_features > 0 && !(weight && packed)) return HW_INVALID_ARGUMENT;
  const PackedWeight layout(dtype, out_features, in_features);
  const Source<float> from{static_cast<const float*>(weight), row_stride, out_features, in_features};
  switch (dtype) {
    case HW_FLOAT32:
      pack_plain(layout, from, packed);
      return HW_OK;
    case HW_FLOAT64:
      pack_plain(layout,
                 Source<double>{static_cast<const double*>(weight), row_stride, out_features, in_features},
                 packed);
      return HW_OK;
    case HW_FLOAT32_PAIRS:
      pack_pairs(layout, from, packed);
      return HW_OK;
    case HW_BFLOAT16:
      pack_bfloat16(layout, from, packed);
      return HW_OK;
    case HW_INT8:
      if (in_features > HEADWISE_MAX_INT8_FEATURES) return HW_INVALID_ARGUMENT;
      pack_int8(layout, from, packed);
      return HW_OK;
    default:
      return HW_INVALID_ARGUMENT;
  }
}

}  // extern "C"
