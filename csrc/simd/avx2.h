// 256-bit vectors: AVX2 and FMA. A mask is a vector of all-ones and all-zeros lanes.
#pragma once
#include <immintrin.h>

#include "half.h"
#include "quad.h"

namespace {

constexpr int kRegisters = 16;

template <class T>
struct Vec;

template <>
struct Vec<float> {
  using Number = float;
  static constexpr int kLanes = 8;
  static constexpr int kOperandRegisters = 1;
  static constexpr float kZeroPower = -127.0f;
  using Mask = __m256i;
  using Sum = Vec;

  __m256 v;

  static Vec zero() { return {_mm256_setzero_ps()}; }
  static Vec broadcast(float x) { return {_mm256_set1_ps(x)}; }
  static Vec load(const float* p) { return {_mm256_loadu_ps(p)}; }
  static Vec load(const float* p, Mask m) { return {_mm256_maskload_ps(p, m)}; }
  void store(float* p) const { _mm256_storeu_ps(p, v); }
  void store(float* p, Mask m) const { _mm256_maskstore_ps(p, m, v); }
  // There are no masked loads of 16 bits: the lanes of m, which are the first ones, by way of an array.
  template <class Half>
  static Vec load(const Half* p, Mask m) {
    if (lanes_of(m) == kLanes) return convert(p);
    Half lanes[kLanes] = {};
    __builtin_memcpy(lanes, p, sizeof(Half) * lanes_of(m));
    return convert(lanes);
  }
  template <class Half>
  void store(Half* p, Mask m) const {
    if (lanes_of(m) == kLanes) return convert_to(p);
    Half lanes[kLanes];
    convert_to(lanes);
    __builtin_memcpy(p, lanes, sizeof(Half) * lanes_of(m));
  }

  void store_bytes(uint8_t* p, int32_t offset) const {
    const __m256i x = _mm256_add_epi32(_mm256_cvtps_epi32(v), _mm256_set1_epi32(offset));
    const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packus_epi16(words, words));
  }

  static Mask first_lanes(int64_t n) {
    const int count = n >= kLanes ? kLanes : n <= 0 ? 0 : int(n);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
  static Mask from_bits(uint64_t bits) {
    const __m256i bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    return _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(int(bits)), bit), bit);
  }
  static uint64_t bits_of(Mask m) { return uint64_t(_mm256_movemask_ps(_mm256_castsi256_ps(m))); }

  friend Vec operator+(Vec a, Vec b) { return {_mm256_add_ps(a.v, b.v)}; }
  friend Vec operator-(Vec a, Vec b) { return {_mm256_sub_ps(a.v, b.v)}; }
  friend Vec operator*(Vec a, Vec b) { return {_mm256_mul_ps(a.v, b.v)}; }
  friend Vec operator/(Vec a, Vec b) { return {_mm256_div_ps(a.v, b.v)}; }
  static Vec fma(Vec a, Vec b, Vec c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
  static Vec fms(Vec a, Vec b, Vec c) { return {_mm256_fmsub_ps(a.v, b.v, c.v)}; }
  static Vec fma(Vec a, Vec b, const float& c) { return fma(a, b, broadcast(c)); }
  static Vec max(Vec a, Vec b) { return {_mm256_max_ps(a.v, b.v)}; }
  static Vec min(Vec a, Vec b) { return {_mm256_min_ps(a.v, b.v)}; }
  static Vec select(Mask m, Vec a, Vec b) { return {_mm256_blendv_ps(b.v, a.v, _mm256_castsi256_ps(m))}; }
  static Mask equal(Vec a, Vec b) { return _mm256_castps_si256(_mm256_cmp_ps(a.v, b.v, _CMP_EQ_OQ)); }
  static Vec abs(Vec a) { return {_mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.v)}; }
  static Vec copy_sign(Vec magnitude, Vec sign) {
    const __m256 bit = _mm256_set1_ps(-0.0f);
    return {_mm256_or_ps(_mm256_andnot_ps(bit, magnitude.v), _mm256_and_ps(bit, sign.v))};
  }
  static Vec bounded_power(Vec x) { return min(broadcast(128), max(broadcast(kZeroPower), x)); }
  static Vec fraction(Vec x) { return {_mm256_sub_ps(x.v, _mm256_floor_ps(x.v))}; }
  // Adds floor(x) to the exponent field. The conversion of a NaN is 2^31, which the shift drops.
  static Vec scale_by_power_of_2(Vec a, Vec x) {
    const __m256i exponent = _mm256_slli_epi32(_mm256_cvtps_epi32(_mm256_floor_ps(x.v)), 23);
    return {_mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a.v), exponent))};
  }

  static Vec look_up(const float (&numbers)[16], Vec x) {
    const __m256i place = _mm256_castps_si256(x.v);
    const __m256 low = _mm256_permutevar8x32_ps(_mm256_load_ps(numbers), place);
    const __m256 high = _mm256_permutevar8x32_ps(_mm256_load_ps(numbers + 8), place);
    return {_mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32(place, 28)))};
  }

  static size_t lanes_of(Mask m) {
    return size_t(__builtin_popcount(_mm256_movemask_ps(_mm256_castsi256_ps(m))));
  }
  static Vec convert(const f16* p) {
    return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
  }
  static Vec convert(const bf16* p) {
    const __m256i x = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    return {_mm256_castsi256_ps(_mm256_slli_epi32(x, 16))};
  }
  void convert_to(f16* p) const {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
  }
  void convert_to(bf16* p) const {
    float lanes[kLanes];
    store(lanes);
    for (int i = 0; i < kLanes; ++i) narrow(lanes[i], p[i]);
  }

  float sum() const {
    __m128 x = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
  }
  float largest() const {
    __m128 x = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    x = _mm_max_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
  }

  static HEADWISE_INLINE void transpose(Vec (&row)[kLanes]) {
    __m256 a[8], b[8];
    for (int i = 0; i < 8; i += 2) {  // pairs of rows: 2 x 2 within each 128 bits
      a[i] = _mm256_unpacklo_ps(row[i].v, row[i + 1].v);
      a[i + 1] = _mm256_unpackhi_ps(row[i].v, row[i + 1].v);
    }
    for (int i = 0; i < 8; i += 4) {  // fours of rows: 4 x 4 within each 128 bits
      b[i] = _mm256_shuffle_ps(a[i], a[i + 2], 0x44);
      b[i + 1] = _mm256_shuffle_ps(a[i], a[i + 2], 0xee);
      b[i + 2] = _mm256_shuffle_ps(a[i + 1], a[i + 3], 0x44);
      b[i + 3] = _mm256_shuffle_ps(a[i + 1], a[i + 3], 0xee);
    }
    for (int i = 0; i < 4; ++i) {  // then the 2 x 2 blocks of 128 bits
      row[i].v = _mm256_permute2f128_ps(b[i], b[i + 4], 0x20);
      row[i + 4].v = _mm256_permute2f128_ps(b[i], b[i + 4], 0x31);
    }
  }
};

