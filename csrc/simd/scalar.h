// Width-1 vectors in plain C++: the specification of Vec<T>, and the fallback for every CPU.
#pragma once
#include <math.h>

#include "half.h"
#include "quad.h"

namespace {

constexpr int kRegisters = 16;

template <class T>
struct Vec {
  using Number = T;
  static constexpr int kLanes = 1;
  static constexpr int kOperandRegisters = 1;  // that a factor of fma takes
  using Mask = bool;
  using Sum = Vec;  // what products of T are summed in

  T v;

  static Vec zero() { return {T(0)}; }
  static Vec broadcast(T x) { return {x}; }
  static Vec load(const T* p) { return {*p}; }
  static Vec load(const T* p, Mask m) { return {m ? *p : T(0)}; }
  void store(T* p) const { *p = v; }
  void store(T* p, Mask m) const {
    if (m) *p = v;
  }
  // float from and to 16-bit numbers.
  template <class Half>
  static Vec load(const Half* p, Mask m) {
    return {m ? widen(*p) : T(0)};
  }
  template <class Half>
  void store(Half* p, Mask m) const {
    if (m) narrow(v, *p);
  }

  // The nearest integers, of magnitudes up to 255, plus an offset, within 0 .. 255.
  void store_bytes(uint8_t* p, int32_t offset) const {
    const int x = v == v ? int(rint(v)) + offset : 0;
    *p = uint8_t(x < 0 ? 0 : x > 255 ? 255 : x);
  }

  // Lanes below n; n may be negative or past the width.
  static Mask first_lanes(int64_t n) { return n > 0; }
  // Lane i from bit i, and back.
  static Mask from_bits(uint64_t bits) { return bits & 1; }
  static uint64_t bits_of(Mask m) { return m; }

  friend Vec operator+(Vec a, Vec b) { return {a.v + b.v}; }
  friend Vec operator-(Vec a, Vec b) { return {a.v - b.v}; }
  friend Vec operator*(Vec a, Vec b) { return {a.v * b.v}; }
  friend Vec operator/(Vec a, Vec b) { return {a.v / b.v}; }
  // a b + c, rounded once where the CPU has the instruction.
  static Vec fma(Vec a, Vec b, Vec c) { return {a.v * b.v + c.v}; }
  static Vec fms(Vec a, Vec b, Vec c) { return {a.v * b.v - c.v}; }
  // The same with a number in memory, which needs no register where the CPU reads it as it multiplies.
  static Vec fma(Vec a, Vec b, const T& c) { return fma(a, b, broadcast(c)); }
  // b if either is NaN.
  static Vec max(Vec a, Vec b) { return {a.v > b.v ? a.v : b.v}; }
  static Vec min(Vec a, Vec b) { return {a.v < b.v ? a.v : b.v}; }
  static Vec select(Mask m, Vec a, Vec b) { return m ? a : b; }
  static Mask equal(Vec a, Vec b) { return a.v == b.v; }
  static Vec abs(Vec a) { return {a.v < 0 ? -a.v : a.v}; }
  // |magnitude| with the sign of sign.
  static Vec copy_sign(Vec magnitude, Vec sign) { return {T(copysign(magnitude.v, sign.v))}; }

  // What 2^x is computed by: x within kZeroPower, whose power is 0, and one whose power is infinite, where
  // the next two need that; a NaN stays one.
  static constexpr T kZeroPower = sizeof(T) == 4 ? T(-160) : T(-1100);
  static Vec bounded_power(Vec x) { return min({-kZeroPower}, max({kZeroPower}, x)); }
  // x - floor(x) of a bounded power, 0 of an infinite one.
  static Vec fraction(Vec x) { return {x.v - T(floor(x.v))}; }
  // a 2^floor(x) for 1 <= a <= 2 and a bounded power x. Exactly 0 for a = 1 and x = kZeroPower; other results
  // below the least normal number may lose bits; a NaN stays one.
  static Vec scale_by_power_of_2(Vec a, Vec x) { return {T(ldexp(a.v, x.v == x.v ? int(floor(x.v)) : 0))}; }

  // The number whose place is in the low 4 bits of x.
  static Vec look_up(const T (&numbers)[16], Vec x) {
    uint32_t bits;
    __builtin_memcpy(&bits, &x.v, sizeof bits);
    return {numbers[bits & 15]};
  }

  T sum() const { return v; }
  T largest() const { return v; }

  // Lane j of row i becomes lane i of row j.
  static void transpose(Vec (&)[kLanes]) {}
};

template <>
struct Vec<int32_t> {
  static constexpr int kLanes = 1;

  int32_t v;

  static Vec zero() { return {0}; }
  static Vec broadcast(int32_t x) { return {x}; }
  static Vec load(const int32_t* p) { return {*p}; }
  void store(int32_t* p) const { *p = v; }
  friend Vec operator+(Vec a, Vec b) { return {a.v + b.v}; }
  friend Vec operator-(Vec a, Vec b) { return {a.v - b.v}; }
  friend Vec operator*(Vec a, Vec b) { return {a.v * b.v}; }
  // To the nearest float.
  Vec<float> to_float() const { return {float(v)}; }
};

// The products of two pairs are added to a float, the first first.
template <>
struct Vec<bf16_pair> {
  static constexpr int kLanes = 1;
  static constexpr int kOperandRegisters = 2;
  using Mask = bool;
  using Sum = Vec<float>;

  Sum first, second;

  static Vec broadcast(bf16_pair x) { return {{widen(x.first)}, {widen(x.second)}}; }
  static Vec load(const bf16_pair* p) { return broadcast(*p); }
  static Sum fma(Vec a, Vec b, Sum c) { return Sum::fma(a.second, b.second, Sum::fma(a.first, b.first, c)); }
};

// The four products of the bytes of two quads are added to an integer. Left factors, which are broadcast,
// have unsigned bytes, right factors, which are loaded, signed ones: VNNI's instruction wants them so.
template <>
struct Vec<int8_quad> {
  static constexpr int kLanes = 1;
  static constexpr int kOperandRegisters = 1;
  using Mask = bool;
  using Sum = Vec<int32_t>;

  uint32_t v;

  static Vec broadcast(int8_quad x) { return {x.bytes}; }
  static Vec load(const int8_quad* p) { return {p->bytes}; }
  static Sum fma(Vec a, Vec b, Sum c) {
    for (int i = 0; i < 32; i += 8) c.v += int32_t(uint8_t(a.v >> i)) * int8_t(uint8_t(b.v >> i));
    return c;
  }
};

}  // namespace
