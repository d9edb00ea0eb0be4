"""torch.nn.functional.scaled_dot_product_attention's signature and meaning."""

from __future__ import annotations

import inspect
import math

import numpy as np
import pytest
from checks import ISAS_OF_ATTENTION, assert_same_bits, eps, qkv

import headwise as hw

ISAS = ISAS_OF_ATTENTION


def as_torch_documents(
    query, key, value, attn_mask=None, is_causal=False, scale=None, enable_gqa=False
):
    """The code of torch's documentation, in NumPy; a row without keys is 0, as in torch >= 2.5."""
    L, S = query.shape[-2], key.shape[-2]
    dtype = query.dtype
    query, key, value = (x.astype(np.float64) for x in (query, key, value))
    bias = np.zeros((L, S))
    if is_causal:
        bias = np.where(np.tril(np.ones((L, S), bool)), bias, -np.inf)
    if attn_mask is not None and attn_mask.dtype == bool:
        bias = np.where(attn_mask, 0, -np.inf)
    elif attn_mask is not None:
        bias = attn_mask.astype(np.float64)
    if enable_gqa:
        key = key.repeat(query.shape[-3] // key.shape[-3], -3)
        value = value.repeat(query.shape[-3] // value.shape[-3], -3)
    s = query @ key.swapaxes(-2, -1) * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    s = s + bias
    empty = np.isneginf(s).all(-1, keepdims=True)
    p = np.exp(np.where(empty, 0, s) - np.where(empty, 0, s).max(-1, keepdims=True))
    p = np.where(empty, 0, p / p.sum(-1, keepdims=True))
    return (p @ value).astype(dtype)


CASES = {
    "plain": {},
    "causal": {"is_causal": True},
    "scale": {"scale": 0.3},
    "bool mask": {"attn_mask": np.arange(33 * 70).reshape(33, 70) % 3 > 0},
    "float mask": {"attn_mask": np.where(np.arange(33 * 70) % 5, 0.5, -np.inf).reshape(33, 70)},
    "key padding": {"attn_mask": (np.arange(70) < [[[[60]]], [[[1]]]])},
    "empty rows": {"attn_mask": np.arange(33)[:, None] % 2 > np.zeros(70)},
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("enable_gqa", [False, True])
def test_as_torch_documents(isa, any_dtype, name, enable_gqa):
    rng = np.random.default_rng(3)
    q, k, v = qkv(rng, (2, 6, 2 if enable_gqa else 6, 33, 70, 24, 20), any_dtype)
    options = dict(CASES[name])
    if getattr(options.get("attn_mask"), "dtype", None) == np.float64:
        options["attn_mask"] = options["attn_mask"].astype(any_dtype)
    got = hw.scaled_dot_product_attention(q, k, v, **options, enable_gqa=enable_gqa)
    assert got.dtype == any_dtype
    expected = as_torch_documents(q, k, v, **options, enable_gqa=enable_gqa)
    atol = (2 if any_dtype.itemsize == 2 else 16) * eps(any_dtype) * float(np.abs(v).max())
    np.testing.assert_allclose(got.astype(float), expected.astype(float), rtol=0, atol=atol)


@pytest.mark.parametrize(("queries", "keys"), [(5, 9), (9, 5), (4, 4)])
def test_causal_is_top_left(any_dtype, queries, keys):
    """Unlike attention(), whose default is bottom right."""
    q, k, v = qkv(np.random.default_rng(3), (1, 2, 2, queries, keys, 8, 8), any_dtype)
    got = hw.scaled_dot_product_attention(q, k, v, is_causal=True)
    assert_same_bits(got, hw.attention(q, k, v, is_causal=True, query_offset=0))
    expected = as_torch_documents(q, k, v, is_causal=True).astype(float)
    np.testing.assert_allclose(got.astype(float), expected, rtol=0, atol=8 * eps(any_dtype))
    assert_same_bits(got[:, :, 0], v[:, :, 0])


def test_same_bits_as_attention(any_dtype):
    q, k, v = qkv(np.random.default_rng(3), (2, 4, 4, 9, 30, 8, 8), any_dtype)
    mask = np.random.default_rng(4).random((4, 9, 30)) < 0.7
    for options in {}, {"attn_mask": mask}, {"scale": 2.0}:
        got = hw.scaled_dot_product_attention(q, k, v, **options)
        assert_same_bits(got, hw.attention(q, k, v, **options))


def test_arguments_are_those_of_torch(rng):
    q, k, v = qkv(rng, (1, 2, 2, 5, 5, 8, 8), np.float32)
    mask = rng.random((5, 5)) < 0.7
    by_position = hw.scaled_dot_product_attention(q, k, v, mask, 0.0, False)
    assert_same_bits(by_position, hw.attention(q, k, v, attn_mask=mask))
    names = list(inspect.signature(hw.scaled_dot_product_attention).parameters)
    assert names == [
        *("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa")
    ]


X = np.ones((1, 4, 3, 8), np.float32)
ERRORS = [
    ({"dropout_p": 0.1}, ValueError, ["dropout_p is 0.1", "0"]),
    ({"dropout_p": float("nan")}, ValueError, ["dropout_p"]),
    ({"attn_mask": np.ones((3, 3), bool), "is_causal": True}, ValueError,
     ["attn_mask", "is_causal"]),
    ({"key": X[:, :2], "value": X[:, :2]}, ValueError, ["enable_gqa", "2", "4"]),
    ({"attn_mask": np.ones((3, 4), bool)}, ValueError, ["attn_mask has shape (3, 4)"]),
    ({"key": X[:, :3], "value": X[:, :3], "enable_gqa": True}, ValueError,
     ["key has 3 heads", "query has 4"]),
    ({"query": X.astype(int)}, TypeError, ["query has dtype int64"]),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "error", "words"), ERRORS)
def test_errors(arguments, error, words):
    with pytest.raises(error) as raised:
        hw.scaled_dot_product_attention(**({"query": X, "key": X, "value": X} | arguments))
    for word in words:
        assert word in str(raised.value)
