"""Bad input: the right exception, in words that name the argument, and never a crash.

A row is a call, the exception it raises and words that its message contains.
"""

from __future__ import annotations

from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest

import headwise as hw
from headwise.functional import embed, pool

F32, F64 = np.float32, np.float64
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def ones(*shape, dtype=F32):
    return np.ones(shape, dtype)


def read_only(*shape):
    x = ones(*shape)
    x.flags.writeable = False
    return x


def attention(q=(2, 4, 6, 8), k=(2, 4, 7, 8), v=(2, 4, 7, 5), **options):
    arrays = [ones(*x) if isinstance(x, tuple) else x for x in (q, k, v)]
    return hw.attention(*arrays, **options)


def varlen(cu_q=(0, 4, 10), cu_k=None, q=(10, 4, 8), k=(10, 2, 8), v=(10, 2, 5), **options):
    arrays = [ones(*x) if isinstance(x, tuple) else x for x in (q, k, v)]
    return hw.attention_varlen(*arrays, cu_q, cu_k, **options)


def overlapping_rows(*shape):
    """Rows one element apart."""
    strides = (4,) * len(shape)
    return np.lib.stride_tricks.as_strided(np.zeros(1000, F32), shape, strides)


def overlapping(**options):
    """Attention whose result would be written over one of its options."""
    q, k, out = (np.zeros((2, 1, length, 4)) for length in (1, 4, 1))
    given = {name: make(out) if callable(make) else make for name, make in options.items()}
    return hw.attention(q, k, k, out=out, **given)


def overlapping_starts():
    q, out = np.zeros((6, 1, 8)), np.zeros((6, 1, 8))
    starts = out.reshape(-1)[:3].view(np.int64)
    starts[:] = 0, 3, 6
    return hw.attention_varlen(q, q, q, starts, out=out)


