// Width-1 vectors in plain C++: the specification of Vec<T>, and the fallback for every CPU.
#pragma once
#include <math.h>

namespace {

constexpr int kRegisters = 16;

template <class T>
struct Vec {
  static constexpr int kLanes = 1;
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
  // b if either is NaN.
  static Vec max(Vec a, Vec b) { return {a.v > b.v ? a.v : b.v}; }
  static Vec min(Vec a, Vec b) { return {a.v < b.v ? a.v : b.v}; }
  static Vec select(Mask m, Vec a, Vec b) { return m ? a : b; }
  static Mask equal(Vec a, Vec b) { return a.v == b.v; }
  static Vec abs(Vec a) { return {a.v < 0 ? -a.v : a.v}; }
  // |magnitude| with the sign of sign.
  static Vec copy_sign(Vec magnitude, Vec sign) { return {T(copysign(magnitude.v, sign.v))}; }

  // To the nearest integer, ties to even.
  static Vec round(Vec a) { return {T(rint(a.v))}; }
  // a 2^n for 1/2 < a < 2 and an integral n <= 0, where a 2^n >= 2^kZeroPower. Exactly 0 for a = 1 and
  // n = kZeroPower; other results below the least normal number may lose bits; a NaN stays one.
  static constexpr T kZeroPower = sizeof(T) == 4 ? T(-160) : T(-1100);
  static Vec scale_by_power_of_2(Vec a, Vec n) { return {T(ldexp(a.v, n.v == n.v ? int(n.v) : 0))}; }

  T sum() const { return v; }
  T largest() const { return v; }

  // Lane j of row i becomes lane i of row j.
  static void transpose(Vec (&)[kLanes]) {}
};

}  // namespace
