// Quads of 8-bit integers in 512-bit vectors: one instruction adds four products to an integer.
#pragma once
#include "avx512.h"

namespace {

template <>
struct Vec<int8_quad> {
  static constexpr int kLanes = 16;
  static constexpr int kOperandRegisters = 1;
  using Mask = __mmask16;
  using Sum = Vec<int32_t>;

  __m512i v;

  static Vec broadcast(int8_quad x) { return {_mm512_set1_epi32(int(x.bytes))}; }
  static Vec load(const int8_quad* p) { return {_mm512_loadu_si512(p)}; }
  static Sum fma(Vec a, Vec b, Sum c) { return {_mm512_dpbusd_epi32(c.v, a.v, b.v)}; }
};

}  // namespace
