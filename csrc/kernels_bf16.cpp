// The kernels that have instructions of their own for bfloat16; the rest of the ISA's table is AVX-512's.
#include "kernel_table.h"
#include "kernels/attention.h"
#include "kernels/attention_bf16.h"
#include "kernels/probe.h"

namespace {

hw_status run_attention(const hw_attention_params& a) { return attention<Bf16Products>(a); }

double run_dot_probe(i64 iterations, void* sink) {
  return dot_probe<bf16_pair>(iterations, static_cast<float*>(sink));
}

}  // namespace

const headwise::Bf16Kernels headwise::kernels_avx512_bf16 = {run_attention, run_dot_probe};
