// How a weight (N, K) lies once it is packed: the same for every instruction set.
//
//   elements [panel][step][lane]: a row of a panel is 192 bytes, so 3 vectors of AVX-512; lane n of panel p
//   is output feature p * lanes + n. A step is one input feature of float32 or float64, two neighbours of
//   bfloat16, four of int8. Features past N or K are 0; in pairs K goes on to the end of a cycle (chain.h).
//   then, [panels * lanes] each: for int8 float scales, and the int32 sums of each feature's q; for float32
//   in pairs float scales, and for each chain (chain.h) minus the sum of the products of its pairs.
//
// int8 is symmetric, one scale an output feature: w = scale * q with q in -127 .. 127. In pairs w = scale * q
// too, with a scale that is a power of 2 and brings each feature's root mean square to about 1.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "chain.h"
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
    if (dtype == HW_FLOAT32_PAIRS) steps = (steps + kPairCycle - 1) / kPairCycle * kPairCycle;
    trailing_rows_ = dtype == HW_INT8 ? 2 : dtype == HW_FLOAT32_PAIRS ? 1 + (steps + kChain - 1) / kChain : 0;
  }

  int64_t panel_bytes() const { return steps * kPanelRowBytes; }
  size_t bytes() const { return size_t(panels * panel_bytes() + trailing_rows_ * panels * lanes * 4); }
  bool has_scales() const { return trailing_rows_ > 0; }
  const float* scales(const void* packed) const {
    return reinterpret_cast<const float*>(static_cast<const char*>(packed) + panels * panel_bytes());
  }
  const int32_t* weight_sums(const void* packed) const {
    return reinterpret_cast<const int32_t*>(scales(packed) + panels * lanes);
  }
  // [chain][panels * lanes]
  const float* pair_offsets(const void* packed) const { return scales(packed) + panels * lanes; }

 private:
  int64_t trailing_rows_;
};

}  // namespace
