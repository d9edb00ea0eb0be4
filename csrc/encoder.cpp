// A stack of encoder layers over a packed batch: the operations of the active ISA's table, put together.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

#include "dispatch.h"
#include "include/headwise.h"
#include "parallel.h"

using namespace headwise;

namespace {

// Tokens a thread takes through all layers at once, about: so few that their activations stay in its share of
// the cache, so many that a panel of weights, which comes from the shared one, serves many rows. On Zen 5 200
// and 900 are both some per cent slower.
constexpr int64_t kGroupTokens = 400;
// Below this many a thread the time goes into reading weights: better all threads read each weight once.
constexpr int64_t kFewTokens = 48;
// Starting a group costs about as much as this many tokens.
constexpr int64_t kGroupCost = 8;
// Of more groups for each thread than this only the last are worth choosing with care.
constexpr int64_t kFewRounds = 12;
// The last ones are cut into at most as many.
constexpr int64_t kMostParts = 4;
// parallel_for() of one layer: 4 linear layers, attention, 2 norms.
constexpr int64_t kPhasesPerLayer = 7;

// Sequences next to each other: rows [first_row, first_row + rows) of the hidden states.
struct Group {
  int64_t first, count, first_row, rows;
};

// Of what linear layers and attention hand to each other; hidden states are float32.
hw_dtype activations_of(const hw_encoder_params& a) {
  return a.weight_dtype == HW_BFLOAT16 || a.weight_dtype == HW_INT8 ? HW_BFLOAT16 : HW_FLOAT32;
}

// What one group works with. T rows: projected ((H + 2 G) heads, T, D) and attended (T, H D), of the
// activations' dtype; inner (T, F) of the same, in their place; normed (T, E) in float32.
class Workspace {
 public:
  Workspace(const hw_encoder_params& a, int64_t rows) {
    const int64_t element = activations_of(a) == HW_FLOAT32 ? 4 : 2;
    const int64_t heads = a.num_heads + 2 * a.num_kv_heads;
    const int64_t projected = aligned(rows * heads * a.head_dim * element);
    const int64_t attended = aligned(rows * a.num_heads * a.head_dim * element);
    const int64_t inner = aligned(rows * a.intermediate_size * element);
    attended_ = projected;
    normed_ = std::max(projected + attended, inner);
    bytes_ = normed_ + aligned(a.pre_norm ? rows * a.hidden_size * 4 : 0);
  }

  size_t bytes() const { return static_cast<size_t>(bytes_); }
  void use(void* memory) { memory_ = static_cast<char*>(memory); }
  void* projected() const { return memory_; }
  void* attended() const { return memory_ + attended_; }
  void* inner() const { return memory_; }
  float* normed() const { return reinterpret_cast<float*>(memory_ + normed_); }

 private:
  static int64_t aligned(int64_t bytes) { return (bytes + 63) / 64 * 64; }

  int64_t attended_, normed_, bytes_;
  char* memory_ = nullptr;
};

class Stack {
 public:
  Stack(const hw_encoder_params& a, const KernelTable& kernels)
      : a_(a), kernels_(kernels), activations_(activations_of(a)) {}

  // All layers on one group. The first error ends it.
  hw_status run(const Group& group, const Workspace& work) const {
    std::vector<int64_t> starts(static_cast<size_t>(group.count + 1));
    for (int64_t i = 0; i <= group.count; ++i)
      starts[static_cast<size_t>(i)] = a_.starts[group.first + i] - group.first_row;
    float* x = a_.hidden + group.first_row * a_.hidden_size;
    hw_status status = HW_OK;
    for (int64_t i = 0; i < a_.num_layers && status == HW_OK; ++i)
      status = run_layer(a_.layers[i], x, group.rows, starts.data(), group.count, work);
    return status;
  }

