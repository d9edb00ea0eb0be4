"""Attention over parts of the keys, put together again."""

from __future__ import annotations

import numpy as np
import pytest
import reference
from checks import ISAS_OF_ATTENTION, assert_same_bits, eps, exact_and_plain, lse_dtype, qkv

import headwise as hw

ISAS = ISAS_OF_ATTENTION

KEYS = 300
SHAPE = (2, 6, 2, 17, KEYS, 24, 20)
CUTS = {
    "one": [],
    "two": [130],
    "uneven": [1, 2, 47, 290],
    "empty shards": [0, 0, 100, 100, 300],
    "one key each": list(range(1, 40)),
}


def shards(q, k, v, cuts, **options):
    """Outputs and log-sum-exps of each shard of the keys; a mask is (Sq, KEYS)."""
    outs, lses = [], []
    for first, last in zip([0, *cuts], [*cuts, KEYS], strict=True):
        part = dict(options)
        if "attn_mask" in part:
            part["attn_mask"] = part["attn_mask"][:, first:last]
        if "is_causal" in part or "window" in part:
            part["query_offset"] = KEYS - q.shape[-2] - first
        keys = np.s_[:, :, first:last]
        out, lse = hw.attention(q, k[keys], v[keys], return_lse=True, **part)
        outs.append(out)
        lses.append(lse)
    return outs, lses


@pytest.mark.parametrize("mask", ["full", "causal", "window", "attn_mask"])
@pytest.mark.parametrize("cuts", CUTS)
def test_shards_are_the_whole(isa, any_dtype, cuts, mask):
    """Also where a row attends nothing in a shard, or in all of them."""
    rng = np.random.default_rng(2)
    q, k, v = qkv(rng, SHAPE, any_dtype)
    attended = rng.random((17, KEYS)) < 0.2
    attended[3] = attended[5, :130] = attended[6, 130:] = False
    options = {
        "full": {},
        "causal": {"is_causal": True},
        "window": {"window": (60, 0)},
        "attn_mask": {"attn_mask": attended},
    }[mask]
    outs, lses = shards(q, k, v, CUTS[cuts], **options)
    out, lse = hw.merge_attention(outs, lses)
    assert (out.dtype, lse.dtype) == (any_dtype, lse_dtype(any_dtype))
    exact, _ = exact_and_plain(reference.attention, q, k, v, **options)
    exact_lse, _ = exact_and_plain(reference.logsumexp, q, k, **options)
    most = float(np.abs(v).max())
    tolerance = (2 if any_dtype.itemsize == 2 else 16) * eps(any_dtype) * most
    np.testing.assert_allclose(out.astype(float), exact.astype(float), rtol=0, atol=tolerance)
    finite = np.isfinite(exact_lse)
    assert_same_bits(np.isneginf(lse), ~finite)
    tolerance = 16 * eps(lse.dtype)
    np.testing.assert_allclose(lse[finite], exact_lse[finite].astype(float), 0, tolerance * 8)
    assert_same_bits(out[~finite], np.zeros_like(out[~finite]))


def test_formula(any_dtype, rng):
    """Of any numbers, not only those that attention gives."""
    sums = lse_dtype(any_dtype)
    outs = [rng.standard_normal((3, 4, 5, 6)).astype(any_dtype) for _ in range(4)]
    lses = [(30 * rng.standard_normal((3, 4, 5))).astype(sums) for _ in range(4)]
    lses[2][0] = lses[1][:, 1] = -np.inf
    for x in lses:
        x[2, 3] = -np.inf
    for huge in 0, 1e4, -1e4:
        shifted = [x + sums.type(huge) for x in lses]
        out, lse = hw.merge_attention(outs, shifted)
        exact, exact_lse = reference.merge(
            [x.astype(float) for x in outs], [x.astype(float) for x in shifted]
        )
        np.testing.assert_allclose(out.astype(float), exact, rtol=0, atol=8 * eps(any_dtype))
        np.testing.assert_allclose(lse, exact_lse, rtol=8 * eps(sums), atol=8 * eps(sums))
        assert (out[2, 3] == 0).all()
        assert np.isneginf(lse[2, 3]).all()


