// One tile of attention: up to kTileRows queries of one key/value head against all their keys, by a
// blockwise online softmax (Milakov and Gimelshein, 2018; Dao et al., 2022).
//
// Lanes are queries. Q lies transposed, so that max, exp2 and sum run down the lanes with no horizontal
// step. Every kSplit keys the softmax starts anew, and the parts are merged in ascending order: so a part
// may be computed by any thread, and the bits stay.
#pragma once
#include "attention_ahead.h"
#include "attention_few_queries.h"
#include "attention_mask.h"
#include "attention_output.h"

namespace {

// Tiles that go on in two steps at once after one that had to begin anew: their scores may be as uneven.
constexpr int kDetours = 7;

// Keys and values of a head that come from a shared cache for each of its tiles.
constexpr i64 kLongHead = 1 << 20;

// Keys a split: a multiple of kKeyBlock. Fixed, or bits would depend on the number of threads.
constexpr i64 kSplit = 1024;

// What one thread needs for a tile.
template <class Products>
struct TileMemory {
  using T = typename Products::Real;
  using Mask = TileMask<T, kTileRows<T>, kKeyBlock>;

  Products products;
  typename Mask::Memory mask;
  SoftmaxState<T> part, total;
  T* scores;     // [keys of a block][lanes]: scores, then probabilities
  T* block_max;  // [lanes]
  T* rescale;    // [lanes]: 2^(old max - new max)
  struct {
    const char* value = nullptr;
    i64 begin = 0, end = 0;
  } finite;                        // keys of a head whose values were found finite
  const char* last_key = nullptr;  // of the head that the thread has met or asked for last
  bool asked = false;              // for what the tile to come needs
  int detours = 0;                 // tiles to come that do not try score_and_exponentiate()

  TileMemory(const hw_attention_params& a, Arena& arena)
      : products(a, arena),
        mask(arena),
        part(a.value_dim, arena),
        total(a.value_dim, arena),
        scores(arena.take<T>(kKeyBlock * kTileRows<T>)),
        block_max(arena.take<T>(kTileRows<T>)),
        rescale(arena.take<T>(kTileRows<T>)) {}
};

template <class Products>
class AttentionTile {
  using T = typename Products::Real;
  using V = Vec<T>;
  static constexpr int W = V::kLanes;

 public:
  AttentionTile(const HeadProblem<T>& problem, i64 first_row, TileMemory<Products>& memory)
      : p_(problem),
        m_(memory),
        first_(first_row),
        rows_(min_of(kTileRows<T>, problem.rows() - first_row)),
        lanes_(round_up(rows_, W)),
        mask_(problem, first_row, rows_, lanes_, memory.mask),
        has_few_queries_(rows_ <= kFewQueries<T>),
        output_(problem, first_row, rows_, memory.rescale, memory.block_max),
        few_(problem, memory.products, memory.scores + kKeyBlock * W, rows_),
        keeps_max_(sizeof(T) < 8 && memory.detours == 0 && lanes_ == kTileRows<T> &&
                   p_.head_dim <= kScoreChain && p_.scale > 0),
        knows_head_(memory.last_key == problem.key),
        was_asked_for_(memory.asked) {
    if (memory.detours > 0) --memory.detours;
    memory.last_key = problem.key;
    memory.asked = false;
  }

  // Asks in good time for what the thread's next tile needs, which begins at that row; but not while a few
  // queries wait for memory themselves.
  void expect(const HeadProblem<T>& next, i64 first_row) {
    if (has_few_queries_) return;
    const i64 rows = min_of(kTileRows<T>, next.rows() - first_row);
    const i64 calls = (mask_.end() - mask_.begin()) / max_tile_rows<T>(kMaxTileVectors);
    next_ = {next, first_row, rows, next.key != p_.key, calls};
    m_.last_key = next.key;
    m_.asked = true;
  }

