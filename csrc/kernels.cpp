// All kernels for one ISA. CMake compiles this file once per ISA, with that ISA's flags and
// HEADWISE_ISA_TABLE naming the table to define: the only symbol that leaves this object.
#include "kernel_table.h"
#include "kernels/attention.h"
#include "kernels/embedding.h"
#include "kernels/layer_norm.h"
#include "kernels/linear.h"
#include "kernels/probe.h"
#include "kernels/softmax.h"

namespace {

template <class Params>
bool is_float(const Params& a) {
  return a.dtype == HW_FLOAT32;
}

hw_status run_attention(const hw_attention_params& a) {
  return a.dtype == HW_FLOAT64 ? attention<NativeProducts<double>>(a) : attention<NativeProducts<float>>(a);
}
hw_status run_attention_weights(const hw_attention_params& a) {
  return a.dtype == HW_FLOAT64 ? attention_weights<double>(a) : attention_weights<float>(a);
}
hw_status run_attention_column_sums(const hw_attention_params& a) {
  return a.dtype == HW_FLOAT64 ? attention_column_sums<double>(a) : attention_column_sums<float>(a);
}
hw_status run_linear(const hw_linear_params& a) {
  return a.weight_dtype == HW_FLOAT64 ? linear<double>(a) : linear<float>(a);
}
hw_status run_softmax(const hw_softmax_params& a) {
  return is_float(a) ? softmax<float>(a) : softmax<double>(a);
}
hw_status run_layer_norm(const hw_layer_norm_params& a) {
  return is_float(a) ? layer_norm<float>(a) : layer_norm<double>(a);
}
double run_probe(hw_dtype dtype, i64 iterations, void* sink) {
  return dtype == HW_FLOAT64 ? multiply_probe(iterations, static_cast<double*>(sink))
                             : multiply_probe(iterations, static_cast<float*>(sink));
}
// Without instructions of its own an ISA's limit is float32's.
double run_float_probe(i64 iterations, void* sink) { return run_probe(HW_FLOAT32, iterations, sink); }

}  // namespace

// Named functions, as a lambda here would be a weak symbol, which the linker may share between ISAs.
const headwise::KernelTable headwise::HEADWISE_ISA_TABLE = {
    run_attention,
    run_attention_weights,
    run_attention_column_sums,
    run_linear,
    run_linear,
    run_softmax,
    run_layer_norm,
    embed,
    pool,
    run_probe,
    read_probe,
    {{run_attention, linear<bf16_pair>, run_float_probe}, {linear<int8_quad>, run_float_probe}},
};
