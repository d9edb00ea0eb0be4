# cython: language_level=3, freethreading_compatible=True, boundscheck=False, embedsignature=False
"""NumPy arrays in, C structs out: one call of the C library each, without the GIL.

Nothing is checked here but what would crash: the callers in ``headwise.functional`` have checked
shapes, dtypes and contiguity and say so in words.
"""

import os
import threading

from libc.math cimport sqrt
from cpython.object cimport PyTypeObject
from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_SetName
from cpython.ref cimport Py_INCREF
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

cimport numpy as cnp

from .headwise_h cimport *

cnp.import_array()


cdef extern from "numpy/arrayobject.h":
    int NPY_USERDEF  # the first number of a type that is not NumPy's own
    object PyArray_NewFromDescr(
        PyTypeObject*, cnp.dtype, int, cnp.npy_intp*, cnp.npy_intp*, void*, int, void*
    )


cdef extern from "Python.h":
    int PyErr_CheckSignals()  # declared without except: the exception is raised by check()


cdef extern from "pythread.h" nogil:
    unsigned long PyThread_get_thread_ident()


# Python handles signals on the main thread alone. In a forked child that is the one which forked.
cdef unsigned long main_thread = threading.main_thread().ident


def _after_fork_in_child():
    global main_thread
    main_thread = PyThread_get_thread_ident()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


# Between tiles, on the thread that called: a pending Ctrl-C ends the call.
cdef int signal_arrived() noexcept nogil:
    if PyThread_get_thread_ident() != main_thread:
        return 0
    with gil:
        return PyErr_CheckSignals()


hw_set_interrupt_check(signal_arrived)


cdef int check(hw_status status) except -1:
    if status == HW_OK:
        return 0
    if status == HW_INTERRUPTED:
        return -1  # the signal's handler has raised
    message = hw_status_message(status).decode()
    if status == HW_OUT_OF_MEMORY:
        raise MemoryError(message)
    if status == HW_INDEX_OUT_OF_RANGE:
        raise IndexError(message)
    raise ValueError(message)


# The callers let no other dtype through. Of two bytes there are float16 and, known to NumPy by a package
# alone, bfloat16.
cdef inline hw_dtype dtype_of(cnp.ndarray x) noexcept:
    cdef int number = cnp.PyArray_TYPE(x)
    if number == cnp.NPY_FLOAT32:
        return HW_FLOAT32
    if number == cnp.NPY_FLOAT64:
        return HW_FLOAT64
    if number == cnp.NPY_BOOL:
        return HW_BOOL
    return HW_FLOAT16 if number == cnp.NPY_FLOAT16 else HW_BFLOAT16


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


# The arrays, in a struct that has no options; value may be None.
cdef inline void fill_arrays(
    hw_attention_params* p, cnp.ndarray query, cnp.ndarray key, cnp.ndarray value, cnp.ndarray out,
    bint packed,
) noexcept:
    cdef int rows = 0 if packed else 2
    memset(p, 0, sizeof(hw_attention_params))
    p.dtype = dtype_of(query)
    p.batch = cnp.PyArray_DIM(query, 0)
    p.num_heads = cnp.PyArray_DIM(query, 1)
    p.num_kv_heads = cnp.PyArray_DIM(key, 1)
    p.head_dim = cnp.PyArray_DIM(query, 2 if packed else 3)
    p.query_length = cnp.PyArray_DIM(query, rows)
    p.key_length = cnp.PyArray_DIM(key, rows)
    p.query = data(query)
    p.key = data(key)
    p.out = data(out)
    p.query_strides = strides(query, packed)
    p.key_strides = strides(key, packed)
    p.out_strides = strides(out, packed)
    if value is not None:
        p.value = data(value)
        p.value_dim = cnp.PyArray_DIM(value, 2 if packed else 3)
        p.value_strides = strides(value, packed)


# What attention() fills out with.
OUTPUT, WEIGHTS, COLUMN_SUMS = 0, 1, 2