  // The attention of the tile's rows, and their log-sum-exp if wanted. Stops early, with the output
  // unwritten, when stopped() says so between two splits.
  template <class Stopped>
  void attend(Stopped&& stopped) {
    pack_queries();
    const i64 first_split = mask_.begin() / kSplit, end_split = ceil_div(mask_.end(), kSplit);
    if (end_split - first_split == 1 && !p_.sinks) {  // merged with nothing it would have the same bits
      attend_split(first_split, m_.total, true);
    } else {
      reset_to_sinks(m_.total);
      for (i64 split = first_split; split < end_split; ++split) {
        attend_split(split, m_.part);
        output_.merge(m_.total, m_.part);
        if (stopped()) return;
      }
    }
    output_.write(m_.total);
  }

  void pack_queries() {
    // What few queries read once they wait for; short sequences of more come fast enough without.
    const bool far = mask_.end() - mask_.begin() > 2 * kKeyBlock;
    cold_ = has_few_queries_ || (far && (!knows_head_ || meets_head_anew()));
    if (far && !was_asked_for_) RowsAhead::queries(p_, first_, rows_).ask(rows_);
    m_.products.pack_queries(p_, first_, rows_, lanes_);
  }

  // One split's keys alone, and if it is the only one, the output. A split that no row attends gives what
  // merge() leaves no trace of.
  void attend_split(i64 split, const SoftmaxState<T>& state, bool only = false) {
    reset_sums(state);
    bool empty = true;
    const i64 end = min_of(mask_.end(), (split + 1) * kSplit);
    for_each_block(max_of(mask_.begin(), split * kSplit), end, [&](i64 begin, i64 count) {
      const bool last = only && begin + count == end;
      const Cover cover = mask_.cover(begin, count);
      if (cover == Cover::kNone) return;
      if (has_few_queries_ && cover == Cover::kAll) {
        if (mask_.changes_scores()) {
          score_block(cover, begin, count);
          few_.turn_back(count, m_.scores);
        } else {
          few_.score(begin, count);
        }
        few_.exponentiate(state, m_.rescale, begin, count);
        few_.accumulate(begin, count, mask_.end(), output_.added_to(state, empty));
      } else {
        if (!score_and_exponentiate(state, empty, cover, begin, count)) {
          score_block(cover, begin, count);
          exponentiate(state, begin, count);
        }
        accumulate(state, empty, cover, begin, count, last);
      }
      empty = false;
    });
    if (empty) output_.reset(state);
  }

  // The state before any key: an extra logit for each row, if the heads have one.
  void reset_to_sinks(const SoftmaxState<T>& state) {
    reset_sums(state);
    output_.reset(state);
    if (!p_.sinks) return;
    for (i64 r = 0; r < lanes_; ++r) {
      state.max[r] = T(p_.sinks[(first_ + r) % p_.group] * kLog2E<double>);
      state.sum[r] = state.max[r] == -kInfinity<T> ? T(0) : T(1);
    }
  }

  TileOutput<Products>& output() { return output_; }

  // f(row, begin, count, p) for each row and vector p of its probabilities, those of the keys
  // [begin, begin + count), in ascending order until all keys have been met. Two passes over the keys.
  template <class F>
  void probabilities(F&& f) {
    pack_queries();
    const SoftmaxState<T>& state = m_.total;
    reset_to_sinks(state);
    for_each_block(mask_.begin(), mask_.end(), [&](i64 begin, i64 count) {
      const Cover cover = mask_.cover(begin, count);
      if (cover == Cover::kNone) return;
      score_block(cover, begin, count);
      exponentiate(state, begin, count);
    });
    // The scores again, now that max and sum are known.
    for_each_block(0, p_.keys, [&](i64 begin, i64 count) {
      i64 present = clamp(mask_.end() - begin, 0, count);
      const bool reached = begin + count > mask_.begin() && present > 0;
      const Cover cover = reached ? mask_.cover(begin, present) : Cover::kNone;
      if (cover == Cover::kNone)
        present = 0;
      else
        score_block(cover, begin, present);
      for (i64 r = 0; r < lanes_; r += W) {
        const V inverse = reciprocal(V::load(state.sum + r)), max = finite(V::load(state.max + r));
        for (i64 j = 0; j < count; ++j) {
          T* s = m_.scores + j * lanes_ + r;
          const V score = j < present ? V::load(s) : V::broadcast(-kInfinity<T>);
          const V p = power_of_2(score - max) * inverse;
          // A masked key gets 0, even in a row that is NaN.
          V::select(V::equal(score, V::broadcast(-kInfinity<T>)), V::zero(), p).store(s);
        }
      }
      for_each_transposed(begin, count, f);
    });
  }

