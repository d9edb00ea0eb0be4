// What the machine can do at best: the denominators of every fraction of peak.
#pragma once
#include "tile.h"

namespace {

// Independent chains of fused multiply-adds, in registers only. Returns the operations done.
template <class E>
double multiply_probe(i64 iterations, E* sink) {
  using V = typename Vec<E>::Sum;
  constexpr int kChains = 12;  // 2 pipes of latency 4 or 5 need 10; 14 registers are used
  V chain[kChains];
  const auto a = Vec<E>::load(sink), b = Vec<E>::broadcast(*sink);
  unroll<kChains>([&](auto i) { chain[i] = V::zero(); });
  for (i64 n = 0; n < iterations; ++n)
    unroll<kChains>([&](auto i) { chain[i] = Vec<E>::fma(a, b, chain[i]); });
  V sum = V::zero();
  unroll<kChains>([&](auto i) { sum = sum + chain[i]; });
  sum.store(reinterpret_cast<typename Element<E>::Sum*>(sink));
  return 2.0 * kChains * V::kLanes * Element<E>::kNumbers * double(iterations);
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
