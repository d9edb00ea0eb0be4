// The face an ISA shows to dispatch.cpp: one function pointer an operation.
#pragma once
#include <stdint.h>

#include "include/headwise.h"

namespace headwise {

// What an ISA may have instructions of its own for. The probe: independent multiply-adds, in operations; sink
// has room for 64 bytes.
struct Bf16Kernels {
  hw_status (*attention)(const hw_attention_params&);
  hw_status (*linear)(const hw_linear_params&);
  double (*probe)(int64_t iterations, void* sink);
};
struct Int8Kernels {
  hw_status (*linear)(const hw_linear_params&);
  double (*probe)(int64_t iterations, void* sink);
};

struct PairKernels {
  hw_status (*linear)(const hw_linear_params&);
};

struct ReducedKernels {
  Bf16Kernels bf16;
  Int8Kernels int8;
};

struct KernelTable {
  hw_status (*attention)(const hw_attention_params&);  // all dtypes, 16-bit ones by widening
  hw_status (*attention_weights)(const hw_attention_params&);
  hw_status (*attention_column_sums)(const hw_attention_params&);
  hw_status (*linear)(const hw_linear_params&);  // weights of float32 and float64
  hw_status (*linear_pairs)(const hw_linear_params&);
  hw_status (*softmax)(const hw_softmax_params&);
  hw_status (*layer_norm)(const hw_layer_norm_params&);
  hw_status (*embed)(const hw_embed_params&);
  hw_status (*pool)(const hw_pool_params&);
  double (*probe)(hw_dtype, int64_t iterations, void* sink);
  float (*read_probe)(const float*, int64_t);
  ReducedKernels reduced;

  hw_status attend(const hw_attention_params& a) const {
    return a.dtype == HW_BFLOAT16 ? reduced.bf16.attention(a) : attention(a);
  }
  hw_status multiply(const hw_linear_params& a) const {
    if (a.weight_dtype == HW_FLOAT32_PAIRS) return linear_pairs(a);
    if (a.weight_dtype == HW_BFLOAT16) return reduced.bf16.linear(a);
    return a.weight_dtype == HW_INT8 ? reduced.int8.linear(a) : linear(a);
  }
};

extern const KernelTable kernels_scalar;
extern const KernelTable kernels_avx2;
extern const KernelTable kernels_avx512;
extern const PairKernels kernels_avx512_zen4;
extern const Int8Kernels kernels_avx512_vnni;
extern const ReducedKernels kernels_avx512_bf16;  // on both instructions

}  // namespace headwise