 private:
  hw_status run_layer(const hw_encoder_layer& layer, float* x, int64_t rows, const int64_t* starts,
                      int64_t batch, const Workspace& work) const {
    const int64_t query_features = a_.num_heads * a_.head_dim;
    const int64_t features = query_features + 2 * a_.num_kv_heads * a_.head_dim;
    float* normed = a_.pre_norm ? work.normed() : x;
    const auto attention_norm = [&] {
      return norm(layer.attention_norm_weight, layer.attention_norm_bias, layer.attention_norm_epsilon, x,
                  rows, normed);
    };
    const auto feed_forward_norm = [&] {
      return norm(layer.feed_forward_norm_weight, layer.feed_forward_norm_bias,
                  layer.feed_forward_norm_epsilon, x, rows, normed);
    };
    hw_linear_params projection =
        linear(rows, a_.hidden_size, features, layer.projection_weight, layer.projection_bias);
    projection.input = normed;
    projection.out = work.projected();
    projection.out_dtype = activations_;
    projection.out_stride = projection.out_head_dim = a_.head_dim;
    projection.out_head_stride = rows * a_.head_dim;

    hw_linear_params output =
        linear(rows, query_features, a_.hidden_size, layer.output_weight, layer.output_bias);
    output.input = work.attended();
    output.input_dtype = activations_;
    output.residual = output.out = x;

    hw_linear_params up = linear(rows, a_.hidden_size, a_.intermediate_size, layer.up_weight, layer.up_bias);
    up.input = normed;
    up.activation = a_.activation;
    up.gated = a_.gated;
    up.out = work.inner();
    up.out_dtype = activations_;

    hw_linear_params down =
        linear(rows, a_.intermediate_size, a_.hidden_size, layer.down_weight, layer.down_bias);
    down.input = work.inner();
    down.input_dtype = activations_;
    down.residual = down.out = x;

    hw_status status = HW_OK;
    const auto then = [&](hw_status next) { return (status = next) == HW_OK; };
    (!a_.pre_norm || then(attention_norm())) && then(kernels_.multiply(projection)) &&
        then(attend(rows, starts, batch, work)) && then(kernels_.multiply(output)) &&
        then(a_.pre_norm ? feed_forward_norm() : attention_norm()) && then(kernels_.multiply(up)) &&
        then(kernels_.multiply(down)) && (a_.pre_norm || then(feed_forward_norm()));
    return status;
  }

  hw_linear_params linear(int64_t rows, int64_t in_features, int64_t out_features, const void* weight,
                          const float* bias) const {
    hw_linear_params p{};
    p.weight_dtype = a_.weight_dtype;
    p.input_dtype = p.out_dtype = HW_FLOAT32;
    p.activation = HW_IDENTITY;
    p.rows = rows;
    p.in_features = p.input_stride = in_features;
    p.out_features = p.out_stride = p.residual_stride = out_features;
    p.packed_weight = weight;
    p.bias = bias;
    return p;
  }

  hw_status norm(const float* weight, const float* bias, double epsilon, const float* x, int64_t rows,
                 float* out) const {
    hw_layer_norm_params p{};
    p.dtype = HW_FLOAT32;
    p.rows = rows;
    p.columns = p.input_stride = p.out_stride = a_.hidden_size;
    p.input = x;
    p.weight = weight;
    p.bias = bias;
    p.out = out;
    p.epsilon = epsilon;
    return kernels_.layer_norm(p);
  }

  hw_status attend(int64_t rows, const int64_t* starts, int64_t batch, const Workspace& work) const {
    hw_attention_params p{};
    const int64_t head_bytes = rows * a_.head_dim * (activations_ == HW_FLOAT32 ? 4 : 2);
    char* projected = static_cast<char*>(work.projected());
    p.dtype = activations_;
    p.batch = batch;
    p.num_heads = a_.num_heads;
    p.num_kv_heads = a_.num_kv_heads;
    p.head_dim = p.value_dim = a_.head_dim;
    p.query = projected;
    p.key = projected + a_.num_heads * head_bytes;
    p.value = projected + (a_.num_heads + a_.num_kv_heads) * head_bytes;
    p.query_strides = p.key_strides = p.value_strides = {0, rows * a_.head_dim, a_.head_dim};
    p.out = work.attended();
    p.out_strides = {0, a_.head_dim, a_.num_heads * a_.head_dim};
    p.query_starts = p.key_starts = starts;
    p.window_right = a_.is_causal;
    p.scale = 1 / std::sqrt(static_cast<double>(a_.head_dim));
    return kernels_.attend(p);
  }

