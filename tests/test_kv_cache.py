"""Keys and values of the past: appended piece by piece, they give the bits of all at once."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from checks import ISAS_OF_ATTENTION, LAYOUTS, assert_same_bits, lse_dtype, qkv

import headwise as hw

ISAS = ISAS_OF_ATTENTION

SHAPE = (3, 6, 2, 5, 120, 24, 20)


@pytest.fixture
def arrays(any_dtype):
    return qkv(np.random.default_rng(4), SHAPE, any_dtype)


def cache_for(k, v, capacity=150):
    return hw.KVCache(
        k.shape[0], k.shape[1], capacity, k.shape[3], value_dim=v.shape[3], dtype=k.dtype
    )


def options_for(dtype):
    sums = lse_dtype(dtype)
    return (
        {},
        {"is_causal": True},
        {"is_causal": True, "window": (30, 0), "softcap": 3.0},
        {"alibi_slopes": np.linspace(0, 1, 6).astype(sums), "sinks": np.ones(6, sums)},
    )


def assert_as_dense(q, cache, k, v, lengths):
    """The cache is read as the arrays are, each entry to its own length."""
    assert cache.lengths.tolist() == list(lengths)
    for b, n in enumerate(lengths):
        assert_same_bits(cache.key[b, :, :n], k[b, :, :n])
        assert_same_bits(cache.value[b, :, :n], v[b, :, :n])
    for options in options_for(q.dtype):
        got = hw.attention(q, cache, return_lse=True, **options)
        expected = hw.attention(q, k, v, key_lengths=lengths, return_lse=True, **options)
        for x, y in zip(got, expected, strict=True):
            assert_same_bits(x, y)
        assert_same_bits(hw.attention(q, cache, **options), got[0])  # without lse: a shorter way


@pytest.mark.parametrize("pieces", [[120], [1] * 120, [47, 1, 1, 71], [0, 96, 0, 24]], ids=len)
def test_append_in_pieces(isa, arrays, pieces):
    q, k, v = arrays
    cache = cache_for(k, v)
    done = 0
    for n in pieces:
        piece = np.s_[:, :, done : done + n]
        cache.append(k[piece], v[piece])
        done += n
    assert_as_dense(q, cache, k, v, [120] * 3)


def test_new_cache(any_dtype):
    cache = hw.KVCache(2, 3, 7, 8, dtype=any_dtype)
    assert cache.capacity == 7
    assert cache.lengths.tolist() == [0, 0]
    q = np.ones((2, 6, 4, 8), any_dtype)
    out, lse = hw.attention(q, cache, return_lse=True)
    assert_same_bits(out, np.zeros_like(out))
    assert np.isneginf(lse).all()
    assert hw.KVCache(1, 1, 1, 1).key.dtype == np.float32


def test_step_by_step_as_in_decoding(isa, arrays):
    """Each step's row is that of the whole sequence, causal."""
    rng = np.random.default_rng(5)
    _, k, v = arrays
    q = rng.standard_normal((3, 6, 120, 24)).astype(k.dtype)
    whole = hw.attention(q, k, v, is_causal=True)
    cache = cache_for(k, v, capacity=120)
    cache.append(k[:, :, :100], v[:, :, :100])
    assert_same_bits(hw.attention(q[:, :, :100], cache, is_causal=True), whole[:, :, :100])
    for i in range(100, 120):
        now = np.s_[:, :, i : i + 1]
        cache.append(k[now], v[now])
        assert_same_bits(hw.attention(q[now], cache, is_causal=True), whole[now])
        assert_same_bits(hw.attention(q[now], cache), whole[now])


def test_lengths_of_each_entry(isa, arrays):
    """Of a padded piece only what is real is kept; the next piece goes behind it."""
    q, k, v = arrays
    cache = cache_for(k, v)
    first, second = [40, 0, 17], [3, 50, 1]
    junk = k[:, :, :50].copy(), v[:, :, :50].copy()
    for b, n in enumerate(first):
        for x in junk:
            x[b, :, n:] = np.nan
    cache.append(*junk, lengths=first)
    assert_as_dense(q, cache, k, v, first)
    later = [np.full_like(x[:, :, :50], np.nan) for x in (k, v)]
    for b, (n, m) in enumerate(zip(first, second, strict=True)):
        for x, y in zip(later, (k, v), strict=True):
            x[b, :, :m] = y[b, :, n : n + m]
    cache.append(*later, lengths=np.array(second))
    assert_as_dense(q, cache, k, v, [43, 50, 18])


