// The kernels on AVX-512's instruction for 8-bit integers (VNNI); the rest of the ISA's table is AVX-512's.
#include "kernel_table.h"
#include "kernels/linear.h"
#include "kernels/probe.h"

namespace {

double run_probe(i64 iterations, void* sink) {
  return multiply_probe(iterations, static_cast<int8_quad*>(sink));
}

}  // namespace

const headwise::Int8Kernels headwise::kernels_avx512_vnni = {linear<int8_quad>, run_probe};
