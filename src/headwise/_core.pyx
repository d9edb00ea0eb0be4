# cython: language_level=3, freethreading_compatible=True, boundscheck=False, embedsignature=False
"""NumPy arrays in, C structs out: one call of the C library each, without the GIL.

Nothing is checked here but what would crash: the callers in ``headwise.functional`` have checked
shapes, dtypes and contiguity and say so in words.
"""

import os

from libc.stddef cimport size_t
from libc.stdint cimport int64_t

cimport numpy as cnp

cnp.import_array()


cdef extern from "headwise.h" nogil:
    ctypedef enum hw_status:
        HW_OK, HW_OUT_OF_MEMORY, HW_UNSUPPORTED_ISA, HW_INDEX_OUT_OF_RANGE
    ctypedef enum hw_dtype:
        HW_FLOAT32, HW_FLOAT64
    ctypedef enum hw_activation:
        HW_IDENTITY, HW_RELU, HW_GELU
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
        double scale
        int causal
    ctypedef struct hw_linear_params:
        hw_dtype dtype
        hw_activation activation
        int64_t rows, out_features, in_features
        const void* input
        const void* packed_weight
        const void* bias
        const void* residual
        void* out
        int64_t input_stride, residual_stride, out_stride
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
    ctypedef struct hw_embed_params:
        int64_t rows, columns, num_tables
        const float* tables[4]
        const int64_t* indices[4]
        int64_t table_rows[4]
        float* out
    ctypedef struct hw_pool_params:
        hw_pooling mode
        int normalize
        int64_t batch, columns
        const float* input
        const int64_t* starts
        float* out
    const char* hw_status_message(hw_status)
    const char* hw_active_isa()
    const char* hw_available_isa(int)
    hw_status hw_set_isa(const char*)
    int hw_get_num_threads()
    hw_status hw_set_num_threads(int)
    hw_status hw_attention(const hw_attention_params*)
    hw_status hw_attention_weights(const hw_attention_params*)
    size_t hw_packed_weight_size(hw_dtype, int64_t, int64_t)
    hw_status hw_pack_weight(hw_dtype, const void*, int64_t, int64_t, int64_t, void*)
    hw_status hw_linear(const hw_linear_params*)
    hw_status hw_softmax(const hw_softmax_params*)
    hw_status hw_layer_norm(const hw_layer_norm_params*)
    hw_status hw_embed(const hw_embed_params*)
    hw_status hw_pool(const hw_pool_params*)
    hw_status hw_peak_flops(hw_dtype, double, double*)
    hw_status hw_peak_bandwidth(double, double*)


cdef int check(hw_status status) except -1:
    if status == HW_OK:
        return 0
    message = hw_status_message(status).decode()
    if status == HW_OUT_OF_MEMORY:
        raise MemoryError(message)
    if status == HW_INDEX_OUT_OF_RANGE:
        raise IndexError(message)
    raise ValueError(message)


cdef inline hw_dtype dtype_of(cnp.ndarray x) noexcept:
    return HW_FLOAT32 if x.itemsize == 4 else HW_FLOAT64


cdef inline void* data(cnp.ndarray x) noexcept:
    return NULL if x is None else cnp.PyArray_DATA(x)


cdef inline int64_t stride(cnp.ndarray x, int axis) noexcept:
    return 0 if x is None else cnp.PyArray_STRIDE(x, axis) // x.itemsize


# (B, H, S, D), or (T, H, D) of packed sequences.
cdef inline hw_strides strides(cnp.ndarray x, bint packed) noexcept:
    cdef hw_strides s
    s.batch = 0 if packed else stride(x, 0)
    s.head = stride(x, 1)
    s.row = stride(x, 0 if packed else 2)
    return s


