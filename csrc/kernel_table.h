// The face an ISA shows to dispatch.cpp: one function pointer an operation.
#pragma once
#include <stdint.h>

#include "include/headwise.h"

namespace headwise {

struct KernelTable {
  hw_status (*attention)(const hw_attention_params&);
  hw_status (*attention_weights)(const hw_attention_params&);
  void (*linear)(const hw_linear_params&);
  void (*softmax)(const hw_softmax_params&);
  void (*layer_norm)(const hw_layer_norm_params&);
  hw_status (*embed)(const hw_embed_params&);
  void (*pool)(const hw_pool_params&);
  double (*fma_probe)(hw_dtype, int64_t iterations, void* sink);  // sink: 64 bytes
  float (*read_probe)(const float*, int64_t);
};

extern const KernelTable kernels_scalar;
extern const KernelTable kernels_avx2;
extern const KernelTable kernels_avx512;

}  // namespace headwise
