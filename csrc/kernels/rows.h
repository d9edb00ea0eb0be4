// Rows dealt to the threads in runs, and the sum of a row.
#pragma once
#include "../parallel.h"
#include "../simd/vec.h"

namespace {

// f(begin, end) for all rows, at most AtOnce at a time.
template <i64 AtOnce, class F>
hw_status for_each_rows(i64 rows, i64 columns, double flops_per_element, F&& f) {
  const int threads = threads_for(double(rows) * double(columns) * flops_per_element, rows);
  const i64 run_rows = max_of(i64(1), min_of(i64(16), ceil_div(rows, i64(threads))));
  return parallel_for(threads, ceil_div(rows, run_rows), [&](TaskCounter& counter) {
    for (i64 run; (run = counter.next()) >= 0;) {
      const i64 end = min_of(rows, (run + 1) * run_rows);
      for (i64 row = run * run_rows; row < end; row += AtOnce) f(row, min_of(end, row + AtOnce));
    }
  });
}
template <class F>
hw_status for_each_row(i64 rows, i64 columns, double flops_per_element, F&& f) {
  return for_each_rows<1>(rows, columns, flops_per_element, [&](i64 row, i64) { f(row); });
}

// Vector i .. of a row of n numbers, 0 past its end; most are whole, and need no mask to be made.
template <class V, class Number>
HEADWISE_INLINE V load_of_row(const Number* row, i64 i, i64 n) {
  return n - i >= V::kLanes ? V::load(row + i, V::first_lanes(V::kLanes))
                            : V::load(row + i, V::first_lanes(n - i));
}
template <class V, class Number>
HEADWISE_INLINE void store_to_row(V x, Number* row, i64 i, i64 n) {
  if (n - i >= V::kLanes)
    x.store(row + i, V::first_lanes(V::kLanes));
  else
    x.store(row + i, V::first_lanes(n - i));
}

// f(begin) + f(begin + 1) + ... + f(end - 1), vectors, by halves and quarters: rounding grows with the
// logarithm of the length, on one lane as on sixteen.
template <class V, class F>
HEADWISE_INLINE V sum_of_few(i64 begin, i64 end, F&& f) {
  V sum[4] = {V::zero(), V::zero(), V::zero(), V::zero()};
  i64 i = begin;
  for (; i + 4 <= end; i += 4) unroll<4>([&](auto j) HEADWISE_INLINE_LAMBDA { sum[j] = sum[j] + f(i + j); });
  for (; i < end; ++i) sum[0] = sum[0] + f(i);
  return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}
template <class V, class F>
V pairwise_sum(i64 begin, i64 end, F&& f) {
  constexpr i64 kFew = 32;
  if (end - begin <= kFew) return sum_of_few<V>(begin, end, f);
  const i64 middle = begin + (end - begin) / 2;
  return pairwise_sum<V>(begin, middle, f) + pairwise_sum<V>(middle, end, f);
}

}  // namespace
