// The kernels on AVX-512's instructions for bfloat16 and, as a CPU that has these has those too, for 8-bit
// integers; the rest of the ISA's table is AVX-512's.
#include "kernel_table.h"
#include "kernels/attention.h"
#include "kernels/attention_bf16.h"
#include "kernels/linear.h"
#include "kernels/probe.h"

namespace {

hw_status run_attention(const hw_attention_params& a) { return attention<Bf16Products>(a); }
double run_bf16_probe(i64 iterations, void* sink) {
  return multiply_probe(iterations, static_cast<bf16_pair*>(sink));
}
double run_int8_probe(i64 iterations, void* sink) {
  return multiply_probe(iterations, static_cast<int8_quad*>(sink));
}

}  // namespace

const headwise::ReducedKernels headwise::kernels_avx512_bf16 = {
    {run_attention, linear<bf16_pair>, run_bf16_probe},
    {linear<int8_quad>, run_int8_probe},
};
