// 512-bit vectors: AVX-512 F, BW, DQ and VL.
#pragma once
#include <immintrin.h>

#include "half.h"
#include "quad.h"

namespace {

constexpr int kRegisters = 32;

template <class T>
struct Vec;

template <>
struct Vec<float> {
  using Number = float;
  static constexpr int kLanes = 16;
  static constexpr int kOperandRegisters = 1;
  static constexpr float kZeroPower = -160.0f;
  using Mask = __mmask16;
  using Sum = Vec;

  __m512 v;

  static Vec zero() { return {_mm512_setzero_ps()}; }
  static Vec broadcast(float x) { return {_mm512_set1_ps(x)}; }
  static Vec load(const float* p) { return {_mm512_loadu_ps(p)}; }
  static Vec load(const float* p, Mask m) { return {_mm512_maskz_loadu_ps(m, p)}; }
  void store(float* p) const { _mm512_storeu_ps(p, v); }
  void store(float* p, Mask m) const { _mm512_mask_storeu_ps(p, m, v); }
  static Vec load(const f16* p, Mask m) { return {_mm512_cvtph_ps(_mm256_maskz_loadu_epi16(m, p))}; }
  static Vec load(const bf16* p, Mask m) {
    const __m512i x = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(m, p));
    return {_mm512_castsi512_ps(_mm512_slli_epi32(x, 16))};
  }
  void store(f16* p, Mask m) const {
    _mm256_mask_storeu_epi16(p, m, _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }
  void store(bf16* p, Mask m) const {
#ifdef __AVX512BF16__
    _mm256_mask_storeu_epi16(p, m, reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(v)));
#else
    const __m512i x = _mm512_castps_si512(v), high = _mm512_srli_epi32(x, 16);
    const __m512i even = _mm512_and_si512(high, _mm512_set1_epi32(1));
    __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(x, _mm512_set1_epi32(0x7fff)), even);
    rounded = _mm512_srli_epi32(rounded, 16);
    const __m512i quiet = _mm512_or_si512(high, _mm512_set1_epi32(0x40));
    rounded = _mm512_mask_blend_epi32(_mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q), rounded, quiet);
    _mm256_mask_storeu_epi16(p, m, _mm512_cvtepi32_epi16(rounded));