F16 = ones(2, 4, 7, 8, dtype="f2")
ODD_DTYPES = ["?", "i1", "u8", "i4", "c8", "c16", ">f4", ">f8", "O", "U3", "M8[s]", "f4,f4"]
ODD_DTYPES += [">f2", "g", ml_dtypes.float8_e5m2, ml_dtypes.int4, "V2"]
NOT_OF_LAYERS = ["f2", BFLOAT16]  # attention takes them
X = ones(3, 8)
ATTENTION = [
    (lambda: attention(q=(8,)), ValueError, "query", "(8,)", "(..., heads, length, head_dim)"),
    (lambda: attention(k=()), ValueError, "key", "()"),
    (lambda: attention(q=(6, 8)), ValueError, "2-D", "query (6, 8)", "key (2, 4, 7, 8)"),
    (lambda: attention(k=(2, 4, 7, 9)), ValueError, "key has head_dim 9", "query has head_dim 8"),
    (lambda: attention(v=(2, 4, 6, 5)), ValueError, "value has length 6", "key has length 7"),
    (lambda: attention(k=(2, 3, 7, 8), v=(2, 3, 7, 5)), ValueError, "key has 3 heads",
     "query has 4", "multiple"),
    (lambda: attention(k=(2, 8, 7, 8), v=(2, 8, 7, 5)), ValueError, "key has 8 heads"),
    (lambda: attention(v=(2, 2, 7, 5)), ValueError, "value has 2 heads", "key has 4"),
    (lambda: attention(k=(2, 0, 7, 8), v=(2, 0, 7, 5)), ValueError, "key has 0 heads"),
    (lambda: attention((2, 0, 6, 8), (2, 0, 7, 8), (2, 0, 7, 5)), ValueError, "key has 0 heads"),
    (lambda: attention((0, 6, 8), (0, 7, 8), (0, 7, 5)), ValueError, "key has 0 heads"),
    (lambda: attention(k=(3, 4, 7, 8), v=(3, 4, 7, 5)), ValueError, "do not broadcast",
     "query (2, 4, 6, 8)", "key (3, 4, 7, 8)"),
    (lambda: attention((6, 0), (7, 0), (7, 5)), ValueError, "query has head_dim 0", "1 to 512"),
    (lambda: attention((6, 513), (7, 513), (7, 5)), ValueError, "query has head_dim 513"),
    (lambda: attention(v=(2, 4, 7, 0)), ValueError, "value has head_dim 0"),
    (lambda: attention(v=(2, 4, 7, 513)), ValueError, "value has head_dim 513"),
    (lambda: attention(k=ones(2, 4, 7, 8, dtype=F64)), TypeError, "key has dtype float64",
     "query has float32"),
    (lambda: attention(v=ones(2, 4, 7, 5, dtype=F64)), TypeError, "value has dtype float64"),
    (lambda: attention(q="text"), TypeError, "query has dtype"),
    (lambda: attention(q=[[1, 2], [3, 4]]), TypeError, "query has dtype int64"),
    (lambda: attention(q=[[1.0], [1.0, 2.0]]), TypeError, "query cannot be read as an array"),
    (lambda: attention(q=np.ma.ones((2, 4, 6, 8), F32)), TypeError, "query is a masked array"),
    (lambda: attention(attn_mask=np.ma.ones((6, 7), "?")), TypeError, "attn_mask is a masked"),
    (lambda: attention(key_lengths=[[1], [1, 2]]), TypeError, "key_lengths cannot be read"),
    (lambda: attention(is_causal="False"), TypeError, "is_causal is 'False'", "True or False"),
    (lambda: attention(is_causal=None), TypeError, "is_causal is None"),
    (lambda: attention(is_causal=np.array([1, 0])), TypeError, "is_causal", "True or False"),
    (lambda: attention(scale=1e39), ValueError, "scale is 1e+39", "at most 1e+30"),
    (lambda: attention(scale=float("nan")), ValueError, "scale is nan", "finite"),
    (lambda: attention(scale=float("-inf")), ValueError, "scale is -inf", "finite"),
    (lambda: attention(scale=10**400), ValueError, "scale", "finite"),
    (lambda: attention(scale="1"), TypeError, "scale is '1'", "real number"),
    (lambda: attention(scale=1j), TypeError, "scale is 1j"),
    (lambda: attention(scale=np.ones(2)), TypeError, "scale", "real number"),
    (lambda: attention(key_lengths=[7, 8]), ValueError, "key_lengths goes from 7 to 8", "length 7"),
    (lambda: attention(key_lengths=[-1, 3]), ValueError, "key_lengths goes from -1 to 3"),
    (lambda: attention(key_lengths=[7]), ValueError, "key_lengths has shape (1,)", "(2,)"),
    (lambda: attention(key_lengths=[[7, 7]]), ValueError, "key_lengths has shape (1, 2)"),
    (lambda: attention(key_lengths=[7.0, 7.0]), TypeError, "key_lengths has dtype float64"),
    (lambda: attention(key_lengths=[True, True]), TypeError, "key_lengths has dtype bool"),
    (lambda: attention(key_lengths=2**63), ValueError, "key_lengths"),
    (lambda: attention(key_lengths=-(2**63)), ValueError, "key_lengths"),
    (lambda: attention(key_lengths="7"), TypeError, "key_lengths has dtype"),
    (lambda: attention(query_offset=[0, 1, 2]), ValueError, "query_offset has shape (3,)", "(2,)"),
    (lambda: attention(query_offset=0.5), TypeError, "query_offset has dtype float64"),
    (lambda: attention(query_offset=2**63), ValueError, "query_offset", "64 bits"),
    (lambda: attention(query_offset=2**80), TypeError, "query_offset has dtype object"),
    (lambda: attention(out=[[0.0]]), TypeError, "out is a list"),
    (lambda: attention(out=ones(2, 4, 6, 8)), ValueError, "out has shape (2, 4, 6, 8)",
     "(2, 4, 6, 5)"),
    (lambda: attention(out=ones(2, 4, 6, 5, dtype=F64)), TypeError, "out has dtype float64"),
    (lambda: attention(out=ones(2, 4, 6, 5, dtype=">f4")), TypeError, "out has dtype >f4"),
    (lambda: attention(out=read_only(2, 4, 6, 5)), ValueError, "out is read-only"),
    (lambda: attention(out=ones(2, 4, 6, 10)[..., ::2]), ValueError, "out", "contiguous last axis"),
    (lambda: attention(out=ones(2, 4, 6, 5)[..., ::-1]), ValueError, "out", "contiguous last axis"),
    (lambda: attention(out=np.frombuffer(bytearray(961), F32, 240, 1).reshape(2, 4, 6, 5)),
     ValueError, "out", "aligned"),
    (lambda: attention(out=np.lib.stride_tricks.as_strided(ones(5), (2, 4, 6, 5), (0, 0, 0, 4))),
     ValueError, "out", "broadcast"),
    (lambda: attention(out=overlapping_rows(2, 4, 6, 5)), ValueError, "out"),
    *((lambda option=option: overlapping(**option), ValueError, "out shares memory with an input")
      for option in (
          {"attn_mask": lambda out: out.reshape(2, 1, 1, 4)[:, :, :, ::-1]},
          {"sinks": lambda out: out.reshape(-1)[:1]},
          {"alibi_slopes": lambda out: out.reshape(-1)[1:2]},
          {"key_lengths": lambda out: out.reshape(-1)[2:4].view(np.int64)},
          {"query_offset": lambda out: out.reshape(-1)[6:].view(np.int64), "is_causal": True},
      )),
    (overlapping_starts, ValueError, "out shares memory with an input"),
    (lambda: hw.attention(X, X, X, out=X), ValueError, "out shares memory with an input"),
    (lambda: hw.attention(X, X, X.copy(), out=X[::-1]), ValueError, "out shares memory"),
    (lambda: hw.attention(*(3 * [(b := ones(5, 8))[:3]]), out=b[2:]), ValueError, "shares memory"),
    (lambda: attention(attn_mask=ones(6, 8)), ValueError, "attn_mask has shape (6, 8)",
     "(2, 4, 6, 7)"),
    (lambda: attention(attn_mask=ones(2, 6, 7)), ValueError, "attn_mask has shape (2, 6, 7)"),
    (lambda: attention(attn_mask=ones(1, 2, 4, 6, 7)), ValueError, "attn_mask has shape"),
    (lambda: attention(attn_mask=ones(0)), ValueError, "attn_mask has shape (0,)"),
    (lambda: attention(attn_mask=ones(6, 7, dtype=F64)), TypeError, "attn_mask has dtype float64",
     "bool", "float32"),
    (lambda: attention(attn_mask=ones(6, 7, dtype="f2")), TypeError, "attn_mask has dtype float16"),
    (lambda: attention(attn_mask=ones(6, 7, dtype="i4")), TypeError, "attn_mask has dtype int32"),
    (lambda: attention(attn_mask=ones(6, 7, dtype="u1")), TypeError, "attn_mask has dtype uint8"),
    (lambda: attention(attn_mask=ones(6, 7, dtype="O")), TypeError, "attn_mask has dtype object"),
    (lambda: attention(attn_mask=ones(6, 7, dtype=">f4")), TypeError, "attn_mask has dtype >f4"),
    (lambda: attention(attn_mask=1), TypeError, "attn_mask has dtype int64"),
    (lambda: attention(attn_mask="causal"), TypeError, "attn_mask has dtype"),
    (lambda: hw.attention(X, X, X, attn_mask=ones(1, 3, 3), out=X[:]), ValueError, "out"),
    (lambda: hw.attention(X, X, X, attn_mask=ones(4, 3, 3)), ValueError,
     "attn_mask has shape (4, 3, 3)"),
    (lambda: hw.attention(X, X, X, attn_mask=(o := ones(3, 8))[:, :3], out=o), ValueError,
     "out shares memory with an input"),
    (lambda: attention(window=(-1, 0)), ValueError, "window", "-1"),
    (lambda: attention(window=(None, -3)), ValueError, "window", "-3"),
    (lambda: attention(window=(1, 2, 3)), ValueError, "window is (1, 2, 3)"),
    (lambda: attention(window=(1,)), ValueError, "window is (1,)"),
    (lambda: attention(window=5), (TypeError, ValueError), "window is 5"),
    (lambda: attention(window=None), (TypeError, ValueError), "window is None"),
    (lambda: attention(window=(1.0, 2)), TypeError, "window", "1.0"),
    (lambda: attention(window=("1", 2)), TypeError, "window", "'1'"),
    (lambda: attention(softcap=0), ValueError, "softcap is 0"),
    (lambda: attention(softcap=1e39), ValueError, "softcap is 1e+39", "at most 1e+30"),
    (lambda: attention(softcap=1e-40), ValueError, "softcap is 1e-40", "at least 1e-30"),
    (lambda: attention(alibi_slopes=[0, 0, 0, 1e39]), ValueError, "alibi_slopes holds 1e+39"),
    (lambda: attention(sinks=[0, 3e38, 0, 0]), ValueError, "sinks holds 3e+38", "at most 1e+30"),
    (lambda: attention(alibi_slopes=[1] * 4, query_offset=2**24), ValueError, "alibi_slopes",
     "distances up to 16777221", "at most 16777216"),
    (lambda: varlen(alibi_slopes=[1] * 4, query_offset=-(2**24)), ValueError, "alibi_slopes"),
    (lambda: attention(softcap=-1.5), ValueError, "softcap is -1.5"),
    (lambda: attention(softcap=float("inf")), ValueError, "softcap is inf"),
    (lambda: attention(softcap=float("nan")), ValueError, "softcap is nan"),
    (lambda: attention(softcap=10**400), ValueError, "softcap"),
    (lambda: attention(softcap="30"), TypeError, "softcap is '30'", "real number"),
    (lambda: attention(softcap=ones(4)), TypeError, "softcap"),
    (lambda: attention(alibi_slopes=ones(3)), ValueError, "alibi_slopes has shape (3,)", "(4,)"),
    (lambda: attention(alibi_slopes=ones(3, 4)), ValueError, "alibi_slopes has shape (3, 4)",
     "(2, 4)"),
    (lambda: attention(alibi_slopes=ones(2, 1)), ValueError, "alibi_slopes has shape (2, 1)"),
    (lambda: attention(alibi_slopes=F32(1)), ValueError, "alibi_slopes has shape ()"),
    (lambda: attention(alibi_slopes=np.ones(4, "c8")), TypeError, "alibi_slopes has dtype complex"),
    (lambda: attention(alibi_slopes="abcd"), TypeError, "alibi_slopes has dtype"),
    (lambda: attention(alibi_slopes=[1, 2, 3, np.nan]), ValueError, "alibi_slopes"),
    (lambda: attention(alibi_slopes=[1, 2, 3, np.inf]), ValueError, "alibi_slopes"),
    (lambda: attention(sinks=ones(3)), ValueError, "sinks has shape (3,)", "(4,)"),
    (lambda: attention(sinks=ones(2, 3)), ValueError, "sinks has shape (2, 3)"),
    (lambda: attention(sinks=F32(1)), ValueError, "sinks has shape ()"),
    (lambda: attention(sinks=np.ones(4, "c8")), TypeError, "sinks has dtype complex64"),
    (lambda: attention(sinks="abcd"), TypeError, "sinks has dtype"),
    (lambda: attention(F16, k=ones(2, 4, 7, 8, dtype="f2")), TypeError, "value has dtype float32",
     "query has float16"),
    (lambda: attention(F16, F16, ones(2, 4, 7, 8, dtype=BFLOAT16)), TypeError,
     "value has dtype bfloat16", "query has float16"),
    (lambda: attention(F16, F16, F16, out=ones(2, 4, 7, 8)), TypeError, "out has dtype float32"),
    (lambda: attention(F16, F16, F16, attn_mask=ones(7, 7, dtype=BFLOAT16)), TypeError,
     "attn_mask has dtype bfloat16", "float16"),
    (lambda: attention(F16, F16, F16, attn_mask=ones(7, 7, dtype=F64)), TypeError,
     "attn_mask has dtype float64"),
    (lambda: hw.attention(X, X), (TypeError, ValueError), "value"),
    (lambda: hw.attention_weights(ones(3, 8), ones(3, 7)), ValueError, "key has head_dim 7"),
    (lambda: hw.attention_weights(X, X, heads=1), ValueError, "heads", "1"),
    (lambda: hw.attention_weights(X, X, heads=[0, 5]), ValueError, "heads", "5"),
    (lambda: hw.attention_weights(X, X, heads=0.0), TypeError, "heads"),
    (lambda: hw.attention_weights(X, X, rows=3), ValueError, "rows", "3"),
    (lambda: hw.attention_weights(X, X, rows=[0, -4]), ValueError, "rows", "-4"),
    (lambda: hw.attention_weights(X, X, rows=[True, False, True]), TypeError, "rows"),
    (lambda: hw.attention_weights(X, X, rows=[0.5]), TypeError, "rows"),
    (lambda: hw.attention_weights(X, X, rows=[[0]]), (TypeError, ValueError), "rows"),
    (lambda: hw.attention_weights(X, X, rows="all"), TypeError, "rows"),
    (lambda: hw.attention_weights(X, X, attn_mask=ones(8)), ValueError, "attn_mask has shape (8,)"),
    (lambda: hw.attention_weights(X, X, softcap=-1), ValueError, "softcap is -1"),
    (lambda: hw.attention_weights(X, X, window=(-1, 1)), ValueError, "window", "-1"),
    (lambda: hw.attention_weights(X, X, sinks=ones(2)), ValueError, "sinks has shape (2,)"),
    (lambda: hw.merge_attention([], []), ValueError, "outs"),
    (lambda: hw.merge_attention([X], []), ValueError, "1", "0"),
    (lambda: hw.merge_attention([X, X], [X[:, 0]]), ValueError, "2", "1"),
    (lambda: hw.merge_attention([X, X[:2]], [X[:, 0], X[:2, 0]]), ValueError, "outs[1]", "(2, 8)"),
    (lambda: hw.merge_attention([X], [X]), ValueError, "lses[0]", "(3, 8)", "(3,)"),
    (lambda: hw.merge_attention([X, X.astype(F64)], 2 * [X[:, 0]]), TypeError,
     "outs[1] has dtype float64"),
    (lambda: hw.merge_attention([X], [X[:, 0].astype(F64)]), TypeError, "lses[0] has dtype float64",
     "float32"),
    (lambda: hw.merge_attention([X.astype(int)], [X[:, 0]]), TypeError, "outs[0] has dtype int64"),
    (lambda: hw.attention_weights(ones(3, 8), ones(3, 8, dtype=F64)), TypeError, "key has dtype"),
    (lambda: hw.attention_weights(X, X, scale=float("inf")), ValueError, "scale is inf"),
    (lambda: hw.attention_weights(X, X, key_lengths=4), ValueError, "key_lengths goes from 4 to 4"),
]  # fmt: skip
VARLEN = [
    (lambda: varlen(q=(10, 32)), ValueError, "query has shape (10, 32)", "(Tq, Hq, D)"),
    (lambda: varlen(k=(1, 10, 2, 8)), ValueError, "key has shape (1, 10, 2, 8)"),
    (lambda: varlen(v=(10, 5)), ValueError, "value has shape (10, 5)", "Dv"),
    (lambda: varlen(v=(9, 2, 5)), ValueError, "value has 9 tokens", "key has 10"),
    (lambda: varlen(v=(10, 4, 5)), ValueError, "value has 4 heads", "key has 2"),
    (lambda: varlen(k=(10, 3, 8), v=(10, 3, 5)), ValueError, "key has 3 heads", "query has 4"),
    (lambda: varlen(k=(10, 0, 8), v=(10, 0, 5)), ValueError, "key has 0 heads"),
    (lambda: varlen(k=(12, 2, 8), v=(12, 2, 5)), ValueError, "cu_seqlens_k must be given"),
    (lambda: varlen([1, 4, 10]), ValueError, "cu_seqlens_q", "from 1", "10 tokens"),
    (lambda: varlen([0, 4, 9]), ValueError, "cu_seqlens_q", "to 9", "10 tokens"),
    (lambda: varlen([0, 4, 11]), ValueError, "cu_seqlens_q", "to 11"),
    (lambda: varlen([0, 7, 4, 10]), ValueError, "cu_seqlens_q", "descends"),
    (lambda: varlen([0, 11, 10]), ValueError, "cu_seqlens_q", "descends"),
    (lambda: varlen([-1, 4, 10]), ValueError, "cu_seqlens_q", "from -1"),
    (lambda: varlen([0, 2**62, 10]), ValueError, "cu_seqlens_q", "descends"),
    (lambda: varlen([0, -(2**63), 10]), ValueError, "cu_seqlens_q", "descends"),
    (lambda: varlen([0, 2**63 - 1, -(2**63), 10]), ValueError, "cu_seqlens_q", "descends"),
    (lambda: varlen([]), ValueError, "cu_seqlens_q has shape (0,)", "(sequences + 1,)"),
    (lambda: varlen([[0, 10]]), ValueError, "cu_seqlens_q has shape (1, 2)"),
    (lambda: varlen(10), ValueError, "cu_seqlens_q has shape ()"),
    (lambda: varlen([0.0, 10.0]), TypeError, "cu_seqlens_q has dtype float64"),
    (lambda: varlen([0, 10], [0, 5, 10]), ValueError, "cu_seqlens_k has 3", "cu_seqlens_q has 2"),
    (lambda: varlen(cu_k=[0, 5, 9]), ValueError, "cu_seqlens_k", "to 9"),
    (lambda: varlen(query_offset=[1]), ValueError, "query_offset has shape (1,)", "(2,)"),
    (lambda: varlen(scale=float("nan")), ValueError, "scale is nan"),
    (lambda: varlen(window=(-1, 0)), ValueError, "window", "-1"),
    (lambda: varlen(softcap=0.0), ValueError, "softcap is 0.0"),
    (lambda: varlen(alibi_slopes=ones(2)), ValueError, "alibi_slopes has shape (2,)", "(4,)"),
    (lambda: varlen(alibi_slopes=ones(3, 4)), ValueError, "alibi_slopes has shape (3, 4)"),
    (lambda: varlen(sinks=ones(2)), ValueError, "sinks has shape (2,)", "(4,)"),
    (lambda: varlen(v=ones(10, 2, 5, dtype="f2")), TypeError, "value has dtype float16"),
    (lambda: varlen(attn_mask=ones(10, 10)), TypeError, "attn_mask"),
    (lambda: varlen(out=ones(10, 4, 8)), ValueError, "out has shape (10, 4, 8)", "(10, 4, 5)"),
]  # fmt: skip
LINEAR = hw.Linear(ones(5, 8))
Y, BOTH = ones(3, 5), ones(7, 8)
LAYERS = [
    (lambda: hw.Linear(ones(5)), ValueError, "weight has shape (5,)", "(out_features, in_feat"),
    (lambda: hw.Linear(ones(0, 5)), ValueError, "weight has shape (0, 5)"),
    (lambda: hw.Linear(ones(5, 0)), ValueError, "weight has shape (5, 0)"),
    (lambda: hw.Linear(ones(5, 8), ones(8)), ValueError, "bias has shape (8,)", "(5,)"),
    (lambda: hw.Linear(ones(5, 8), ones(5, dtype=F64)), TypeError, "bias has dtype float64"),
    (lambda: hw.Linear(ones(5, 8), activation="tanh"), ValueError, "activation is 'tanh'", "gelu"),
    (lambda: hw.Linear(ones(5, 8), activation=["relu"]), ValueError, "activation"),
    (lambda: LINEAR(ones(3, 7)), ValueError, "x has shape (3, 7)", "(..., 8)"),
    (lambda: LINEAR(F32(1)), ValueError, "x has shape ()"),
    (lambda: LINEAR(ones(3, 8, dtype=F64)), TypeError, "x has dtype float64", "float32"),
    (lambda: LINEAR(X, residual=ones(3, 8)), ValueError, "residual has shape (3, 8)", "(3, 5)"),
    (lambda: LINEAR(X, residual=ones(5)), ValueError, "residual has shape (5,)"),
    (lambda: LINEAR(X, residual=ones(3, 5, dtype=F64)), TypeError, "residual has dtype float64"),
    (lambda: LINEAR(X, out=ones(3, 8)), ValueError, "out has shape (3, 8)"),
    (lambda: LINEAR(X, out=read_only(3, 5)), ValueError, "read-only"),
    (lambda: LINEAR(X, out=overlapping_rows(3, 5)), ValueError, "out"),
    (lambda: LINEAR(BOTH[:3], out=BOTH[2:5, :5]), ValueError, "out shares memory with an input"),
    (lambda: LINEAR(X, residual=Y[:], out=Y), ValueError, "residual shares memory with out"),
    (lambda: LINEAR(X, residual=Y[::-1], out=Y), ValueError, "residual shares memory with out"),
    (lambda: hw.Linear(ones(5, 8), precision="int4"), ValueError, "precision is 'int4'", "int8"),
    (lambda: hw.Linear(ones(5, 8, dtype=F64), precision="int8"), TypeError, "weight has dtype f"),
    (lambda: hw.FeedForward(ones(8, 2), ones(2, 8), precision="int4"), ValueError, "'int4'"),
    (lambda: hw.Linear(ones(1, 65537), precision="int8"), ValueError, "65537 input", "65536"),
    (lambda: hw.Linear(ones(5, 8), gate_bias=ones(5)), ValueError, "gate_bias is given without"),
    (lambda: hw.Linear(ones(5, 8), gate_weight=ones(5, 7)), ValueError, "gate_weight has shape"),
    (lambda: hw.Linear(ones(5, 8), gate_weight=ones(5, 8), gate_bias=ones(8)), ValueError,
     "gate_bias has shape (8,)", "(5,)"),
    (lambda: hw.Linear(ones(5, 8), gate_weight=ones(5, 8))(X, residual=Y, out=Y), ValueError,
     "residual is out itself"),
    (lambda: hw.rms_norm(ones(3, 0)), ValueError, "x has shape (3, 0)"),
    (lambda: hw.rms_norm(X, ones(3)), ValueError, "weight has shape (3,)", "(8,)"),
    (lambda: hw.rms_norm(X, eps=-1), ValueError, "eps is -1"),
    (lambda: hw.softmax(F32(1)), ValueError, "x is a scalar"),
    (lambda: hw.softmax(X, axis=2), ValueError, "axis 2 is out of bounds"),
    (lambda: hw.softmax(X, axis=-3), ValueError, "axis -3 is out of bounds"),
    (lambda: hw.softmax(X, axis=0.5), TypeError, "float"),
    (lambda: hw.softmax([[1, 2]]), TypeError, "x has dtype int64"),
    (lambda: hw.layer_norm(F32(1)), ValueError, "x has shape ()"),
    (lambda: hw.layer_norm(ones(3, 0)), ValueError, "x has shape (3, 0)", "empty"),
    (lambda: hw.layer_norm(X, ones(3)), ValueError, "weight has shape (3,)", "(8,)"),
    (lambda: hw.layer_norm(X, None, ones(8, dtype=F64)), TypeError, "bias has dtype float64"),
    (lambda: hw.layer_norm(X, residual=ones(8)), ValueError, "residual has shape (8,)", "(3, 8)"),
    (lambda: hw.layer_norm(X, eps=-1e-5), ValueError, "eps is -1e-05"),
    (lambda: hw.layer_norm(X, eps=float("nan")), ValueError, "eps is nan"),
    (lambda: hw.layer_norm(X, eps=10**400), ValueError, "eps"),
    (lambda: hw.layer_norm(X, eps=None), TypeError, "eps is None"),
    (lambda: hw.layer_norm(X, out=ones(3, 7)), ValueError, "out has shape (3, 7)"),
    (lambda: hw.layer_norm(X, out=read_only(3, 8)), ValueError, "read-only"),
    (lambda: hw.layer_norm(X, out=X[:]), ValueError, "shares memory"),
    (lambda: hw.layer_norm(X, X[0], out=X), ValueError, "shares memory"),
    (lambda: hw.layer_norm(X, None, X[2], out=X), ValueError, "shares memory"),
    (lambda: hw.layer_norm(x := BOTH[:3], residual=BOTH[1:4], out=x), ValueError, "shares memory"),
    (lambda: hw.layer_norm(read := read_only(3, 8), out=read), ValueError, "read-only"),
    (lambda: hw.layer_norm(X, out=overlapping_rows(3, 8)), ValueError, "out"),
]  # fmt: skip
ENDS = [
    (lambda: embed([], []), ValueError, "0 tables"),
    (lambda: embed([X] * 5, [[0]] * 5), ValueError, "5 tables", "1 to 4"),
    (lambda: embed([X], [[0], [0]]), ValueError, "1 tables and 2 index arrays"),
    (lambda: embed([X, ones(3, 7)], [[0], [0]]), ValueError, "tables[1] has shape (3, 7)"),
    (lambda: embed([ones(3)], [[0]]), ValueError, "tables[0] has shape (3,)"),
    (lambda: embed([ones(3, 0)], [[0]]), ValueError, "tables[0] has shape (3, 0)"),
    (lambda: embed([X.astype(F64)], [[0]]), TypeError, "tables[0] has dtype float64"),
    (lambda: embed([X], [[0.0]]), TypeError, "indices[0] has dtype float64"),
    (lambda: embed([X], [[True]]), TypeError, "indices[0] has dtype bool"),
    (lambda: embed([X], [[[0]]]), ValueError, "indices[0] has shape (1, 1)"),
    (lambda: embed([X, X], [[0, 1], [0]]), ValueError, "indices[1] has shape (1,)"),
    (lambda: embed([X], [[0, 3]]), ValueError, "indices[0] goes from 0 to 3", "rows 0 to 2"),
    (lambda: embed([X, X], [[0, 1], [-1, 2]]), ValueError, "indices[1] goes from -1 to 2"),
    (lambda: embed([X], [[2**63 - 1]]), ValueError, "indices[0]"),
    (lambda: embed([X], [[-(2**63)]]), ValueError, "indices[0]"),
    (lambda: embed([X], [[2**63]]), ValueError, "indices[0]"),
    (lambda: embed([X[:0]], [[0]]), ValueError, "indices[0] goes from 0 to 0"),
    (lambda: pool(ones(8), [0, 8]), ValueError, "hidden has shape (8,)"),
    (lambda: pool(ones(3, 0), [0, 3]), ValueError, "hidden has shape (3, 0)"),
    (lambda: pool(X.astype(F64), [0, 3]), TypeError, "hidden has dtype float64"),
    (lambda: pool(X, [0, 4]), ValueError, "cu_seqlens", "3 tokens"),
    (lambda: pool(X, [0, 2, 1, 3]), ValueError, "cu_seqlens", "descends"),
    (lambda: pool(X, []), ValueError, "cu_seqlens has shape (0,)"),
    (lambda: pool(X, [0, 3], "sum"), ValueError, "mode is 'sum'", "mean"),
]  # fmt: skip