 private:
  // f(first key, number of keys) in ascending order. Blocks end at multiples of their size whatever the tile;
  // what is left out before `begin`, an even number of keys, would add exact zeros.
  template <class F>
  void for_each_block(i64 begin, i64 end, F&& f) {
    for (i64 first = begin / 2 * 2; first < end;) {
      const i64 count = min_of(kKeyBlock - first % kKeyBlock, end - first);
      f(first, count);
      first += count;
    }
  }

  void reset_sums(const SoftmaxState<T>& state) {
    for (i64 r = 0; r < lanes_; r += W) {
      V::broadcast(-kInfinity<T>).store(state.max + r);
      V::zero().store(state.sum + r);
    }
  }

  // How many keys of a block row r and those above it may attend: the rest need no products.
  auto keys_of(i64 begin, i64 count) const {
    const bool all = begin + count <= mask_.full_end();
    return [=, this](i64 r) { return all ? count : clamp(mask_.end_of(r) - begin, 0, count); };
  }

  // Whether the head is too long for a core's own cache, and its rows are not one after the other.
  bool meets_head_anew() const {
    const i64 bytes = (mask_.end() - mask_.begin()) * (p_.head_dim + p_.value_dim) * size_of(p_.dtype);
    return bytes > kLongHead && (p_.key_row != p_.head_dim || p_.value_row != p_.value_dim);
  }

  // Keys and values that are far away: a block's values are asked for with the steps of its scores, the next
  // one's keys with those of P V.
  PacedLines values_ahead(i64 begin, i64 count) const {
    if (!cold_ || (knows_head_ && m_.products.keeps_values(p_))) return {};
    return {p_.values_ahead(begin, count), Products::steps_of_scores(p_, count, lanes_)};
  }
  PacedLines keys_ahead(i64 begin) const {
    if (!cold_) return {};
    const i64 count = clamp(mask_.end() - begin, 0, kKeyBlock);
    return {p_.keys_ahead(begin, count), Products::steps_of_sums(p_, rows_)};
  }

  // f(ask_ahead) that asks for these, by code of its own where there are none.
  template <class F>
  HEADWISE_INLINE auto asking_for(PacedLines lines, F&& f) const {
    if (!cold_) return f(NothingAhead{});
    return f([&](auto...) HEADWISE_INLINE_LAMBDA { lines(); });
  }

  // scores of one block of keys, of which some are attended, and block_max down its columns.
  HEADWISE_NOINLINE void score_block(Cover cover, i64 begin, i64 count) {
    for (i64 r = 0; r < lanes_; r += W) V::broadcast(-kInfinity<T>).store(m_.block_max + r);
    if (has_few_queries_) {
      few_.score(begin, count);
      few_.turn(count, m_.scores, m_.block_max);
    } else {
      asking_for(values_ahead(begin, count),
                 [&](const auto& ask_ahead) { score_many(begin, count, ask_ahead); });
    }
    if (cover == Cover::kSome || mask_.changes_scores())
      mask_.apply(cover, begin, count, m_.scores, m_.block_max);
  }

