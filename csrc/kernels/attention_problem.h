// What attention computes for one key/value head of one sequence.
#pragma once
#include "../simd/math.h"
#include "lines_ahead.h"

namespace {

constexpr i64 clamp(i64 n, i64 begin, i64 end) { return max_of(begin, min_of(n, end)); }

constexpr i64 size_of(hw_dtype dtype) {
  return dtype == HW_FLOAT64 ? 8 : dtype == HW_FLOAT32 ? 4 : dtype == HW_BOOL ? 1 : 2;
}

// f(E{}) for the type that arrays of a dtype hold, where sums are kept in T.
template <class T, class F>
HEADWISE_INLINE void with_element(hw_dtype dtype, F&& f) {
  if constexpr (sizeof(T) == 4) {
    if (dtype == HW_FLOAT16) return f(f16{});
    if (dtype == HW_BFLOAT16) return f(bf16{});
  }
  f(T{});
}

// Elements [begin, begin + count) of a row as T, where the address counts bytes.
template <class E, class T>
HEADWISE_INLINE Vec<T> load_as(const char* row, i64 i, i64 count) {
  const auto inside = Vec<T>::first_lanes(count - i);
  return Vec<T>::load(reinterpret_cast<const E*>(row) + i, inside);
}

// Where rows begin, one after the other, as HeadProblem::element() says but without its divisions.
class RowWalk {
 public:
  RowWalk() = default;
  RowWalk(const hw_strides& strides, i64 group, i64 first)
      : strides_(strides), group_(group), head_(first % group), query_(first / group * strides.row) {}

  HEADWISE_INLINE i64 next() {
    const i64 element = query_ + head_ * strides_.head;
    if (++head_ == group_) head_ = 0, query_ += strides_.row;
    return element;
  }

 private:
  hw_strides strides_{};
  i64 group_ = 1, head_ = 0, query_ = 0;
};

// The `group` query heads that share the key/value head also share tiles: row r is query r / group of head
// r % group. Strides count elements.
template <class T>
struct HeadProblem {
  hw_dtype dtype;  // of query, key, value and out
  const char *query, *key, *value;
  char* out;
  T* lse;
  hw_strides query_strides, out_strides, lse_strides;  // of head and row
  i64 key_row, value_row;
  i64 queries, keys, readable_keys, group, head_dim, value_dim;  // keys past readable_keys are masked
  T scale;     // of the products; powers of 2 are taken, so times log2(e), unless softcap follows
  i64 offset;  // of the first query on the key axis
  i64 window_begin, window_end;  // query i attends keys i + window_begin .. i + window_end - 1
  T softcap;                     // times log2(e); 0 for none
  const double* slopes;          // optional, of the group's heads: ALiBi
  const double* sinks;           // optional, of the group's heads
  const char* mask;              // optional, of the group's first head
  hw_dtype mask_dtype;
  i64 mask_head, mask_row, mask_column;

  i64 rows() const { return queries * group; }
  bool has_float_mask() const { return mask && mask_dtype != HW_BOOL; }
  bool changes_products() const { return softcap > 0 || slopes; }  // beside a mask
  // Whether a score is its product times the scale, and the largest product's the largest.
  bool scores_are_products() const { return scale > 0 && !changes_products() && !has_float_mask(); }
  RowWalk walk(const hw_strides& strides, i64 first) const { return {strides, group, first}; }
  i64 element(const hw_strides& s, i64 r) const { return r / group * s.row + r % group * s.head; }
  char* out_of(i64 r) const { return out + element(out_strides, r) * size_of(dtype); }
  const char* mask_of(i64 r) const {
    return mask + (r / group * mask_row + r % group * mask_head) * size_of(mask_dtype);
  }

  // Where rows first .. first + count - 1 of the queries, of E, begin; the last stands for those past it.
  template <class E, int W>
  void find_queries(i64 first, i64 count, const E* (&row)[W]) const {
    RowWalk rows = walk(query_strides, first);
    for (i64 i = 0; i < count; ++i) row[i] = reinterpret_cast<const E*>(query) + rows.next();
    for (i64 i = count; i < W; ++i) row[i] = row[i - 1];
  }

