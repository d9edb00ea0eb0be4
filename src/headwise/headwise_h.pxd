# cython: language_level=3
"""The C ABI, as ``csrc/include/headwise.h`` declares and explains it."""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t


cdef extern from "headwise.h" nogil:
    ctypedef enum hw_status:
        HW_OK, HW_OUT_OF_MEMORY, HW_UNSUPPORTED_ISA, HW_INDEX_OUT_OF_RANGE, HW_INTERRUPTED
    ctypedef enum hw_dtype:
        HW_FLOAT32, HW_FLOAT64, HW_FLOAT16, HW_BFLOAT16, HW_BOOL, HW_INT8, HW_FLOAT32_PAIRS
    ctypedef enum hw_activation:
        HW_IDENTITY, HW_RELU, HW_GELU, HW_GELU_TANH, HW_SILU
    ctypedef enum hw_pooling:
        HW_POOL_MEAN, HW_POOL_CLS, HW_POOL_MAX
    ctypedef struct hw_strides:
        int64_t batch, head, row
    ctypedef struct hw_attention_params:
        hw_dtype dtype
        int64_t batch, num_heads, num_kv_heads, head_dim, value_dim, query_length, key_length
        const void* query
        const void* key
        const void* value
        void* out
        void* lse
        hw_strides query_strides, key_strides, value_strides, out_strides, lse_strides
        const int64_t* query_starts
        const int64_t* key_starts
        const int64_t* key_lengths
        const int64_t* query_offsets
        int64_t window_left, window_right
        double scale
        double softcap
        const void* attn_mask
        hw_dtype mask_dtype
        const int64_t* mask_starts
        hw_strides mask_strides
        int64_t mask_column_stride
        const double* alibi_slopes
        int64_t alibi_batch_stride
        const double* sinks
    ctypedef struct hw_linear_params:
        hw_dtype weight_dtype, input_dtype, out_dtype
        hw_activation activation
        int gated
        int64_t rows, out_features, in_features
        const void* input
        const void* packed_weight
        const void* bias
        const void* residual
        void* out
        int64_t input_stride, residual_stride, out_stride
        int64_t out_head_dim, out_head_stride
    ctypedef struct hw_softmax_params:
        hw_dtype dtype
        int64_t rows, columns
        const void* input
        void* out
        int64_t input_stride, out_stride
    ctypedef struct hw_layer_norm_params:
        hw_dtype dtype
        int64_t rows, columns
        const void* input
        const void* residual
        const void* weight
        const void* bias
        void* out
        int64_t input_stride, residual_stride, out_stride
        double epsilon
        int rms
    ctypedef struct hw_embed_params:
        int64_t rows, columns, num_tables
        const float* tables[4]
        const int64_t* indices[4]
        int64_t table_rows[4]
        float* out
        int64_t batch
        const int64_t* starts
    ctypedef struct hw_pool_params:
        hw_pooling mode
        int normalize
        int64_t batch, columns
        const float* input
        const int64_t* starts
        float* out
    ctypedef struct hw_encoder_layer:
        const void* projection_weight
        const void* output_weight
        const void* up_weight
        const void* down_weight
        const float* projection_bias
        const float* output_bias
        const float* up_bias
        const float* down_bias
        const float* attention_norm_weight
        const float* attention_norm_bias
        const float* feed_forward_norm_weight
        const float* feed_forward_norm_bias
        double attention_norm_epsilon, feed_forward_norm_epsilon
    ctypedef struct hw_encoder_params:
        hw_dtype weight_dtype
        hw_activation activation
        int gated, pre_norm, is_causal
        int64_t hidden_size, intermediate_size, num_heads, num_kv_heads, head_dim
        int64_t num_layers
        const hw_encoder_layer* layers
        int64_t batch
        const int64_t* starts
        float* hidden
    const char* hw_status_message(hw_status)
    const char* hw_active_isa()
    const char* hw_available_isa(int)
    hw_status hw_set_isa(const char*)
    int hw_get_num_threads()
    hw_status hw_set_num_threads(int)
    void hw_set_interrupt_check(int (*)() noexcept nogil)
    hw_status hw_attention(const hw_attention_params*)
    hw_status hw_attention_weights(const hw_attention_params*)
    hw_status hw_attention_column_sums(const hw_attention_params*)
    size_t hw_packed_weight_size(hw_dtype, int64_t, int64_t)
    hw_status hw_pack_weight(hw_dtype, const void*, int64_t, int64_t, int64_t, void*)
    hw_status hw_linear(const hw_linear_params*)
    hw_status hw_softmax(const hw_softmax_params*)
    hw_status hw_layer_norm(const hw_layer_norm_params*)
    hw_status hw_embed(const hw_embed_params*)
    hw_status hw_pool(const hw_pool_params*)
    hw_status hw_encode(const hw_encoder_params*)
    void hw_trim()
    hw_status hw_peak_flops(hw_dtype, double, double*)
    hw_status hw_peak_bandwidth(double, double*)