def attention(
    int what, cnp.ndarray query, cnp.ndarray key, cnp.ndarray value, cnp.ndarray out,
    cnp.ndarray lse, cnp.ndarray query_starts, cnp.ndarray key_starts, cnp.ndarray key_lengths,
    cnp.ndarray query_offsets, int64_t window_left, int64_t window_right, double scale,
    double softcap, cnp.ndarray attn_mask, cnp.ndarray mask_starts, cnp.ndarray alibi_slopes,
    cnp.ndarray sinks,
):
    """Fill out, and lse if not None. Windows are exclusive and 0 is no bound, as in headwise.h."""
    cdef bint packed = query_starts is not None
    cdef hw_status status
    cdef hw_attention_params p
    fill_arrays(&p, query, key, value, out, packed)
    if packed:
        p.batch = cnp.PyArray_DIM(query_starts, 0) - 1
    if lse is not None:
        p.lse = data(lse)
        p.lse_strides = strides(lse, packed)
    p.query_starts = <const int64_t*> data(query_starts)
    p.key_starts = <const int64_t*> data(key_starts)
    p.key_lengths = <const int64_t*> data(key_lengths)
    p.query_offsets = <const int64_t*> data(query_offsets)
    p.window_left = window_left
    p.window_right = window_right
    p.scale = scale
    p.softcap = softcap
    p.attn_mask = data(attn_mask)
    if attn_mask is not None:  # (any, Hq, Sq, Sk)
        p.mask_dtype = dtype_of(attn_mask)
        p.mask_starts = <const int64_t*> data(mask_starts)
        p.mask_strides = strides(attn_mask, False)
        p.mask_column_stride = stride(attn_mask, 3)
    p.alibi_slopes = <const double*> data(alibi_slopes)  # (1 or B, Hq)
    p.alibi_batch_stride = 0
    if alibi_slopes is not None and cnp.PyArray_DIM(alibi_slopes, 0) > 1:
        p.alibi_batch_stride = stride(alibi_slopes, 0)
    p.sinks = <const double*> data(sinks)
    if what == WEIGHTS:
        with nogil:
            status = hw_attention_weights(&p)
    elif what == COLUMN_SUMS:
        with nogil:
            status = hw_attention_column_sums(&p)
    else:
        with nogil:
            status = hw_attention(&p)
    check(status)


cdef inline bint is_plain(x) noexcept:
    if not cnp.PyArray_CheckExact(x) or cnp.PyArray_NDIM(x) != 4 or not cnp.PyArray_ISBEHAVED_RO(x):
        return False
    return cnp.PyArray_STRIDE(x, 3) == (<cnp.ndarray> x).itemsize


# NumPy's number of the bfloat16 that a package has added to its types, once one has been met.
cdef int bfloat16_number = -1


cdef bint is_attention_number(int number, dtype):
    global bfloat16_number
    if number >= NPY_USERDEF and number != bfloat16_number and dtype.name == "bfloat16":
        bfloat16_number = number
    return number in (cnp.NPY_FLOAT32, cnp.NPY_FLOAT64, cnp.NPY_FLOAT16, bfloat16_number)


def plain_attention(query, key, value, causal):
    """Return attention without further options, or None if attention() must look closer.

    For short sequences those checks take longer than the kernel.
    """
    if not (is_plain(query) and is_plain(key) and is_plain(value)):
        return None
    if causal is not True and causal is not False:
        return None
    cdef bint is_causal = causal
    cdef cnp.ndarray q = query, k = key, v = value
    cdef int number = cnp.PyArray_TYPE(q)
    cdef cnp.npy_intp* sq = cnp.PyArray_DIMS(q)
    cdef cnp.npy_intp* sk = cnp.PyArray_DIMS(k)
    cdef cnp.npy_intp* sv = cnp.PyArray_DIMS(v)
    if cnp.PyArray_TYPE(k) != number or cnp.PyArray_TYPE(v) != number:
        return None
    if not is_attention_number(number, query.dtype):
        return None
    if sq[0] != sk[0] or sq[0] != sv[0] or sk[1] != sv[1] or sk[2] != sv[2] or sq[3] != sk[3]:
        return None
    if sq[2] == 1:  # the last query, which attends all keys
        is_causal = False
    if is_causal and sq[2] != sk[2]:  # the last queries: an offset for each batch entry
        return None
    if sk[1] == 0 or sq[1] % sk[1] != 0 or not (1 <= sq[3] <= 512 and 1 <= sv[3] <= 512):
        return None
    cdef cnp.npy_intp shape[4]
    shape[0] = sq[0]
    shape[1] = sq[1]
    shape[2] = sq[2]
    shape[3] = sv[3]
    out = cnp.PyArray_EMPTY(4, shape, number, 0)
    cdef hw_status status
    cdef hw_attention_params p
    fill_arrays(&p, q, k, v, out, False)
    p.scale = 1 / sqrt(<double> sq[3])
    p.window_right = is_causal
    with nogil:
        status = hw_attention(&p)
    check(status)
    return out


