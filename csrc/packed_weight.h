// How a weight (N, K) lies once it is packed: the same for every instruction set.
//
//   elements [panel][step][lane]: a row of a panel is 192 bytes, so 3 vectors of AVX-512; lane n of panel p
//   is output feature p * lanes + n. A step is one input feature of float32 or float64, two neighbours of
//   bfloat16, four of int8. Features past N or K are 0.
//   then, for int8 alone, [panels * lanes] each: float scales, and the int32 sums of each feature's q.
//
// int8 is symmetric, one scale an output feature: w = scale * q with q in -127 .. 127.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "include/headwise.h"

namespace {

constexpr int64_t kPanelRowBytes = 192;

struct PackedWeight {
  int64_t lanes, panels, steps;

  PackedWeight(hw_dtype dtype, int64_t out_features, int64_t in_features) {
    const int64_t features_per_step = dtype == HW_INT8 ? 4 : dtype == HW_BFLOAT16 ? 2 : 1;
    lanes = kPanelRowBytes / (dtype == HW_FLOAT64 ? 8 : 4);
    panels = (out_features + lanes - 1) / lanes;
    steps = (in_features + features_per_step - 1) / features_per_step;
    is_int8_ = dtype == HW_INT8;
  }

  int64_t panel_bytes() const { return steps * kPanelRowBytes; }
  size_t bytes() const {
    return size_t(panels * panel_bytes()) + (is_int8_ ? size_t(panels * lanes) * 8 : 0);
  }
  const float* scales(const void* packed) const {
    return reinterpret_cast<const float*>(static_cast<const char*>(packed) + panels * panel_bytes());
  }
  const int32_t* weight_sums(const void* packed) const {
    return reinterpret_cast<const int32_t*>(scales(packed) + panels * lanes);
  }

 private:
  bool is_int8_;
};

}  // namespace
