"""The numerics contract of attention: which bits depend on what, and what never leaks.

Each test computes the same rows in two ways and compares them to the last bit.
"""

from __future__ import annotations

import numpy as np
import pytest
from checks import LAYOUTS, assert_same_bits

import headwise as hw

B, HQ, HKV, SQ, SK, D, DV = 3, 6, 2, 70, 205, 40, 36


def _data(kind, dtype):
    rng = np.random.default_rng(7)
    dim = 200 if kind == "wide" else D
    sizes = (B, HQ, SQ, dim), (B, HKV, SK, dim), (B, HKV, SK, DV)
    q, k, v = (rng.standard_normal(size) for size in sizes)
    if kind == "sharp":  # most probabilities underflow to 0
        q *= 60
    if kind == "tiny":  # products underflow, some of them to -0
        v = -np.abs(v) * np.finfo(dtype).smallest_subnormal * 2
    return tuple(x.astype(dtype) for x in (q, k, v))


@pytest.fixture(params=["normal", "wide", "sharp", "tiny"])
def qkv(request, dtype):
    return _data(request.param, dtype)


@pytest.fixture(params=[False, True], ids=["full", "causal"])
def is_causal(request):
    return request.param


def everything(q, k, v, **options):
    """The output, its log-sum-exp and the weights."""
    out, lse = hw.attention(q, k, v, return_lse=True, **options)
    return out, lse, hw.attention_weights(q, k, **options)


def assert_all_same(got, expected, at=...):
    for x, y in zip(got, expected, strict=True):
        assert_same_bits(x, y[at])


def test_place_in_the_batch(isa, qkv, is_causal):
    whole = everything(*qkv, is_causal=is_causal)
    for b in range(B):
        alone = everything(*(x[b : b + 1] for x in qkv), is_causal=is_causal)
        assert_all_same(alone, whole, np.s_[b : b + 1])
    order = [2, 0, 1, 1, 2]
    assert_all_same(everything(*(x[order] for x in qkv), is_causal=is_causal), whole, order)


def test_what_else_is_in_the_batch(isa, qkv, is_causal):
    whole = everything(*qkv, is_causal=is_causal)
    spoiled = [x.copy() for x in qkv]
    for x, junk in zip(spoiled, (np.nan, np.inf, -np.inf), strict=True):
        x[0], x[2] = junk, 1e30
    assert_all_same((x[1] for x in everything(*spoiled, is_causal=is_causal)), whole, 1)


