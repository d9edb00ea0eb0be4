// Pairs of bfloat16 in 512-bit vectors: one instruction multiplies two and adds both products to a float.
#pragma once
#include "avx512.h"

namespace {

template <>
struct Vec<bf16_pair> {
  static constexpr int kLanes = 16;
  static constexpr int kOperandRegisters = 1;
  using Mask = __mmask16;
  using Sum = Vec<float>;

  __m512i v;

  static Vec zero() { return {_mm512_setzero_si512()}; }
  static Vec broadcast(bf16_pair x) { return {_mm512_set1_epi32(__builtin_bit_cast(int, x))}; }
  static Vec load(const bf16_pair* p) { return {_mm512_loadu_si512(p)}; }
  static Vec load(const bf16_pair* p, Mask m) { return {_mm512_maskz_loadu_epi32(m, p)}; }
  void store(bf16_pair* p) const { _mm512_storeu_si512(p, v); }
  static Sum fma(Vec a, Vec b, Sum c) {
    return {_mm512_dpbf16_ps(c.v, reinterpret_cast<__m512bh>(a.v), reinterpret_cast<__m512bh>(b.v))};
  }

  static HEADWISE_INLINE void transpose(Vec (&row)[kLanes]) {
    Sum moved[kLanes];
    for (int i = 0; i < kLanes; ++i) moved[i].v = _mm512_castsi512_ps(row[i].v);
    Sum::transpose(moved);
    for (int i = 0; i < kLanes; ++i) row[i].v = _mm512_castps_si512(moved[i].v);
  }

  // Lane i pairs lane i of two vectors of floats, rounded to the nearest.
  static Vec pair(Vec<float> first, Vec<float> second) {
    const __m512i halves = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(second.v, first.v));
    return {_mm512_permutexvar_epi16(interleave(), halves)};
  }
  // Lane i pairs number i of two rows, of which the first n are read.
  static Vec pair(const bf16* first, const bf16* second, int64_t n) {
    const Mask m = Vec<float>::first_lanes(n);
    const __m512i low = _mm512_castsi256_si512(_mm256_maskz_loadu_epi16(m, first));
    const __m512i halves = _mm512_inserti64x4(low, _mm256_maskz_loadu_epi16(m, second), 1);
    return {_mm512_permutexvar_epi16(interleave(), halves)};
  }

  // Two vectors of pairs: of 32 numbers of each row.
  static HEADWISE_INLINE void pairs(const bf16* first, const bf16* second, bf16_pair* to) {
    alignas(64) static constexpr uint16_t kOrder[2][32] = {
        {0, 32, 1, 33, 2,  34, 3,  35, 4,  36, 5,  37, 6,  38, 7,  39,
         8, 40, 9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47},
        {16, 48, 17, 49, 18, 50, 19, 51, 20, 52, 21, 53, 22, 54, 23, 55,
         24, 56, 25, 57, 26, 58, 27, 59, 28, 60, 29, 61, 30, 62, 31, 63}};
    const __m512i a = _mm512_loadu_si512(first), b = _mm512_loadu_si512(second);
    for (int half = 0; half < 2; ++half)
      _mm512_storeu_si512(to + half * kLanes,
                          _mm512_permutex2var_epi16(a, _mm512_load_si512(kOrder[half]), b));
  }

  // Both numbers, the first or the second, none: the others become 0.
  Vec only(bool first, bool second) const {
    return {_mm512_and_si512(v, _mm512_set1_epi32(int((second ? 0xffff0000u : 0) | (first ? 0xffffu : 0))))};
  }

 private:
  static __m512i interleave() {
    alignas(64) static constexpr uint16_t kOrder[32] = {0,  16, 1,  17, 2,  18, 3,  19, 4,  20, 5,
                                                        21, 6,  22, 7,  23, 8,  24, 9,  25, 10, 26,
                                                        11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    return _mm512_load_si512(kOrder);
  }
};

}  // namespace