  // The same of more than few queries, before their mask.
  template <class Ahead>
  HEADWISE_NOINLINE void score_many(i64 begin, i64 count, const Ahead& ask_ahead) {
    i64 asked = 0;  // keys of the block: not all are scored for the first lanes
    m_.products.score(
        p_, begin, count, rows_, lanes_, m_.scores, keys_of(begin, count),
        [&]<int R, int C>(i64 j, i64 lane, V(&s)[R][C]) HEADWISE_INLINE_LAMBDA {
          if (j >= asked) next_.ask(), asked = j + R;
          const i64 lanes = lanes_;
          T *const scores = m_.scores + j * lanes + lane, *const max = m_.block_max + lane;
          unroll<C>([&](auto c) HEADWISE_INLINE_LAMBDA {
            V largest = V::load(max + c * W);
            unroll<R>([&](auto r) HEADWISE_INLINE_LAMBDA {
              s[r][c].store(scores + r * lanes + c * W);
              largest = V::max(s[r][c], largest);  // this order skips a NaN
            });
            largest.store(max + c * W);
          });
        },
        ask_ahead);
  }

  // Both steps at once for a block that no row's window ends within, while its scores are in registers; by
  // the maxima that there are, in an empty state those of its first keys. False, and nothing done, if that
  // cannot be or some row needs a larger one.
  bool score_and_exponentiate(const SoftmaxState<T>& state, bool empty, Cover cover, i64 begin, i64 count) {
    if (!keeps_max_ || begin + count > mask_.full_end() || count < kManyKeys) return false;
    if (mask_.changes_scores() || !m_.products.can_score_all()) return false;
    if (count % Products::kKeysPerStep != 0 || (empty && begin % kKeyBlock != 0)) return false;
    if (cover == Cover::kSome && !all_have_max(state, empty)) return false;
    const bool kept = asking_for(values_ahead(begin, count), [&](const auto& ask_ahead) {
      return cover == Cover::kSome ? exponentiate_scores<true>(state, empty, begin, count, ask_ahead)
                                   : exponentiate_scores<false>(state, empty, begin, count, ask_ahead);
    });
    if (kept) return true;
    if (empty) reset_sums(state);
    keeps_max_ = false;
    m_.detours = kDetours;
    return false;
  }

  // Whether every row has a maximum, or gets one from a block's first keys.
  bool all_have_max(const SoftmaxState<T>& state, bool empty) const {
    if (empty) return mask_.all_attend_some(Products::kFirstKeys);
    uint64_t without = 0;
    for (i64 r = 0; r < lanes_; r += W)
      without |= V::bits_of(V::equal(V::load(state.max + r), V::broadcast(-kInfinity<T>)));
    return without == 0;
  }

  // Not for float64, which is for accuracy and not worth the code.
  template <bool Masked, class Ahead>
  HEADWISE_NOINLINE bool exponentiate_scores(const SoftmaxState<T>& state, bool empty, i64 begin, i64 count,
                                             const Ahead& ask_ahead) {
    if constexpr (sizeof(T) < 8) {
      T* const block_sum = m_.block_max;
      for (i64 r = 0; r < lanes_; r += W) V::zero().store(block_sum + r);
      m_.products.score_all(
          p_, begin, count, lanes_,
          [&]<int R, int C>(i64 j, i64 lane, V(&s)[R][C]) HEADWISE_INLINE_LAMBDA {
            if (lane == 0) next_.ask();
            if constexpr (Masked) mask_.hide(s, j, lane);
            if constexpr (R == Products::kFirstKeys)
              if (empty && j == 0) start_max(s, state.max + lane);
            exponentiate_tile(s, state.max + lane, j, lane, block_sum + lane);
          },
          ask_ahead);
      bool kept = true;
      for (i64 r = 0; r < lanes_; r += W) kept &= keeps_max(V::load(block_sum + r));
      if (!kept) return false;
      for (i64 r = 0; r < lanes_; r += W) {
        (V::load(state.sum + r) + V::load(block_sum + r)).store(state.sum + r);
        V::broadcast(T(1)).store(m_.rescale + r);
      }
    }
    return true;
  }