def multi_head(**changes):
    arguments = dict.fromkeys(
        ("query_weight", "key_weight", "value_weight", "output_weight"), ones(8, 8)
    )
    return hw.MultiHeadAttention(**(arguments | {"num_heads": 2} | changes))


def encoder(**changes):
    sizes = {"hidden_size": 8, "num_heads": 2, "num_layers": 1, "intermediate_size": 8}
    return hw.Encoder(9, **(sizes | {"max_positions": 5, "num_token_types": 2} | changes))


def weights_with(**changes):
    w = {name: ones(*shape) for name, shape in encoder().parameter_shapes().items()} | changes
    return encoder(weights={name: x for name, x in w.items() if x is not None})


UP = "layers.0.feed_forward.up.bias"
STACK = [
    (lambda: multi_head(num_heads=3), ValueError, "query_weight has shape (8, 8)", "num_heads, 3"),
    (lambda: multi_head(num_heads=0), ValueError, "num_heads is 0"),
    (lambda: multi_head(num_heads=4, num_kv_heads=3), ValueError, "num_kv_heads 3", "multiple"),
    (lambda: multi_head(query_weight=ones(8)), ValueError, "query_weight has shape (8,)"),
    (lambda: multi_head(key_weight=ones(4, 8)), ValueError, "key_weight has shape (4, 8)"),
    (lambda: multi_head(value_weight=ones(8, 7)), ValueError, "value_weight has shape (8, 7)"),
    (lambda: multi_head(output_weight=ones(7, 8)), ValueError, "output_weight has shape (7, 8)"),
    (lambda: multi_head(key_bias=ones(7)), ValueError, "key_bias has shape (7,)"),
    (lambda: multi_head(output_bias=ones(7)), ValueError, "bias has shape (7,)"),
    (lambda: multi_head()(ones(2, 5, 8)), ValueError, "hidden has shape (2, 5, 8)"),
    (lambda: multi_head()(ones(8)), ValueError, "hidden has shape (8,)"),
    (lambda: multi_head()(ones(5, 7)), ValueError, "(5, 7)", "8"),
    (lambda: multi_head()(ones(5, 8), [0, 4]), ValueError, "cu_seqlens", "5 tokens"),
    (lambda: multi_head()(ones(5, 8), residual=X), ValueError, "residual has shape (3, 8)"),
    (lambda: multi_head().weights(ones(2, 5, 8)), ValueError, "hidden has shape (2, 5, 8)"),
    (lambda: hw.FeedForward(ones(9, 8), ones(8, 7)), ValueError, "down_weight takes 7",
     "up_weight gives 9"),
    (lambda: encoder(num_heads=3), ValueError, "hidden_size is 8", "num_heads, 3"),
    (lambda: encoder(num_kv_heads=0), ValueError, "num_kv_heads is 0"),
    (lambda: encoder(num_heads=4, num_kv_heads=3), ValueError, "num_kv_heads 3"),
    (lambda: encoder(num_layers=-1), ValueError, "num_layers is -1"),
    (lambda: encoder(max_positions=0), ValueError, "max_positions is 0"),
    (lambda: encoder(num_token_types=-1), ValueError, "num_token_types is -1"),
    (lambda: encoder(layer_norm_eps=float("nan")), ValueError, "layer_norm_eps is nan"),
    (lambda: encoder(positions="rotary"), ValueError, "positions is 'rotary'", "sinusoidal"),
    (lambda: encoder(norm="none"), ValueError, "norm is 'none'", "post"),
    (lambda: encoder(activation=None), ValueError, "activation is None"),
    (lambda: hw.Encoder(0), ValueError, "vocab_size is 0"),
    (lambda: hw.Encoder(5.5), TypeError, "vocab_size is 5.5", "integer"),
    (lambda: hw.Encoder(9, num_layers="a"), TypeError, "num_layers is 'a'", "integer"),
    (lambda: encoder().layers[0](ones(3, 8), is_causal="no"), TypeError, "is_causal is 'no'"),
    (lambda: weights_with(**{UP: None}), ValueError, f"weights lacks {UP}"),
    (lambda: weights_with(extra=X), ValueError, "what the model does not", "extra"),
    (lambda: weights_with(**{UP: ones(7)}), ValueError, f"weights['{UP}'] has shape (7,)", "(8,)"),
    (lambda: weights_with(**{UP: ones(8, dtype=F64)}), TypeError, f"weights['{UP}'] has dtype"),
    (lambda: encoder()([0, 9]), ValueError, "input_ids goes from 0 to 9", "9 entries"),
    (lambda: encoder()([-1]), ValueError, "input_ids goes from -1"),
    (lambda: encoder()([0.0]), TypeError, "input_ids has dtype float64"),
    (lambda: encoder()(0), ValueError, "input_ids has shape ()"),
    (lambda: encoder()([[[0]]]), ValueError, "input_ids has shape (1, 1, 1)"),
    (lambda: encoder()([[0]], [0, 1]), ValueError, "cu_seqlens is for a flat stream"),
    (lambda: encoder()([0] * 6), ValueError, "6 tokens", "5 positions"),
    (lambda: encoder()([0] * 8, [0, 2, 8]), ValueError, "6 tokens", "5 positions"),
    (lambda: encoder()([0] * 4, [0, 3]), ValueError, "cu_seqlens", "4 tokens"),
    (lambda: encoder()([0], token_type_ids=[2]), ValueError, "token_type_ids goes from 2"),
    (lambda: encoder()([0], token_type_ids=[0, 0]), ValueError, "token_type_ids has shape (2,)"),
    (lambda: encoder(num_token_types=0)([0], token_type_ids=[1]), ValueError, "no token types"),
]  # fmt: skip
RUNTIME = [
    (lambda: hw.set_num_threads(0), ValueError, "n is 0", "1 to 4096"),
    (lambda: hw.set_num_threads(-1), ValueError, "n is -1"),
    (lambda: hw.set_num_threads(2**40), ValueError, "1 to 4096"),
    (lambda: hw.set_num_threads(2.0), TypeError, "n is 2.0", "integer"),
    (lambda: hw.set_num_threads("2"), TypeError, "n is '2'"),
    (lambda: hw.set_isa("sse9"), ValueError, "name is 'sse9'", *hw.available_isas()),
    (lambda: hw.set_isa(None), ValueError, "name is None"),
    (lambda: hw.peak(0), ValueError, "seconds is 0"),
    (lambda: hw.peak(float("nan")), ValueError, "seconds is nan"),
    (lambda: hw.nothing, AttributeError, "nothing"),
]
TABLE = [*ATTENTION, *VARLEN, *LAYERS, *ENDS, *STACK, *RUNTIME]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row[2])
def test_message(row):
    call, error, *words = row
    state = hw.active_isa(), hw.get_num_threads()
    with pytest.raises(error) as raised:
        call()
    for word in words:
        assert word in str(raised.value)
    assert (hw.active_isa(), hw.get_num_threads()) == state


