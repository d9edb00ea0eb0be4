// How a sum over input features is cut, and which of its products are taken in pairs: what a packed weight
// and the rows it is multiplied with must agree on.
#pragma once
#include <stdint.h>

namespace {

// Products summed in one chain. A longer sum adds up such chains, in order: so it rounds about as much as a
// BLAS, and not more the longer it is. Shorter chains cost time, as each passes through memory.
constexpr int64_t kChain = 384;

// The steps of HW_FLOAT32_PAIRS go by six, with zeros past the last: two are a pair that is added, one is
// alone, two are a pair that is subtracted, one is alone.
constexpr int64_t kPairCycle = 6;
static_assert(kChain % kPairCycle == 0);

// 1 or -1 if a step is the first of a pair, else 0.
constexpr int pair_sign(int64_t step) { return step % kPairCycle == 0 ? 1 : step % kPairCycle == 3 ? -1 : 0; }

}  // namespace
