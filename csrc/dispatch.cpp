// The C ABI: checks what no kernel may meet, and calls the active ISA's table.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <atomic>
#include <chrono>
#include <new>
#include <vector>

#include "cpuid.h"
#include "include/headwise.h"
#include "kernel_table.h"
#include "parallel.h"

using namespace headwise;

namespace {

struct Isa {
  const char* name;
  const KernelTable* kernels;
};

// Best first.
const std::vector<Isa>& available_isas() {
  static const std::vector<Isa> found = [] {
    std::vector<Isa> isas;
#if defined(__x86_64__)
    const CpuFeatures cpu = detect_cpu();
    if (cpu.avx512) isas.push_back({"avx512", &kernels_avx512});
    if (cpu.avx2) isas.push_back({"avx2", &kernels_avx2});
#endif
    isas.push_back({"scalar", &kernels_scalar});
    return isas;
  }();
  return found;
}

const Isa* find_isa(const char* name) {
  for (const Isa& isa : available_isas())
    if (strcmp(isa.name, name) == 0) return &isa;
  return nullptr;
}

std::atomic<const Isa*>& active_isa() {
  static std::atomic<const Isa*> active = [] {
    const char* forced = getenv("HEADWISE_ISA");
    return forced && *forced ? find_isa(forced) : &available_isas().front();
  }();
  return active;
}

// The active table, or null when HEADWISE_ISA names an ISA that cannot run here.
const KernelTable* kernels() {
  const Isa* isa = active_isa().load(std::memory_order_relaxed);
  return isa ? isa->kernels : nullptr;
}

bool is_dtype(hw_dtype dtype) { return dtype == HW_FLOAT32 || dtype == HW_FLOAT64; }

size_t size_of(hw_dtype dtype) { return dtype == HW_FLOAT32 ? 4 : 8; }

bool ascending(const int64_t* starts, int64_t count) {
  if (starts[0] < 0) return false;
  for (int64_t i = 0; i < count; ++i)
    if (starts[i + 1] < starts[i]) return false;
  return true;
}

bool is_valid(const hw_attention_params& a, bool weights) {
  const auto head_dim_ok = [](int64_t d) { return d >= 1 && d <= HEADWISE_MAX_HEAD_DIM; };
  if (!is_dtype(a.dtype) || !head_dim_ok(a.head_dim) || !(weights || head_dim_ok(a.value_dim))) return false;
  if (a.batch < 0 || a.query_length < 0 || a.key_length < 0) return false;
  if (a.num_heads < 0 || a.num_kv_heads < 1 || a.num_heads % a.num_kv_heads != 0) return false;
  if (!isfinite(a.scale) || !a.query_starts != !a.key_starts) return false;
  if (a.query_starts && !(ascending(a.query_starts, a.batch) && ascending(a.key_starts, a.batch)))
    return false;
  if (a.key_lengths)
    for (int64_t b = 0; b < a.batch; ++b)
      if (a.key_lengths[b] < 0) return false;
  return true;
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
  }
  return "unknown status";
}

const char* hw_active_isa(void) {
  const Isa* isa = active_isa().load();
  return isa ? isa->name : nullptr;
}

const char* hw_available_isa(int i) {
  const auto& isas = available_isas();
  return i >= 0 && i < static_cast<int>(isas.size()) ? isas[static_cast<size_t>(i)].name : nullptr;
}

hw_status hw_set_isa(const char* name) {
  const Isa* isa = name ? find_isa(name) : nullptr;
  if (!isa) return HW_UNSUPPORTED_ISA;
  active_isa().store(isa);
  return HW_OK;
}

int hw_get_num_threads(void) { return num_threads(); }

hw_status hw_set_num_threads(int n) {
  if (n < 1 || n > kMaxThreads) return HW_INVALID_ARGUMENT;
  set_num_threads(n);
  return HW_OK;
}

hw_status hw_attention(const hw_attention_params* a) {
  if (!kernels()) return HW_UNSUPPORTED_ISA;
  return is_valid(*a, false) ? kernels()->attention(*a) : HW_INVALID_ARGUMENT;
}

hw_status hw_attention_weights(const hw_attention_params* a) {
  if (!kernels()) return HW_UNSUPPORTED_ISA;
  if (!is_valid(*a, true)) return HW_INVALID_ARGUMENT;
  hw_attention_params p = *a;
  p.value = nullptr;
  p.lse = nullptr;
  p.value_dim = 1;
  return kernels()->attention_weights(p);
}

