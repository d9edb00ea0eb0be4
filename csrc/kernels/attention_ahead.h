// What a thread's next tile reads and writes, asked for while it computes the present one: short heads come
// from memory once, and are over before the CPU foresees where the next one lies.
#pragma once
#include "attention_problem.h"

namespace {

// Rows of an array, asked for one after the other.
class RowsAhead {
 public:
  RowsAhead() = default;
  RowsAhead(const char* data, RowWalk walk, i64 size, i64 elements, i64 rows)
      : walk_(walk), data_(data), size_(size), bytes_(elements * size), left_(rows) {}

  template <class T>
  static RowsAhead queries(const HeadProblem<T>& p, i64 first, i64 rows) {
    return {p.query, p.walk(p.query_strides, first), size_of(p.dtype), p.head_dim, rows};
  }
  template <class T>
  static RowsAhead out(const HeadProblem<T>& p, i64 first, i64 rows) {
    return {p.out, p.walk(p.out_strides, first), size_of(p.dtype), p.value_dim, rows};
  }
  // All of the head's.
  template <class T>
  static RowsAhead keys(const HeadProblem<T>& p) {
    return {p.key, {{0, 0, p.key_row}, 1, 0}, size_of(p.dtype), p.head_dim, p.readable_keys};
  }
  template <class T>
  static RowsAhead values(const HeadProblem<T>& p) {
    return {p.value, {{0, 0, p.value_row}, 1, 0}, size_of(p.dtype), p.value_dim, p.readable_keys};
  }

  i64 left() const { return left_; }

  HEADWISE_INLINE void ask(i64 rows) {
    RowWalk walk = walk_;  // in registers
    const i64 size = size_, bytes = bytes_;
    for (i64 r = 0; r < rows; ++r) {
      const char* row = data_ + walk.next() * size;
      for (const char* line = line_of(row); line < row + bytes; line += kLineBytes) ask_for_line(line);
    }
    walk_ = walk;
    left_ -= rows;
  }

 private:
  RowWalk walk_;
  const char* data_ = nullptr;
  i64 size_ = 0, bytes_ = 0, left_ = 0;
};

class TileAhead {
 public:
  TileAhead() = default;  // nothing

  // With about so many calls of ask(), after which the rest is left.
  template <class T>
  TileAhead(const HeadProblem<T>& p, i64 first, i64 rows, bool with_keys, i64 calls) {
    arrays_[0] = RowsAhead::queries(p, first, rows);
    if (with_keys) {
      arrays_[1] = RowsAhead::keys(p);
      arrays_[2] = RowsAhead::values(p);
    }
    arrays_[3] = RowsAhead::out(p, first, rows);
    i64 all = 0;
    for (const RowsAhead& array : arrays_) all += array.left();
    each_ = ceil_div(all, max_of(i64(1), calls));
  }

  HEADWISE_INLINE void ask() {
    for (i64 wanted = each_; wanted > 0 && present_ < 4;) {
      const i64 rows = min_of(wanted, arrays_[present_].left());
      arrays_[present_].ask(rows);
      wanted -= rows;
      if (arrays_[present_].left() == 0) ++present_;
    }
  }

 private:
  RowsAhead arrays_[4];
  i64 present_ = 0, each_ = 0;
};

}  // namespace
