/* A C11 program that knows headwise by its header alone. Each case is held against naive loops in
 * double, on every instruction set that this machine has.
 *
 *   test_c_abi CASE    runs one case: exit status 0, or a line on stderr and 1
 *   test_c_abi         lists the cases
 */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "headwise.h"

static const char* current_isa = "?";

#define CHECK(condition)                                                                  \
  do {                                                                                    \
    if (!(condition)) {                                                                   \
      fprintf(stderr, "%s:%d: on %s: %s\n", __FILE__, __LINE__, current_isa, #condition); \
      exit(1);                                                                            \
    }                                                                                     \
  } while (0)
#define OK(call) CHECK((call) == HW_OK)
#define INVALID(call) CHECK((call) == HW_INVALID_ARGUMENT)
#define COUNT(array) (int)(sizeof(array) / sizeof(*(array)))

/* Numbers in (-1, 1), always the same ones. */
static float* numbers(size_t n, uint32_t seed) {
  float* x = malloc(n * sizeof *x);
  CHECK(x != NULL);
  for (size_t i = 0; i < n; ++i) {
    seed = seed * 1664525u + 1013904223u;
    x[i] = (float)(seed >> 8) / 8388608.0f - 1.0f;
  }
  return x;
}

static void check_close(double got, double expected, double tolerance) {
  if (fabs(got - expected) <= tolerance * (1 + fabs(expected))) return;
  if (isinf(expected) && got == expected) return;
  fprintf(stderr, "on %s: %.9g instead of %.9g\n", current_isa, got, expected);
  exit(1);
}

/* ---- attention ---- */

enum { B = 2, H = 4, G = 2, SQ = 37, SK = 101, D = 20, DV = 12 };

/* One query of one head: rows of key and value are strides apart. */
static void naive_attention(const float* q, const float* k, int64_t k_row, const float* v, int64_t v_row,
                            int64_t keys, double scale, double* out, double* lse) {
  double max = -INFINITY, sum = 0;
  double* score = malloc((size_t)(keys + 1) * sizeof *score);
  CHECK(score != NULL);
  for (int64_t j = 0; j < keys; ++j) {
    score[j] = 0;
    for (int d = 0; d < D; ++d) score[j] += (double)q[d] * k[j * k_row + d];
    score[j] *= scale;
    if (score[j] > max) max = score[j];
  }
  for (int d = 0; d < DV; ++d) out[d] = 0;
  for (int64_t j = 0; j < keys; ++j) {
    const double p = exp(score[j] - max);
    sum += p;
    for (int d = 0; d < DV; ++d) out[d] += p * v[j * v_row + d];
  }
  for (int d = 0; d < DV; ++d) out[d] = keys > 0 ? out[d] / sum : 0;
  *lse = keys > 0 ? max + log(sum) : -INFINITY;
  free(score);
}

static int64_t clamp(int64_t n, int64_t most) { return n < 0 ? 0 : n > most ? most : n; }

static hw_attention_params dense(const float* q, const float* k, const float* v, float* out) {
  const hw_attention_params p = {
      .dtype = HW_FLOAT32,
      .batch = B,
      .num_heads = H,
      .num_kv_heads = G,
      .head_dim = D,
      .value_dim = DV,
      .query_length = SQ,
      .key_length = SK,
      .query = q,
      .key = k,
      .value = v,
      .out = out,
      .query_strides = {H * SQ * D, SQ * D, D},
      .key_strides = {G * SK * D, SK * D, D},
      .value_strides = {G * SK * DV, SK * DV, DV},
      .out_strides = {H * SQ * DV, SQ * DV, DV},
      .scale = 0.3,
  };
  return p;
}

static void attention_dense(void) {
  float *q = numbers(B * H * SQ * D, 1), *k = numbers(B * G * SK * D, 2);
  float *v = numbers(B * G * SK * DV, 3), *out = numbers(B * H * SQ * DV, 4);
  float* lse = numbers(B * H * SQ, 5);
  const int64_t lengths[B] = {SK, 50}, offsets[B] = {-3, 60};
  for (int causal = 0; causal < 2; ++causal) {
    hw_attention_params p = dense(q, k, v, out);
    p.lse = lse;
    p.lse_strides = (hw_strides){H * SQ, SQ, 1};
    p.key_lengths = lengths;
    p.query_offsets = offsets;
    p.window_right = causal; /* exclusive: key i + offset is the last */
    OK(hw_attention(&p));
    for (int b = 0; b < B; ++b)
      for (int h = 0; h < H; ++h)
        for (int i = 0; i < SQ; ++i) {
          const int row = (b * H + h) * SQ + i, g = b * G + h / (H / G);
          const int64_t keys = causal ? clamp(i + offsets[b] + 1, lengths[b]) : lengths[b];
          double expected[DV], expected_lse;
          naive_attention(q + row * D, k + g * SK * D, D, v + g * SK * DV, DV, keys, p.scale, expected,
                          &expected_lse);
          for (int d = 0; d < DV; ++d) check_close(out[row * DV + d], expected[d], 2e-6);
          check_close(lse[row], expected_lse, 2e-6);
        }
  }
  free(q), free(k), free(v), free(out), free(lse);
}

/* (T, H, D): the heads of a token lie together. */
static void attention_varlen(void) {
  const int64_t starts_q[] = {0, 1, 1, 30, 37}, starts_k[] = {0, 70, 72, 72, 101};
  float *q = numbers(SQ * H * D, 1), *k = numbers(SK * G * D, 2), *v = numbers(SK * G * DV, 3);
  float *out = numbers(SQ * H * DV, 4), *lse = numbers(SQ * H, 5);
  hw_attention_params p = dense(q, k, v, out);
  p.batch = COUNT(starts_q) - 1;
  p.query_starts = starts_q;
  p.key_starts = starts_k;
  p.query_strides = (hw_strides){-1, D, H * D}; /* the batch strides are ignored */
  p.key_strides = (hw_strides){-1, D, G * D};
  p.value_strides = (hw_strides){-1, DV, G * DV};
  p.out_strides = (hw_strides){-1, DV, H * DV};
  p.lse = lse;
  p.lse_strides = (hw_strides){-1, SQ, 1};
  OK(hw_attention(&p));
  for (int b = 0; b < p.batch; ++b)
    for (int64_t t = starts_q[b]; t < starts_q[b + 1]; ++t)
      for (int h = 0; h < H; ++h) {
        const int64_t g = h / (H / G), first = starts_k[b];
        double expected[DV], expected_lse;
        naive_attention(q + (t * H + h) * D, k + (first * G + g) * D, G * D, v + (first * G + g) * DV, G * DV,
                        starts_k[b + 1] - first, p.scale, expected, &expected_lse);
        for (int d = 0; d < DV; ++d) check_close(out[(t * H + h) * DV + d], expected[d], 2e-6);
        check_close(lse[h * SQ + t], expected_lse, 2e-6);
      }
  free(q), free(k), free(v), free(out), free(lse);
}

static void attention_weights(void) {
  float *q = numbers(B * H * SQ * D, 1), *k = numbers(B * G * SK * D, 2);
  float* out = numbers(B * H * SQ * SK, 4);
  const int64_t lengths[B] = {SK, 0};
  hw_attention_params p = dense(q, k, NULL, out);
  p.value_dim = 0; /* ignored, as value is */
  p.out_strides = (hw_strides){H * SQ * SK, SQ * SK, SK};
  p.key_lengths = lengths;
  OK(hw_attention_weights(&p));
  for (int row = 0; row < B * H * SQ; ++row) {
    double sum = 0;
    for (int j = 0; j < SK; ++j) {
      CHECK(out[row * SK + j] >= 0);
      sum += out[row * SK + j];
    }
    check_close(sum, row < H * SQ ? 1 : 0, 2e-6);
  }
  free(q), free(k), free(out);
}

/* A causal mask as an array gives the bits of the window, whatever the array's type. */
static void attention_mask(void) {
  float *q = numbers(B * H * SQ * D, 1), *k = numbers(B * G * SK * D, 2), *v = numbers(B * G * SK * DV, 3);
  float *out = numbers(B * H * SQ * DV, 4), *expected = numbers(B * H * SQ * DV, 5);
  const int64_t offsets[B] = {10, 10}, starts[B] = {0, 0};
  unsigned char allowed[SQ * SK];
  float bias[SQ * SK];
  for (int i = 0; i < SQ; ++i)
    for (int j = 0; j < SK; ++j) {
      allowed[i * SK + j] = j <= i + 10;
      bias[i * SK + j] = j <= i + 10 ? 0.0f : -INFINITY;
    }
  hw_attention_params p = dense(q, k, v, expected);
  p.query_offsets = offsets;
  p.window_right = 1;
  OK(hw_attention(&p));
  p.out = out;
  p.window_right = 0;
  p.mask_starts = starts;
  p.mask_strides = (hw_strides){0, 0, SK};
  p.mask_column_stride = 1;
  for (int type = 0; type < 2; ++type) {
    p.attn_mask = type ? (const void*)bias : (const void*)allowed;
    p.mask_dtype = type ? HW_FLOAT32 : HW_BOOL;
    memset(out, 0xff, sizeof(float) * B * H * SQ * DV);
    OK(hw_attention(&p));
    CHECK(memcmp(out, expected, sizeof(float) * B * H * SQ * DV) == 0);
  }
  p.mask_dtype = HW_FLOAT64;
  INVALID(hw_attention(&p));
  free(q), free(k), free(v), free(out), free(expected);
}

/* One key of score 0, slope 0.5 at distance 3, capped: exp(-1.5) / (exp(-1.5) + exp(sink)) of its value. */
static void attention_scores(void) {
  const float q[] = {0, 0}, k[] = {1, 2}, v[] = {8};
  const int64_t offset = 3;
  const double slope = 0.5, sink = -1;
  float out[1], lse[1];
  const hw_attention_params p = {
      .dtype = HW_FLOAT32,
      .batch = 1,
      .num_heads = 1,
      .num_kv_heads = 1,
      .head_dim = 2,
      .value_dim = 1,
      .query_length = 1,
      .key_length = 1,
      .query = q,
      .key = k,
      .value = v,
      .out = out,
      .lse = lse,
      .query_offsets = &offset,
      .scale = 1,
      .softcap = 4,
      .alibi_slopes = &slope,
      .sinks = &sink,
  };
  OK(hw_attention(&p));
  check_close(out[0], 8 * exp(-1.5) / (exp(-1.5) + exp(-1)), 2e-6);
  check_close(lse[0], log(exp(-1.5) + exp(-1)), 2e-6);
}

static void attention_column_sums(void) {
  float *q = numbers(B * H * SQ * D, 1), *k = numbers(B * G * SK * D, 2);
  float *weights = numbers(B * H * SQ * SK, 4), *sums = numbers(B * H * SK, 5);
  hw_attention_params p = dense(q, k, NULL, weights);
  p.out_strides = (hw_strides){H * SQ * SK, SQ * SK, SK};
  OK(hw_attention_weights(&p));
  p.out = sums;
  p.out_strides = (hw_strides){H * SK, SK, 0};
  OK(hw_attention_column_sums(&p));
  for (int head = 0; head < B * H; ++head)
    for (int j = 0; j < SK; ++j) {
      double expected = 0;
      for (int i = 0; i < SQ; ++i) expected += weights[(head * SQ + i) * SK + j];
      check_close(sums[head * SK + j], expected, 2e-6);
    }
  free(q), free(k), free(weights), free(sums);
}

/* 16-bit numbers: 0, 1 and 2 are 0, 0x3f80 and 0x4000 as bfloat16, 0, 0x3c00 and 0x4000 as float16. */
static void attention_16_bits(void) {
  for (int type = 0; type < 2; ++type) {
    const uint16_t one = type ? 0x3c00 : 0x3f80, two = 0x4000;
    const uint16_t q[] = {0, 0, 0}, k[] = {one, two, one, two, one, two}, v[] = {0, two};
    uint16_t out = 0xffff;
    const hw_attention_params p = {
        .dtype = type ? HW_FLOAT16 : HW_BFLOAT16,
        .batch = 1,
        .num_heads = 1,
        .num_kv_heads = 1,
        .head_dim = 3,
        .value_dim = 1,
        .query_length = 1,
        .key_length = 2,
        .query = q,
        .key = k,
        .value = v,
        .out = &out,
        .key_strides = {6, 6, 3},
        .value_strides = {2, 2, 1},
        .scale = 1,
    };
    OK(hw_attention(&p));
    CHECK(out == one);
  }
}

static int stop(void) { return 1; }
static int go_on(void) { return 0; }

static void interruption(void) {
  enum { N = 2000 };
  float *x = numbers(N * D, 1), *out = numbers(N * D, 2);
  hw_attention_params p = dense(x, x, x, out);
  p.batch = p.num_heads = p.num_kv_heads = 1;
  p.query_length = p.key_length = N;
  p.value_dim = D;
  p.query_strides = p.key_strides = p.value_strides = p.out_strides = (hw_strides){0, 0, D};
  hw_set_interrupt_check(stop);
  /* It is asked every 20 ms at most, and the case runs on several instruction sets. */
  hw_status status = HW_OK;
  for (int i = 0; i < 100000 && status == HW_OK; ++i) status = hw_attention(&p);
  CHECK(status == HW_INTERRUPTED);
  hw_set_interrupt_check(go_on);
  OK(hw_attention(&p));
  hw_set_interrupt_check(NULL);
  OK(hw_attention(&p));
  free(x), free(out);
}

/* ---- linear layers and row kernels ---- */

static double activated(double y, int activation) {
  switch (activation) {
    case HW_RELU:
      return y > 0 ? y : 0;
    case HW_GELU:
      return y * (1 + erf(y / sqrt(2))) / 2;
    case HW_GELU_TANH:
      return y * (1 + tanh(sqrt(2 / acos(-1.0)) * (y + 0.044715 * y * y * y))) / 2;
    case HW_SILU:
      return y / (1 + exp(-y));
    default:
      return y;
  }
}

static void linear(void) {
  enum { M = 15, N = 70, K = 33, GAP = 3, PANELS = 2 };
  const struct {
    hw_dtype dtype;
    double tolerance;
    size_t bytes;
  } kinds[] = {
      {HW_FLOAT32, 4e-6, PANELS * 192 * K},
      {HW_FLOAT32_PAIRS, 4e-6, PANELS * 192 * 36 + PANELS * 48 * 8},
      {HW_BFLOAT16, 0.05, PANELS * 192 * 17},
      {HW_INT8, 0.08, PANELS * 192 * 9 + PANELS * 48 * 8},
  };
  float *x = numbers(M * (K + GAP), 1), *w = numbers(N * (K + 1), 2), *bias = numbers(2 * N, 3);
  float *residual = numbers(M * N, 4), *out = numbers(M * (N + GAP), 5), *gate = numbers(N * (K + 1), 6);
  for (size_t kind = 0; kind < sizeof kinds / sizeof *kinds; ++kind) {
    const hw_dtype dtype = kinds[kind].dtype;
    const size_t size = hw_packed_weight_size(dtype, N, K);
    CHECK(size == kinds[kind].bytes);
    char* packed = aligned_alloc(64, 2 * size);
    CHECK(packed != NULL);
    OK(hw_pack_weight(dtype, gate, K + 1, N, K, packed));
    OK(hw_pack_weight(dtype, w, K + 1, N, K, packed + size));
    for (int activation = HW_IDENTITY; activation <= HW_SILU; ++activation)
      for (int extras = 0; extras < 2; ++extras)
        for (int gated = 0; gated < 2; ++gated) {
          const hw_linear_params p = {
              .weight_dtype = dtype,
              .input_dtype = HW_FLOAT32,
              .out_dtype = HW_FLOAT32,
              .activation = (hw_activation)activation,
              .gated = gated,
              .rows = M,
              .out_features = N,
              .in_features = K,
              .input = x,
              .packed_weight = packed,
              .bias = extras ? bias : NULL,
              .residual = extras ? residual : NULL,
              .out = out,
              .input_stride = K + GAP,
              .residual_stride = N,
              .out_stride = N + GAP,
          };
          for (int i = 0; i < M * (N + GAP); ++i) out[i] = 77;
          OK(hw_linear(&p));
          for (int m = 0; m < M; ++m) {
            for (int n = 0; n < N; ++n) {
              double y = extras ? bias[n] : 0, second = extras ? bias[N + n] : 0;
              for (int i = 0; i < K; ++i) {
                y += (double)x[m * (K + GAP) + i] * gate[n * (K + 1) + i];
                second += (double)x[m * (K + GAP) + i] * w[n * (K + 1) + i];
              }
              y = activated(y, activation) * (gated ? second : 1);
              const double scale = gated ? 1 + fabs(second) : 1;
              check_close(out[m * (N + GAP) + n], y + (extras ? residual[m * N + n] : 0),
                          kinds[kind].tolerance * scale);
            }
            for (int i = N; i < N + GAP; ++i) CHECK(out[m * (N + GAP) + i] == 77);
          }
        }
    free(packed);
  }
  free(x), free(w), free(bias), free(residual), free(out), free(gate);
}

/* The outputs of one head lie together; the same numbers as without heads. */
static void linear_into_heads(void) {
  enum { M = 9, K = 20, HEADS = 5, HEAD_DIM = 13, N = HEADS * HEAD_DIM };
  float *x = numbers(M * K, 1), *w = numbers(N * K, 2), *flat = numbers(M * N, 3), *heads = numbers(M * N, 4);
  void* packed = aligned_alloc(64, hw_packed_weight_size(HW_FLOAT32, N, K));
  OK(hw_pack_weight(HW_FLOAT32, w, K, N, K, packed));
  hw_linear_params p = {
      .weight_dtype = HW_FLOAT32,
      .input_dtype = HW_FLOAT32,
      .out_dtype = HW_FLOAT32,
      .rows = M,
      .out_features = N,
      .in_features = K,
      .input = x,
      .packed_weight = packed,
      .out = flat,
      .input_stride = K,
      .out_stride = N,
  };
  OK(hw_linear(&p));
  p.out = heads;
  p.out_stride = p.out_head_dim = HEAD_DIM;
  p.out_head_stride = M * HEAD_DIM;
  OK(hw_linear(&p));
  for (int m = 0; m < M; ++m)
    for (int n = 0; n < N; ++n)
      CHECK(heads[(n / HEAD_DIM * M + m) * HEAD_DIM + n % HEAD_DIM] == flat[m * N + n]);
  p.gated = 1;
  INVALID(hw_linear(&p));
  free(x), free(w), free(flat), free(heads), free(packed);
}

/* ---- a stack of encoder layers ---- */

/* One layer of one head whose weights are all 0: what is left of attention and feed-forward is their biases. */
static void encode(void) {
  enum { E = 16, F = 24, T = 7, BATCH = 3 };
  const hw_dtype dtypes[] = {HW_FLOAT32, HW_FLOAT32_PAIRS, HW_BFLOAT16, HW_INT8};
  const int64_t starts[BATCH + 1] = {0, 4, 4, T};
  float output_bias[E], down_bias[E];
  for (int i = 0; i < E; ++i) output_bias[i] = (float)i, down_bias[i] = (float)(i * i % 7);
  for (size_t kind = 0; kind < sizeof dtypes / sizeof *dtypes; ++kind) {
    const size_t size = hw_packed_weight_size(dtypes[kind], 3 * E + F, E + F);
    void* packed = aligned_alloc(64, (size + 63) / 64 * 64);
    memset(packed, 0, size);
    const hw_encoder_layer layer = {.projection_weight = packed,
                                    .output_weight = packed,
                                    .up_weight = packed,
                                    .down_weight = packed,
                                    .output_bias = output_bias,
                                    .down_bias = down_bias,
                                    .attention_norm_epsilon = 1e-5,
                                    .feed_forward_norm_epsilon = 1e-5};
    for (int pre_norm = 0; pre_norm < 2; ++pre_norm) {
      float *hidden = numbers(T * E, 1), before[T * E];
      memcpy(before, hidden, sizeof before);
      hw_encoder_params p = {.weight_dtype = dtypes[kind],
                             .pre_norm = pre_norm,
                             .hidden_size = E,
                             .intermediate_size = F,
                             .num_heads = 1,
                             .num_kv_heads = 1,
                             .head_dim = E,
                             .num_layers = 1,
                             .layers = &layer,
                             .batch = BATCH,
                             .starts = starts,
                             .hidden = hidden};
      OK(hw_encode(&p));
      for (int t = 0; t < T; ++t) {
        double x[E];
        for (int part = 0; part < 2; ++part) {
          double mean = 0, variance = 0;
          for (int i = 0; i < E; ++i) {
            if (part == 0) x[i] = before[t * E + i];
            x[i] += part ? down_bias[i] : output_bias[i];
            mean += x[i] / E;
          }
          for (int i = 0; i < E; ++i) variance += (x[i] - mean) * (x[i] - mean) / E;
          for (int i = 0; i < E && !pre_norm; ++i) x[i] = (x[i] - mean) / sqrt(variance + 1e-5);
        }
        for (int i = 0; i < E; ++i) check_close(hidden[t * E + i], x[i], 2e-6 * (1 + fabs(x[i])));
      }
      p.num_layers = 0;
      OK(hw_encode(&p));
      p.num_layers = -1;
      INVALID(hw_encode(&p));
      p.num_layers = 1, p.head_dim = 0;
      INVALID(hw_encode(&p));
      p.head_dim = E, p.weight_dtype = HW_FLOAT64;
      INVALID(hw_encode(&p));
      p.weight_dtype = HW_FLOAT32, p.hidden = NULL;
      INVALID(hw_encode(&p));
      free(hidden);
    }
    free(packed);
  }
  hw_trim();
}

enum { ROWS = 21, COLUMNS = 45, STRIDE = 48 };

static void softmax(void) {
  float *x = numbers(ROWS * STRIDE, 1), *out = numbers(ROWS * COLUMNS, 2);
  const hw_softmax_params p = {.dtype = HW_FLOAT32,
                               .rows = ROWS,
                               .columns = COLUMNS,
                               .input = x,
                               .out = out,
                               .input_stride = STRIDE,
                               .out_stride = COLUMNS};
  OK(hw_softmax(&p));
  for (int m = 0; m < ROWS; ++m) {
    double sum = 0;
    for (int i = 0; i < COLUMNS; ++i) sum += exp(x[m * STRIDE + i]);
    for (int i = 0; i < COLUMNS; ++i) check_close(out[m * COLUMNS + i], exp(x[m * STRIDE + i]) / sum, 1e-6);
  }
  free(x), free(out);
}

static void layer_norm(void) {
  float *x = numbers(ROWS * STRIDE, 1), *residual = numbers(ROWS * COLUMNS, 2);
  float *weight = numbers(COLUMNS, 3), *bias = numbers(COLUMNS, 4);
  float* out = numbers(ROWS * COLUMNS, 5);
  for (int extras = 0; extras < 2; ++extras) {
    const hw_layer_norm_params p = {
        .dtype = HW_FLOAT32,
        .rows = ROWS,
        .columns = COLUMNS,
        .input = x,
        .residual = extras ? residual : NULL,
        .weight = extras ? weight : NULL,
        .bias = extras ? bias : NULL,
        .out = out,
        .input_stride = STRIDE,
        .residual_stride = COLUMNS,
        .out_stride = COLUMNS,
        .epsilon = 0.01,
    };
    OK(hw_layer_norm(&p));
    for (int m = 0; m < ROWS; ++m) {
      double y[COLUMNS], mean = 0, variance = 0;
      for (int i = 0; i < COLUMNS; ++i) {
        y[i] = x[m * STRIDE + i] + (extras ? (double)residual[m * COLUMNS + i] : 0);
        mean += y[i] / COLUMNS;
      }
      for (int i = 0; i < COLUMNS; ++i) variance += (y[i] - mean) * (y[i] - mean) / COLUMNS;
      for (int i = 0; i < COLUMNS; ++i) {
        const double z = (y[i] - mean) / sqrt(variance + 0.01);
        check_close(out[m * COLUMNS + i], extras ? z * weight[i] + bias[i] : z, 4e-6);
      }
    }
  }
  free(x), free(residual), free(weight), free(bias), free(out);
}

/* ---- the ends of an encoder ---- */

static void embed(void) {
  enum { V = 9, T = 6 };
  float *a = numbers(V * COLUMNS, 1), *b = numbers(V * COLUMNS, 2), out[T * COLUMNS];
  int64_t first[T] = {8, 0, 3, 3, 1, 8}, second[T] = {0, 1, 2, 3, 4, 5};
  hw_embed_params p = {.rows = T,
                       .columns = COLUMNS,
                       .num_tables = 2,
                       .tables = {a, b},
                       .indices = {first, second},
                       .table_rows = {V, V},
                       .out = out};
  OK(hw_embed(&p));
  for (int t = 0; t < T; ++t)
    for (int i = 0; i < COLUMNS; ++i)
      CHECK(out[t * COLUMNS + i] == a[first[t] * COLUMNS + i] + b[second[t] * COLUMNS + i]);
  const int64_t outside[] = {-1, V, INT64_MAX, INT64_MIN};
  for (int i = 0; i < COUNT(outside); ++i) {
    second[T - 1] = outside[i];
    memset(out, 0, sizeof out);
    CHECK(hw_embed(&p) == HW_INDEX_OUT_OF_RANGE);
    for (int j = 0; j < T * COLUMNS; ++j) CHECK(out[j] == 0); /* nothing was written */
  }
  free(a), free(b);
}

static void pool(void) {
  const int64_t starts[] = {0, 5, 5, 6, ROWS};
  enum { N = COUNT(starts) - 1 };
  float *x = numbers(ROWS * COLUMNS, 1), out[N * COLUMNS];
  for (int mode = HW_POOL_MEAN; mode <= HW_POOL_MAX; ++mode)
    for (int normalize = 0; normalize < 2; ++normalize) {
      const hw_pool_params p = {.mode = (hw_pooling)mode,
                                .normalize = normalize,
                                .batch = N,
                                .columns = COLUMNS,
                                .input = x,
                                .starts = starts,
                                .out = out};
      OK(hw_pool(&p));
      for (int b = 0; b < N; ++b) {
        const int64_t begin = starts[b], end = starts[b + 1];
        double expected[COLUMNS] = {0}, squares = 0;
        for (int i = 0; i < COLUMNS && begin < end; ++i) {
          double sum = 0, max = -INFINITY;
          for (int64_t m = begin; m < end; ++m) {
            sum += x[m * COLUMNS + i];
            max = fmax(max, x[m * COLUMNS + i]);
          }
          expected[i] = mode == HW_POOL_MEAN  ? sum / (double)(end - begin)
                        : mode == HW_POOL_MAX ? max
                                              : x[begin * COLUMNS + i];
          squares += expected[i] * expected[i];
        }
        for (int i = 0; i < COLUMNS; ++i)
          check_close(out[b * COLUMNS + i],
                      normalize && begin < end ? expected[i] / sqrt(squares) : expected[i], 1e-6);
      }
    }
  free(x);
}

/* ---- what is refused ---- */

static void invalid_attention(void) {
  float q[B * H * SQ * D] = {0}, k[B * G * SK * D] = {0}, v[B * G * SK * DV] = {0};
  float out[B * H * SQ * DV];
  const int64_t good[] = {0, 10, SQ}, descending[] = {0, 20, 10}, negative[] = {-1, 0, SQ};
  const int64_t lengths[B] = {5, -1};
  const hw_attention_params fine = dense(q, k, v, out);
  OK(hw_attention(&fine));
#define REFUSED(field, value)     \
  do {                            \
    hw_attention_params p = fine; \
    p.field = value;              \
    INVALID(hw_attention(&p));    \
  } while (0)
  REFUSED(dtype, (hw_dtype)7);
  REFUSED(batch, -1);
  REFUSED(num_heads, -1);
  REFUSED(num_heads, 3);
  REFUSED(num_kv_heads, 0);
  REFUSED(num_kv_heads, -2);
  REFUSED(head_dim, 0);
  REFUSED(head_dim, HEADWISE_MAX_HEAD_DIM + 1);
  REFUSED(value_dim, 0);
  REFUSED(value_dim, HEADWISE_MAX_HEAD_DIM + 1);
  REFUSED(query_length, -1);
  REFUSED(key_length, -1);
  REFUSED(scale, NAN);
  REFUSED(scale, INFINITY);
  REFUSED(query_starts, good); /* without key_starts */
  REFUSED(key_starts, good);
  REFUSED(key_lengths, lengths);
  hw_attention_params p = fine;
  p.query_starts = good;
  p.key_starts = descending;
  INVALID(hw_attention(&p));
  p.query_starts = negative;
  p.key_starts = good;
  INVALID(hw_attention(&p));
}

static void invalid_others(void) {
  float x[64] = {0}, y[64], packed[64 * 8];
  const int64_t starts[] = {0, 3, 2}, index[2] = {0, 0};
  INVALID(hw_pack_weight((hw_dtype)7, x, 8, 2, 8, packed));
  INVALID(hw_pack_weight(HW_FLOAT32, x, 8, -1, 8, packed));
  OK(hw_pack_weight(HW_FLOAT32, x, 8, 2, 8, packed));
  const hw_linear_params linear = {.weight_dtype = HW_FLOAT32,
                                   .input_dtype = HW_FLOAT32,
                                   .out_dtype = HW_FLOAT32,
                                   .rows = 2,
                                   .out_features = 2,
                                   .in_features = 8,
                                   .input = x,
                                   .packed_weight = packed,
                                   .out = y,
                                   .input_stride = 8,
                                   .out_stride = 2};
  hw_linear_params l = linear;
  OK(hw_linear(&l));
  l.activation = (hw_activation)9;
  INVALID(hw_linear(&l));
  l = linear, l.rows = -1;
  INVALID(hw_linear(&l));
  l = linear, l.weight_dtype = (hw_dtype)-1;
  INVALID(hw_linear(&l));
  l = linear, l.out_dtype = HW_BFLOAT16;
  INVALID(hw_linear(&l));
  l = linear, l.weight_dtype = HW_INT8, l.in_features = HEADWISE_MAX_INT8_FEATURES + 1;
  INVALID(hw_linear(&l));
  l = linear, l.gated = 1, l.residual = l.out;
  INVALID(hw_linear(&l));
  l = linear, l.rows = 0;
  OK(hw_linear(&l));
  hw_softmax_params s = {.dtype = HW_FLOAT32, .rows = -1, .columns = 8, .input = x, .out = y};
  INVALID(hw_softmax(&s));
  hw_layer_norm_params n = {.dtype = HW_FLOAT32,
                            .rows = 2,
                            .columns = 8,
                            .input = x,
                            .out = y,
                            .input_stride = 8,
                            .out_stride = 8,
                            .epsilon = -1};
  INVALID(hw_layer_norm(&n));
  n.epsilon = NAN;
  INVALID(hw_layer_norm(&n));
  n.epsilon = 0, n.columns = 0;
  INVALID(hw_layer_norm(&n));
  hw_embed_params e = {.rows = 2,
                       .columns = 8,
                       .num_tables = 0,
                       .tables = {x},
                       .indices = {index},
                       .table_rows = {8},
                       .out = y};
  INVALID(hw_embed(&e));
  e.num_tables = HEADWISE_MAX_TABLES + 1;
  INVALID(hw_embed(&e));
  hw_pool_params o = {.batch = 2, .columns = 8, .input = x, .starts = starts, .out = y};
  INVALID(hw_pool(&o));
  o.mode = (hw_pooling)5;
  INVALID(hw_pool(&o));
  double figure;
  INVALID(hw_peak_flops(HW_FLOAT32, 0, &figure));
  INVALID(hw_peak_bandwidth(NAN, &figure));
}

static void null_pointers(void) {
  float x[B * H * SK * D] = {0}, y[B * H * SQ * SK];
  hw_attention_params a = dense(x, x, x, y);
  a.query = NULL;
  INVALID(hw_attention(&a));
  a = dense(x, NULL, x, y);
  INVALID(hw_attention(&a));
  a = dense(x, x, NULL, y);
  INVALID(hw_attention(&a));
  a = dense(x, x, x, NULL);
  INVALID(hw_attention(&a));
  const hw_linear_params l = {.weight_dtype = HW_FLOAT32,
                              .input_dtype = HW_FLOAT32,
                              .out_dtype = HW_FLOAT32,
                              .rows = 2,
                              .out_features = 2,
                              .in_features = 8,
                              .input = x,
                              .out = y,
                              .input_stride = 8,
                              .out_stride = 2};
  INVALID(hw_linear(&l));
  const hw_softmax_params s = {.rows = 2, .columns = 8, .out = y};
  INVALID(hw_softmax(&s));
  const hw_layer_norm_params n = {.rows = 2, .columns = 8, .input = x};
  INVALID(hw_layer_norm(&n));
  const hw_embed_params e = {
      .rows = 2, .columns = 8, .num_tables = 1, .tables = {x}, .table_rows = {8}, .out = y};
  INVALID(hw_embed(&e));
  const hw_pool_params o = {.batch = 2, .columns = 8, .input = x, .out = y};
  INVALID(hw_pool(&o));
}

static void process(void) {
  CHECK(strcmp(hw_active_isa(), current_isa) == 0);
  CHECK(hw_set_isa("sse9") == HW_UNSUPPORTED_ISA);
  CHECK(hw_set_isa("") == HW_UNSUPPORTED_ISA);
  CHECK(strcmp(hw_active_isa(), current_isa) == 0);
  CHECK(hw_available_isa(-1) == NULL);
  CHECK(hw_available_isa(1000) == NULL);
  OK(hw_set_num_threads(3));
  CHECK(hw_get_num_threads() == 3);
  INVALID(hw_set_num_threads(0));
  INVALID(hw_set_num_threads(-1));
  CHECK(hw_get_num_threads() == 3);
  for (int status = HW_OK; status <= HW_INDEX_OUT_OF_RANGE; ++status)
    CHECK(strlen(hw_status_message((hw_status)status)) > 1);
  CHECK(strcmp(hw_status_message((hw_status)99), hw_status_message(HW_OK)) != 0);
  double figure = 0;
  OK(hw_peak_flops(HW_FLOAT64, 0.01, &figure));
  CHECK(figure > 0);
}

static const struct {
  const char* name;
  void (*run)(void);
} cases[] = {
    {"attention_dense", attention_dense},
    {"attention_varlen", attention_varlen},
    {"attention_weights", attention_weights},
    {"attention_mask", attention_mask},
    {"attention_scores", attention_scores},
    {"attention_column_sums", attention_column_sums},
    {"attention_16_bits", attention_16_bits},
    {"interruption", interruption},
    {"linear", linear},
    {"linear_into_heads", linear_into_heads},
    {"encode", encode},
    {"softmax", softmax},
    {"layer_norm", layer_norm},
    {"embed", embed},
    {"pool", pool},
    {"invalid_attention", invalid_attention},
    {"invalid_others", invalid_others},
    {"null_pointers", null_pointers},
    {"process", process},
};

int main(int argc, char** argv) {
  for (int i = 0; i < COUNT(cases); ++i) {
    if (argc < 2) {
      puts(cases[i].name);
    } else if (strcmp(argv[1], cases[i].name) == 0) {
      for (int n = 0; hw_available_isa(n) != NULL; ++n) {
        current_isa = hw_available_isa(n);
        OK(hw_set_isa(current_isa));
        cases[i].run();
      }
      return 0;
    }
  }
  return argc < 2 ? 0 : 2;
}