cdef inline hw_dtype precision_of(str name) noexcept:
    if name == "float32":
        return HW_FLOAT32
    if name == "float64":
        return HW_FLOAT64
    if name == "float32_pairs":
        return HW_FLOAT32_PAIRS
    return HW_BFLOAT16 if name == "bfloat16" else HW_INT8


def packed_weight_size(str precision, int64_t out_features, int64_t in_features):
    """Return the bytes of the packed form of a (N, K) weight."""
    return hw_packed_weight_size(precision_of(precision), out_features, in_features)


def pack_weight(str precision, cnp.ndarray weight, cnp.ndarray packed):
    """Fill packed, of bytes, with the panels of a (N, K) weight."""
    cdef hw_dtype dtype = precision_of(precision)
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
    str precision, int activation, bint gated,
):
    """Fill out (M, N) from x (M, K) and a packed weight."""
    cdef hw_status status
    cdef hw_linear_params p
    p.weight_dtype = precision_of(precision)
    p.input_dtype = dtype_of(x)
    p.out_dtype = dtype_of(out)
    p.activation = <hw_activation> activation
    p.gated = gated
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
    p.out_head_dim = p.out_head_stride = 0
    with nogil:
        status = hw_linear(&p)
    check(status)


cdef class EncoderStack:
    """Encoder layers whose weights are ready for the kernel; it keeps their arrays.

    Each layer is a tuple of four packed weights (projection, output, up, down), then four biases and
    four norm arrays (attention weight and bias, feed-forward weight and bias), float32 or None, then
    the two epsilons.
    """

    cdef hw_encoder_params params
    cdef hw_encoder_layer* layers
    cdef readonly list arrays

    def __cinit__(
        self, list layers, str precision, *, int activation, bint gated, bint pre_norm,
        int64_t hidden_size, int64_t intermediate_size, int64_t num_heads, int64_t num_kv_heads,
        int64_t head_dim,
    ):
        cdef hw_encoder_layer* layer
        cdef int64_t i
        self.arrays = layers
        self.layers = <hw_encoder_layer*> calloc(max(len(layers), 1), sizeof(hw_encoder_layer))
        if self.layers == NULL:
            raise MemoryError()
        for i in range(len(layers)):
            layer = &self.layers[i]
            given = layers[i]
            layer.projection_weight = data(given[0])
            layer.output_weight = data(given[1])
            layer.up_weight = data(given[2])
            layer.down_weight = data(given[3])
            layer.projection_bias = <const float*> data(given[4])
            layer.output_bias = <const float*> data(given[5])
            layer.up_bias = <const float*> data(given[6])
            layer.down_bias = <const float*> data(given[7])
            layer.attention_norm_weight = <const float*> data(given[8])
            layer.attention_norm_bias = <const float*> data(given[9])
            layer.feed_forward_norm_weight = <const float*> data(given[10])
            layer.feed_forward_norm_bias = <const float*> data(given[11])
            layer.attention_norm_epsilon = given[12]
            layer.feed_forward_norm_epsilon = given[13]
        self.params.weight_dtype = precision_of(precision)
        self.params.activation = <hw_activation> activation
        self.params.gated = gated
        self.params.pre_norm = pre_norm
        self.params.hidden_size = hidden_size
        self.params.intermediate_size = intermediate_size
        self.params.num_heads = num_heads
        self.params.num_kv_heads = num_kv_heads
        self.params.head_dim = head_dim

    def __dealloc__(self):
        free(self.layers)

    def run(
        self, cnp.ndarray hidden, cnp.ndarray starts, int64_t first, int64_t count, bint is_causal
    ):
        """Take hidden (T, E), in place, through `count` layers from the `first` on."""
        cdef hw_status status
        cdef hw_encoder_params p = self.params
        p.is_causal = is_causal
        p.layers = self.layers + first
        p.num_layers = count
        p.batch = cnp.PyArray_DIM(starts, 0) - 1
        p.starts = <const int64_t*> data(starts)
        p.hidden = <float*> data(hidden)
        with nogil:
            status = hw_encode(&p)
        check(status)