  // The first maximum of rows that have none, as exponentiate_columns() would find it.
  template <int R, int C>
  HEADWISE_INLINE void start_max(V (&scores)[R][C], T* max) {
    const auto scale = m_.products.scale();
    unroll<C>([&](auto c) HEADWISE_INLINE_LAMBDA {
      V largest = V::broadcast(-kInfinity<T>);
      unroll<R>([&](auto r) HEADWISE_INLINE_LAMBDA { largest = V::max(scores[r][c], largest); });
      scale.times(largest).store(max + c * W);
    });
  }

  template <int R, int C>
  HEADWISE_INLINE void exponentiate_tile(V (&scores)[R][C], const T* max, i64 j, i64 lane, T* block_sum) {
    using Columns = Vecs<T, C>;
    constexpr int kKeys = Products::kKeysPerStep;
    const i64 lanes = lanes_;
    const auto scale = m_.products.scale();
    auto* probabilities = m_.products.probabilities(m_.scores) + j / kKeys * lanes + lane;
    Columns sum = Columns::of([&](auto c) HEADWISE_INLINE_LAMBDA { return V::load(block_sum + c * W); });
    unroll<R / kKeys>([&](auto step) HEADWISE_INLINE_LAMBDA {
      Columns p[kKeys];
      unroll<kKeys>([&](auto k) HEADWISE_INLINE_LAMBDA {
        p[k] = Columns::of([&](auto c) HEADWISE_INLINE_LAMBDA {
          return scale.times_less(scores[step * kKeys + k][c], V::load(max + c * W));
        });
      });
      store_probabilities(p, sum, probabilities + step * lanes);
    });
    unroll<C>([&](auto c) HEADWISE_INLINE_LAMBDA { sum.each[c].store(block_sum + c * W); });
  }

  // 2^x for the keys of a step, and their sum.
  template <int C, int Keys, class Probability>
  static HEADWISE_INLINE void store_probabilities(Vecs<T, C> (&x)[Keys], Vecs<T, C>& sum, Probability* to) {
    unroll<Keys>([&](auto k) HEADWISE_INLINE_LAMBDA {
      x[k] = Products::exp2(x[k]);
      sum = sum + x[k];
    });
    unroll<C>([&](auto c) HEADWISE_INLINE_LAMBDA {
      V keys[Keys];
      unroll<Keys>([&](auto k) HEADWISE_INLINE_LAMBDA { keys[k] = x[k].each[c]; });
      Products::store(keys, to + c * W);
    });
  }

  // scores -> 2^(score - max), with max and sum brought up to date.
  HEADWISE_NOINLINE void exponentiate(const SoftmaxState<T>& state, i64 begin, i64 count) {
    const i64 first = clamp(Products::kFirstKeys - begin % kKeyBlock, 0, count);
    for (i64 r = 0; r < lanes_;) {
      const int vectors = int(min_of(i64(kMaxTileVectors), (lanes_ - r) / W));
      with_constant<kMaxTileVectors>(vectors,
                                     [&](auto n) { exponentiate_columns<n>(state, r, first, count); });
      r += vectors * W;
    }
  }

