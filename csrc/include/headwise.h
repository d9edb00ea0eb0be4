/* headwise: attention and transformer-encoder kernels for the CPU, callable from C.
 *
 * Every function takes a struct of plain parameters and returns a status; nothing is thrown, nothing
 * is printed, inputs are never written. Lengths and strides count elements, not bytes. The last axis
 * of every array is contiguous. Pointers of optional arrays may be NULL. All functions may be called
 * from several threads at once, and after fork().
 *
 * Letters: B batch, H query heads, G key/value heads, Sq and Sk query and key lengths, D head
 * dimension of query and key, Dv of value, T tokens, M rows, N output features, K input features.
 */
#ifndef HEADWISE_H
#define HEADWISE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define HEADWISE_MAX_HEAD_DIM 512

typedef enum hw_status {
  HW_OK = 0,
  HW_INVALID_ARGUMENT = 1,   /* a length, pointer or enum value no kernel takes */
  HW_OUT_OF_MEMORY = 2,      /* the workspace of a thread could not be allocated */
  HW_UNSUPPORTED_ISA = 3,    /* unknown, not built in, or not on this CPU */
  HW_INDEX_OUT_OF_RANGE = 4, /* hw_embed: an index outside its table */
  HW_INTERRUPTED = 5,        /* the check of hw_set_interrupt_check said so; outputs are part written */
} hw_status;

/* A sentence for a status; a static string. */
const char* hw_status_message(hw_status status);

typedef enum hw_dtype {
  HW_FLOAT32 = 0,
  HW_FLOAT64 = 1,
  HW_FLOAT16 = 2, /* attention alone */
  HW_BFLOAT16 = 3,
  HW_BOOL = 4,          /* masks alone; one byte, 0 or not */
  HW_INT8 = 5,          /* packed weights alone */
  HW_FLOAT32_PAIRS = 6, /* likewise: float32, arranged for products in pairs */
} hw_dtype;

/* ---- instruction sets and threads ------------------------------------------------------------ */

/* The ISA in use: "avx512_zen4" (avx512_bf16, with HW_FLOAT32_PAIRS for adders that work beside multipliers),
 * "avx512_bf16", "avx512_vnni", "avx512", "avx2" or "scalar". On first use it is the best the CPU and
 * operating system support, or the one the environment variable HEADWISE_ISA names. NULL if that variable
 * names one that cannot run here; every kernel then returns HW_UNSUPPORTED_ISA. */
const char* hw_active_isa(void);

/* The i-th ISA that can run here, best first; NULL past the end. */
const char* hw_available_isa(int i);

/* Select an ISA by name for the whole process (tests and benchmarks). */
hw_status hw_set_isa(const char* name);

/* Threads a call may use: HEADWISE_NUM_THREADS, else OMP_NUM_THREADS, else the CPUs of the affinity
 * mask, and at most the cgroup's CPU quota rounded up. */
int hw_get_num_threads(void);
hw_status hw_set_num_threads(int num_threads);

/* Called about every 20 ms on the thread that called a kernel, between tasks; if it returns anything but 0
 * the kernel gives up and returns HW_INTERRUPTED. NULL for none. */
void hw_set_interrupt_check(int (*check)(void));

/* ---- attention ------------------------------------------------------------------------------- */

/* Strides of a (batch, head, row) array. */
typedef struct hw_strides {
  int64_t batch, head, row;
} hw_strides;

/* softmax(scale * Q K^T) V by a blockwise online softmax (Dao et al., 2022).
 *
 * Dense: every sequence has query_length queries and key_length keys.
 * Packed (varlen): query_starts and key_starts hold batch + 1 row numbers each; sequence b owns the
 * query rows [query_starts[b], query_starts[b + 1]) and likewise the keys; the batch strides and the
 * two lengths are ignored.
 *
 * With p = i + query_offset, the score of query i and key j is, in this order,
 *   s = scale * (q_i . k_j)
 *   s = softcap * tanh(s / softcap)     if softcap > 0
 *   s = s - alibi_slope * |p - j|       if there are slopes
 *   s = s + attn_mask[i, j]             if the mask is of floats
 * and key j is attended if j < the sequence's number of keys, p - window_left < j < p + window_right (both
 * bounds exclusive), and the mask is neither 0 (HW_BOOL) nor -inf. A causal mask is window_right = 1. A query
 * that attends nothing gives zeros, and lse -inf or its head's sink; what an unattended key or value holds
 * never matters.
 *
 * Sums and softmax are in float32, or float64 for HW_FLOAT64: "real" below.
 */