def test_truncate(isa, arrays):
    q, k, v = arrays
    cache = cache_for(k, v)
    cache.append(k, v)
    cache.truncate(97)
    assert_as_dense(q, cache, k, v, [97] * 3)
    cache.truncate([97, 0, 48])
    assert_as_dense(q, cache, k, v, [97, 0, 48])
    cache.append(-k[:, :, :10], -v[:, :, :10])
    k, v = k.copy(), v.copy()
    for b, n in enumerate([97, 0, 48]):
        for x, source in zip((k, v), arrays[1:], strict=True):
            x[b, :, n : n + 10] = -source[b, :, :10]
    assert_as_dense(q, cache, k, v, [107, 10, 58])
    cache.truncate(0)
    assert_as_dense(q, cache, k, v, [0, 0, 0])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_and_copies(arrays, layout):
    """What was appended is the cache's own; pieces of any strides are taken."""
    q, k, v = arrays
    cache = cache_for(k, v)
    given = [LAYOUTS[layout](x).copy("K") for x in (k, v)]
    cache.append(*given)
    for x in given:
        x[...] = 7
    assert_as_dense(q, cache, k, v, [120] * 3)


def test_views(arrays):
    _, k, v = arrays
    cache = cache_for(k, v)
    cache.append(k, v)
    assert (cache.key.dtype, cache.value.dtype) == (k.dtype, v.dtype)
    assert np.shares_memory(cache.key, cache.key)
    assert cache.key.shape[:2] == k.shape[:2]
    assert cache.value.shape[-1] == 20
    lengths = cache.lengths
    cache.truncate(3)
    assert cache.lengths.tolist() == [3, 3, 3]
    assert lengths.tolist() in ([120] * 3, [3] * 3)


def test_full_cache_says_its_capacity(arrays):
    """And is as it was before the piece that did not fit."""
    q, k, v = arrays
    cache = cache_for(k, v, capacity=121)
    cache.append(k, v, lengths=[120, 5, 0])
    with pytest.raises(ValueError, match="capacity") as raised:
        cache.append(k[:, :, :2], v[:, :, :2])
    assert "121" in str(raised.value)
    assert_as_dense(q, cache, k, v, [120, 5, 0])
    cache.append(k[:, :, :2], v[:, :, :2], lengths=[1, 0, 0])
    assert cache.lengths.tolist() == [121, 5, 0]


F32 = np.float32
ERRORS = {
    "key dtype": (
        lambda c, k: c.append(*2 * [k.astype(float)]),
        TypeError,
        "key has dtype float64",
    ),
    "value dtype": (lambda c, k: c.append(k, k.astype("f2")), TypeError, "value has dtype float16"),
    "key batch": (lambda c, k: c.append(k[:1], k), ValueError, "key has shape (1, 3, 4, 8)"),
    "key heads": (lambda c, k: c.append(k[:, :1], k), ValueError, "key has shape (2, 1, 4, 8)"),
    "key dim": (lambda c, k: c.append(k[..., 1:], k), ValueError, "key has shape (2, 3, 4, 7)"),
    "value": (lambda c, k: c.append(k, k[..., 1:]), ValueError, "value has shape (2, 3, 4, 7)"),
    "lengths": (lambda c, k: c.append(k, k, lengths=[5, 0]), ValueError, "lengths"),
    "negative lengths": (lambda c, k: c.append(k, k, lengths=[-1, 0]), ValueError, "lengths"),
    "truncate": (lambda c, k: c.truncate(-1), ValueError, "length"),
    "truncate to more": (lambda c, k: c.truncate([4, 5]), ValueError, "length is 5"),
    "key_lengths": (lambda c, k: hw.attention(k, c, key_lengths=2), ValueError, "key_lengths"),
    "value as well": (lambda c, k: hw.attention(k, c, k), (TypeError, ValueError), "value"),
    "no value": (lambda c, k: hw.attention(k, k), (TypeError, ValueError), "value"),
    "query dtype": (lambda c, k: hw.attention(k.astype(float), c), TypeError, "dtype float"),
    "query batch": (lambda c, k: hw.attention(k[:1].repeat(3, 0), c), ValueError, "(3, 3, 4, 8)"),
    "capacity": (lambda c, k: hw.KVCache(1, 1, -1, 8), ValueError, "capacity is -1"),
    "head_dim": (lambda c, k: hw.KVCache(1, 1, 1, 0), ValueError, "head_dim is 0"),
    "dtype": (lambda c, k: hw.KVCache(1, 1, 1, 8, dtype=int), TypeError, "dtype"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    call, error, words = ERRORS[name]
    cache, key = hw.KVCache(2, 3, 20, 8), np.ones((2, 3, 4, 8), F32)
    cache.append(key, key)
    with pytest.raises(error) as raised:
        call(cache, key)
    assert words in str(raised.value)
    assert cache.lengths.tolist() == [4, 4]


def test_dtypes_of_16_bits_are_kept():
    for dtype in np.float16, ml_dtypes.bfloat16:
        cache = hw.KVCache(1, 1, 4, 8, dtype=dtype)
        cache.append(*2 * [np.full((1, 1, 2, 8), 1 / 3, F32).astype(dtype)])
        assert cache.key.dtype == np.dtype(dtype)
        assert cache.key.itemsize == 2
