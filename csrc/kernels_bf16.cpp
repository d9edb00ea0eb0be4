// The kernels that have instructions of their own for bfloat16; the rest of the ISA's table is AVX-512's.
#include "kernel_table.h"
#include "kernels/attention.h"
#include "kernels/attention_bf16.h"

namespace {

hw_status run_attention(const hw_attention_params& a) { return attention<Bf16Products>(a); }

}  // namespace

const headwise::Bf16Kernels headwise::bf16_kernels_avx512 = {run_attention};
