// What the CPU and the operating system support. cpuid alone is not enough: the system must also save
// the wide registers when it switches threads, which xgetbv tells.
#pragma once

#if defined(__x86_64__)
#include <cpuid.h>
#include <stdint.h>

namespace headwise {

struct CpuFeatures {
  bool avx2 = false;             // AVX2, FMA, F16C
  bool avx512 = false;           // F, BW, DQ, VL
  bool avx512_vnni = false;      // and VNNI
  bool avx512_bf16 = false;      // and BF16
  bool adds_beside_fma = false;  // units that add and units that multiply work at the same time
};

inline CpuFeatures detect_cpu() {
  CpuFeatures found;
  uint32_t a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d)) return found;
  const uint32_t family = (a >> 8 & 0xf) + (a >> 20 & 0xff);
  const bool fma = c >> 12 & 1, f16c = c >> 29 & 1, osxsave = c >> 27 & 1, avx = c >> 28 & 1;
  if (!osxsave || !avx) return found;
  uint32_t saved, high;
  __asm__("xgetbv" : "=a"(saved), "=d"(high) : "c"(0));
  const bool saves_ymm = (saved & 0x06) == 0x06;  // xmm, ymm
  const bool saves_zmm = (saved & 0xe6) == 0xe6;  // and masks, zmm
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return found;
  found.avx2 = saves_ymm && fma && f16c && (b >> 5 & 1);
  found.avx512 = saves_zmm && found.avx2 && (b >> 16 & 1) && (b >> 17 & 1) && (b >> 30 & 1) && (b >> 31 & 1);
  found.avx512_vnni = found.avx512 && (c >> 11 & 1);
  found.avx512_bf16 = found.avx512_vnni && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 5 & 1);
  const bool amd = __get_cpuid(0, &a, &b, &c, &d) && b == signature_AMD_ebx;
  // Zen 4, and Zen 3, which lacks AVX-512. Zen 5 may have too few loads for it.
  found.adds_beside_fma = amd && family == 0x19;
  return found;
}

}  // namespace headwise
#endif
