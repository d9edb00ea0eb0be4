// The kernel that takes float32 products in pairs; the rest of the ISA's table is AVX-512's.
#include "kernel_table.h"
#include "kernels/linear.h"
#include "kernels/linear_pairs.h"

const headwise::PairKernels headwise::kernels_avx512_zen4 = {linear<paired_float>};
