"""Sums of table rows, and one vector a sequence."""

from __future__ import annotations

import numpy as np
import pytest
from checks import ISAS_OF_ATTENTION, LAYOUTS, assert_same_bits

from headwise.functional import embed, pool

ISAS = ISAS_OF_ATTENTION

LENGTHS = [5, 0, 1, 130, 17, 0]
CU_SEQLENS = np.cumsum([0, *LENGTHS])


@pytest.mark.parametrize("tables", [1, 2, 3, 4])
@pytest.mark.parametrize("columns", [1, 15, 16, 33, 384])
def test_embed(isa, threads, rng, tables, columns):
    """Exact: one rounding an addition, from the first table on."""
    rows = [rng.standard_normal((7 + i, columns)).astype(np.float32) for i in range(tables)]
    indices = [rng.integers(0, 7 + i, 3000 if columns == 384 else 50) for i in range(tables)]
    expected = rows[0][indices[0]]
    for table, index in zip(rows[1:], indices[1:], strict=True):
        expected = expected + table[index]
    assert_same_bits(embed(rows, indices), expected)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.uint64, ">i8", "<i2"])
def test_embed_index_types(rng, dtype):
    table = rng.standard_normal((9, 4)).astype(np.float32)
    index = np.array([8, 0, 3, 3]).astype(dtype)
    assert_same_bits(embed([table], [index]), table[[8, 0, 3, 3]])
    assert_same_bits(embed([table], [index[::-1]]), table[[3, 3, 0, 8]])
    assert_same_bits(embed([table], [[8, 0, 3, 3]]), table[[8, 0, 3, 3]])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(rng, layout):
    table = rng.standard_normal((9, 20)).astype(np.float32)
    laid = LAYOUTS[layout](table)
    before = laid.tobytes()
    assert_same_bits(embed([laid], [[8, 0, 3]]), table[[8, 0, 3]])
    assert_same_bits(pool(laid, [0, 4, 9]), pool(table, [0, 4, 9]))
    assert laid.tobytes() == before


def test_embed_nothing():
    table = np.ones((3, 4), np.float32)
    assert embed([table], [[]]).shape == (0, 4)
    assert embed([table[:0]], [[]]).shape == (0, 4)


POOLS = {
    "mean": lambda x: x.mean(0),
    "cls": lambda x: x[0],
    "max": lambda x: x.max(0),
}


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("mode", POOLS)
@pytest.mark.parametrize("columns", [1, 16, 33, 384])
def test_pool(isa, threads, rng, columns, mode, normalize):
    hidden = rng.standard_normal((CU_SEQLENS[-1], columns)).astype(np.float32)
    got = pool(hidden, CU_SEQLENS, mode, normalize=normalize)
    assert got.dtype == np.float32
    assert got.shape == (len(LENGTHS), columns)
    for b, length in enumerate(LENGTHS):
        rows = hidden[CU_SEQLENS[b] : CU_SEQLENS[b + 1]]
        expected = POOLS[mode](rows.astype(np.float64)) if length else np.zeros(columns)
        if normalize:
            expected = expected / max(np.linalg.norm(expected), 1e-12)
        np.testing.assert_allclose(got[b], expected, rtol=2e-6, atol=2e-7)
        alone = pool(rows, [0, length], mode, normalize=normalize)
        assert_same_bits(got[b : b + 1], alone)


@pytest.mark.parametrize("mode", POOLS)
def test_pool_of_nothing(mode):
    hidden = np.ones((0, 5), np.float32)
    assert pool(hidden, [0], mode).shape == (0, 5)
    assert_same_bits(pool(hidden, [0, 0, 0], mode, normalize=True), np.zeros((2, 5), np.float32))


@pytest.mark.parametrize("mode", ["mean", "max"])
@pytest.mark.parametrize("row", [0, 1, 4])
def test_pool_nan_stays_in_its_sequence_and_is_seen(isa, rng, mode, row):
    """Wherever in the sequence it is."""
    hidden = rng.standard_normal((10, 20)).astype(np.float32)
    clean = pool(hidden, [0, 5, 10], mode)
    hidden[5 + row, 3] = np.nan
    got = pool(hidden, [0, 5, 10], mode)
    assert np.isnan(got[1, 3])
    got[1, 3] = clean[1, 3]
    assert_same_bits(got, clean)


def test_pool_max_of_negative_numbers(isa):
    hidden = np.array([[-3, -np.inf], [-2, -np.inf]], np.float32)
    assert_same_bits(pool(hidden, [0, 2], "max"), np.array([[-2, -np.inf]], np.float32))
