// The face an ISA shows to dispatch.cpp: one function pointer an operation.
#pragma once
#include <stdint.h>

#include "include/headwise.h"

namespace headwise {

struct KernelTable {
  hw_status (*attention)(const hw_attention_params&);
  hw_status (*attention_weights)(const hw_attention_params&);
  hw_status (*attention_column_sums)(const hw_attention_params&);
  hw_status (*linear)(const hw_linear_params&);
  hw_status (*softmax)(const hw_softmax_params&);
  hw_status (*layer_norm)(const hw_layer_norm_params&);
  hw_status (*embed)(const hw_embed_params&);
  hw_status (*pool)(const hw_pool_params&);
  double (*fma_probe)(hw_dtype, int64_t iterations, void* sink);  // sink: 64 bytes
  float (*read_probe)(const float*, int64_t);
};

// Kernels for bfloat16 alone, on instructions that multiply it. Others widen it to float32.
struct Bf16Kernels {
  hw_status (*attention)(const hw_attention_params&);
  double (*dot_probe)(int64_t iterations, void* sink);  // sink: 64 bytes
};

extern const KernelTable kernels_scalar;
extern const KernelTable kernels_avx2;
extern const KernelTable kernels_avx512;
extern const Bf16Kernels kernels_avx512_bf16;

}  // namespace headwise
