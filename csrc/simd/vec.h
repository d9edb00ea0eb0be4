// Vec<T> of the ISA this translation unit is compiled for. The width-1 version in scalar.h is the
// specification: each ISA file gives the same operations with the same meaning.
#pragma once
#include "../kernel_table.h"

// Everything an ISA compiles lives in an unnamed namespace: a weak or shared symbol would let the
// linker keep the AVX-512 copy of a function for all ISAs.
#define HEADWISE_INLINE inline __attribute__((always_inline))
// For functions with a register tile in their loops: inlined beside others, whose constants are kept in
// registers throughout, they would lose those registers and load each operand again.
#define HEADWISE_NOINLINE __attribute__((noinline))
// For lambdas that hold a register tile: out of line, its accumulators would go through memory.
#define HEADWISE_INLINE_LAMBDA __attribute__((always_inline))

#if defined(HEADWISE_ISA_AVX512_BF16)
#include "avx512_bf16.h"
#include "avx512_vnni.h"
#elif defined(HEADWISE_ISA_AVX512_VNNI)
#include "avx512_vnni.h"
#elif defined(HEADWISE_ISA_AVX512) || defined(HEADWISE_ISA_AVX512_ZEN4)
#include "avx512_widened.h"
#elif defined(HEADWISE_ISA_AVX2)
#include "avx2.h"
#else
#include "scalar.h"
#endif

namespace {

using i64 = int64_t;

template <class A>
constexpr A min_of(A a, A b) {
  return b < a ? b : a;
}
template <class A>
constexpr A max_of(A a, A b) {
  return a < b ? b : a;
}
constexpr i64 ceil_div(i64 a, i64 b) { return (a + b - 1) / b; }
constexpr i64 round_up(i64 a, i64 b) { return ceil_div(a, b) * b; }

template <int N>
struct Int {
  static constexpr int value = N;
  constexpr operator int() const { return N; }
};

// f(Int<0>) ... f(Int<N - 1>), unrolled by the front end: an array indexed by a loop that gcc leaves
// rolled, even once, is kept in memory and not in registers.
template <int N, class F>
HEADWISE_INLINE void unroll(F&& f) {
  if constexpr (N > 0) {
    unroll<N - 1>(f);
    f(Int<N - 1>{});
  }
}

// f(Int<n>) for a run-time n in Min .. Max.
template <int Max, int Min = 1, class F>
HEADWISE_INLINE void with_constant(int n, F&& f) {
  if constexpr (Max > Min) {
    if (n < Max) return with_constant<Max - 1, Min>(n, f);
  }
  f(Int<Max>{});
}

// Columns of a register tile. Linear layers read weights from L2, of which 9 x 3 takes less than 6 x 4.
constexpr int kMaxTileVectors = kRegisters == 32 ? 4 : 2;
constexpr int kLinearTileVectors = kRegisters == 32 ? 3 : 2;

// Rows of a register tile beside N columns: the accumulators, one row of N columns and a broadcast
// fit the registers (32: 6 x 4, 9 x 3, 14 x 2; 16: 6 x 2); 14 suffices to hide the latency of a FMA. float64
// is for accuracy: 6 cost it little, and half of its code.
constexpr int kMaxTileRows = 14;
template <class E>
constexpr int max_tile_rows(int columns) {
  return min_of(sizeof(E) == 8 ? 6 : kMaxTileRows,
                (kRegisters - Vec<E>::kOperandRegisters * (columns + 1)) / columns);
}

}  // namespace
