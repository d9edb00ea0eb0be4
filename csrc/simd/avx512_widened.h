// Pairs of bfloat16 and quads of 8-bit integers on AVX-512 that has no instructions for them.
#pragma once
#include "avx512.h"

namespace {

template <>
struct Vec<bf16_pair> {
  static constexpr int kLanes = 16;
  static constexpr int kOperandRegisters = 2;
  using Mask = __mmask16;
  using Sum = Vec<float>;

  Sum first, second;

  static Vec broadcast(bf16_pair x) { return widened(_mm512_set1_epi32(__builtin_bit_cast(int, x))); }
  static Vec load(const bf16_pair* p) { return widened(_mm512_loadu_si512(p)); }
  static Sum fma(Vec a, Vec b, Sum c) { return Sum::fma(a.second, b.second, Sum::fma(a.first, b.first, c)); }

 private:
  static Vec widened(__m512i pairs) {
    const __m512i high = _mm512_set1_epi32(int(0xffff0000));
    return {{_mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16))},
            {_mm512_castsi512_ps(_mm512_and_si512(pairs, high))}};
  }
};

// As words, the even bytes and the odd ones: the instruction for bytes would saturate its sums of two.
template <>
struct Vec<int8_quad> {
  static constexpr int kLanes = 16;
  static constexpr int kOperandRegisters = 2;
  using Mask = __mmask16;
  using Sum = Vec<int32_t>;

  __m512i even, odd;

  static Vec broadcast(int8_quad x) {
    const __m512i v = _mm512_set1_epi32(int(x.bytes));
    return {_mm512_and_si512(v, _mm512_set1_epi16(0xff)), _mm512_srli_epi16(v, 8)};
  }
  static Vec load(const int8_quad* p) {
    const __m512i v = _mm512_loadu_si512(p);
    return {_mm512_srai_epi16(_mm512_slli_epi16(v, 8), 8), _mm512_srai_epi16(v, 8)};
  }
  static Sum fma(Vec a, Vec b, Sum c) {
    const __m512i even = _mm512_madd_epi16(a.even, b.even), odd = _mm512_madd_epi16(a.odd, b.odd);
    return {_mm512_add_epi32(c.v, _mm512_add_epi32(even, odd))};
  }
};

}  // namespace
