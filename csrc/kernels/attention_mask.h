// Which queries of a tile attend which keys, and what changes their scores: windows, masks read where
// they lie, ALiBi (Press et al., 2022), softcap.
#pragma once
#include "arena.h"
#include "attention_problem.h"

namespace {

// f(M{}) for the type of a mask's elements.
template <class T, class F>
HEADWISE_INLINE void with_mask_element(hw_dtype dtype, F&& f) {
  if (dtype == HW_BOOL) return f(uint8_t{});
  with_element<T>(dtype, f);
}

inline bool attends(uint8_t x) { return x != 0; }
inline bool attends(f16 x) { return x.bits != 0xfc00; }  // the -inf of each type
inline bool attends(bf16 x) { return x.bits != 0xff80; }
inline bool attends(float x) { return x != -kInfinity<float>; }
inline bool attends(double x) { return x != -kInfinity<double>; }

inline float as_real(f16 x) { return widen(x); }
inline float as_real(bf16 x) { return widen(x); }
inline float as_real(float x) { return x; }
inline double as_real(double x) { return x; }

constexpr uint64_t first_bits(i64 n) { return n >= 64 ? ~uint64_t(0) : (uint64_t(1) << n) - 1; }

enum class Cover { kNone, kSome, kAll };

// For the Rows rows of a tile from first_row on, and blocks of at most Block keys.
template <class T, i64 Rows, i64 Block>
class TileMask {
  using V = Vec<T>;
  static constexpr int W = V::kLanes;
  static_assert(Rows <= 64, "a key's rows are the bits of one word");

 public:
  struct Memory {
    uint64_t* attended;   // [Block]: bit r of word j is whether row r attends key j of the block
    uint8_t* bits;        // [Rows / 8][Block]: the same, as read
    T* bias;              // [Block][lanes]: a float mask's block, transposed, times log2(e)
    T *position, *slope;  // [lanes]: of a row's query after the tile's first; of its head, times log2(e)
    explicit Memory(Arena& arena)
        : attended(arena.take<uint64_t>(Block)),
          bits(arena.take<uint8_t>(ceil_div(Rows, 8) * Block)),
          bias(arena.take<T>(Block * Rows)),
          position(arena.take<T>(Rows)),
          slope(arena.take<T>(Rows)) {}
  };

  TileMask(const HeadProblem<T>& p, i64 first_row, i64 rows, i64 lanes, const Memory& m)
      : p_(p), m_(m), first_(first_row), rows_(rows), lanes_(lanes) {
    // A window moves to the right from row to row.
    begin_ = p_.first_key(first_), full_begin_ = p_.first_key(first_ + rows_ - 1);
    full_end_ = p_.end_key(first_), end_ = p_.end_key(first_ + rows_ - 1);
    float_mask_ = p_.mask && p_.mask_dtype != HW_BOOL;
    if (p_.slopes)
      for (i64 r = 0; r < lanes_; ++r) {
        m_.position[r] = T((first_ + r) / p_.group - first_ / p_.group);
        m_.slope[r] = T(p_.slopes[(first_ + r) % p_.group] * kLog2E<double>);
      }
  }

  // No row attends a key outside [begin, end).
  i64 begin() const { return begin_; }
  i64 end() const { return end_; }

  // Nor does row r or one above it attend a key from end_of(r) on; full_end() is the least of them.
  i64 full_end() const { return full_end_; }
  i64 end_of(i64 r) const { return p_.end_key(first_ + r); }

  // What the rows attend of a block of keys. Where it is kSome, attended() tells which.
  HEADWISE_NOINLINE Cover cover(i64 begin, i64 count) {
    const bool full = begin >= full_begin_ && begin + count <= full_end_;
    if (full && !p_.mask) return Cover::kAll;
    if (p_.mask)
      with_mask_element<T>(p_.mask_dtype, [&](auto element) { read_mask<decltype(element)>(begin, count); });
    else
      for (i64 j = 0; j < count; ++j) m_.attended[j] = first_bits(rows_);
    if (!full)
      for (i64 j = 0; j < count; ++j) m_.attended[j] &= window_bits(begin + j);
    uint64_t any = 0, all = first_bits(rows_);
    for (i64 j = 0; j < count; ++j) {
      any |= m_.attended[j];
      all &= m_.attended[j];
    }
    return !any ? Cover::kNone : all == first_bits(rows_) ? Cover::kAll : Cover::kSome;
  }
  bool attended(i64 j, i64 r) const { return m_.attended[j] >> r & 1; }

  // Whether scores need apply() though every row attends every key.
  bool changes_scores() const { return p_.softcap > 0 || p_.slopes || float_mask_; }