template <>
struct Vec<double> {
  using Number = double;
  static constexpr int kLanes = 4;
  static constexpr int kOperandRegisters = 1;
  static constexpr double kZeroPower = -1023.0;
  using Mask = __m256i;
  using Sum = Vec;

  __m256d v;

  static Vec zero() { return {_mm256_setzero_pd()}; }
  static Vec broadcast(double x) { return {_mm256_set1_pd(x)}; }
  static Vec load(const double* p) { return {_mm256_loadu_pd(p)}; }
  static Vec load(const double* p, Mask m) { return {_mm256_maskload_pd(p, m)}; }
  void store(double* p) const { _mm256_storeu_pd(p, v); }
  void store(double* p, Mask m) const { _mm256_maskstore_pd(p, m, v); }

  static Mask first_lanes(int64_t n) {
    return _mm256_cmpgt_epi64(_mm256_set1_epi64x(n), _mm256_setr_epi64x(0, 1, 2, 3));
  }
  static Mask from_bits(uint64_t bits) {
    const __m256i bit = _mm256_setr_epi64x(1, 2, 4, 8);
    return _mm256_cmpeq_epi64(_mm256_and_si256(_mm256_set1_epi64x(int64_t(bits)), bit), bit);
  }
  static uint64_t bits_of(Mask m) { return uint64_t(_mm256_movemask_pd(_mm256_castsi256_pd(m))); }

  friend Vec operator+(Vec a, Vec b) { return {_mm256_add_pd(a.v, b.v)}; }
  friend Vec operator-(Vec a, Vec b) { return {_mm256_sub_pd(a.v, b.v)}; }
  friend Vec operator*(Vec a, Vec b) { return {_mm256_mul_pd(a.v, b.v)}; }
  friend Vec operator/(Vec a, Vec b) { return {_mm256_div_pd(a.v, b.v)}; }
  static Vec fma(Vec a, Vec b, Vec c) { return {_mm256_fmadd_pd(a.v, b.v, c.v)}; }
  static Vec fma(Vec a, Vec b, const double& c) { return fma(a, b, broadcast(c)); }
  static Vec max(Vec a, Vec b) { return {_mm256_max_pd(a.v, b.v)}; }
  static Vec min(Vec a, Vec b) { return {_mm256_min_pd(a.v, b.v)}; }
  static Vec select(Mask m, Vec a, Vec b) { return {_mm256_blendv_pd(b.v, a.v, _mm256_castsi256_pd(m))}; }
  static Mask equal(Vec a, Vec b) { return _mm256_castpd_si256(_mm256_cmp_pd(a.v, b.v, _CMP_EQ_OQ)); }
  static Vec abs(Vec a) { return {_mm256_andnot_pd(_mm256_set1_pd(-0.0), a.v)}; }
  static Vec copy_sign(Vec magnitude, Vec sign) {
    const __m256d bit = _mm256_set1_pd(-0.0);
    return {_mm256_or_pd(_mm256_andnot_pd(bit, magnitude.v), _mm256_and_pd(bit, sign.v))};
  }
  static Vec bounded_power(Vec x) { return min(broadcast(1024), max(broadcast(kZeroPower), x)); }
  static Vec fraction(Vec x) { return {_mm256_sub_pd(x.v, _mm256_floor_pd(x.v))}; }
  // As for float; sign extension turns the 2^31 of a NaN into bits that the shift drops too.
  static Vec scale_by_power_of_2(Vec a, Vec x) {
    const __m128i n = _mm256_cvtpd_epi32(_mm256_floor_pd(x.v));
    const __m256i exponent = _mm256_slli_epi64(_mm256_cvtepi32_epi64(n), 52);
    return {_mm256_castsi256_pd(_mm256_add_epi64(_mm256_castpd_si256(a.v), exponent))};
  }