#endif
  }

  void store_bytes(uint8_t* p, int32_t offset) const {
    const __m512i x = _mm512_add_epi32(_mm512_cvtps_epi32(v), _mm512_set1_epi32(offset));
    const __m512i positive = _mm512_max_epi32(x, _mm512_setzero_si512());
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtusepi32_epi8(positive));
  }

  static Mask first_lanes(int64_t n) {
    return n >= kLanes ? Mask(0xffff) : n <= 0 ? Mask(0) : Mask((1u << n) - 1);
  }
  static Mask from_bits(uint64_t bits) { return Mask(bits); }
  static uint64_t bits_of(Mask m) { return m; }

  friend Vec operator+(Vec a, Vec b) { return {_mm512_add_ps(a.v, b.v)}; }
  friend Vec operator-(Vec a, Vec b) { return {_mm512_sub_ps(a.v, b.v)}; }
  friend Vec operator*(Vec a, Vec b) { return {_mm512_mul_ps(a.v, b.v)}; }
  friend Vec operator/(Vec a, Vec b) { return {_mm512_div_ps(a.v, b.v)}; }
  static Vec fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
  static Vec fms(Vec a, Vec b, Vec c) { return {_mm512_fmsub_ps(a.v, b.v, c.v)}; }
  // Not even the compiler may keep c in a register: where many are taken, another would be spilled for it.
  static HEADWISE_INLINE Vec fma(Vec a, Vec b, const float& c) {
    __asm__("vfmadd213ps %2%{1to16%}, %1, %0" : "+v"(a.v) : "v"(b.v), "m"(c));
    return a;
  }
  // With numbers from memory, each read where it is used: a broadcast into a register would take one of the
  // units that add.
  // c + a x; c + (a + x) (b + y); c - (a - x) (b - y).
  static HEADWISE_INLINE Vec add_product(Vec a, const float& x, Vec c) {
    __asm__("vfmadd231ps %2%{1to16%}, %1, %0" : "+v"(c.v) : "v"(a.v), "m"(x));
    return c;
  }
  static HEADWISE_INLINE Vec add_product_of_sums(Vec a, const float& x, Vec b, const float& y, Vec c) {
    __m512 ax, by;
    __asm__(
        "vaddps %5%{1to16%}, %3, %1\n\t"
        "vaddps %6%{1to16%}, %4, %2\n\t"
        "vfmadd231ps %1, %2, %0"
        : "+v"(c.v), "=&v"(ax), "=&v"(by)
        : "v"(a.v), "v"(b.v), "m"(x), "m"(y));
    return c;
  }
  static HEADWISE_INLINE Vec subtract_product_of_differences(Vec a, const float& x, Vec b, const float& y,
                                                             Vec c) {
    __m512 ax, by;
    __asm__(
        "vsubps %5%{1to16%}, %3, %1\n\t"
        "vsubps %6%{1to16%}, %4, %2\n\t"
        "vfnmadd231ps %1, %2, %0"
        : "+v"(c.v), "=&v"(ax), "=&v"(by)
        : "v"(a.v), "v"(b.v), "m"(x), "m"(y));
    return c;
  }
  static Vec max(Vec a, Vec b) { return {_mm512_max_ps(a.v, b.v)}; }
  static Vec min(Vec a, Vec b) { return {_mm512_min_ps(a.v, b.v)}; }
  static Vec select(Mask m, Vec a, Vec b) { return {_mm512_mask_blend_ps(m, b.v, a.v)}; }
  static Mask equal(Vec a, Vec b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_EQ_OQ); }
  static Vec abs(Vec a) { return {_mm512_abs_ps(a.v)}; }
  static Vec copy_sign(Vec magnitude, Vec sign) {
    const __m512 bit = _mm512_set1_ps(-0.0f);
    return {_mm512_or_ps(_mm512_andnot_ps(bit, magnitude.v), _mm512_and_ps(bit, sign.v))};
  }
  static Vec bounded_power(Vec x) { return x; }
  static Vec fraction(Vec x) { return {_mm512_reduce_ps(x.v, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC)}; }
  static Vec scale_by_power_of_2(Vec a, Vec x) { return {_mm512_scalef_ps(a.v, x.v)}; }

  static Vec look_up(const float (&numbers)[16], Vec x) {
    return {_mm512_permutexvar_ps(_mm512_castps_si512(x.v), _mm512_load_ps(numbers))};
  }

  float sum() const { return _mm512_reduce_add_ps(v); }
  float largest() const { return _mm512_reduce_max_ps(v); }

  static HEADWISE_INLINE void transpose(Vec (&row)[kLanes]) {
    __m512 a[16], b[16];
    for (int i = 0; i < 16; i += 2) {  // pairs of rows: 2 x 2 within each 128 bits
      a[i] = _mm512_unpacklo_ps(row[i].v, row[i + 1].v);
      a[i + 1] = _mm512_unpackhi_ps(row[i].v, row[i + 1].v);
    }
    for (int i = 0; i < 16; i += 4) {  // fours of rows: 4 x 4 within each 128 bits
      b[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a[i]), _mm512_castps_pd(a[i + 2])));
      b[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a[i]), _mm512_castps_pd(a[i + 2])));
      b[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a[i + 1]), _mm512_castps_pd(a[i + 3])));
      b[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a[i + 1]), _mm512_castps_pd(a[i + 3])));
    }
    for (int i = 0; i < 4; ++i) {  // then the 4 x 4 blocks of 128 bits
      const __m512 low02 = _mm512_shuffle_f32x4(b[i], b[i + 4], 0x88);
      const __m512 low13 = _mm512_shuffle_f32x4(b[i], b[i + 4], 0xdd);
      const __m512 high02 = _mm512_shuffle_f32x4(b[i + 8], b[i + 12], 0x88);
      const __m512 high13 = _mm512_shuffle_f32x4(b[i + 8], b[i + 12], 0xdd);
      row[i].v = _mm512_shuffle_f32x4(low02, high02, 0x88);
      row[i + 4].v = _mm512_shuffle_f32x4(low13, high13, 0x88);
      row[i + 8].v = _mm512_shuffle_f32x4(low02, high02, 0xdd);
      row[i + 12].v = _mm512_shuffle_f32x4(low13, high13, 0xdd);
    }
  }
};

template <>
struct Vec<double> {
  using Number = double;
  static constexpr int kLanes = 8;
  static constexpr int kOperandRegisters = 1;
  static constexpr double kZeroPower = -1100.0;
  using Mask = __mmask8;
  using Sum = Vec;

  __m512d v;

  static Vec zero() { return {_mm512_setzero_pd()}; }
  static Vec broadcast(double x) { return {_mm512_set1_pd(x)}; }
  static Vec load(const double* p) { return {_mm512_loadu_pd(p)}; }
  static Vec load(const double* p, Mask m) { return {_mm512_maskz_loadu_pd(m, p)}; }
  void store(double* p) const { _mm512_storeu_pd(p, v); }
  void store(double* p, Mask m) const { _mm512_mask_storeu_pd(p, m, v); }