  LinesAhead keys_ahead(i64 begin, i64 count) const {
    const i64 size = size_of(dtype);
    return {key + begin * key_row * size, key_row * size, head_dim * size, count};
  }
  LinesAhead values_ahead(i64 begin, i64 count) const {
    const i64 size = size_of(dtype);
    return {value + begin * value_row * size, value_row * size, value_dim * size, count};
  }

  // The keys that a window leaves to row r: [first_key, end_key).
  i64 first_key(i64 r) const { return clamp(r / group + window_begin, 0, readable_keys); }
  i64 end_key(i64 r) const { return clamp(r / group + window_end, 0, readable_keys); }
};

// Far beyond any length, and sums of a few cannot overflow.
constexpr i64 kFar = i64(1) << 40;

// a + b, or kFar or -kFar where it is further than that.
inline i64 far_sum(i64 a, i64 b) {
  i64 sum;
  if (__builtin_add_overflow(a, b, &sum)) return a < 0 ? -kFar : kFar;
  return clamp(sum, -kFar, kFar);
}

// The problem of sequence b and key/value head g.
template <class T>
HeadProblem<T> head_problem(const hw_attention_params& a, i64 b, i64 g) {
  const bool packed = a.query_starts != nullptr;
  const i64 group = a.num_heads / a.num_kv_heads;
  const i64 q_row = packed ? a.query_starts[b] : 0, k_row = packed ? a.key_starts[b] : 0;
  const auto at = [&](const hw_strides& s, i64 head, i64 row) {
    return (packed ? row * s.row : b * s.batch) + head * s.head;
  };
  const i64 size = size_of(a.dtype);
  HeadProblem<T> p{};
  p.dtype = a.dtype;
  p.query = static_cast<const char*>(a.query) + at(a.query_strides, g * group, q_row) * size;
  p.key = static_cast<const char*>(a.key) + at(a.key_strides, g, k_row) * size;
  p.value = static_cast<const char*>(a.value) + at(a.value_strides, g, k_row) * size;
  p.out = static_cast<char*>(a.out) + at(a.out_strides, g * group, q_row) * size;
  if (a.lse) p.lse = static_cast<T*>(a.lse) + at(a.lse_strides, g * group, q_row);
  p.query_strides = a.query_strides;
  p.out_strides = a.out_strides;
  p.lse_strides = a.lse_strides;
  p.key_row = a.key_strides.row;
  p.value_row = a.value_strides.row;
  p.queries = packed ? a.query_starts[b + 1] - q_row : a.query_length;
  p.keys = packed ? a.key_starts[b + 1] - k_row : a.key_length;
  p.readable_keys = a.key_lengths ? min_of(p.keys, a.key_lengths[b]) : p.keys;
  p.group = group;
  p.head_dim = a.head_dim;
  p.value_dim = a.value_dim;
  const i64 offset = a.query_offsets ? a.query_offsets[b] : 0;
  p.offset = clamp(offset, -kFar, kFar);
  p.window_begin = a.window_left == 0 ? -kFar : far_sum(offset, 1 - a.window_left);
  p.window_end = a.window_right == 0 ? kFar : far_sum(offset, a.window_right);
  if (a.softcap > 0) {
    p.softcap = T(a.softcap * kLog2E<double>);
    p.scale = T(a.scale / a.softcap);
  } else {
    p.scale = T(a.scale * kLog2E<double>);
  }
  if (a.alibi_slopes) p.slopes = a.alibi_slopes + b * a.alibi_batch_stride + g * group;
  if (a.sinks) p.sinks = a.sinks + g * group;
  if (a.attn_mask) {
    p.mask_dtype = a.mask_dtype;
    const i64 first = a.mask_starts[b] + g * group * a.mask_strides.head;
    p.mask = static_cast<const char*>(a.attn_mask) + first * size_of(a.mask_dtype);
    p.mask_head = a.mask_strides.head;
    p.mask_row = a.mask_strides.row;
    p.mask_column = a.mask_column_stride;
  }
  return p;
}

}  // namespace