  double sum() const {
    const __m128d x = _mm_add_pd(_mm256_castpd256_pd128(v), _mm256_extractf128_pd(v, 1));
    return _mm_cvtsd_f64(_mm_add_sd(x, _mm_unpackhi_pd(x, x)));
  }
  double largest() const {
    const __m128d x = _mm_max_pd(_mm256_castpd256_pd128(v), _mm256_extractf128_pd(v, 1));
    return _mm_cvtsd_f64(_mm_max_sd(x, _mm_unpackhi_pd(x, x)));
  }

  static HEADWISE_INLINE void transpose(Vec (&row)[kLanes]) {
    const __m256d a0 = _mm256_unpacklo_pd(row[0].v, row[1].v);
    const __m256d a1 = _mm256_unpackhi_pd(row[0].v, row[1].v);
    const __m256d a2 = _mm256_unpacklo_pd(row[2].v, row[3].v);
    const __m256d a3 = _mm256_unpackhi_pd(row[2].v, row[3].v);
    row[0].v = _mm256_permute2f128_pd(a0, a2, 0x20);
    row[1].v = _mm256_permute2f128_pd(a1, a3, 0x20);
    row[2].v = _mm256_permute2f128_pd(a0, a2, 0x31);
    row[3].v = _mm256_permute2f128_pd(a1, a3, 0x31);
  }
};

template <>
struct Vec<int32_t> {
  static constexpr int kLanes = 8;

  __m256i v;

  static Vec zero() { return {_mm256_setzero_si256()}; }
  static Vec broadcast(int32_t x) { return {_mm256_set1_epi32(x)}; }
  static Vec load(const int32_t* p) { return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))}; }
  void store(int32_t* p) const { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v); }
  friend Vec operator+(Vec a, Vec b) { return {_mm256_add_epi32(a.v, b.v)}; }
  friend Vec operator-(Vec a, Vec b) { return {_mm256_sub_epi32(a.v, b.v)}; }
  friend Vec operator*(Vec a, Vec b) { return {_mm256_mullo_epi32(a.v, b.v)}; }
  Vec<float> to_float() const { return {_mm256_cvtepi32_ps(v)}; }
};

template <>
struct Vec<bf16_pair> {
  static constexpr int kLanes = 8;
  static constexpr int kOperandRegisters = 2;
  using Mask = __m256i;
  using Sum = Vec<float>;

  Sum first, second;

  static Vec broadcast(bf16_pair x) { return widened(_mm256_set1_epi32(__builtin_bit_cast(int, x))); }
  static Vec load(const bf16_pair* p) {
    return widened(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static Sum fma(Vec a, Vec b, Sum c) { return Sum::fma(a.second, b.second, Sum::fma(a.first, b.first, c)); }

 private:
  static Vec widened(__m256i pairs) {
    const __m256i high = _mm256_set1_epi32(int(0xffff0000));
    return {{_mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16))},
            {_mm256_castsi256_ps(_mm256_and_si256(pairs, high))}};
  }
};

// As words, the even bytes and the odd ones: the instruction for bytes would saturate its sums of two.
template <>
struct Vec<int8_quad> {
  static constexpr int kLanes = 8;
  static constexpr int kOperandRegisters = 2;
  using Mask = __m256i;
  using Sum = Vec<int32_t>;

  __m256i even, odd;

  static Vec broadcast(int8_quad x) {
    const __m256i v = _mm256_set1_epi32(int(x.bytes));
    return {_mm256_and_si256(v, _mm256_set1_epi16(0xff)), _mm256_srli_epi16(v, 8)};
  }
  static Vec load(const int8_quad* p) {
    const __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return {_mm256_srai_epi16(_mm256_slli_epi16(v, 8), 8), _mm256_srai_epi16(v, 8)};
  }
  static Sum fma(Vec a, Vec b, Sum c) {
    const __m256i even = _mm256_madd_epi16(a.even, b.even), odd = _mm256_madd_epi16(a.odd, b.odd);
    return {_mm256_add_epi32(c.v, _mm256_add_epi32(even, odd))};
  }
};

}  // namespace
