"""Linear layers in bfloat16 and int8, and gated ones: what is rounded, what is exact."""

from __future__ import annotations

import numpy as np
import pytest
import reference
from checks import assert_same_bits
from hypothesis import given
from hypothesis import strategies as st

import headwise as hw

PRECISIONS = ["bfloat16", "int8"]
ALL = ["float32_pairs", *PRECISIONS]
# M, N, K: around the panel of 48 outputs, the tiles of 5 to 9 rows, pairs and quads of inputs, the
# 96 rows that are few; a last panel of one, two and three vectors.
SIZES = [
    (1, 1, 1),
    (2, 3, 5),
    (5, 16, 7),
    (6, 48, 16),
    (9, 49, 34),
    (13, 130, 99),
    (40, 70, 801),
    (97, 97, 50),
    (110, 112, 390),
    (120, 70, 34),
]


def draw(rng, sizes):
    M, N, K = sizes
    return [rng.standard_normal(shape).astype(np.float32) for shape in ((M, K), (N, K), N, (M, N))]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_bfloat16_rounds_both_factors_and_nothing_else(isa, rng, sizes):
    x, weight, bias, residual = draw(rng, sizes)
    got = hw.Linear(weight, bias, precision="bfloat16")(x, residual=residual)
    a, b = (reference.round_to_bfloat16(m).astype(np.float64) for m in (x, weight))
    expected = reference.linear(a, b, bias, residual)
    # Sums of K products in float32, each product exact.
    bound = 1e-6 + 2e-7 * sizes[2] ** 0.5 * (np.abs(a) @ np.abs(b).T).max()
    np.testing.assert_allclose(got, expected, atol=bound, rtol=1e-6)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("activation", [None, "gelu"])
def test_pairs(isa, rng, sizes, activation):
    """Rows and columns of very different sizes, each as accurate as if it were alone."""
    x, weight, bias, residual = draw(rng, sizes)
    x *= 10.0 ** rng.integers(-15, 4, (len(x), 1))
    weight *= 10.0 ** rng.integers(-15, 4, (len(weight), 1))
    linear = hw.Linear(weight, bias, activation=activation, precision="float32_pairs")
    for added in None, residual:
        got = linear(x, residual=added)
        arrays = [a.astype(np.float64) for a in (x, weight, bias)]
        expected = reference.linear(*arrays, added, activation)
        sizes_of_sums = np.linalg.norm(x, axis=1)[:, None] * np.linalg.norm(weight, axis=1)
        bound = 4e-7 * (sizes[2] ** 0.5 * sizes_of_sums + np.abs(bias) + np.abs(expected))
        assert (np.abs(got - expected) <= bound + 4e-7 * (0 if added is None else 1)).all()


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_pairs_are_plain_products_where_nothing_is_gained(isa, rng, sizes):
    x, weight, bias, residual = draw(rng, sizes)
    pairs, plain = (
        hw.Linear(weight, bias, precision=precision)(x, residual=residual)
        for precision in ("float32_pairs", "float32")
    )
    if isa != "avx512_zen4":
        assert_same_bits(pairs, plain)
    elif x.size > 100:
        assert (pairs != plain).any()


def test_pairs_of_known_numbers(isa):
    """Small integers are exact, and rows of zeros are."""
    rng = np.random.default_rng(0)
    x, weight = (rng.integers(-8, 9, shape).astype(np.float32) for shape in ((9, 50), (70, 50)))
    x[3] = weight[5] = 0
    got = hw.Linear(weight, precision="float32_pairs")(x)
    assert_same_bits(got + 0, x @ weight.T + 0)
    assert (got[3] == 0).all()
    assert (got[:, 5] == 0).all()


def test_pairs_of_a_column_do_not_depend_on_the_others(isa, rng):
    """What lets query, key and value share one matrix, of whatever sizes they are."""
    x, weight, bias, _ = draw(rng, (20, 140, 400))
    weight[64:] *= 1e6
    whole = hw.Linear(weight, bias, precision="float32_pairs")(x)
    for columns in np.s_[:1], np.s_[:64], np.s_[63:66], np.s_[100:]:
        part = hw.Linear(weight[columns], bias[columns], precision="float32_pairs")(x)
        assert_same_bits(part, whole[:, columns])


