// The C ABI: refuses what no kernel may meet, and calls the active ISA's table.
#include <math.h>
#include <stdlib.h>

#include <atomic>
#include <chrono>
#include <initializer_list>

#include "dispatch.h"
#include "include/headwise.h"
#include "parallel.h"

using namespace headwise;

namespace {

bool is_dtype(hw_dtype dtype) { return dtype == HW_FLOAT32 || dtype == HW_FLOAT64; }

bool is_16_bit(hw_dtype dtype) { return dtype == HW_FLOAT16 || dtype == HW_BFLOAT16; }

bool none_negative(std::initializer_list<int64_t> lengths) {
  for (const int64_t n : lengths)
    if (n < 0) return false;
  return true;
}

// Pointers may be null where there is nothing to read or write.
bool all_there(int64_t elements, std::initializer_list<const void*> pointers) {
  if (elements == 0) return true;
  for (const void* p : pointers)
    if (!p) return false;
  return true;
}

bool ascending(const int64_t* starts, int64_t count) {
  if (starts[0] < 0) return false;
  for (int64_t i = 0; i < count; ++i)
    if (starts[i + 1] < starts[i]) return false;
  return true;
}

// hw_attention_weights has no value, and passes value_dim 1.
bool is_valid(const hw_attention_params& a, bool has_value) {
  const auto is_head_dim = [](int64_t d) { return d >= 1 && d <= HEADWISE_MAX_HEAD_DIM; };
  if (!(is_dtype(a.dtype) || is_16_bit(a.dtype)) || !is_head_dim(a.head_dim) || !is_head_dim(a.value_dim))
    return false;
  if (!none_negative({a.batch, a.query_length, a.key_length, a.num_heads, a.window_left, a.window_right}) ||
      !isfinite(a.scale))
    return false;
  if (a.num_kv_heads < 1 || a.num_heads % a.num_kv_heads != 0) return false;
  if (!a.query_starts != !a.key_starts) return false;
  const bool packed = a.query_starts != nullptr;
  if (packed && !(ascending(a.query_starts, a.batch) && ascending(a.key_starts, a.batch))) return false;
  if (!(a.softcap >= 0) || isinf(a.softcap)) return false;
  const bool mask_fits = a.mask_dtype == HW_BOOL || a.mask_dtype == a.dtype ||
                         (a.mask_dtype == HW_FLOAT32 && is_16_bit(a.dtype));
  if (a.attn_mask && !(a.mask_starts && mask_fits && !packed)) return false;
  for (int64_t b = 0; a.key_lengths && b < a.batch; ++b)
    if (a.key_lengths[b] < 0) return false;
  const int64_t queries = packed ? a.query_starts[a.batch] : a.query_length;
  const int64_t keys = packed ? a.key_starts[a.batch] : a.key_length;
  const int64_t sequences = a.batch > 0 && a.num_heads > 0 ? 1 : 0;
  return all_there(sequences * queries, {a.query, a.out}) &&
         all_there(sequences * queries * keys, {a.key, has_value ? a.value : a.key});
}

hw_attention_params without_value(hw_attention_params a) {
  a.value = nullptr;
  a.lse = nullptr;
  a.value_dim = 1;
  return a;
}

bool is_valid(const hw_linear_params& a) {
  const bool reduced = a.weight_dtype == HW_BFLOAT16 || a.weight_dtype == HW_INT8;
  const hw_dtype real = a.weight_dtype == HW_FLOAT64 ? HW_FLOAT64 : HW_FLOAT32;
  const auto fits = [&](hw_dtype dtype) { return dtype == real || (reduced && dtype == HW_BFLOAT16); };
  if (!(is_dtype(a.weight_dtype) || a.weight_dtype == HW_FLOAT32_PAIRS || reduced) || !fits(a.input_dtype) ||
      !fits(a.out_dtype))
    return false;
  if (a.weight_dtype == HW_INT8 && a.in_features > HEADWISE_MAX_INT8_FEATURES) return false;
  if (a.gated && (a.out_head_dim != 0 || (a.residual && a.residual == a.out))) return false;
  return a.activation >= HW_IDENTITY && a.activation <= HW_SILU &&
         none_negative({a.rows, a.out_features, a.in_features, a.out_head_dim}) &&
         all_there(a.rows * a.out_features, {a.out}) &&
         all_there(a.rows * a.out_features * a.in_features, {a.input, a.packed_weight});
}

bool is_valid(const hw_softmax_params& a) {
  return is_dtype(a.dtype) && none_negative({a.rows, a.columns}) &&
         all_there(a.rows * a.columns, {a.input, a.out});
}

bool is_valid(const hw_layer_norm_params& a) {
  return is_dtype(a.dtype) && a.rows >= 0 && a.columns >= 1 && a.epsilon >= 0 && isfinite(a.epsilon) &&
         all_there(a.rows, {a.input, a.out});
}

bool is_valid(const hw_embed_params& a) {
  if (a.rows < 0 || a.columns < 1 || a.num_tables < 1 || a.num_tables > HEADWISE_MAX_TABLES) return false;
  bool places = false;
  for (int64_t t = 0; t < a.num_tables; ++t) {
    if (!all_there(a.rows, {a.tables[t]})) return false;
    places = places || !a.indices[t];
  }
  if (places && a.rows > 0)
    if (!a.starts || a.batch < 0 || !ascending(a.starts, a.batch) || a.starts[0] != 0 ||
        a.starts[a.batch] != a.rows)
      return false;
  return all_there(a.rows, {a.out});
}

bool is_valid(const hw_pool_params& a) {
  return a.mode >= HW_POOL_MEAN && a.mode <= HW_POOL_MAX && a.batch >= 0 && a.columns >= 1 && a.starts &&
         ascending(a.starts, a.batch) && all_there(a.batch, {a.out}) &&
         all_there(a.starts[a.batch] - a.starts[0], {a.input});
}

// Runs `operation` on `threads` threads at once, again and again for the given time; the sum of what it
// returns, per second.
template <class Operation>
double measure(double seconds, Operation&& operation) {
  using Clock = std::chrono::steady_clock;
  struct Context {
    Operation& operation;
    std::atomic<int> next_thread{0};
    std::atomic<double> total{0};
  } context{operation};
  const auto elapsed = [start = Clock::now()] {
    return std::chrono::duration<double>(Clock::now() - start).count();
  };
  double best = 0;
  do {
    context.next_thread = 0;
    context.total = 0;
    const double begin = elapsed();
    run_on_threads(
        num_threads(),
        [](void* c) {
          auto& ctx = *static_cast<Context*>(c);
          const double done = ctx.operation(ctx.next_thread++);
          double total = ctx.total.load();
          while (!ctx.total.compare_exchange_weak(total, total + done)) {
          }
        },
        &context);
    const double rate = context.total / (elapsed() - begin);
    if (rate > best) best = rate;
  } while (elapsed() < seconds);
  return best;
}

}  // namespace

