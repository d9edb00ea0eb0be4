// What the machine can do at best: the denominators of every fraction of peak.
#pragma once
#include "../simd/vec.h"

namespace {

// Independent chains of fused multiply-adds, in registers only. Returns the flops done.
template <class T>
double fma_probe(i64 iterations, T* sink) {
  using V = Vec<T>;
  constexpr int kChains = 12;  // 2 pipes of latency 4 or 5 need 10; 14 registers are used
  V chain[kChains];
  const V a = V::broadcast(T(0.999)), b = V::broadcast(T(0.001));
  unroll<kChains>([&](auto i) { chain[i] = V::broadcast(T(i + 1)); });
  for (i64 n = 0; n < iterations; ++n) unroll<kChains>([&](auto i) { chain[i] = V::fma(chain[i], a, b); });
  V sum = V::zero();
  unroll<kChains>([&](auto i) { sum = sum + chain[i]; });
  sum.store(sink);
  return 2.0 * kChains * V::kLanes * double(iterations);
}

// The same of products of pairs of numbers.
template <class Pair>
double dot_probe(i64 iterations, float* sink) {
  using V = Vec<float>;
  constexpr int kChains = 12;
  V chain[kChains];
  const auto a = Vec<Pair>::broadcast({}), b = a;
  unroll<kChains>([&](auto i) { chain[i] = V::broadcast(float(i)); });
  for (i64 n = 0; n < iterations; ++n)
    unroll<kChains>([&](auto i) { chain[i] = Vec<Pair>::fma(a, b, chain[i]); });
  V sum = V::zero();
  unroll<kChains>([&](auto i) { sum = sum + chain[i]; });
  sum.store(sink);
  return 4.0 * kChains * V::kLanes * double(iterations);
}

// The sum of n floats: reading and hardly anything else.
inline float read_probe(const float* p, i64 n) {
  using V = Vec<float>;
  constexpr int kChains = 8;
  V sum[kChains];
  unroll<kChains>([&](auto i) { sum[i] = V::zero(); });
  for (i64 k = 0; k + kChains * V::kLanes <= n; k += kChains * V::kLanes)
    unroll<kChains>([&](auto i) { sum[i] = sum[i] + V::load(p + k + i * V::kLanes); });
  V total = V::zero();
  unroll<kChains>([&](auto i) { total = total + sum[i]; });
  return total.sum();
}

}  // namespace
