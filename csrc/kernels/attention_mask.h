// Which queries of a tile attend which keys, and what changes their scores: windows, masks read where
// they lie, ALiBi (Press et al., 2022), softcap.
#pragma once
#include "arena.h"
#include "attention_problem.h"

namespace {

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
  static constexpr uint64_t kAllLanes = (uint64_t(1) << W) - 1;
  static_assert(Rows <= 64, "a key's rows are the bits of one word");

 public:
  struct Memory {
    uint64_t* attended;   // [Block]: bit r of word j is whether row r attends key j of the block
    T* bias;              // [Block][lanes]: a float mask's block, transposed, times log2(e)
    T *position, *slope;  // [lanes]: of a row's query after the tile's first; of its head, times log2(e)
    const char** rows;    // [Rows]: where each row's mask begins
    explicit Memory(Arena& arena)
        : attended(arena.take<uint64_t>(Block)),
          bias(arena.take<T>(Block * Rows)),
          position(arena.take<T>(Rows)),
          slope(arena.take<T>(Rows)),
          rows(arena.take<const char*>(Rows)) {}
  };

  TileMask(const HeadProblem<T>& p, i64 first_row, i64 rows, i64 lanes, const Memory& m)
      : p_(p), m_(m), first_(first_row), rows_(rows), lanes_(lanes) {
    // A window moves to the right from row to row.
    begin_ = p_.first_key(first_), full_begin_ = p_.first_key(first_ + rows_ - 1);
    full_end_ = p_.end_key(first_), end_ = p_.end_key(first_ + rows_ - 1);
    if (p_.mask)
      for (i64 r = 0; r < rows_; ++r) m_.rows[r] = p_.mask_of(first_ + r);
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

  // What the rows attend of a block of keys, of which the last are left out if nothing attends them. Where it
  // is kSome, attended() tells which.
  HEADWISE_NOINLINE Cover cover(i64 begin, i64& count) {
    const bool full = begin >= full_begin_ && begin + count <= full_end_;
    if (full && !p_.mask) return Cover::kAll;
    if (p_.has_float_mask())
      with_element<T>(p_.mask_dtype, [&](auto element) { read_float_mask<decltype(element)>(begin, count); });
    else if (p_.mask)
      read_bool_mask(begin, count);
    else
      for (i64 j = 0; j < count; ++j) m_.attended[j] = first_bits(rows_);
    if (!full)
      for (i64 j = 0; j < count; ++j) m_.attended[j] &= window_bits(begin + j);
    if (rows_ < lanes_) repeat_last_row(count);
    while (count > 0 && m_.attended[count - 1] == 0) --count;
    uint64_t all = first_bits(rows_);
    for (i64 j = 0; j < count; ++j) all &= m_.attended[j];
    return count == 0 ? Cover::kNone : all == first_bits(rows_) ? Cover::kAll : Cover::kSome;
  }
  bool attended(i64 j, i64 r) const { return m_.attended[j] >> r & 1; }

  // Whether every row attends one of a block's first keys.
  bool all_attend_some(i64 first) const {
    uint64_t some = 0;
    for (i64 j = 0; j < first; ++j) some |= m_.attended[j];
    return (some & first_bits(rows_)) == first_bits(rows_);
  }

  // -inf for what is not attended, in the scores of keys j .. and rows lane ..
  template <int R, int C>
  HEADWISE_INLINE void hide(V (&scores)[R][C], i64 j, i64 lane) const {
    const uint64_t* bits = m_.attended + j;
    unroll<R>([&](auto r) HEADWISE_INLINE_LAMBDA {
      const uint64_t attended = bits[r] >> lane;
      unroll<C>([&](auto c) HEADWISE_INLINE_LAMBDA {
        scores[r][c] =
            V::select(V::from_bits(attended >> (c * W)), scores[r][c], V::broadcast(-kInfinity<T>));
      });
    });
  }

  // Whether the block's scores need apply() though every row attends every key.
  bool changes_scores() const { return p_.changes_products() || has_bias_; }

  // In scores [count][lanes]: softcap, ALiBi, the float mask, -inf where not attended; then block_max anew.
  HEADWISE_NOINLINE void apply(Cover cover, i64 begin, i64 count, T* scores, T* block_max) {
    for (i64 r = 0; r < lanes_;) {
      const int vectors = int(min_of(i64(kMaxTileVectors), (lanes_ - r) / W));
      with_constant<kMaxTileVectors>(vectors, [&](auto n) {
        if (changes_scores()) change_scores<n>(begin, count, r, scores);
        hide_unattended<n>(cover, count, r, scores, block_max);
      });
      r += vectors * W;
    }
  }

 private:
  template <int N>
  HEADWISE_INLINE void change_scores(i64 begin, i64 count, i64 r, T* scores) {
    const V cap = V::broadcast(p_.softcap);
    const i64 first_query = first_ / p_.group + p_.offset;
    for (i64 j = 0; j < count; ++j) {
      const V to_first = V::broadcast(T(first_query - begin - j));
      T* s = scores + j * lanes_ + r;
      unroll<N>([&](auto c) HEADWISE_INLINE_LAMBDA {
        V score = V::load(s + c * W);
        if (p_.softcap > 0) score = tanh(score) * cap;
        if (p_.slopes) {
          const V distance = V::abs(V::load(m_.position + r + c * W) + to_first);
          score = score - V::load(m_.slope + r + c * W) * distance;
        }
        if (has_bias_) score = score + V::load(m_.bias + j * lanes_ + r + c * W);
        score.store(s + c * W);
      });
    }
  }

  template <int N>
  HEADWISE_INLINE void hide_unattended(Cover cover, i64 count, i64 r, T* scores, T* block_max) {
    const V minus_infinity = V::broadcast(-kInfinity<T>);
    V largest[N];
    unroll<N>([&](auto c) HEADWISE_INLINE_LAMBDA { largest[c] = minus_infinity; });
    const i64 lanes = lanes_;
    const uint64_t* bits = m_.attended;
    for (i64 j = 0; j < count; ++j) {
      const uint64_t attended = cover == Cover::kAll ? ~uint64_t(0) : bits[j] >> r;
      T* s = scores + j * lanes + r;
      unroll<N>([&](auto c) HEADWISE_INLINE_LAMBDA {
        const V score = V::select(V::from_bits(attended >> (c * W)), V::load(s + c * W), minus_infinity);
        score.store(s + c * W);
        largest[c] = V::max(score, largest[c]);  // this order skips a NaN
      });
    }
    unroll<N>([&](auto c) HEADWISE_INLINE_LAMBDA { largest[c].store(block_max + r + c * W); });
  }

  // The rows whose window holds key j: those of queries j - window_end + 1 .. j - window_begin.
  uint64_t window_bits(i64 j) const {
    const i64 from = clamp((j - p_.window_end + 1) * p_.group - first_, 0, rows_);
    const i64 to = clamp((j - p_.window_begin + 1) * p_.group - first_, 0, rows_);
    return first_bits(to) & ~first_bits(from);
  }

  // For the lanes past it, which have its query too.
  void repeat_last_row(i64 count) {
    const uint64_t past = first_bits(lanes_) & ~first_bits(rows_);
    for (i64 j = 0; j < count; ++j)
      if (attended(j, rows_ - 1)) m_.attended[j] |= past;
  }

  void read_bool_mask(i64 begin, i64 count) {
    const auto row_of = [&](i64 r) {
      return reinterpret_cast<const uint8_t*>(m_.rows[r]) + begin * p_.mask_column;
    };
    if (is_of_keys_alone()) {
      const uint8_t* row = row_of(0);
      for (i64 j = 0; j < count; ++j) m_.attended[j] = row[j * p_.mask_column] ? first_bits(rows_) : 0;
      return;
    }
    for (i64 j = 0; j < count; ++j) m_.attended[j] = 0;
    for (i64 first = 0; first < rows_; first += 8) {
      const uint8_t* row[8];
      uint8_t bit[8], bits[Block];  // local: the compiler sees that nothing aliases, and vectorises
      for (int i = 0; i < 8; ++i) {
        row[i] = row_of(min_of(first + i, rows_ - 1));
        bit[i] = first + i < rows_ ? uint8_t(1 << i) : 0;
        for (i64 j = 0; j < count; j += 64) ask_for_next(row[i] + j * p_.mask_column, 64);
      }
      const auto gather = [&](i64 step) HEADWISE_INLINE_LAMBDA {
        for (i64 j = 0; j < count; ++j) {
          uint8_t all = 0;
          unroll<8>([&](auto i) HEADWISE_INLINE_LAMBDA { all |= row[i][j * step] ? bit[i] : uint8_t(0); });
          bits[j] = all;
        }
      };
      if (p_.mask_column == 1)
        gather(1);
      else
        gather(p_.mask_column);
      for (i64 j = 0; j < count; ++j) m_.attended[j] |= uint64_t(bits[j]) << first;
    }
  }

  // bias[j][r] = log2(e) mask[r][j], and attended from what is not -inf. The least finite numbers, which are
  // a usual way to mask, stay finite: a query that has no others attends all keys alike.
  template <class M>
  void read_float_mask(i64 begin, i64 count) {
    for (i64 j = 0; j < count; ++j) m_.attended[j] = first_bits(rows_);
    has_bias_ = false;
    if (is_of_keys_alone())
      repeat_mask<M>(begin, count);
    else if (!is_zero<M>(begin, count))
      transpose_mask<M>(begin, count);
  }

  template <class M>
  void repeat_mask(i64 begin, i64 count) {
    const M* row = reinterpret_cast<const M*>(m_.rows[0]) + begin * p_.mask_column;
    for (i64 j = 0; j < count; ++j) {
      const T x = as_real(row[j * p_.mask_column]);
      const bool hidden = x == -kInfinity<T>;
      if (hidden) m_.attended[j] = 0;
      has_bias_ |= !hidden && x != 0;
      for (i64 r = 0; r < lanes_; r += W) bias_of(V::broadcast(x)).store(m_.bias + j * lanes_ + r);
    }
  }

  template <class M>
  void transpose_mask(i64 begin, i64 count) {
    for (i64 r = 0; r < lanes_; r += W)
      for (i64 j = 0; j < count; j += W) {
        V block[W];
        for (i64 i = 0; i < W; ++i)
          block[i] = r + i < rows_ ? mask_row<M>(r + i, begin + j, count - j) : V::zero();
        V::transpose(block);
        for (i64 i = 0; i < min_of(i64(W), count - j); ++i) {
          const uint64_t hidden = V::bits_of(V::equal(block[i], V::broadcast(-kInfinity<T>)));
          m_.attended[j + i] &= ~(hidden << r);
          has_bias_ |= (hidden | V::bits_of(V::equal(block[i], V::zero()))) != kAllLanes;
          bias_of(block[i]).store(m_.bias + (j + i) * lanes_ + r);
        }
      }
  }

  static V bias_of(V mask) { return V::max(V::broadcast(-kLargest<T>), mask * V::broadcast(kLog2E<T>)); }

  // Whether a float mask changes nothing in a block, which is found out sooner than it is transposed.
  template <class M>
  bool is_zero(i64 begin, i64 count) const {
    for (i64 r = 0; r < rows_; ++r)
      for (i64 j = 0; j < count; j += W)
        if (V::bits_of(V::equal(mask_row<M>(r, begin + j, count - j), V::zero())) != kAllLanes) return false;
    return true;
  }

  // Whether all rows have the same mask.
  bool is_of_keys_alone() const { return p_.mask_row == 0 && (p_.mask_head == 0 || p_.group == 1); }

  // What lies a block further on from `columns` elements of a row: a line or two of every row is no order
  // that the CPU foresees. By the last of them, as the first lies in a line that was asked for before.
  template <class M>
  void ask_for_next(const M* element, i64 columns) const {
    __builtin_prefetch(element + (Block + columns - 1) * p_.mask_column, 0, 2);
  }

  // W elements of the mask's row r from key j on, of which `present` are there.
  template <class M>
  V mask_row(i64 r, i64 j, i64 present) const {
    const M* from = reinterpret_cast<const M*>(m_.rows[r]) + j * p_.mask_column;
    ask_for_next(from, W);
    if (p_.mask_column == 1) return V::load(from, V::first_lanes(present));
    T lanes[W] = {};
    for (i64 i = 0; i < min_of(i64(W), present); ++i) lanes[i] = as_real(from[i * p_.mask_column]);
    return V::load(lanes);
  }

  const HeadProblem<T>& p_;
  const Memory& m_;
  i64 first_, rows_, lanes_;
  bool has_bias_ = false;  // the block that was covered: more than 0 and -inf in a float mask
  i64 begin_, full_begin_, full_end_, end_;  // every row attends the keys in [full_begin, full_end)
};

}  // namespace