def trim():
    """Return the memory that encoders keep for their next call."""
    hw_trim()


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
    double epsilon, bint rms,
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
    p.rms = rms
    with nogil:
        status = hw_layer_norm(&p)
    check(status)


def embed(list tables, list indices, cnp.ndarray starts, cnp.ndarray out):
    """Fill out (T, E) with sums of rows of at most 4 tables.

    Indices that are None are each row's place in its sequence, of which starts tells.
    """
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
    p.batch = 0 if starts is None else cnp.PyArray_DIM(starts, 0) - 1
    p.starts = <const int64_t*> data(starts)
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


# As the DLPack specification lays them out.
ctypedef struct DLTensor:
    void* data
    int32_t device_type, device_id
    int32_t ndim
    uint8_t code, bits
    uint16_t lanes
    int64_t* shape
    int64_t* strides  # in elements; NULL if contiguous
    uint64_t byte_offset

ctypedef struct DLManagedTensor:
    DLTensor tensor
    void* manager
    void (*deleter)(DLManagedTensor*) noexcept


cdef class _DLPackOwner:
    """Keeps the memory of a consumed capsule."""

    cdef DLManagedTensor* managed

    def __dealloc__(self):
        if self.managed != NULL and self.managed.deleter != NULL:
            self.managed.deleter(self.managed)


def bfloat16_from_dlpack(capsule):
    """Return the bits of a bfloat16 tensor, uint16, sharing its memory; None for another dtype."""
    cdef DLManagedTensor* managed = <DLManagedTensor*> PyCapsule_GetPointer(capsule, "dltensor")
    cdef DLTensor* tensor = &managed.tensor
    if tensor.code != 4 or tensor.bits != 16 or tensor.lanes != 1:
        return None
    PyCapsule_SetName(capsule, "used_dltensor")
    owner = _DLPackOwner()
    (<_DLPackOwner> owner).managed = managed
    cdef cnp.npy_intp shape[64]
    cdef cnp.npy_intp strides[64]
    cdef int64_t step = 2
    cdef int i
    if tensor.ndim > 64:
        raise ValueError("a tensor of more than 64 dimensions")
    for i in range(tensor.ndim - 1, -1, -1):
        shape[i] = tensor.shape[i]
        strides[i] = step if tensor.strides == NULL else 2 * tensor.strides[i]
        step *= tensor.shape[i]
    cdef cnp.dtype uint16 = cnp.PyArray_DescrFromType(cnp.NPY_UINT16)
    Py_INCREF(uint16)  # the array takes one
    x = PyArray_NewFromDescr(
        <PyTypeObject*> cnp.ndarray, uint16, tensor.ndim, shape, strides,
        <char*> tensor.data + tensor.byte_offset, cnp.NPY_ARRAY_WRITEABLE, NULL,
    )
    cnp.set_array_base(x, owner)
    return x


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


def peak_flops(str dtype, double seconds):
    """Return measured multiply-adds of float32, float64, bfloat16 or int8, 1e9 operations a second."""
    cdef hw_dtype number = precision_of(dtype)
    cdef double result = 0
    cdef hw_status status
    with nogil:
        status = hw_peak_flops(number, seconds, &result)
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
