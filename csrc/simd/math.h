// 2^x, exp and tanh on a vector or several (V). The coefficients come from tools/fit_polynomials.py.
#pragma once
#include <math.h>

#include "vecs.h"

namespace {

template <class T>
constexpr T kInfinity = T(__builtin_inf());

template <class T>
constexpr T kLargest = sizeof(T) == 4 ? T(__FLT_MAX__) : T(__DBL_MAX__);

// c[0] + c[1] x + ... by Horner's rule.
template <class V, class T, int N>
HEADWISE_INLINE V polynomial(const T (&c)[N], V x) {
  V y = V::broadcast(c[N - 1]);
  unroll<N - 1>([&](auto i) HEADWISE_INLINE_LAMBDA { y = V::fma(y, x, c[N - 2 - i]); });
  return y;
}

template <class T>
struct Exp2;

template <>
struct Exp2<float> {
  // 2^r on [0, 1], degree 6: 2e-9 before rounding.
  static constexpr float kCoefficients[] = {1.0f,         0.69314706f,   0.24022907f,   0.05548629f,
                                            0.009673505f, 0.0012485106f, 0.00021555494f};
};

template <>
struct Exp2<double> {
  // Degree 11: 3e-18 before rounding.
  static constexpr double kCoefficients[] = {1.0,
                                             0.693147180559946,
                                             0.24022650695906245,
                                             0.05550410866561372,
                                             0.009618129099471087,
                                             0.0013333558632845019,
                                             0.00015403512224532114,
                                             1.525317648856895e-05,
                                             1.3208351658621371e-06,
                                             1.0253319020398358e-07,
                                             6.559116253503627e-09,
                                             6.264160752498693e-10};
};

// Relative error 3e-6, for numbers that are then rounded to bfloat16, which costs 2e-3. Their sum is not
// rounded, and with a degree less its logarithm would be 5e-5 wrong.
struct CoarseExp2 {
  static constexpr float kCoefficients[] = {1.0f, 0.693044f, 0.2412827f, 0.05224087f, 0.013426566f};
};

// 2^x: exactly 1 at 0, exactly 0 at -inf, infinite or NaN where it is too large, NaN at NaN, else within 2
// ulp (with the default polynomial) down to 2^-126 (2^-1022); smaller results may be flushed to 0.
template <class V, class Polynomial = Exp2<typename V::Number>>
HEADWISE_INLINE V power_of_2(V x) {
  x = V::bounded_power(x);
  return V::scale_by_power_of_2(polynomial(Polynomial::kCoefficients, V::fraction(x)), x);
}

template <class T>
constexpr T kLog2E = T(1.4426950408889634074);
template <class T>
constexpr T kLn2 = T(0.69314718055994530942);
// ln 2 in two parts: n times the first is exact for |n| < 2^12, as it has few bits.
template <class T>
constexpr T kLn2High = sizeof(T) == 4 ? T(0.693359375) : T(0.693145751953125);
template <class T>
constexpr T kLn2Low = sizeof(T) == 4 ? T(-2.1219444005469058e-4) : T(1.4286068203094173e-6);

// e^x for x <= 0, within 2 ulp, also where a fma rounds twice. The remainder of x is taken before it is
// turned into a power of 2: x log2(e) rounded as a whole would cost up to 60 ulp at x = -80. Exactly 0 below
// 2^-126.4 (float) or 2^-1022.4 (double) at the latest.
template <class V>
HEADWISE_INLINE V exp_nonpositive(V x) {
  using T = typename V::Number;
  const V lowest = V::broadcast((V::kZeroPower + T(0.6)) * kLn2<T>);
  x = V::max(lowest, x);  // this order keeps a NaN
  const V log2e = V::broadcast(kLog2E<T>);
  const V power = x * log2e, n = power - V::fraction(power);
  const V r = (x - n * V::broadcast(kLn2High<T>)) - n * V::broadcast(kLn2Low<T>);
  const V y = V::scale_by_power_of_2(polynomial(Exp2<T>::kCoefficients, r * log2e), n);
  return V::select(V::equal(x, lowest), V::zero(), y);
}

// 1 / (1 + e^-x), both tails to full precision.
template <class V>
HEADWISE_INLINE V sigmoid(V x) {
  const V one = V::broadcast(1), e = exp_nonpositive(V::zero() - V::abs(x));
  return V::select(V::equal(V::max(V::zero(), x), x), one, e) / (one + e);
}

// tanh(x) = x + x^3 t(x^2) near 0, where the other formula would cancel, and
// (1 - e) / (1 + e) with e = exp(-2 |x|) elsewhere. Within 3 ulp.
HEADWISE_INLINE Vec<float> tanh(Vec<float> x) {
  constexpr float kT[] = {-0.33333328f, 0.1333277f, -0.053850908f, 0.02099718f, -0.006096714f};
  using V = Vec<float>;
  const V one = V::broadcast(1.0f), magnitude = V::abs(x), square = x * x;
  const V near = V::fma(x * square, polynomial(kT, square), x);
  const V e = power_of_2(magnitude * V::broadcast(-2 * kLog2E<float>));
  const V far = V::copy_sign((one - e) / (one + e), x);
  // The smaller of |x| and 5/8 is |x| itself: near 0. A NaN takes the other way, and stays.
  return V::select(V::equal(V::min(V::broadcast(0.625f), magnitude), magnitude), near, far);
}

// float64 is for accuracy, not speed: the C library's functions, lane by lane.
template <class F>
HEADWISE_INLINE Vec<double> lane_by_lane(Vec<double> x, F&& f) {
  double lanes[Vec<double>::kLanes];
  x.store(lanes);
  for (double& lane : lanes) lane = f(lane);
  return Vec<double>::load(lanes);
}
HEADWISE_INLINE Vec<double> tanh(Vec<double> x) {
  return lane_by_lane(x, [](double lane) { return ::tanh(lane); });
}

}  // namespace
