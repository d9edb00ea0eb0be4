// What an online softmax keeps of each row, and how it goes on. Lanes are rows; powers are of 2.
#pragma once
#include <math.h>

#include "attention_products.h"

namespace {

// A row keeps its maximum until a score is larger by more than this many powers: until then probabilities are
// of up to 2^kSlack instead of 1, as exact as ever, and what was summed needs no factor. Sums overflow for
// values so much smaller: in float32 from 10^25 on.
constexpr int kSlack = 32;

// The online softmax of a tile's rows over the keys seen so far. lanes is the number of rows rounded up to
// whole vectors.
template <class T>
struct SoftmaxState {
  T* out;  // [rows][padded(Dv)]: not yet divided by sum
  T* max;  // [lanes]: of the scores, within kSlack
  T* sum;  // [lanes]: of 2^(score - max)

  SoftmaxState(i64 value_dim, Arena& arena)
      : out(arena.take<T>(kTileRows<T> * padded(value_dim))),
        max(arena.take<T>(kTileRows<T>)),
        sum(arena.take<T>(kTileRows<T>)) {}

  static i64 padded(i64 value_dim) { return round_up(value_dim, Vec<T>::kLanes); }
};

// The rows' maximum after a block of keys. It is theirs alone: no other row of the tile counts.
template <class V>
HEADWISE_INLINE V raised(V max, V first_max, V block_max) {
  max = V::select(V::equal(max, V::broadcast(-kInfinity<typename V::Number>)), first_max, max);
  const V enough = max + V::broadcast(kSlack);
  return V::select(V::equal(V::max(block_max, enough), enough), max, block_max);
}

// Whether no raised() maximum is larger than the old ones, by which probabilities sum to this. Half of what a
// row may reach, as score - max is rounded and so may hide that a score is just above; false for a NaN.
template <class V>
HEADWISE_INLINE bool keeps_max(V block_sum) {
  const V limit = V::broadcast(i64(1) << (kSlack - 1));
  return V::bits_of(V::equal(V::max(limit, block_sum), limit)) == (uint64_t(1) << V::kLanes) - 1;
}

// -inf - -inf is NaN: a row without a score so far subtracts 0.
template <class V>
HEADWISE_INLINE V finite(V max) {
  return V::select(V::equal(max, V::broadcast(-kInfinity<typename V::Number>)), V::zero(), max);
}

// 1 / sum, but 0 and not infinity for a row that attended nothing.
template <class V>
HEADWISE_INLINE V reciprocal(V sum) {
  return V::select(V::equal(sum, V::zero()), V::zero(), V::broadcast(1) / sum);
}

template <class T>
T log_sum_exp(T max, T sum) {
  return sum == 0 ? -kInfinity<T> : max * kLn2<T> + T(log(double(sum)));
}

}  // namespace