typedef struct hw_attention_params {
  hw_dtype dtype;                         /* of query, key, value and out */
  int64_t batch, num_heads, num_kv_heads; /* num_heads is a multiple of num_kv_heads */
  int64_t head_dim, value_dim;            /* 1 .. HEADWISE_MAX_HEAD_DIM */
  int64_t query_length, key_length;
  const void *query, *key, *value;
  void* out; /* (batch, num_heads, query_length, value_dim) */
  void* lse; /* optional, real: natural log of sum exp, element (b, h, i) */
  hw_strides query_strides, key_strides, value_strides, out_strides, lse_strides;
  const int64_t *query_starts, *key_starts; /* optional, both or none: packed sequences */
  const int64_t* key_lengths;               /* optional (batch): keys from here on are not read */
  const int64_t* query_offsets; /* optional (batch): key position of each sequence's first query; else 0 */
  int64_t window_left, window_right; /* 0: no bound */
  double scale;
  double softcap;             /* 0: none */
  const void* attn_mask;      /* optional (batch, num_heads, query_length, key_length); any strides, 0 too */
  hw_dtype mask_dtype;        /* HW_BOOL, dtype, or for 16-bit dtypes HW_FLOAT32 */
  const int64_t* mask_starts; /* (batch): where each sequence's mask begins, in elements */
  hw_strides mask_strides;    /* of head and row */
  int64_t mask_column_stride;
  const double* alibi_slopes; /* optional (batch, num_heads), or (num_heads) with batch stride 0 */
  int64_t alibi_batch_stride;
  const double* sinks; /* optional (num_heads): an extra logit in the denominator and in lse */
} hw_attention_params;

hw_status hw_attention(const hw_attention_params* params);

/* The softmax probabilities themselves: out is (batch, num_heads, query_length, key_length) with
 * out_strides; value, value_dim and lse are ignored. Unattended keys get 0. */
hw_status hw_attention_weights(const hw_attention_params* params);

/* Their sums over the queries: out is real, (batch, num_heads, key_length), with the batch and head of
 * out_strides. The probabilities are never held. */
hw_status hw_attention_column_sums(const hw_attention_params* params);

/* ---- linear layers --------------------------------------------------------------------------- */

typedef enum hw_activation {
  HW_IDENTITY = 0,
  HW_RELU = 1,
  HW_GELU = 2,      /* x Phi(x), by erf */
  HW_GELU_TANH = 3, /* its approximation by tanh */
  HW_SILU = 4,      /* x / (1 + exp(-x)) */
} hw_activation;

#define HEADWISE_MAX_INT8_FEATURES 65536 /* input features whose sums are exact */

/* Bytes a packed (N, K) weight takes: HW_FLOAT32, HW_FLOAT32_PAIRS, HW_FLOAT64, HW_BFLOAT16 or HW_INT8. */
size_t hw_packed_weight_size(hw_dtype dtype, int64_t out_features, int64_t in_features);

/* Reorder a row-major (N, K) weight into panels of outputs, zero padded. It is of float32, of float64 for
 * HW_FLOAT64; bfloat16 is rounded to the nearest, int8 symmetric with a scale an output feature, which is a
 * power of 2 with HW_FLOAT32_PAIRS. The result is the same for every ISA. */
hw_status hw_pack_weight(hw_dtype dtype, const void* weight, int64_t row_stride, int64_t out_features,
                         int64_t in_features, void* packed);

/* out = activation(input W^T + bias) + residual, for M rows; gated:
 * out = activation(input W^T + bias) * (input W2^T + bias2) + residual.
 *
 * With HW_BFLOAT16 weights the input is rounded to bfloat16, with HW_INT8 to 8 bits that span each row and 0;
 * sums are float32 (exact, in int32). With HW_FLOAT32_PAIRS products are taken two at a time on avx512_zen4,
 * where errors are relative to whole rows of input and weight; on other ISAs inputs beyond 1e35 may overflow.
 * A row that holds inf or NaN gives NaN with HW_INT8, and on avx512_zen4 with HW_FLOAT32_PAIRS. */
typedef struct hw_linear_params {
  hw_dtype weight_dtype;           /* of the packed weight */
  hw_dtype input_dtype, out_dtype; /* HW_FLOAT64 as the weight, else HW_FLOAT32; or HW_BFLOAT16 with one of
                                      HW_BFLOAT16 or HW_INT8 */
  hw_activation activation;
  int gated; /* W2 is packed after W, hw_packed_weight_size() on; bias2 after bias */
  int64_t rows, out_features, in_features;
  const void* input;         /* (M, K), rows input_stride apart */
  const void* packed_weight; /* from hw_pack_weight; 64-byte aligned is fastest */
  const void* bias;          /* optional (N,), real: float32, or float64 as the weight */
  const void* residual;      /* optional (M, N), real, rows residual_stride apart; may be out itself */
  void* out;                 /* (M, N), rows out_stride apart */
  int64_t input_stride, residual_stride, out_stride;
  int64_t out_head_dim, out_head_stride; /* not 0: out is (heads, M, out_head_dim); not with gated */
} hw_linear_params;

hw_status hw_linear(const hw_linear_params* params);

/* ---- row kernels ----------------------------------------------------------------------------- */

/* out[m] = exp(input[m] - max) / sum, over rows of length columns. */
typedef struct hw_softmax_params {
  hw_dtype dtype;
  int64_t rows, columns;
  const void* input;
  void* out; /* may be input itself */
  int64_t input_stride, out_stride;
} hw_softmax_params;

