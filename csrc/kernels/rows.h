// Rows dealt to the threads in runs, and the sum of a row.
#pragma once
#include "../parallel.h"
#include "../simd/vec.h"

namespace {

template <class F>
hw_status for_each_row(i64 rows, i64 columns, double flops_per_element, F&& f) {
  constexpr i64 kRun = 16;
  const i64 runs = ceil_div(rows, kRun);
  const int threads = threads_for(double(rows) * double(columns) * flops_per_element, runs);
  return parallel_for(threads, runs, [&](TaskCounter& counter) {
    for (i64 run; (run = counter.next()) >= 0;)
      for (i64 row = run * kRun; row < min_of(rows, (run + 1) * kRun); ++row) f(row);
  });
}

// f(begin) + f(begin + 1) + ... + f(end - 1), vectors, by halves: rounding grows with the logarithm of
// the length, on one lane as on sixteen.
template <class V, class F>
V pairwise_sum(i64 begin, i64 end, F&& f) {
  if (end - begin > 16) {
    const i64 middle = begin + (end - begin) / 2;
    return pairwise_sum<V>(begin, middle, f) + pairwise_sum<V>(middle, end, f);
  }
  V sum = V::zero();
  for (i64 i = begin; i < end; ++i) sum = sum + f(i);
  return sum;
}

}  // namespace
