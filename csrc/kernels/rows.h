// f(row) for every row, dealt to the threads in runs.
#pragma once
#include "../parallel.h"
#include "../simd/vec.h"

namespace {

template <class F>
void for_each_row(i64 rows, i64 columns, double flops_per_element, F&& f) {
  constexpr i64 kRun = 16;
  const i64 runs = ceil_div(rows, kRun);
  const int threads = threads_for(double(rows) * double(columns) * flops_per_element, runs);
  parallel_for(threads, runs, [&](TaskCounter& counter) {
    for (i64 run; (run = counter.next()) >= 0;)
      for (i64 row = run * kRun; row < min_of(rows, (run + 1) * kRun); ++row) f(row);
  });
}

}  // namespace