def test_heads_apart(isa, qkv, is_causal):
    """Query heads that share a key head share tiles; alone they have the same bits."""
    q, k, v = qkv
    whole = everything(*qkv, is_causal=is_causal)
    for h in range(HQ):
        g = h // (HQ // HKV)
        alone = everything(q[:, h : h + 1], *(x[:, g : g + 1] for x in (k, v)), is_causal=is_causal)
        assert_all_same(alone, whole, np.s_[:, h : h + 1])
    repeated = everything(q, *(x.repeat(HQ // HKV, 1) for x in (k, v)), is_causal=is_causal)
    assert_all_same(repeated, whole)


@pytest.mark.parametrize("padding", [1, 12, 83, 300])
def test_padding(isa, qkv, is_causal, padding):
    """Keys past key_lengths are not even read: they hold NaN here."""
    q, k, v = qkv
    whole = everything(*qkv, is_causal=is_causal)
    pad = [(0, 0), (0, 0), (0, padding), (0, 0)]
    k, v = (np.pad(x, pad, constant_values=np.nan) for x in (k, v))
    out, lse, weights = everything(q, k, v, is_causal=is_causal, key_lengths=SK)
    assert_all_same((out, lse, weights[..., :SK]), whole)
    assert (weights[..., SK:] == 0).all()


@pytest.mark.parametrize("lengths", [[205, 1, 96], [97, 0, 48]])
def test_padding_of_different_lengths(isa, qkv, is_causal, lengths):
    q, k, v = qkv
    out, lse, weights = everything(q, k, v, is_causal=is_causal, key_lengths=lengths)
    for b, n in enumerate(lengths):
        alone = everything(q[b], k[b, :, :n], v[b, :, :n], is_causal=is_causal)
        assert_all_same(alone, (out[b], lse[b], weights[b, ..., :n]))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_strides(isa, qkv, is_causal, layout):
    laid = [LAYOUTS[layout](x) for x in qkv]
    for x, y in zip(laid, qkv, strict=True):
        np.testing.assert_array_equal(x, y)
    assert_all_same(everything(*laid, is_causal=is_causal), everything(*qkv, is_causal=is_causal))


def test_broadcast_strides(isa, qkv, is_causal):
    q, k, v = qkv
    k, v = (np.broadcast_to(x[1:2, :1], x.shape) for x in (k, v))
    assert 0 in k.strides
    whole = everything(q, k, v, is_causal=is_causal)
    assert_all_same(everything(q, k.copy(), v.copy(), is_causal=is_causal), whole)
    rows = [np.broadcast_to(x[:, :, :1], x.shape) for x in (q, k, v)]
    whole = everything(*rows, is_causal=is_causal)
    assert_all_same(everything(*(x.copy() for x in rows), is_causal=is_causal), whole)


@pytest.mark.parametrize("chunk", [1, 7, 32, 69])
def test_query_chunks(isa, qkv, chunk):
    q, k, v = qkv
    for first in 0, SK - SQ, -30:
        whole = everything(q, k, v, is_causal=True, query_offset=first)
        for i in range(0, SQ, chunk):
            rows = np.s_[:, :, i : i + chunk]
            part = everything(q[rows], k, v, is_causal=True, query_offset=first + i)
            assert_all_same(part, whole, rows)


def test_query_chunks_without_mask(isa, qkv):
    q, k, v = qkv
    whole = everything(q, k, v)
    for i in range(0, SQ, 13):
        rows = np.s_[:, :, i : i + 13]
        assert_all_same(everything(q[rows], k, v), whole, rows)


def test_packed_or_dense(isa, qkv, is_causal):
    out, lse = hw.attention(*qkv, is_causal=is_causal, return_lse=True)
    q, k, v = (x.swapaxes(1, 2).reshape(-1, x.shape[1], x.shape[3]) for x in qkv)
    cu_q, cu_k = np.arange(B + 1) * SQ, np.arange(B + 1) * SK
    options = {"is_causal": is_causal, "return_lse": True}
    packed, packed_lse = hw.attention_varlen(q, k, v, cu_q, cu_k, **options)
    assert_same_bits(packed.reshape(B, SQ, HQ, DV).swapaxes(1, 2), out)
    assert_same_bits(packed_lse.reshape(HQ, B, SQ).swapaxes(0, 1), lse)


def test_threads_and_runs(isa, qkv, is_causal):
    before = hw.get_num_threads()
    try:
        hw.set_num_threads(1)
        whole = everything(*qkv, is_causal=is_causal)
        for n in 1, 2, 3, 8, 8:
            hw.set_num_threads(n)
            assert_all_same(everything(*qkv, is_causal=is_causal), whole)
    finally:
        hw.set_num_threads(before)


def test_rows_that_attend_nothing(isa, qkv):
    """They are 0, and -inf; the rows beside them in the tile are what they are elsewhere."""
    q, k, v = qkv
    out, lse, weights = everything(q, k, v, is_causal=True, query_offset=-20)
    assert_same_bits(out[:, :, :20], np.zeros_like(out[:, :, :20]))
    assert_same_bits(weights[:, :, :20], np.zeros_like(weights[:, :, :20]))
    assert np.isneginf(lse[:, :, :20]).all()
    rest = everything(q[:, :, 20:], k, v, is_causal=True, query_offset=0)
    assert_all_same(rest, (out, lse, weights), np.s_[:, :, 20:])


@pytest.mark.parametrize("junk", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("j", [0, 1, 47, 50, 95, 96, 150, 204])
@pytest.mark.parametrize("spoiled", ["key", "value"])
def test_causal_mask_hides(isa, dtype, spoiled, j, junk):
    """Junk at key j leaves every row that does not attend j as it was; NaN reaches all others."""
    arrays = dict(zip(("query", "key", "value"), _data("normal", dtype), strict=True))
    options = {"is_causal": True, "query_offset": 90}
    clean = hw.attention(**arrays, return_lse=True, **options)
    arrays[spoiled][:, :, j, 5:7] = junk
    out, lse = hw.attention(**arrays, return_lse=True, **options)
    hidden = max(0, min(SQ, j - 90))  # rows i with j > i + 90
    assert_all_same((out[:, :, :hidden], lse[:, :, :hidden]), clean, np.s_[:, :, :hidden])
    seen = out[:, :, hidden:]
    if spoiled == "value":  # in its own columns alone
        assert_same_bits(lse, clean[1])
        np.testing.assert_array_equal(seen[..., 5:7], np.full_like(seen[..., 5:7], junk))
        others = [c for c in range(DV) if c not in (5, 6)]
        assert_same_bits(seen[..., others], clean[0][:, :, hidden:, others])
    elif np.isnan(junk):
        assert np.isnan(seen).all()
        assert np.isnan(lse[:, :, hidden:]).all()


@pytest.mark.parametrize("n", [1, 48, 95, 96, 100, 204])
@pytest.mark.parametrize("junk", [np.nan, np.inf])
def test_key_lengths_hide(isa, dtype, is_causal, n, junk):
    q, k, v = _data("normal", dtype)
    clean = everything(q, k, v, is_causal=is_causal, key_lengths=n)
    k[:, :, n:] = v[:, :, n:] = junk
    assert_all_same(everything(q, k, v, is_causal=is_causal, key_lengths=n), clean)


@pytest.mark.parametrize("chunk", [70, 9])
def test_junk_query_spoils_its_row_alone(isa, dtype, is_causal, chunk):
    q, k, v = _data("normal", dtype)
    clean = everything(q, k, v, is_causal=is_causal)
    bad = [3, 40, 66]
    q[:, :, bad, 11] = np.nan
    for i in range(0, SQ, chunk):
        part = everything(
            q[:, :, i : i + chunk], k, v, is_causal=is_causal, query_offset=SK - SQ + i
        )
        for row in range(i, min(SQ, i + chunk)):
            out, lse, weights = (x[:, :, row - i] for x in part)
            if row not in bad:
                assert_all_same((out, lse, weights), clean, np.s_[:, :, row])
                continue
            assert np.isnan(out).all()
            assert np.isnan(lse).all()
            attended = SK - SQ + row + 1 if is_causal else SK
            assert np.isnan(weights[..., :attended]).all()
            assert (weights[..., attended:] == 0).all()


def test_infinite_key_is_weighed_as_its_score_says(isa, dtype):
    """A score of -inf weighs nothing, one of +inf is NaN; other rows are untouched."""
    q = np.ones((1, 3, 2), dtype)
    q[0, 1] = -1
    k, v = np.zeros((1, 100, 2), dtype), np.ones((1, 100, 2), dtype)
    k[0, 50] = -np.inf
    out = hw.attention(q, k, v)
    np.testing.assert_allclose(out[0, [0, 2]], 1, rtol=1e-6)
    assert np.isnan(out[0, 1]).all()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_inputs_are_not_written(isa, dtype, threads, layout):
    given = [LAYOUTS[layout](x) for x in _data("normal", dtype)]
    bases = [x if x.base is None else x.base for x in given]
    before = [x.tobytes() for x in bases]
    lengths, offsets = np.array([205, 100, 0]), np.array([0, 50, -9])
    everything(*given, is_causal=True, key_lengths=lengths, query_offset=offsets)
    assert [x.tobytes() for x in bases] == before
    assert lengths.tolist() == [205, 100, 0]
    assert offsets.tolist() == [0, 50, -9]