extern "C" {

const char* hw_status_message(hw_status status) {
  switch (status) {
    case HW_OK:
      return "ok";
    case HW_INVALID_ARGUMENT:
      return "an argument is out of range";
    case HW_OUT_OF_MEMORY:
      return "out of memory for a thread's workspace";
    case HW_UNSUPPORTED_ISA:
      return "this instruction set is unknown or cannot run on this CPU";
    case HW_INDEX_OUT_OF_RANGE:
      return "an index is outside its table";
    case HW_INTERRUPTED:
      return "interrupted";
  }
  return "unknown status";
}

int hw_get_num_threads(void) { return num_threads(); }

hw_status hw_set_num_threads(int n) {
  if (n < 1 || n > kMaxThreads) return HW_INVALID_ARGUMENT;
  set_num_threads(n);
  return HW_OK;
}

void hw_set_interrupt_check(int (*check)(void)) { set_interrupt_check(check); }

hw_status hw_attention(const hw_attention_params* a) {
  const KernelTable* kernels = active_kernels();
  if (!kernels) return HW_UNSUPPORTED_ISA;
  if (!is_valid(*a, true)) return HW_INVALID_ARGUMENT;
  return kernels->attend(*a);
}

hw_status hw_attention_weights(const hw_attention_params* a) {
  const KernelTable* kernels = active_kernels();
  if (!kernels) return HW_UNSUPPORTED_ISA;
  const hw_attention_params p = without_value(*a);
  return is_valid(p, false) ? kernels->attention_weights(p) : HW_INVALID_ARGUMENT;
}

hw_status hw_attention_column_sums(const hw_attention_params* a) {
  const KernelTable* kernels = active_kernels();
  if (!kernels) return HW_UNSUPPORTED_ISA;
  const hw_attention_params p = without_value(*a);
  return is_valid(p, false) ? kernels->attention_column_sums(p) : HW_INVALID_ARGUMENT;
}

hw_status hw_linear(const hw_linear_params* a) {
  const KernelTable* kernels = active_kernels();
  if (!kernels) return HW_UNSUPPORTED_ISA;
  if (!is_valid(*a)) return HW_INVALID_ARGUMENT;
  return kernels->multiply(*a);
}

hw_status hw_softmax(const hw_softmax_params* a) {
  const KernelTable* kernels = active_kernels();
  if (!kernels) return HW_UNSUPPORTED_ISA;
  if (!is_valid(*a)) return HW_INVALID_ARGUMENT;
  return kernels->softmax(*a);
}

hw_status hw_layer_norm(const hw_layer_norm_params* a) {
  const KernelTable* kernels = active_kernels();
  if (!kernels) return HW_UNSUPPORTED_ISA;
  if (!is_valid(*a)) return HW_INVALID_ARGUMENT;
  return kernels->layer_norm(*a);
}

hw_status hw_embed(const hw_embed_params* a) {
  const KernelTable* kernels = active_kernels();
  if (!kernels) return HW_UNSUPPORTED_ISA;
  if (!is_valid(*a)) return HW_INVALID_ARGUMENT;
  return kernels->embed(*a);
}

hw_status hw_pool(const hw_pool_params* a) {
  const KernelTable* kernels = active_kernels();
  if (!kernels) return HW_UNSUPPORTED_ISA;
  if (!is_valid(*a)) return HW_INVALID_ARGUMENT;
  return kernels->pool(*a);
}

hw_status hw_peak_flops(hw_dtype dtype, double seconds, double* gflops) {
  const KernelTable* kernels = active_kernels();
  if (!kernels) return HW_UNSUPPORTED_ISA;
  if (!(is_dtype(dtype) || dtype == HW_BFLOAT16 || dtype == HW_INT8) || !(seconds > 0))
    return HW_INVALID_ARGUMENT;
  *gflops = 1e-9 * measure(seconds, [&](int) {
              double sink[8] = {};
              if (dtype == HW_BFLOAT16) return kernels->reduced.bf16.probe(200000, sink);
              if (dtype == HW_INT8) return kernels->reduced.int8.probe(200000, sink);
              return kernels->probe(dtype, 200000, sink);
            });
  return HW_OK;
}

hw_status hw_peak_bandwidth(double seconds, double* gigabytes_per_second) {
  const KernelTable* kernels = active_kernels();
  if (!kernels) return HW_UNSUPPORTED_ISA;
  if (!(seconds > 0)) return HW_INVALID_ARGUMENT;
  constexpr int64_t kFloats = int64_t(1) << 26;  // 256 MB
  float* buffer = static_cast<float*>(aligned_alloc(64, kFloats * sizeof(float)));
  if (!buffer) return HW_OUT_OF_MEMORY;
  for (int64_t i = 0; i < kFloats; ++i) buffer[i] = 1.0f;
  const int64_t share = kFloats / num_threads();
  volatile float sink = 0;
  *gigabytes_per_second = 1e-9 * measure(seconds, [&](int thread) {
                            sink = kernels->read_probe(buffer + thread * share, share);
                            return double(share) * sizeof(float);
                          });
  free(buffer);
  return HW_OK;
}

}  // extern "C"