size_t hw_packed_weight_size(hw_dtype dtype, int64_t out_features, int64_t in_features) {
  const int64_t lanes = static_cast<int64_t>(256 / size_of(dtype));
  return static_cast<size_t>((out_features + lanes - 1) / lanes * lanes * in_features);
}

hw_status hw_pack_weight(hw_dtype dtype, const void* weight, int64_t row_stride, int64_t out_features,
                         int64_t in_features, void* packed) {
  if (!is_dtype(dtype) || out_features < 0 || in_features < 0) return HW_INVALID_ARGUMENT;
  const auto pack = [&]<class T>(const T* w, T* panel) {
    constexpr int64_t kLanes = 256 / sizeof(T);
    for (int64_t first = 0; first < out_features; first += kLanes, panel += kLanes * in_features)
      for (int64_t k = 0; k < in_features; ++k)
        for (int64_t n = 0; n < kLanes; ++n)
          panel[k * kLanes + n] = first + n < out_features ? w[(first + n) * row_stride + k] : T(0);
  };
  if (dtype == HW_FLOAT32)
    pack(static_cast<const float*>(weight), static_cast<float*>(packed));
  else
    pack(static_cast<const double*>(weight), static_cast<double*>(packed));
  return HW_OK;
}

hw_status hw_linear(const hw_linear_params* a) {
  if (!kernels()) return HW_UNSUPPORTED_ISA;
  if (!is_dtype(a->dtype) || a->activation < HW_IDENTITY || a->activation > HW_GELU || a->rows < 0 ||
      a->out_features < 0 || a->in_features < 0)
    return HW_INVALID_ARGUMENT;
  if (a->rows > 0 && a->out_features > 0) kernels()->linear(*a);
  return HW_OK;
}

hw_status hw_softmax(const hw_softmax_params* a) {
  if (!kernels()) return HW_UNSUPPORTED_ISA;
  if (!is_dtype(a->dtype) || a->rows < 0 || a->columns < 0) return HW_INVALID_ARGUMENT;
  kernels()->softmax(*a);
  return HW_OK;
}

hw_status hw_layer_norm(const hw_layer_norm_params* a) {
  if (!kernels()) return HW_UNSUPPORTED_ISA;
  if (!is_dtype(a->dtype) || a->rows < 0 || a->columns < 1 || !(a->epsilon >= 0)) return HW_INVALID_ARGUMENT;
  kernels()->layer_norm(*a);
  return HW_OK;
}

hw_status hw_embed(const hw_embed_params* a) {
  if (!kernels()) return HW_UNSUPPORTED_ISA;
  if (a->rows < 0 || a->columns < 1 || a->num_tables < 1 || a->num_tables > HEADWISE_MAX_TABLES)
    return HW_INVALID_ARGUMENT;
  return kernels()->embed(*a);
}

hw_status hw_pool(const hw_pool_params* a) {
  if (!kernels()) return HW_UNSUPPORTED_ISA;
  if (a->mode < HW_POOL_MEAN || a->mode > HW_POOL_MAX || a->batch < 0 || a->columns < 1 ||
      !ascending(a->starts, a->batch))
    return HW_INVALID_ARGUMENT;
  kernels()->pool(*a);
  return HW_OK;
}

hw_status hw_peak_flops(hw_dtype dtype, double seconds, double* gflops) {
  if (!kernels()) return HW_UNSUPPORTED_ISA;
  if (!is_dtype(dtype) || !(seconds > 0)) return HW_INVALID_ARGUMENT;
  *gflops = 1e-9 * measure(seconds, [&](int) {
              double sink[8];
              return kernels()->fma_probe(dtype, 200000, sink);
            });
  return HW_OK;
}

hw_status hw_peak_bandwidth(double seconds, double* gigabytes_per_second) {
  if (!kernels()) return HW_UNSUPPORTED_ISA;
  if (!(seconds > 0)) return HW_INVALID_ARGUMENT;
  constexpr int64_t kFloats = int64_t(1) << 26;  // 256 MB
  float* buffer = static_cast<float*>(aligned_alloc(64, kFloats * sizeof(float)));
  if (!buffer) return HW_OUT_OF_MEMORY;
  for (int64_t i = 0; i < kFloats; ++i) buffer[i] = 1.0f;
  const int64_t share = kFloats / num_threads();
  volatile float sink = 0;
  *gigabytes_per_second = 1e-9 * measure(seconds, [&](int thread) {
                            sink = kernels()->read_probe(buffer + thread * share, share);
                            return double(share) * sizeof(float);
                          });
  free(buffer);
  return HW_OK;
}

}  // extern "C"
