// GELU, x Phi(x) with the normal distribution function Phi (Hendrycks and Gimpel, 2016), as max(x, 0) - u
// Phi(-u), u = |x|. The coefficients come from tools/fit_polynomials.py.
#pragma once
#include "math.h"

namespace {

// A function on [0, 7.75) by 16 polynomials: c[i][k] is coefficient i of the one that serves around k / 2.
// They need fewer multiply-adds than one for all, and a CPU looks coefficients up beside these.
template <int N>
using Pieces = float[N][16];

// The number of a piece is in the low bits of u plus this: a float so large ends with halves, rounded to the
// nearest.
constexpr float kToHalves = 6291456.0f;

template <class V, int N>
HEADWISE_INLINE V polynomial(const Pieces<N>& c, V piece, V x) {
  V y = V::look_up(c[N - 1], piece);
  unroll<N - 1>([&](auto i) HEADWISE_INLINE_LAMBDA { y = V::fma(y, x, V::look_up(c[N - 2 - i], piece)); });
  return y;
}

// u Phi(-u), by the distance to k / 2. 0 from 7.25 on; 6e-9 before rounding.
alignas(64) constexpr Pieces<7> kGeluTail = {
    {0.0f, 0.15426877f, 0.15865526f, 0.1002108f, 0.045500264f, 0.015524163f, 0.004049694f, 0.0008142018f,
     0.00012668497f, 1.5289528e-05f, 1.4332578e-06f, 1.0444259e-07f, 5.9195258e-09f, 2.6104005e-10f,
     8.958688e-12f, 0.0f},
    {0.5f, 0.13250495f, -0.08331544f, -0.12746923f, -0.08523183f, -0.037611082f, -0.011945638f,
     -0.0028217575f, -0.00050365017f, -6.852973e-05f, -7.14713e-06f, -5.733821e-07f, -3.5473114e-08f,
     -1.6954426e-09f, -6.268827e-11f, 0.0f},
    {-0.39894226f, -0.30805716f, -0.12098539f, 0.01618969f, 0.053990975f, 0.037247643f, 0.015511468f,
     0.0044724974f, 0.0009368113f, 0.00014585175f, 1.709734e-05f, 1.5212449e-06f, 1.0329248e-07f,
     5.372734e-09f, 2.1468394e-10f, 0.0f},
    {-1.3629768e-06f, 0.110009484f, 0.120981105f, 0.056668982f, 3.7935908e-06f, -0.016433246f, -0.011080856f,
     -0.0042001503f, -0.0010705774f, -0.00019472926f, -2.5994046e-05f, -2.5870133e-06f, -1.9386543e-07f,
     -1.1012092e-08f, -4.763789e-10f, 0.0f},
    {0.06651247f, 0.03392244f, -0.020161223f, -0.03608853f, -0.017998165f, -0.0005027791f, 0.0040626815f,
     0.002484156f, 0.0008253207f, 0.00018134344f, 2.8115366e-05f, 3.1719042e-06f, 2.6499802e-07f,
     1.6578259e-08f, 7.825249e-10f, 0.0f},
    {-0.00015313168f, -0.02211174f, -0.01599513f, 0.0025703793f, 0.008876993f, 0.004283022f, 3.960631e-05f,
     -0.0008362618f, -0.0004392575f, -0.00012538623f, -2.3548295e-05f, -3.1053753e-06f, -2.9678316e-07f,
     -2.0935278e-08f, -1.1029142e-09f, 0.0f},
    {-0.009561219f, -0.0030318706f, 0.005952887f, 0.0048498907f, -0.0004122084f, -0.0019289278f,
     -0.00078051863f, 4.7202397e-05f, 0.00014723539f, 6.165756e-05f, 1.4479597e-05f, 2.2452596e-06f,
     2.4412833e-07f, 1.9186427e-08f, 1.1097386e-09f, 0.0f},
};

template <int N>
HEADWISE_INLINE Vecs<float, N> gelu(Vecs<float, N> x) {
  using V = Vecs<float, N>;
  const V u = V::min(V::broadcast(7.5f), V::abs(x));  // this order keeps a NaN
  const V to_halves = V::broadcast(kToHalves), piece = u + to_halves;
  return V::max(V::zero(), x) - polynomial(kGeluTail, piece, u - (piece - to_halves));
}

// u Phi(-u), by u itself. 0 from 4.25 on, where it is 5e-5, and no worse before.
alignas(64) constexpr Pieces<4> kCoarseGeluTail = {
    {0.0f, -0.0020708537f, -0.00023397492f, 0.13102315f, 0.42297125f, 0.5947044f, 0.48086548f, 0.24970208f,
     0.08823636f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f},
    {0.50003195f, 0.51993376f, 0.5210868f, 0.21427731f, -0.28999162f, -0.5267655f, -0.40563825f, -0.1914931f,
     -0.0611201f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f},
    {-0.40124494f, -0.4688886f, -0.48216936f, -0.2417826f, 0.049513046f, 0.1584513f, 0.11546815f,
     0.049278297f, 0.014165269f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f},
    {0.024667893f, 0.1086275f, 0.11998141f, 0.05682963f, 0.00055860553f, -0.016165558f, -0.011078381f,
     -0.0042524165f, -0.0010980311f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f},
};

// For numbers that are then rounded to bfloat16 or 8 bits.
template <int N>
HEADWISE_INLINE Vecs<float, N> coarse_gelu(Vecs<float, N> x) {
  using V = Vecs<float, N>;
  const V u = V::min(V::broadcast(7.5f), V::abs(x));
  return V::max(V::zero(), x) - polynomial(kCoarseGeluTail, u + V::broadcast(kToHalves), u);
}

// float64 is for accuracy, not speed: the C library's function, lane by lane.
template <int N>
HEADWISE_INLINE Vecs<double, N> gelu(Vecs<double, N> x) {
  using V = Vecs<double, N>;
  const V half = x * V::broadcast(0.5), scaled = x * V::broadcast(0.70710678118654752440);
  const V erf =
      V::of([&](auto i) { return lane_by_lane(scaled.each[i], [](double lane) { return ::erf(lane); }); });
  return V::fma(half, erf, half);
}

}  // namespace
