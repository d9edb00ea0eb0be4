// The instruction sets this CPU can run, best first, and the one chosen.
#include "dispatch.h"

#include <stdlib.h>
#include <string.h>

#include <atomic>
#include <vector>

#include "cpuid.h"

namespace headwise {
namespace {

struct Isa {
  const char* name;
  KernelTable kernels;
};

// Best first.
const std::vector<Isa>& available_isas() {
  static const std::vector<Isa> found = [] {
    std::vector<Isa> isas;
#if defined(__x86_64__)
    const CpuFeatures cpu = detect_cpu();
    KernelTable vnni = kernels_avx512, bf16 = kernels_avx512;
    vnni.reduced.int8 = kernels_avx512_vnni;
    bf16.reduced = kernels_avx512_bf16;
    KernelTable zen4 = bf16;
    zen4.linear_pairs = kernels_avx512_zen4.linear;
    if (cpu.avx512_bf16) isas.push_back({"avx512_bf16", bf16});
    // It runs on all of these, for tests, but is the best of few.
    if (cpu.avx512_bf16) isas.insert(cpu.adds_beside_fma ? isas.begin() : isas.end(), {"avx512_zen4", zen4});
    if (cpu.avx512_vnni) isas.push_back({"avx512_vnni", vnni});
    if (cpu.avx512) isas.push_back({"avx512", kernels_avx512});
    if (cpu.avx2) isas.push_back({"avx2", kernels_avx2});
#endif
    isas.push_back({"scalar", kernels_scalar});
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

}  // namespace

const KernelTable* active_kernels() {
  const Isa* isa = active_isa().load(std::memory_order_relaxed);
  return isa ? &isa->kernels : nullptr;
}

}  // namespace headwise

using namespace headwise;

extern "C" {

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

}  // extern "C"