@pytest.mark.parametrize("size", [1e-44, 1e-38, 1e-30, 1e20, 1e37])
def test_pairs_of_extreme_numbers(isa, rng, size):
    x, weight, _, _ = draw(rng, (9, 70, 33))
    linear = hw.Linear(weight / 100, precision="float32_pairs")
    with np.errstate(under="ignore"):
        x = (x * np.float64(size)).astype(np.float32)
    exact = x.astype(np.float64) @ (weight / 100).astype(np.float64).T
    np.testing.assert_allclose(linear(x), exact, atol=1e-6 * np.abs(exact).max() + 1e-44)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_int8_sums_are_exact(isa, rng, sizes):
    """All that is left is a product of float32 scales and the bias."""
    x, weight, bias, _ = draw(rng, sizes)
    got = hw.Linear(weight, bias, precision="int8")(x)
    expected = reference.int8_linear(x, weight, bias)
    without_bias = reference.int8_linear(x, weight)
    np.testing.assert_allclose(got, expected, atol=4e-7 * np.abs(without_bias).max() + 1e-7)


def test_int8_is_the_same_on_every_isa(rng):
    """Without a fused multiply-add after the sums there is nothing that could differ."""
    x, weight, bias, residual = draw(rng, (33, 130, 99))
    linear = hw.Linear(weight, bias, precision="int8")
    before, results = hw.active_isa(), []
    try:
        for isa in hw.available_isas():
            hw.set_isa(isa)
            results.append(linear(x, residual=residual))
    finally:
        hw.set_isa(before)
    for result in results[1:]:
        assert_same_bits(result, results[0])


def test_int8_of_largest_sums(isa):
    """Every product is the largest there is, over as many inputs as are allowed."""
    K = 65536
    weight = np.array([[1.0] * K, [-1.0] * K], np.float32)
    got = hw.Linear(weight, precision="int8")(np.full((2, K), 3.0, np.float32))
    np.testing.assert_allclose(got, [[3 * K, -3 * K]] * 2, rtol=1e-6)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_error_is_as_small_as_the_precision_allows(isa, rng, precision):
    x, weight, bias, _ = draw(rng, (50, 100, 384))
    exact = reference.linear(x.astype(np.float64), weight.astype(np.float64), bias)
    error = hw.Linear(weight, bias, precision=precision)(x) - exact
    # Roundings are independent: sqrt(K) products of two factors each wrong by a part of 2^-9, or
    # of a 255th of the range, 6 standard deviations wide.
    one = 2**-9 / 3**0.5 * 2**0.5 if precision == "bfloat16" else 6 / 255 / 12**0.5 * 2**0.5
    assert 0.2 < error.std() / (one * 384**0.5) < 1.5


@pytest.mark.parametrize("precision", ALL)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_finite(isa, rng, precision, value):
    """Such a row is not finite in the result, and no other row sees it."""
    x, weight, bias, _ = draw(rng, (9, 70, 33))
    linear = hw.Linear(weight, bias, precision=precision)
    clean = linear(x)
    x[4, 17] = value
    got = linear(x)
    assert not np.isfinite(got[4]).any()
    if precision == "int8" or np.isnan(value):
        assert np.isnan(got[4]).all()
    assert_same_bits(np.delete(got, 4, 0), np.delete(clean, 4, 0))
    weight[3, 5] = value
    wrong = hw.Linear(weight, bias, precision=precision)(np.delete(x, 4, 0))
    assert not np.isfinite(wrong[:, 3]).any()
    assert np.isfinite(np.delete(wrong, 3, 1)).all()


def test_int8_of_zeros_and_tiny_rows(isa, rng):
    weight = rng.standard_normal((5, 20)).astype(np.float32)
    weight[2] = 0
    bias = np.arange(5, dtype=np.float32)
    linear = hw.Linear(weight, bias, precision="int8")
    tiny = np.zeros((3, 20), np.float32)
    tiny[1] = 1e-44
    tiny[2] = 1e-30
    np.testing.assert_allclose(linear(tiny), np.tile(bias, (3, 1)), atol=1e-28)
    assert (linear(rng.standard_normal((4, 20)).astype(np.float32))[:, 2] == 2).all()