def test_one_shard_is_itself(any_dtype, rng):
    q, k, v = qkv(rng, SHAPE, any_dtype)
    out, lse = hw.attention(q, k, v, return_lse=True)
    merged, merged_lse = hw.merge_attention([out], [lse])
    assert_same_bits(merged, out)
    assert_same_bits(merged_lse, lse)
    assert not np.shares_memory(merged, out)
    empty = np.full_like(lse, -np.inf)
    merged, merged_lse = hw.merge_attention([np.zeros_like(out), out], [empty, lse])
    assert_same_bits(merged, out)
    assert_same_bits(merged_lse, lse)


def test_what_an_empty_shard_holds_is_no_matter(any_dtype, rng):
    """NaN with an lse of -inf was computed by someone else; it weighs nothing."""
    out = rng.standard_normal((2, 3, 4)).astype(any_dtype)
    lse = rng.standard_normal((2, 3)).astype(lse_dtype(any_dtype))
    junk = np.full_like(out, np.nan)
    merged, merged_lse = hw.merge_attention([junk, out], [np.full_like(lse, -np.inf), lse])
    assert_same_bits(merged, out)
    assert_same_bits(merged_lse, lse)
    merged, merged_lse = hw.merge_attention([junk, out], [lse, lse])
    assert np.isnan(merged).all()
    assert np.isfinite(merged_lse).all()


def test_a_nan_whose_weight_underflows(any_dtype):
    """It was attended: the whole has it too."""
    q = np.ones((1, 1, 8), any_dtype)
    k = np.full((1, 2, 8), 100, any_dtype)
    v = np.ones_like(k)
    parts = [
        hw.attention(q, k, v, return_lse=True),
        hw.attention(q, -k, np.full_like(v, np.nan), return_lse=True),
    ]
    assert np.isnan(hw.merge_attention(*zip(*parts, strict=True))[0]).all()


@pytest.mark.parametrize(
    ("parts", "error", "message"),
    [
        ((5, [0]), TypeError, "outs is 5: it must be a sequence"),
        (([np.float32(1)], [np.float32(1)]), ValueError, r"outs\[0\] has shape \(\): it must be"),
    ],
)
def test_what_is_no_part(parts, error, message):
    with pytest.raises(error, match=message):
        hw.merge_attention(*parts)


def test_sink_in_one_shard(any_dtype, rng):
    q, k, v = qkv(rng, SHAPE, any_dtype)
    sinks = np.linspace(-2, 6, 6).astype(lse_dtype(any_dtype))
    expected, expected_lse = hw.attention(q, k, v, sinks=sinks, return_lse=True)
    first = hw.attention(q, k[:, :, :90], v[:, :, :90], sinks=sinks, return_lse=True)
    second = hw.attention(q, k[:, :, 90:], v[:, :, 90:], return_lse=True)
    out, lse = hw.merge_attention(*zip(first, second, strict=True))
    most = float(np.abs(v).max())
    tolerance = (2 if any_dtype.itemsize == 2 else 16) * eps(any_dtype) * most
    np.testing.assert_allclose(out.astype(float), expected.astype(float), rtol=0, atol=tolerance)
    np.testing.assert_allclose(lse, expected_lse, rtol=32 * eps(lse.dtype))


def test_order_and_batch(any_dtype, rng):
    """A row's bits depend on its own shards alone; inputs are not written."""
    sums = lse_dtype(any_dtype)
    outs = [rng.standard_normal((3, 4, 5, 6)).astype(any_dtype) for _ in range(3)]
    lses = [rng.standard_normal((3, 4, 5)).astype(sums) for _ in range(3)]
    before = [x.tobytes() for x in (*outs, *lses)]
    out, lse = hw.merge_attention(outs, lses)
    assert [x.tobytes() for x in (*outs, *lses)] == before
    for b in range(3):
        alone, alone_lse = hw.merge_attention([x[b] for x in outs], [x[b] for x in lses])
        assert_same_bits(alone, out[b])
        assert_same_bits(alone_lse, lse[b])
    strided = [np.ascontiguousarray(x.swapaxes(1, 2)).swapaxes(1, 2) for x in outs]
    assert_same_bits(hw.merge_attention(strided, lses)[0], out)
