"""Parts of the matrix of attention weights, and the sums of its columns."""

from __future__ import annotations

import numpy as np
import pytest
import reference
from checks import ISAS_OF_ATTENTION, assert_accurate, assert_same_bits, lse_dtype, qkv, run_python

import headwise as hw

ISAS = ISAS_OF_ATTENTION

SHAPE = (2, 6, 2, 70, 200, 24, 1)
HEADS = [0, 5, [0], [5, 1], [2, 2, 3], range(6), (4,), np.array([1, 3]), []]
ROWS = [
    *(0, 69, [0], [69, 3], [5, 5], range(10, 60, 7), np.array([64, 63]), []),
    *(slice(None), slice(3, 66), slice(64, None), slice(0, 70, 9), slice(-5, None), slice(9, 9)),
]


def options_for(rng, dtype):
    mask = np.where(
        rng.random((2, 1, 70, 200)) < 0.8, rng.standard_normal((2, 1, 70, 200)), -np.inf
    )
    mask[:, :, 7] = -np.inf
    sums = lse_dtype(dtype)
    return {
        "plain": {},
        "causal": {"is_causal": True, "query_offset": [-5, 100], "key_lengths": [200, 97]},
        "mixed": {
            "attn_mask": mask.astype(dtype),
            "window": (120, 10),
            "softcap": 4.0,
            "alibi_slopes": rng.random((2, 6)).astype(sums) / 8,
            "sinks": rng.standard_normal(6).astype(sums),
        },
    }


def as_list(index):
    """What NumPy takes to keep the axis."""
    if isinstance(index, slice):
        return index
    return np.array([index] if isinstance(index, int) else index, int)


@pytest.mark.parametrize("name", ["plain", "causal", "mixed"])
def test_heads_and_rows(isa, any_dtype, name):
    """A part has the bits that it has in the whole; an int keeps its axis."""
    rng = np.random.default_rng(1)
    q, k, _ = qkv(rng, SHAPE, any_dtype)
    options = options_for(rng, any_dtype)[name]
    whole = hw.attention_weights(q, k, **options)
    for heads in HEADS:
        got = hw.attention_weights(q, k, heads=heads, **options)
        assert_same_bits(got, whole[:, as_list(heads)])
    for rows in ROWS:
        got = hw.attention_weights(q, k, rows=rows, **options)
        assert_same_bits(got, whole[:, :, as_list(rows)])
        got = hw.attention_weights(q, k, heads=[5, 1], rows=rows, **options)
        assert_same_bits(got, whole[:, [5, 1]][:, :, as_list(rows)])


@pytest.mark.parametrize("name", ["plain", "causal", "mixed"])
def test_column_sums(isa, any_dtype, name):
    """Sums in float32 or float64 of all rows, or of those asked for."""
    rng = np.random.default_rng(1)
    q, k, _ = qkv(rng, SHAPE, any_dtype)
    options = options_for(rng, any_dtype)[name]
    sums = lse_dtype(any_dtype)
    got = hw.attention_weights(q, k, column_sums=True, **options)
    formula = reference.attention_column_sums
    assert_accurate(got, formula, q, k, dtype=sums, **options)
    whole = hw.attention_weights(q, k, **options).astype(sums)
    tolerance = 70 * float(np.finfo(sums).eps if any_dtype.itemsize > 2 else 4e-3)
    for heads, rows in (
        *((None, rows) for rows in ROWS),
        *((heads, None) for heads in HEADS),
        *(([5, 1], [69, 3]), (0, 0), (3, slice(60, 10, -3))),
    ):
        got = hw.attention_weights(q, k, heads=heads, rows=rows, column_sums=True, **options)
        part = whole if heads is None else whole[:, as_list(heads)]
        part = part if rows is None else part[:, :, as_list(rows)]
        assert (got.dtype, got.shape) == (sums, (*part.shape[:2], 200))
        np.testing.assert_allclose(got, part.sum(-2), rtol=0, atol=tolerance)


def test_column_sums_of_any_number_of_threads(isa, any_dtype):
    """The same bits, alone in the batch or not: rows are added in their order."""
    rng = np.random.default_rng(1)
    q, k, _ = qkv(rng, (2, 6, 2, 150, 200, 24, 1), any_dtype)
    before = hw.get_num_threads()
    try:
        hw.set_num_threads(1)
        whole = hw.attention_weights(q, k, column_sums=True)
        for n in 2, 3, 8, 8:
            hw.set_num_threads(n)
            assert_same_bits(hw.attention_weights(q, k, column_sums=True), whole)
            for b in range(2):
                assert_same_bits(hw.attention_weights(q[b], k[b], column_sums=True), whole[b])
            alone = hw.attention_weights(q, k, heads=[4], column_sums=True)
            assert_same_bits(alone, whole[:, 4:5])
    finally:
        hw.set_num_threads(before)


def test_two_dimensional(rng):
    q, k = (rng.standard_normal((n, 8)).astype(np.float32) for n in (5, 7))
    whole = hw.attention_weights(q, k)
    assert_same_bits(hw.attention_weights(q, k, rows=3), whole[3:4])
    assert hw.attention_weights(q, k, rows=[4, 0]).shape == (2, 7)
    sums = hw.attention_weights(q, k, column_sums=True)
    assert sums.shape == (7,)
    np.testing.assert_allclose(sums, whole.sum(0), rtol=1e-6)


def test_nan_is_summed_where_it_is_attended(isa, any_dtype):
    q, k, _ = qkv(np.random.default_rng(1), (1, 1, 1, 9, 60, 8, 1), any_dtype)
    clean = hw.attention_weights(q, k, key_lengths=50, column_sums=True)
    k[:, :, 50:] = np.nan
    assert_same_bits(hw.attention_weights(q, k, key_lengths=50, column_sums=True), clean)
    q[:, :, 4] = np.nan
    got = hw.attention_weights(q, k, key_lengths=50, column_sums=True)
    assert np.isnan(got[..., :50]).all()
    assert (got[..., 50:] == 0).all()


def test_column_sums_never_build_the_matrix():
    """It would take 240 MB."""
    code = """
import resource
import numpy as np, headwise as hw
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # kB on Linux, bytes elsewhere
q, k = np.ones((1, 3000, 16), np.float32), np.ones((1, 20000, 16), np.float32)
hw.attention_weights(q[:, :200], k[:, :200], column_sums=True)
before = peak()
hw.attention_weights(q, k, column_sums=True)
print(peak() - before)
"""
    assert int(run_python(code, HEADWISE_NUM_THREADS="2")) < 16_000