hw_status hw_softmax(const hw_softmax_params* params);

/* out[m] = (x - mean(x)) / sqrt(var(x) + epsilon) * weight + bias with x = input[m] + residual[m];
 * two passes, as var is the mean of (x - mean)^2. */
typedef struct hw_layer_norm_params {
  hw_dtype dtype;
  int64_t rows, columns;
  const void* input;
  const void* residual; /* optional (rows, columns) */
  const void* weight;   /* optional (columns,) */
  const void* bias;     /* optional (columns,) */
  void* out;            /* may be input itself */
  int64_t input_stride, residual_stride, out_stride;
  double epsilon;
  int rms; /* no mean is subtracted: x / sqrt(mean(x^2) + epsilon), RMSNorm */
} hw_layer_norm_params;

hw_status hw_layer_norm(const hw_layer_norm_params* params);

#define HEADWISE_MAX_TABLES 4

/* out[t] = the sum over tables of table[indices[t]]; float32. */
typedef struct hw_embed_params {
  int64_t rows, columns, num_tables;           /* 1 .. HEADWISE_MAX_TABLES tables of `columns` columns */
  const float* tables[HEADWISE_MAX_TABLES];    /* contiguous */
  const int64_t* indices[HEADWISE_MAX_TABLES]; /* (rows,) each; NULL: each row's place in its sequence */
  int64_t table_rows[HEADWISE_MAX_TABLES];
  float* out; /* contiguous */
  int64_t batch;
  const int64_t* starts; /* (batch + 1) row numbers from 0 to `rows`; needed if an index array is NULL */
} hw_embed_params;

/* HW_INDEX_OUT_OF_RANGE before anything is written. */
hw_status hw_embed(const hw_embed_params* params);

typedef enum hw_pooling { HW_POOL_MEAN = 0, HW_POOL_CLS = 1, HW_POOL_MAX = 2 } hw_pooling;

/* One row a sequence of a packed (T, columns) float32 array; an empty sequence gives zeros. */
typedef struct hw_pool_params {
  hw_pooling mode;
  int normalize; /* divide by the Euclidean norm */
  int64_t batch, columns;
  const float* input;
  const int64_t* starts; /* (batch + 1) row numbers */
  float* out;            /* (batch, columns), contiguous */
} hw_pool_params;

hw_status hw_pool(const hw_pool_params* params);

/* ---- a stack of encoder layers ---------------------------------------------------------------- */

/* Weights are packed with the stack's weight_dtype; biases are optional, float32. A norm without weight is
 * not scaled, without bias not shifted. */
typedef struct hw_encoder_layer {
  const void* projection_weight; /* ((H + 2 G) D, E): query heads, key heads, value heads */
  const void* output_weight;     /* (E, H D) */
  const void* up_weight;         /* (F, E), twice if gated */
  const void* down_weight;       /* (E, F) */
  const float *projection_bias, *output_bias, *up_bias, *down_bias;
  const float *attention_norm_weight, *attention_norm_bias;
  const float *feed_forward_norm_weight, *feed_forward_norm_bias;
  double attention_norm_epsilon, feed_forward_norm_epsilon;
} hw_encoder_layer;

/* x = norm(x + attention(x)); x = norm(x + feed_forward(x)) for each layer, or with pre_norm
 * x = x + attention(norm(x)); x = x + feed_forward(norm(x)), within each sequence of a packed batch.
 *
 * Each thread takes sequences of some hundred tokens through all layers, so that what passes between
 * operations stays in its cache; few tokens are worked on by all threads together. Working memory beside
 * `hidden`: a few times (E + (H + 2 G) D + F) * 4 bytes for each token of such a group, per thread; hw_trim()
 * frees it. */
typedef struct hw_encoder_params {
  hw_dtype weight_dtype; /* but HW_FLOAT64; HW_BFLOAT16 and HW_INT8 run attention in bfloat16 */
  hw_activation activation;
  int gated, pre_norm, is_causal;
  int64_t hidden_size, intermediate_size, num_heads, num_kv_heads, head_dim;
  int64_t num_layers;
  const hw_encoder_layer* layers;
  int64_t batch;
  const int64_t* starts; /* (batch + 1) row numbers of hidden */
  float* hidden;         /* (T, hidden_size), contiguous; in and out */
} hw_encoder_params;

hw_status hw_encode(const hw_encoder_params* params);

/* Return to the system what hw_encode keeps for its next call. */
void hw_trim(void);

/* ---- what this machine can do ---------------------------------------------------------------- */

/* Measured with the active ISA on all threads: independent fused multiply-adds in registers, in
 * 1e9 operations a second (of HW_BFLOAT16 and HW_INT8 those of float32 if the ISA has no instruction of its
 * own), and the sum of a buffer larger than any cache, in 1e9 bytes a second. */
hw_status hw_peak_flops(hw_dtype dtype, double seconds, double* gflops);
hw_status hw_peak_bandwidth(double seconds, double* gigabytes_per_second);

#ifdef __cplusplus
}
#endif
#endif
