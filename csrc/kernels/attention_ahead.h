// What a thread's next tile reads and writes, asked for row by row while it computes the present one: short
// heads come from memory once, and are over before the CPU foresees where the next one lies.
#pragma once
#include "attention_problem.h"

namespace {

class TileAhead {
 public:
  TileAhead() = default;  // nothing

  // Rows [first, first + rows) of the queries and of the output; and all keys and values, if wanted. With so
  // many calls of ask().
  template <class T>
  TileAhead(const HeadProblem<T>& p, i64 first, i64 rows, bool with_keys, i64 calls)
      : size_(size_of(p.dtype)) {
    add(p.query, p.walk(p.query_strides, first), p.head_dim, rows);
    if (with_keys) {
      add(p.key, {{0, 0, p.key_row}, 1, 0}, p.head_dim, p.readable_keys);
      add(p.value, {{0, 0, p.value_row}, 1, 0}, p.value_dim, p.readable_keys);
    }
    add(p.out, p.walk(p.out_strides, first), p.value_dim, rows);
    i64 all = 0;
    for (const Rows& array : arrays_) all += array.left;
    each_ = ceil_div(all, max_of(i64(1), calls));
  }

  HEADWISE_INLINE void ask() {
    for (i64 row = 0; row < each_ && present_ < count_; ++row) {
      Rows& array = arrays_[present_];
      const char* data = array.data + array.walk.next() * size_;
      for (i64 byte = 0; byte < array.bytes; byte += 64) __builtin_prefetch(data + byte, 0, 2);
      if (--array.left == 0) ++present_;
    }
  }

 private:
  struct Rows {
    RowWalk walk;
    const char* data = nullptr;
    i64 bytes = 0, left = 0;
  };

  void add(const char* data, RowWalk walk, i64 elements, i64 rows) {
    if (rows > 0) arrays_[count_++] = {walk, data, elements * size_, rows};
  }

  Rows arrays_[4];
  int count_ = 0, present_ = 0;
  i64 size_ = 0, each_ = 0;
};

}  // namespace
