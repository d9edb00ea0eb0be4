// One thread's working memory, handed out piece by piece.
#pragma once
#include "../simd/vec.h"

namespace {

class Arena {
 public:
  // Without memory it only counts: the same constructors tell how much they need.
  explicit Arena(void* memory = nullptr) : memory_(static_cast<char*>(memory)) {}

  template <class T>
  T* take(i64 elements) {
    char* taken = memory_ ? memory_ + used_ : nullptr;
    used_ += round_up(elements * i64(sizeof(T)), 64);
    return reinterpret_cast<T*>(taken);
  }
  size_t used() const { return size_t(used_); }

 private:
  char* memory_;
  i64 used_ = 0;
};

}  // namespace