  // In scores [count][lanes]: softcap, ALiBi, the float mask, -inf where not attended; then block_max anew.
  HEADWISE_NOINLINE void apply(Cover cover, i64 begin, i64 count, T* scores, T* block_max) {
    if (float_mask_)
      with_element<T>(p_.mask_dtype, [&](auto element) { transpose_mask<decltype(element)>(begin, count); });
    const V minus_infinity = V::broadcast(-kInfinity<T>), cap = V::broadcast(p_.softcap);
    for (i64 r = 0; r < lanes_; r += W) {
      V largest = minus_infinity, position = V::zero(), slope = V::zero();
      if (p_.slopes) position = V::load(m_.position + r), slope = V::load(m_.slope + r);
      for (i64 j = 0; j < count; ++j) {
        T* s = scores + j * lanes_ + r;
        V score = V::load(s);
        if (p_.softcap > 0) score = tanh(score) * cap;
        if (p_.slopes) {
          const V to_first = V::broadcast(T(first_ / p_.group + p_.offset - begin - j));
          score = score - slope * V::abs(position + to_first);
        }
        if (float_mask_) score = score + V::load(m_.bias + j * lanes_ + r);
        if (cover == Cover::kSome)
          score = V::select(V::from_bits(m_.attended[j] >> r), score, minus_infinity);
        score.store(s);
        largest = V::max(score, largest);  // this order skips a NaN
      }
      largest.store(block_max + r);
    }
  }

 private:
  // The rows whose window holds key j: those of queries j - offset - right .. j - offset + left.
  uint64_t window_bits(i64 j) const {
    const i64 query = j - p_.offset;
    const i64 from = p_.right < 0 ? 0 : clamp((query - p_.right) * p_.group - first_, 0, rows_);
    const i64 to = p_.left < 0 ? rows_ : clamp((query + p_.left + 1) * p_.group - first_, 0, rows_);
    return first_bits(to) & ~first_bits(from);
  }

  template <class M>
  void read_mask(i64 begin, i64 count) {
    const auto row_of = [&](i64 r) {
      return reinterpret_cast<const M*>(p_.mask_of(first_ + r)) + begin * p_.mask_column;
    };
    if (p_.mask_row == 0 && (p_.mask_head == 0 || p_.group == 1)) {  // a mask of keys alone
      const M* row = row_of(0);
      for (i64 j = 0; j < count; ++j)
        m_.attended[j] = attends(row[j * p_.mask_column]) ? first_bits(rows_) : 0;
      return;
    }
    for (i64 j = 0; j < count; ++j) m_.attended[j] = 0;
    for (i64 eight = 0; eight < rows_; eight += 8) {
      uint8_t* bits = m_.bits + eight / 8 * Block;
      for (i64 j = 0; j < count; ++j) bits[j] = 0;
      for (i64 r = eight; r < min_of(eight + 8, rows_); ++r) {
        const M* row = row_of(r);
        const int shift = int(r - eight);
        if (p_.mask_column == 1)
          for (i64 j = 0; j < count; ++j) bits[j] |= uint8_t(uint8_t(attends(row[j])) << shift);
        else
          for (i64 j = 0; j < count; ++j)
            bits[j] |= uint8_t(uint8_t(attends(row[j * p_.mask_column])) << shift);
      }
      for (i64 j = 0; j < count; ++j) m_.attended[j] |= uint64_t(bits[j]) << eight;
    }
  }

  template <class M>
  void transpose_mask(i64 begin, i64 count) {
    const V log2e = V::broadcast(kLog2E<T>);
    for (i64 r = 0; r < lanes_; r += W)
      for (i64 j = 0; j < count; j += W) {
        V block[W];
        for (i64 i = 0; i < W; ++i)
          block[i] = r + i < rows_ ? mask_row<M>(r + i, begin + j, count - j) * log2e : V::zero();
        V::transpose(block);
        for (i64 i = 0; i < min_of(i64(W), count - j); ++i) block[i].store(m_.bias + (j + i) * lanes_ + r);
      }
  }

  // W elements of the mask's row r from key j on, of which `present` are there.
  template <class M>
  V mask_row(i64 r, i64 j, i64 present) const {
    const char* row = p_.mask_of(first_ + r);
    if (p_.mask_column == 1) return load_as<M, T>(row, j, j + present);
    T lanes[W] = {};
    for (i64 i = 0; i < min_of(i64(W), present); ++i)
      lanes[i] = as_real(reinterpret_cast<const M*>(row)[(j + i) * p_.mask_column]);
    return V::load(lanes);
  }

  const HeadProblem<T>& p_;
  const Memory& m_;
  i64 first_, rows_, lanes_;
  i64 begin_, full_begin_, full_end_, end_;  // every row attends the keys in [full_begin, full_end)
  bool float_mask_;
};

}  // namespace