@pytest.mark.parametrize("K", [190, 393, 1000])
@pytest.mark.parametrize("precision", ALL)
def test_bits_of_a_row_do_not_depend_on_the_others(isa, rng, precision, K):
    x, weight, bias, residual = draw(rng, (200, 75, K))
    linear = hw.Linear(weight, bias, activation="gelu", precision=precision)
    whole = linear(x, residual=residual)
    for M in 1, 2, 4, 5, 7, 13, 28, 96, 97, 191:
        for first in 0, 200 - M:
            rows = np.s_[first : first + M]
            assert_same_bits(linear(x[rows], residual=residual[rows]), whole[rows])
    before = hw.get_num_threads()
    try:
        for n in 1, 3:
            hw.set_num_threads(n)
            assert_same_bits(linear(x, residual=residual), whole)
    finally:
        hw.set_num_threads(before)


@pytest.mark.parametrize("precision", [None, "float32", *ALL])
@pytest.mark.parametrize("activation", [None, "relu", "gelu", "gelu_tanh", "silu"])
def test_gate(isa, rng, precision, activation):
    """activation(x W_gate + b_gate) * (x W + b), put together from two layers."""
    x, weight, bias, residual = draw(rng, (13, 70, 40))
    _, gate_weight, gate_bias, _ = draw(rng, (13, 70, 40))
    options = {"precision": precision}
    gated = hw.Linear(
        weight,
        bias,
        gate_weight=gate_weight,
        gate_bias=gate_bias,
        activation=activation,
        **options,
    )
    gate = hw.Linear(gate_weight, gate_bias, activation=activation, **options)(x)
    product = gate * hw.Linear(weight, bias, **options)(x)
    assert_same_bits(gated(x), product)
    assert_same_bits(gated(x, residual=residual), product + residual)
    one_bias = hw.Linear(weight, gate_weight=gate_weight, gate_bias=gate_bias, **options)(x)
    plain = hw.Linear(gate_weight, gate_bias, **options)(x) * hw.Linear(weight, **options)(x)
    assert_same_bits(one_bias, plain)


def test_gate_of_float64(isa, rng):
    x, weight, bias, residual = (a.astype(np.float64) for a in draw(rng, (5, 9, 7)))
    gate = rng.standard_normal((9, 7))
    got = hw.Linear(weight, bias, gate_weight=gate, activation="silu")(x, residual=residual)
    expected = reference.linear(x, weight, bias, residual, "silu", gate_weight=gate)
    np.testing.assert_allclose(got, expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_gelu_is_close_and_its_tails_are_exact(isa, precision):
    """Inputs that are read exactly: the one that is left is GELU's own error."""
    x = np.array([8, -8, -100, 1e30, -1e30], np.float32)
    x = np.concatenate([np.arange(-5, 5, 1 / 128, dtype=np.float32), x])[:, None]
    identity = hw.Linear(np.full((1, 1), 127, np.float32), precision=precision)
    gelu = hw.Linear(np.full((1, 1), 127, np.float32), activation="gelu", precision=precision)
    given = identity(x / 127)
    error = np.abs(gelu(x / 127) - reference.gelu(given.astype(np.float64)))
    assert (error <= 5e-5 + 1e-5 * np.abs(np.maximum(given, 0))).all()
    assert (gelu(x / 127)[x < -4.5] == 0).all()


@given(st.sampled_from(PRECISIONS), st.integers(1, 30), st.integers(1, 140), st.integers(1, 70))
def test_any_size(precision, M, N, K):
    rng = np.random.default_rng([M, N, K])
    x, weight, bias, _ = draw(rng, (M, N, K))
    got = hw.Linear(weight, bias, precision=precision)(x)
    if precision == "int8":
        expected = reference.int8_linear(x, weight, bias)
    else:
        expected = reference.linear(*map(reference.round_to_bfloat16, (x, weight)), bias)
    np.testing.assert_allclose(got, expected, atol=1e-4, rtol=1e-5)


def test_attributes():
    weight = np.ones((3, 5), np.float32)
    assert hw.Linear(weight).precision == "float32"
    assert hw.Linear(weight.astype(np.float64)).precision == "float64"
    linear = hw.Linear(weight, precision="int8", gate_weight=weight, activation="silu")
    assert (linear.precision, linear.gated, linear.dtype) == ("int8", True, np.float32)
    assert repr(linear) == ("Linear(5 -> 3, bias=False, activation='silu', precision='int8')")


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
def test_size_of_a_packed_weight(precision):
    """Reduced weights take a half and a quarter, and int8 two numbers an output feature."""
    packed = hw.Linear(np.ones((96, 256), np.float32), precision=precision).packed
    expected = {"float32": 4 * 96 * 256, "bfloat16": 2 * 96 * 256, "int8": 96 * (256 + 8)}
    assert packed.nbytes == expected[precision]