  template <int N>
  HEADWISE_INLINE void exponentiate_columns(const SoftmaxState<T>& state, i64 r, i64 first, i64 count) {
    using Columns = Vecs<T, N>;
    Columns max, sum = Columns::zero();
    const auto scale = m_.products.scale();
    unroll<N>([&](auto c) HEADWISE_INLINE_LAMBDA {
      V first_max = V::broadcast(-kInfinity<T>);
      for (i64 j = 0; j < first; ++j)
        first_max = V::max(V::load(m_.scores + j * lanes_ + r + c * W), first_max);
      const V old_max = V::load(state.max + r + c * W);
      const V block_max = V::load(m_.block_max + r + c * W);
      const V new_max = raised(old_max, scale.times(first_max), scale.times(block_max));
      new_max.store(state.max + r + c * W);
      max.each[c] = finite(new_max);
      power_of_2(old_max - max.each[c]).store(m_.rescale + r + c * W);
    });
    // In locals: a store might change a member, for all that a compiler knows.
    constexpr int kKeys = Products::kKeysPerStep;
    const i64 lanes = lanes_;
    T* scores = m_.scores + r;
    auto* probabilities = m_.products.probabilities(m_.scores) + r;
    if (count % kKeys != 0)  // a key without a partner is paired with one that nothing attends
      unroll<N>([&](auto c) HEADWISE_INLINE_LAMBDA {
        V::broadcast(-kInfinity<T>).store(scores + count * lanes + c * W);
      });
    for (i64 j = 0; j < count; j += kKeys, scores += kKeys * lanes, probabilities += lanes) {
      Columns p[kKeys];
      unroll<kKeys>([&](auto k) HEADWISE_INLINE_LAMBDA {
        p[k] = Columns::of([&](auto c) HEADWISE_INLINE_LAMBDA {
          return scale.times_less(V::load(scores + k * lanes + c * W), max.each[c]);
        });
      });
      store_probabilities(p, sum, probabilities);
    }
    unroll<N>([&](auto c) HEADWISE_INLINE_LAMBDA {
      T* total = state.sum + r + c * W;
      V::fma(V::load(total), V::load(m_.rescale + r + c * W), sum.each[c]).store(total);
    });
  }

  // Adds P V to the output so far. A block is summed by itself before: less rounding than one chain. What the
  // last one is added to is written at once, if it can be.
  HEADWISE_NOINLINE void accumulate(const SoftmaxState<T>& state, bool empty, Cover cover, i64 begin,
                                    i64 count, bool last) {
    m_.products.load_values(p_, begin, count);
    const auto add = [&](auto&& finish, const auto& ask_ahead) HEADWISE_INLINE_LAMBDA {
      m_.products.accumulate(p_, m_.scores, rows_, lanes_, keys_of(begin, count), finish, ask_ahead);
    };
    if (cover == Cover::kSome && !values_finite(begin, count))
      m_.products.accumulate_attended(p_, mask_, m_.scores, count, rows_, lanes_,
                                      output_.added_to(state, empty));
    else if (last && output_.can_be_written_by_tiles())
      add(output_.written_after(state, empty), NothingAhead{});
    else
      asking_for(keys_ahead(begin + count), [&](const auto& ask_ahead) HEADWISE_INLINE_LAMBDA {
        add(output_.added_to(state, empty), ask_ahead);
      });
  }

  // Whether the loaded values are: for most tiles of a head an earlier one has found out.
  bool values_finite(i64 begin, i64 count) {
    auto& known = m_.finite;
    if (known.value != p_.value || begin < known.begin || begin > known.end) known = {p_.value, begin, begin};
    if (begin + count <= known.end) return true;
    const bool finite = m_.products.values_finite(p_, count);
    if (finite) known.end = begin + count;
    return finite;
  }

  // f(row, begin, count, p) from scores[j][row].
  template <class F>
  void for_each_transposed(i64 begin, i64 count, F&& f) {
    for (i64 r = 0; r < rows_; r += W)
      for (i64 j = 0; j < count; j += W) {
        V block[W];
        for (i64 i = 0; i < W; ++i)
          block[i] = j + i < count ? V::load(m_.scores + (j + i) * lanes_ + r) : V::zero();
        V::transpose(block);
        for (i64 i = 0; i < min_of(i64(W), rows_ - r); ++i)
          f(first_ + r + i, begin + j, min_of(i64(W), count - j), block[i]);
      }
  }

  const HeadProblem<T>& p_;
  TileMemory<Products>& m_;
  i64 first_, rows_, lanes_;
  typename TileMemory<Products>::Mask mask_;
  bool has_few_queries_;
  TileOutput<Products> output_;
  FewQueries<Products> few_;
  bool keeps_max_;  // score_and_exponentiate() can be tried: no score was too large so far
  bool knows_head_, was_asked_for_;
  bool cold_ = false;  // keys and values are far away, as on a thread's first tile of a head
  TileAhead next_;
};

}  // namespace