  static Mask first_lanes(int64_t n) {
    return n >= kLanes ? Mask(0xff) : n <= 0 ? Mask(0) : Mask((1u << n) - 1);
  }
  static Mask from_bits(uint64_t bits) { return Mask(bits); }
  static uint64_t bits_of(Mask m) { return m; }

  friend Vec operator+(Vec a, Vec b) { return {_mm512_add_pd(a.v, b.v)}; }
  friend Vec operator-(Vec a, Vec b) { return {_mm512_sub_pd(a.v, b.v)}; }
  friend Vec operator*(Vec a, Vec b) { return {_mm512_mul_pd(a.v, b.v)}; }
  friend Vec operator/(Vec a, Vec b) { return {_mm512_div_pd(a.v, b.v)}; }
  static Vec fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_pd(a.v, b.v, c.v)}; }
  static Vec fma(Vec a, Vec b, const double& c) { return fma(a, b, broadcast(c)); }
  static Vec max(Vec a, Vec b) { return {_mm512_max_pd(a.v, b.v)}; }
  static Vec min(Vec a, Vec b) { return {_mm512_min_pd(a.v, b.v)}; }
  static Vec select(Mask m, Vec a, Vec b) { return {_mm512_mask_blend_pd(m, b.v, a.v)}; }
  static Mask equal(Vec a, Vec b) { return _mm512_cmp_pd_mask(a.v, b.v, _CMP_EQ_OQ); }
  static Vec abs(Vec a) { return {_mm512_abs_pd(a.v)}; }
  static Vec copy_sign(Vec magnitude, Vec sign) {
    const __m512d bit = _mm512_set1_pd(-0.0);
    return {_mm512_or_pd(_mm512_andnot_pd(bit, magnitude.v), _mm512_and_pd(bit, sign.v))};
  }
  static Vec bounded_power(Vec x) { return x; }
  static Vec fraction(Vec x) { return {_mm512_reduce_pd(x.v, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC)}; }
  static Vec scale_by_power_of_2(Vec a, Vec x) { return {_mm512_scalef_pd(a.v, x.v)}; }

  double sum() const { return _mm512_reduce_add_pd(v); }
  double largest() const { return _mm512_reduce_max_pd(v); }

  static HEADWISE_INLINE void transpose(Vec (&row)[kLanes]) {
    __m512d a[8];
    for (int i = 0; i < 8; i += 2) {  // pairs of rows: 2 x 2 within each 128 bits
      a[i] = _mm512_unpacklo_pd(row[i].v, row[i + 1].v);
      a[i + 1] = _mm512_unpackhi_pd(row[i].v, row[i + 1].v);
    }
    for (int i = 0; i < 2; ++i) {  // then the 4 x 4 blocks of 128 bits
      const __m512d low02 = _mm512_shuffle_f64x2(a[i], a[i + 2], 0x88);
      const __m512d low13 = _mm512_shuffle_f64x2(a[i], a[i + 2], 0xdd);
      const __m512d high02 = _mm512_shuffle_f64x2(a[i + 4], a[i + 6], 0x88);
      const __m512d high13 = _mm512_shuffle_f64x2(a[i + 4], a[i + 6], 0xdd);
      row[i].v = _mm512_shuffle_f64x2(low02, high02, 0x88);
      row[i + 2].v = _mm512_shuffle_f64x2(low13, high13, 0x88);
      row[i + 4].v = _mm512_shuffle_f64x2(low02, high02, 0xdd);
      row[i + 6].v = _mm512_shuffle_f64x2(low13, high13, 0xdd);
    }
  }
};

template <>
struct Vec<int32_t> {
  static constexpr int kLanes = 16;

  __m512i v;

  static Vec zero() { return {_mm512_setzero_si512()}; }
  static Vec broadcast(int32_t x) { return {_mm512_set1_epi32(x)}; }
  static Vec load(const int32_t* p) { return {_mm512_loadu_si512(p)}; }
  void store(int32_t* p) const { _mm512_storeu_si512(p, v); }
  friend Vec operator+(Vec a, Vec b) { return {_mm512_add_epi32(a.v, b.v)}; }
  friend Vec operator-(Vec a, Vec b) { return {_mm512_sub_epi32(a.v, b.v)}; }
  friend Vec operator*(Vec a, Vec b) { return {_mm512_mullo_epi32(a.v, b.v)}; }
  Vec<float> to_float() const { return {_mm512_cvtepi32_ps(v)}; }
};

}  // namespace
