// Memory that will be needed, asked for line by line into a core's own cache, L2: few lines can be on their
// way to L1 at a time, and other loads wait too when all of those are taken.
#pragma once
#include "../simd/vec.h"

namespace {

constexpr i64 kLineBytes = 64;

inline i64 offset_in_line(const char* byte) { return i64(reinterpret_cast<uintptr_t>(byte) % kLineBytes); }
inline const char* line_of(const char* byte) { return byte - offset_in_line(byte); }

HEADWISE_INLINE void ask_for_line(const char* byte) { __builtin_prefetch(byte, 0, 2); }

// What comes with each step of a product: nothing, or memory is asked for.
struct NothingAhead {
  template <class... Step>
  HEADWISE_INLINE void operator()(Step...) const {}
};

// Rows of memory: with each call the next line. A row that does not begin on a line ends in one more.
class LinesAhead {
 public:
  LinesAhead() = default;
  LinesAhead(const char* data, i64 row_bytes, i64 bytes, i64 rows)
      : next_(line_of(data)), row_end_(data), row_bytes_(row_bytes), bytes_(bytes), rows_(rows) {
    if (rows_ > 1 && row_bytes_ == bytes_) bytes_ *= rows_, rows_ = 1;
    row_end_ += bytes_;
  }

  // As many as the first row has, times the rows.
  i64 lines() const { return rows_ * ceil_div(row_end_ - next_, kLineBytes); }

  HEADWISE_INLINE void operator()() {
    if (rows_ == 0) return;
    ask_for_line(next_);
    next_ += kLineBytes;
    if (next_ < row_end_) return;
    row_end_ += row_bytes_, next_ = line_of(row_end_ - bytes_), --rows_;
  }
  void ask_for_rest() {
    while (rows_ > 0) (*this)();
  }

 private:
  const char *next_ = nullptr, *row_end_ = nullptr;
  i64 row_bytes_ = 0, bytes_ = 0, rows_ = 0;
};

// The same at an even pace, as all at once would hold up what else is read: by about the last of `steps`
// calls every line has been asked for.
class PacedLines {
 public:
  PacedLines() = default;
  PacedLines(const LinesAhead& lines, i64 steps)
      : lines_(lines), pace_(ceil_div(kFraction * lines.lines(), max_of(i64(1), steps))) {}

  HEADWISE_INLINE void operator()() {
    for (due_ += pace_; due_ >= kFraction; due_ -= kFraction) lines_();
  }

 private:
  static constexpr i64 kFraction = 16;  // of a line, in which the pace is counted

  LinesAhead lines_;
  i64 pace_ = 0, due_ = 0;
};

}  // namespace