OF_ATTENTION = [
    ("query", lambda x: hw.attention(x, x, x)),
    ("value", lambda x: hw.attention(X, X, x)),
    ("key", lambda x: hw.attention_weights(X, x)),
    ("query", lambda x: hw.attention_varlen(x[None], x[None], x[None], [0, 1])),
    ("out", lambda x: hw.attention(X, X, X, out=x)),
    ("outs[0]", lambda x: hw.merge_attention([x], [X[:, 0]])),
]
OF_LAYERS = [
    ("weight", hw.Linear),
    ("x", LINEAR),
    ("residual", lambda x: LINEAR(X, residual=x[:, :5])),
    ("x", hw.softmax),
    ("x", hw.layer_norm),
    ("weight", lambda x: hw.layer_norm(X, x[0])),
    ("tables[0]", lambda x: embed([x], [[0]])),
    ("hidden", lambda x: pool(x, [0, 3])),
]


@pytest.mark.parametrize(
    ("name", "call", "dtype"),
    [
        *((*row, dtype) for row in OF_ATTENTION + OF_LAYERS for dtype in ODD_DTYPES),
        *((*row, dtype) for row in OF_LAYERS for dtype in NOT_OF_LAYERS),
    ],
)
def test_dtypes_that_are_not_taken(name, call, dtype):
    """Named with the argument: never read as if they were floats."""
    given = np.zeros((3, 8), dtype)
    with pytest.raises(TypeError) as raised:
        call(given)
    assert name in str(raised.value)
    assert f"dtype {given.dtype}" in str(raised.value)


