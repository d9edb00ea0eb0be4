// Several vectors that take the same steps together. A vector by itself waits for each of its results before
// its next step, and a CPU looks only so far ahead for others that need not.
#pragma once
#include "vec.h"

namespace {

template <class T, int N>
struct Vecs {
  using V = Vec<T>;
  using Number = T;
  struct Mask {
    typename V::Mask each[N];
  };
  static constexpr T kZeroPower = V::kZeroPower;

  V each[N];

  // f(Int<0>), f(Int<1>), ...
  template <class F>
  static HEADWISE_INLINE Vecs of(F&& f) {
    Vecs y;
    unroll<N>([&](auto i) HEADWISE_INLINE_LAMBDA { y.each[i] = f(i); });
    return y;
  }

  static HEADWISE_INLINE Vecs broadcast(T x) {
    return of([&](auto) HEADWISE_INLINE_LAMBDA { return V::broadcast(x); });
  }
  static HEADWISE_INLINE Vecs zero() { return broadcast(T(0)); }

  friend HEADWISE_INLINE Vecs operator+(const Vecs& a, const Vecs& b) {
    return of([&](auto i) HEADWISE_INLINE_LAMBDA { return a.each[i] + b.each[i]; });
  }
  friend HEADWISE_INLINE Vecs operator-(const Vecs& a, const Vecs& b) {
    return of([&](auto i) HEADWISE_INLINE_LAMBDA { return a.each[i] - b.each[i]; });
  }
  friend HEADWISE_INLINE Vecs operator*(const Vecs& a, const Vecs& b) {
    return of([&](auto i) HEADWISE_INLINE_LAMBDA { return a.each[i] * b.each[i]; });
  }
  friend HEADWISE_INLINE Vecs operator/(const Vecs& a, const Vecs& b) {
    return of([&](auto i) HEADWISE_INLINE_LAMBDA { return a.each[i] / b.each[i]; });
  }
  static HEADWISE_INLINE Vecs fma(const Vecs& a, const Vecs& b, const Vecs& c) {
    return of([&](auto i) HEADWISE_INLINE_LAMBDA { return V::fma(a.each[i], b.each[i], c.each[i]); });
  }
  static HEADWISE_INLINE Vecs fma(const Vecs& a, const Vecs& b, const T& c) {
    return of([&](auto i) HEADWISE_INLINE_LAMBDA { return V::fma(a.each[i], b.each[i], c); });
  }
  static HEADWISE_INLINE Vecs look_up(const T (&numbers)[16], const Vecs& x) {
    return of([&](auto i) HEADWISE_INLINE_LAMBDA { return V::look_up(numbers, x.each[i]); });
  }
  static HEADWISE_INLINE Vecs max(const Vecs& a, const Vecs& b) {
    return of([&](auto i) HEADWISE_INLINE_LAMBDA { return V::max(a.each[i], b.each[i]); });
  }
  static HEADWISE_INLINE Vecs min(const Vecs& a, const Vecs& b) {
    return of([&](auto i) HEADWISE_INLINE_LAMBDA { return V::min(a.each[i], b.each[i]); });
  }
  static HEADWISE_INLINE Vecs abs(const Vecs& a) {
    return of([&](auto i) HEADWISE_INLINE_LAMBDA { return V::abs(a.each[i]); });
  }
  static HEADWISE_INLINE Vecs bounded_power(const Vecs& x) {
    return of([&](auto i) HEADWISE_INLINE_LAMBDA { return V::bounded_power(x.each[i]); });
  }
  static HEADWISE_INLINE Vecs fraction(const Vecs& x) {
    return of([&](auto i) HEADWISE_INLINE_LAMBDA { return V::fraction(x.each[i]); });
  }
  static HEADWISE_INLINE Vecs scale_by_power_of_2(const Vecs& a, const Vecs& x) {
    return of([&](auto i) HEADWISE_INLINE_LAMBDA { return V::scale_by_power_of_2(a.each[i], x.each[i]); });
  }
  static HEADWISE_INLINE Mask equal(const Vecs& a, const Vecs& b) {
    Mask m;
    unroll<N>([&](auto i) HEADWISE_INLINE_LAMBDA { m.each[i] = V::equal(a.each[i], b.each[i]); });
    return m;
  }
  static HEADWISE_INLINE Vecs select(const Mask& m, const Vecs& a, const Vecs& b) {
    return of([&](auto i) HEADWISE_INLINE_LAMBDA { return V::select(m.each[i], a.each[i], b.each[i]); });
  }
};

}  // namespace