def attention(
    cnp.ndarray query, cnp.ndarray key, cnp.ndarray value, cnp.ndarray out, cnp.ndarray lse,
    cnp.ndarray query_starts, cnp.ndarray key_starts, cnp.ndarray key_lengths,
    cnp.ndarray query_offsets, double scale, bint causal,
):
    """Fill out and lse; with value None, fill out with the attention weights."""
    cdef bint packed = query_starts is not None
    cdef int rows = 0 if packed else 2
    cdef hw_status status
    cdef hw_attention_params p
    p.dtype = dtype_of(query)
    p.batch = cnp.PyArray_DIM(query_starts, 0) - 1 if packed else cnp.PyArray_DIM(query, 0)
    p.num_heads = cnp.PyArray_DIM(query, 1)
    p.num_kv_heads = cnp.PyArray_DIM(key, 1)
    p.head_dim = cnp.PyArray_DIM(query, 2 if packed else 3)
    p.query_length = cnp.PyArray_DIM(query, rows)
    p.key_length = cnp.PyArray_DIM(key, rows)
    p.query = data(query)
    p.key = data(key)
    p.value = data(value)
    p.out = data(out)
    p.lse = data(lse)
    p.query_strides = strides(query, packed)
    p.key_strides = strides(key, packed)
    p.out_strides = strides(out, packed)
    p.query_starts = <const int64_t*> data(query_starts)
    p.key_starts = <const int64_t*> data(key_starts)
    p.key_lengths = <const int64_t*> data(key_lengths)
    p.query_offsets = <const int64_t*> data(query_offsets)
    p.scale = scale
    p.causal = causal
    if value is None:
        with nogil:
            status = hw_attention_weights(&p)
    else:
        p.value_dim = cnp.PyArray_DIM(value, 2 if packed else 3)
        p.value_strides = strides(value, packed)
        if lse is not None:
            p.lse_strides = strides(lse, packed)
        with nogil:
            status = hw_attention(&p)
    check(status)


def packed_weight_size(cnp.ndarray weight):
    """Return the number of elements of the packed form of a (N, K) weight."""
    return hw_packed_weight_size(
        dtype_of(weight), cnp.PyArray_DIM(weight, 0), cnp.PyArray_DIM(weight, 1)
    )


def pack_weight(cnp.ndarray weight, cnp.ndarray packed):
    """Fill packed with the panels of a (N, K) weight."""
    cdef hw_dtype dtype = dtype_of(weight)
    cdef const void* source = data(weight)
    cdef void* target = data(packed)
    cdef int64_t row = stride(weight, 0)
    cdef int64_t n = cnp.PyArray_DIM(weight, 0), k = cnp.PyArray_DIM(weight, 1)
    cdef hw_status status
    with nogil:
        status = hw_pack_weight(dtype, source, row, n, k, target)
    check(status)


def linear(
    cnp.ndarray x, cnp.ndarray packed, cnp.ndarray bias, cnp.ndarray residual, cnp.ndarray out,
    int activation,
):
    """Fill out (M, N) from x (M, K) and a packed weight."""
    cdef hw_status status
    cdef hw_linear_params p
    p.dtype = dtype_of(x)
    p.activation = <hw_activation> activation
    p.rows = cnp.PyArray_DIM(x, 0)
    p.out_features = cnp.PyArray_DIM(out, 1)
    p.in_features = cnp.PyArray_DIM(x, 1)
    p.input = data(x)
    p.packed_weight = data(packed)
    p.bias = data(bias)
    p.residual = data(residual)
    p.out = data(out)
    p.input_stride = stride(x, 0)
    p.residual_stride = stride(residual, 0)
    p.out_stride = stride(out, 0)
    with nogil:
        status = hw_linear(&p)
    check(status)


def softmax(cnp.ndarray x, cnp.ndarray out):
    """Fill out (M, N) with the softmax of the rows of x."""
    cdef hw_status status
    cdef hw_softmax_params p
    p.dtype = dtype_of(x)
    p.rows = cnp.PyArray_DIM(x, 0)
    p.columns = cnp.PyArray_DIM(x, 1)
    p.input = data(x)
    p.out = data(out)
    p.input_stride = stride(x, 0)
    p.out_stride = stride(out, 0)
    with nogil:
        status = hw_softmax(&p)
    check(status)