  const hw_encoder_params& a_;
  const KernelTable& kernels_;
  hw_dtype activations_;
};

// Groups of nearly equal length, `rounds` for each thread; in the last round each in `parts`, as what a
// thread takes last decides how long the others wait for it.
std::vector<Group> groups_of(const hw_encoder_params& a, int threads, int64_t rounds, int64_t parts) {
  const int64_t whole = threads * (rounds - 1), all_parts = threads * rounds * parts;
  const int64_t begin = a.starts[0], total = a.starts[a.batch] - begin;
  std::vector<Group> groups;
  int64_t last = -1;
  for (int64_t b = 0; b < a.batch; ++b) {
    const int64_t first_row = a.starts[b], rows = a.starts[b + 1] - first_row;
    const int64_t part = std::min(all_parts - 1, (first_row - begin + rows / 2) * all_parts / total);
    const int64_t number = part < whole * parts ? part / parts : part - whole * (parts - 1);
    if (number != last) groups.push_back({b, 0, first_row, 0});
    groups.back().count += 1;
    groups.back().rows += rows;
    last = number;
  }
  return groups;
}

// What the threads do: take groups, each thread one after the other; then the rest, all together.
struct Plan {
  std::vector<Group> apart;
  Group together;
  int64_t longest;  // rows, as if for one thread, until all are done
};

// The last `shared` of these groups, as one, are for all threads.
Plan deal(const hw_encoder_params& a, int threads, std::vector<Group> groups, size_t shared) {
  Plan plan{std::move(groups), {}, 0};
  if (shared > 0) {
    plan.together = plan.apart[plan.apart.size() - shared];
    plan.together.count = a.batch - plan.together.first;
    plan.together.rows = a.starts[a.batch] - plan.together.first_row;
    plan.apart.resize(plan.apart.size() - shared);
    plan.longest = plan.together.rows / threads + kGroupCost;
  }
  std::vector<int64_t> busy(static_cast<size_t>(threads));  // rows of each thread: who is free takes the next
  for (const Group& group : plan.apart)
    *std::min_element(busy.begin(), busy.end()) += group.rows + kGroupCost;
  plan.longest += *std::max_element(busy.begin(), busy.end());
  return plan;
}

// Of some ways to part the sequences the one that is done first.
Plan plan_of(const hw_encoder_params& a, int64_t rows, int threads) {
  if (threads > 1 && rows < threads * kFewTokens) return {{}, {0, a.batch, a.starts[0], rows}, 0};
  const int64_t wanted = (rows + threads * kGroupTokens - 1) / (threads * kGroupTokens);
  if (threads == 1) return deal(a, threads, groups_of(a, threads, wanted, 1), 0);
  const bool few = wanted <= kFewRounds;
  const int64_t least = few ? (3 * wanted + 3) / 4 : wanted, most = few ? 2 * wanted : wanted;
  Plan best{{}, {}, INT64_MAX};
  const auto compare = [&](Plan plan) {
    if (plan.longest < best.longest) best = std::move(plan);
  };
  for (int64_t rounds = least; rounds <= most; ++rounds)
    for (int64_t parts = 1; parts <= kMostParts; ++parts) {
      const std::vector<Group> groups = groups_of(a, threads, rounds, parts);
      compare(deal(a, threads, groups, 0));
      if (groups.size() < 4 * size_t(threads))
        compare(deal(a, threads, groups, groups.size() % size_t(threads)));
    }
  return best;
}

// Each thread takes groups, one after the other.
hw_status run_apart(const hw_encoder_params& a, const Stack& stack, const std::vector<Group>& groups,
                    int threads) {
  int64_t most_rows = 0;
  for (const Group& group : groups) most_rows = std::max(most_rows, group.rows);
  Workspace work(a, most_rows);
  return parallel_for(threads, static_cast<int64_t>(groups.size()), [&](TaskCounter& counter) {
    const Buffer buffer(work.bytes());
    if (!buffer.memory()) return counter.stop(HW_OUT_OF_MEMORY);
    Workspace mine = work;
    mine.use(buffer.memory());
    for (int64_t task; (task = counter.next()) >= 0;) {
      const hw_status status = stack.run(groups[static_cast<size_t>(task)], mine);
      if (status != HW_OK) return counter.stop(status);
    }
  });
}

// All threads work on one group.
hw_status run_together(const hw_encoder_params& a, const Stack& stack, const Group& group, int threads) {
  Workspace work(a, group.rows);
  const Buffer buffer(work.bytes());
  if (!buffer.memory()) return HW_OUT_OF_MEMORY;
  work.use(buffer.memory());
  struct Context {
    const Stack& stack;
    const Group& group;
    const Workspace& work;
  } context{stack, group, work};
  return run_as_team(
      threads, kPhasesPerLayer * a.num_layers,
      [](void* c) {
        const auto& [stack, group, work] = *static_cast<Context*>(c);
        stack.run(group, work);
      },
      &context);
}

hw_status encode(const hw_encoder_params& a, const KernelTable& kernels) {
  const Stack stack(a, kernels);
  const int64_t rows = a.starts[a.batch] - a.starts[0];
  if (rows == 0 || a.num_layers == 0) return HW_OK;
  const double weights = double(a.hidden_size) * double((2 * a.num_heads + 2 * a.num_kv_heads) * a.head_dim +
                                                        (2 + a.gated) * a.intermediate_size);
  const int threads = threads_for(2 * weights * double(rows * a.num_layers), INT64_MAX);
  const Plan plan = plan_of(a, rows, threads);
  const hw_status status = plan.apart.empty() ? HW_OK : run_apart(a, stack, plan.apart, threads);
  return status != HW_OK || plan.together.rows == 0 ? status : run_together(a, stack, plan.together, threads);
}

bool is_valid(const hw_encoder_params& a) {
  for (const int64_t n : {a.hidden_size, a.intermediate_size, a.num_heads, a.num_kv_heads, a.head_dim})
    if (n < 1) return false;
  if (a.num_layers < 0 || a.batch < 0 || a.head_dim > HEADWISE_MAX_HEAD_DIM ||
      a.num_heads % a.num_kv_heads != 0)
    return false;
  if (a.weight_dtype != HW_FLOAT32 && a.weight_dtype != HW_FLOAT32_PAIRS && a.weight_dtype != HW_BFLOAT16 &&
      a.weight_dtype != HW_INT8)
    return false;
  if (a.activation < HW_IDENTITY || a.activation > HW_SILU || !a.starts) return false;
  if (a.num_layers > 0 && !a.layers) return false;
  for (int64_t i = 0; i < a.num_layers; ++i) {
    const hw_encoder_layer& l = a.layers[i];
    if (!l.projection_weight || !l.output_weight || !l.up_weight || !l.down_weight) return false;
    if (!(l.attention_norm_epsilon >= 0 && l.feed_forward_norm_epsilon >= 0)) return false;
  }
  if (a.starts[0] < 0) return false;
  for (int64_t b = 0; b < a.batch; ++b)
    if (a.starts[b + 1] < a.starts[b]) return false;
  return a.hidden || a.starts[a.batch] == a.starts[0];
}

}  // namespace

extern "C" {

hw_status hw_encode(const hw_encoder_params* a) {
  const KernelTable* kernels = active_kernels();
  if (!kernels) return HW_UNSUPPORTED_ISA;
  return is_valid(*a) ? encode(*a, *kernels) : HW_INVALID_ARGUMENT;
}

void hw_trim(void) { trim(); }

}  // extern "C"
