// The kernels on AVX-512's instruction for bfloat16; the rest of the ISA's table is AVX-512's.
#include "kernel_table.h"
#include "kernels/attention.h"
#include "kernels/attention_bf16.h"
#include "kernels/linear.h"
#include "kernels/probe.h"

namespace {

hw_status run_attention(const hw_attention_params& a) { return attention<Bf16Products>(a); }
double run_probe(i64 iterations, void* sink) { return multiply_probe(iterations, static_cast<bf16_pair*>(sink)); }

}  // namespace

const headwise::Bf16Kernels headwise::kernels_avx512_bf16 = {run_attention, linear<bf16_pair>, run_probe};