def layer_norm(
    cnp.ndarray x, cnp.ndarray residual, cnp.ndarray weight, cnp.ndarray bias, cnp.ndarray out,
    double epsilon,
):
    """Fill out (M, N) with the normalised rows of x + residual."""
    cdef hw_status status
    cdef hw_layer_norm_params p
    p.dtype = dtype_of(x)
    p.rows = cnp.PyArray_DIM(x, 0)
    p.columns = cnp.PyArray_DIM(x, 1)
    p.input = data(x)
    p.residual = data(residual)
    p.weight = data(weight)
    p.bias = data(bias)
    p.out = data(out)
    p.input_stride = stride(x, 0)
    p.residual_stride = stride(residual, 0)
    p.out_stride = stride(out, 0)
    p.epsilon = epsilon
    with nogil:
        status = hw_layer_norm(&p)
    check(status)


def embed(list tables, list indices, cnp.ndarray out):
    """Fill out (T, E) with sums of rows of at most 4 tables."""
    cdef hw_status status
    cdef hw_embed_params p
    cdef int i
    p.rows = cnp.PyArray_DIM(out, 0)
    p.columns = cnp.PyArray_DIM(out, 1)
    p.num_tables = len(tables)
    for i in range(min(len(tables), 4)):
        p.tables[i] = <const float*> data(tables[i])
        p.indices[i] = <const int64_t*> data(indices[i])
        p.table_rows[i] = cnp.PyArray_DIM(<cnp.ndarray> tables[i], 0)
    p.out = <float*> data(out)
    with nogil:
        status = hw_embed(&p)
    check(status)


def pool(cnp.ndarray hidden, cnp.ndarray starts, cnp.ndarray out, int mode, bint normalize):
    """Fill out (N, E) with one vector a sequence of hidden (T, E)."""
    cdef hw_status status
    cdef hw_pool_params p
    p.mode = <hw_pooling> mode
    p.normalize = normalize
    p.batch = cnp.PyArray_DIM(out, 0)
    p.columns = cnp.PyArray_DIM(hidden, 1)
    p.input = <const float*> data(hidden)
    p.starts = <const int64_t*> data(starts)
    p.out = <float*> data(out)
    with nogil:
        status = hw_pool(&p)
    check(status)


def active_isa():
    """Return the name of the ISA in use, or None if HEADWISE_ISA names one that cannot run."""
    cdef const char* name = hw_active_isa()
    return None if name == NULL else name.decode()


def available_isas():
    """Return the names of the ISAs that can run here, best first."""
    names = []
    while hw_available_isa(len(names)) != NULL:
        names.append(hw_available_isa(len(names)).decode())
    return tuple(names)


def set_isa(str name):
    """Use this ISA from now on."""
    check(hw_set_isa(name.encode()))


def get_num_threads():
    """Return the number of threads a call may use."""
    return hw_get_num_threads()


def set_num_threads(int n):
    """Let a call use up to n threads."""
    check(hw_set_num_threads(n))


def peak_flops(bint float64, double seconds):
    """Return measured fused multiply-add GFLOP/s."""
    cdef double result = 0
    cdef hw_status status
    with nogil:
        status = hw_peak_flops(HW_FLOAT64 if float64 else HW_FLOAT32, seconds, &result)
    check(status)
    return result


def peak_bandwidth(double seconds):
    """Return measured GB/s of reading memory."""
    cdef double result = 0
    cdef hw_status status
    with nogil:
        status = hw_peak_bandwidth(seconds, &result)
    check(status)
    return result


if active_isa() is None:
    raise ImportError(
        f"HEADWISE_ISA={os.environ.get('HEADWISE_ISA')!r} cannot run on this CPU; "
        f"it takes one of {', '.join(available_isas())}"
    )