@pytest.mark.parametrize("offset", [2**62, 2**63 - 1, -(2**62), -(2**63)])
def test_offsets_past_all_keys(isa, rng, offset):
    """Sums with them would overflow: all keys are attended, or none."""
    q = rng.standard_normal((1, 2, 70, 8)).astype(F32)
    out, lse = hw.attention(q, q, q, is_causal=True, query_offset=offset, return_lse=True)
    if offset > 0:
        np.testing.assert_array_equal(out, hw.attention(q, q, q))
    else:
        assert (out == 0).all()
        assert np.isneginf(lse).all()
    packed = q[0].swapaxes(0, 1)
    cu = [0, 3, 70]
    got = hw.attention_varlen(packed, packed, packed, cu, is_causal=True, query_offset=offset)
    assert (got == 0).all() == (offset < 0)


@pytest.mark.parametrize("scale", [0.5, np.float32(0.5), np.float64(0.5), Fraction(1, 2)])
def test_scales_that_are_taken(scale):
    np.testing.assert_array_equal(
        hw.attention(X, X, X, scale=scale), hw.attention(X, X, X, scale=0.5)
    )


def test_failed_call_leaves_out_alone():
    out = np.full((3, 8), 7, F32)
    with pytest.raises(ValueError, match="scale"):
        hw.attention(X, X, X, scale=float("nan"), out=out)
    assert (out == 7).all()
