"""Linear layers: the formula, the fused epilogue, and bits that depend on one row alone."""

from __future__ import annotations

import numpy as np
import pytest
import reference
from checks import LAYOUTS, assert_accurate, assert_same_bits
from hypothesis import given
from hypothesis import strategies as st

import headwise as hw

# M, N, K: around the panel of 48 outputs (24 in float64), the tile of 9 rows, the 16 lanes, the 96
# rows that are few; a last panel of one, two and three vectors.
SIZES = [
    (1, 1, 1),
    (2, 3, 5),
    (5, 16, 7),
    (6, 48, 16),
    (9, 49, 33),
    (10, 64, 200),
    (13, 31, 64),
    (12, 127, 1),
    (1, 193, 100),
    (67, 1, 40),
    (97, 97, 50),
    (110, 112, 250),
    (200, 70, 30),
]
ACTIVATIONS = [None, "relu", "gelu", "gelu_tanh", "silu"]
DIFFERENCES = ("gelu", "gelu_tanh", "silu")


def draw(rng, sizes, dtype):
    M, N, K = sizes
    shapes = {"x": (M, K), "weight": (N, K), "bias": (N,), "residual": (M, N)}
    return {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}


def check(x, weight, *, bias=None, residual=None, activation=None, before=None):
    got = hw.Linear(weight, bias, activation=activation)(x, residual=residual)
    # The tail of GELU and SiLU is a difference of numbers of the size of what goes into it.
    if activation in DIFFERENCES and before is None:
        before = np.abs(reference.linear(x, weight, bias)).max()
    options = {"bias": bias, "residual": residual, "activation": activation}
    assert_accurate(got, reference.linear, x, weight, scale_of_errors=before, **options)
    return got


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_formula(isa, dtype, rng, sizes, activation):
    a = draw(rng, sizes, dtype)
    for bias in None, a["bias"]:
        for residual in None, a["residual"]:
            check(a["x"], a["weight"], bias=bias, residual=residual, activation=activation)


def test_known_numbers(isa, dtype):
    weight = np.array([[1, 2, 3], [-4, 5, -6]], dtype)
    x = np.array([[1, 1, 1], [2, 0, -1]], dtype)
    bias = np.array([10, 3], dtype)
    assert_same_bits(hw.Linear(weight)(x), np.array([[6, -5], [-1, -2]], dtype))
    relu = hw.Linear(weight, bias, activation="relu")
    assert_same_bits(relu(x), np.array([[16, 0], [9, 1]], dtype))
    one = np.ones((2, 2), dtype)
    assert_same_bits(relu(x, residual=-one), np.array([[15, -1], [8, 0]], dtype))


def test_gelu_known_numbers(isa, dtype):
    """x Phi(x), with Phi from tables of the normal distribution."""
    gelu = hw.Linear(np.ones((1, 1), dtype), activation="gelu")
    x = np.array([-3, -1, 0, 1, 3, 1e30, -1e30], dtype)
    phi = np.array(
        [0.0013498980316301, 0.1586552539314571, 0.5, 0.8413447460685429, 0.9986501019683699]
    )
    got = gelu(x[:, None])[:, 0]
    tolerance = 4e-7 if dtype == np.float32 else 1e-15
    np.testing.assert_allclose(got[:5], x[:5] * phi, atol=tolerance, rtol=0)
    assert_same_bits(got[5:], np.array([1e30, 0], dtype))


def test_gelu_everywhere(isa):
    """Also where one polynomial takes over from another, and past the last."""
    around = np.arange(-40, 41, dtype=np.float32) / 4
    x = np.concatenate([np.linspace(-9, 9, 10001, dtype=np.float32), around])
    x = np.concatenate([x, np.nextafter(around, np.float32(np.inf)), np.nextafter(around, -x[-1])])
    got = hw.Linear(np.ones((1, 1), np.float32), activation="gelu")(x[:, None])[:, 0]
    error = np.abs(got - reference.gelu(x.astype(np.float64)))
    assert (error <= 2e-8 + 1.2e-7 * np.maximum(x, 0)).all()
    special = hw.Linear(np.ones((1, 1), np.float32), activation="gelu")(
        np.array([[np.nan], [-np.nan], [np.inf], [-np.inf], [0.0]], np.float32)
    )[:, 0]
    assert_same_bits(np.isnan(special), np.array([True, True, False, False, False]))
    assert_same_bits(special[2:], np.array([np.inf, 0, 0], np.float32))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_attributes(activation, dtype):
    linear = hw.Linear(np.ones((3, 5), dtype), activation=activation)
    assert (linear.in_features, linear.out_features) == (5, 3)
    assert (linear.activation, linear.dtype) == (activation, dtype)


@pytest.mark.parametrize("K", [70, 192, 193, 384, 385, 600])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_bits_of_a_row_do_not_depend_on_the_others(isa, dtype, rng, activation, K):
    a = draw(rng, (200, 75, K), dtype)
    linear = hw.Linear(a["weight"], a["bias"], activation=activation)
    whole = linear(a["x"], residual=a["residual"])
    for M in 1, 2, 3, 5, 7, 12, 13, 28, 64, 96, 97, 191:
        for first in 0, 200 - M:
            rows = np.s_[first : first + M]
            assert_same_bits(linear(a["x"][rows], residual=a["residual"][rows]), whole[rows])
    order = np.random.default_rng(0).permutation(200)
    assert_same_bits(linear(a["x"][order], residual=a["residual"][order]), whole[order])
    a["x"][::2] = np.nan
    assert_same_bits(linear(a["x"], residual=a["residual"])[1::2], whole[1::2])


def test_bits_of_a_column_do_not_depend_on_the_others(isa, dtype, rng):
    """What lets query, key and value share one matrix."""
    a = draw(rng, (9, 140, 240), dtype)
    whole = hw.Linear(a["weight"], a["bias"])(a["x"])
    for columns in np.s_[:1], np.s_[:64], np.s_[63:66], np.s_[100:]:
        part = hw.Linear(a["weight"][columns], a["bias"][columns])(a["x"])
        assert_same_bits(part, whole[:, columns])


# The last: 5 blocks of rows, of which two threads take 2 whole and share the rest by panels.
@pytest.mark.parametrize(
    "sizes", [(300, 200, 100), (3, 3000, 500), (5000, 8, 60), (130, 100, 8000)], ids=str
)
def test_threads(isa, dtype, rng, sizes):
    a = draw(rng, sizes, dtype)
    linear = hw.Linear(a["weight"], a["bias"], activation="gelu")
    before = hw.get_num_threads()
    try:
        hw.set_num_threads(1)
        whole = linear(a["x"], residual=a["residual"])
        for n in 2, 3, 7, 7:
            hw.set_num_threads(n)
            assert_same_bits(linear(a["x"], residual=a["residual"]), whole)
    finally:
        hw.set_num_threads(before)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(isa, dtype, threads, rng, layout):
    """Of input, weight and residual; none of them is written."""
    a = draw(rng, (30, 70, 50), dtype)
    expected = hw.Linear(a["weight"], a["bias"])(a["x"], residual=a["residual"])
    laid = {name: LAYOUTS[layout](a[name]) for name in ("x", "weight", "residual")}
    bases = [x if x.base is None else x.base for x in laid.values()]
    before = [x.tobytes() for x in bases]
    got = hw.Linear(laid["weight"], a["bias"])(laid["x"], residual=laid["residual"])
    assert_same_bits(got, expected)
    assert [x.tobytes() for x in bases] == before


@pytest.mark.parametrize("lead", [(), (0,), (3,), (2, 3), (2, 0, 3), (1, 1, 1, 2)], ids=str)
def test_leading_dimensions(rng, lead):
    weight = rng.standard_normal((5, 4)).astype(np.float32)
    linear = hw.Linear(weight)
    x = rng.standard_normal((*lead, 4)).astype(np.float32)
    residual = rng.standard_normal((*lead, 5)).astype(np.float32)
    got = linear(x, residual=residual)
    assert got.shape == (*lead, 5)
    flat = linear(x.reshape(-1, 4), residual=residual.reshape(-1, 5))
    assert_same_bits(got.reshape(-1, 5), flat)


def test_broadcast_residual_and_input(rng):
    a = draw(rng, (9, 20, 16), np.float32)
    linear = hw.Linear(a["weight"])
    x, residual = (np.broadcast_to(a[name][:1], a[name].shape) for name in ("x", "residual"))
    assert_same_bits(linear(x, residual=residual), linear(x.copy(), residual=residual.copy()))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_out(isa, dtype, rng, activation):
    a = draw(rng, (19, 70, 20), dtype)
    linear = hw.Linear(a["weight"], a["bias"], activation=activation)
    expected = linear(a["x"], residual=a["residual"])
    wide = np.full((19, 80), -1, dtype)
    out = wide[::-1, 5:75]
    assert linear(a["x"], residual=a["residual"], out=out) is out
    assert_same_bits(out, expected)
    assert (wide[:, :5] == -1).all()
    assert (wide[:, 75:] == -1).all()


def test_a_large_output_starts_on_a_cache_line(dtype, rng):
    a = draw(rng, (300, 400, 3), dtype)
    kept = [hw.Linear(a["weight"])(a["x"]) for _ in range(5)]
    assert [y.ctypes.data % 64 for y in kept] == [0] * 5


def test_residual_may_be_out(isa, dtype, rng):
    a = draw(rng, (100, 70, 20), dtype)
    linear = hw.Linear(a["weight"], a["bias"])
    expected = linear(a["x"], residual=a["residual"])
    stream = a["residual"].copy()
    assert linear(a["x"], residual=stream, out=stream) is stream
    assert_same_bits(stream, expected)


def test_residual_may_be_an_out_that_is_not_one_block(rng):
    a = draw(rng, (12, 5, 4), np.float32)
    linear = hw.Linear(a["weight"])
    expected = linear(a["x"], residual=a["residual"])
    stream = np.empty((3, 5, 5), np.float32)[:, :4]  # its leading axes do not merge
    stream[...] = a["residual"].reshape(3, 4, 5)
    assert linear(a["x"].reshape(3, 4, 4), residual=stream, out=stream) is stream
    assert_same_bits(stream.reshape(12, 5), expected)


def test_weights_are_copied(rng):
    a = draw(rng, (4, 5, 6), np.float32)
    weight, bias = a["weight"].copy(), a["bias"].copy()
    linear = hw.Linear(weight, bias)
    expected = linear(a["x"])
    weight[:], bias[:] = np.nan, np.nan
    assert_same_bits(linear(a["x"]), expected)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_special_numbers(isa, dtype, activation):
    """NaN stays NaN, inf stays inf, and the row beside them stays as it is."""
    linear = hw.Linear(np.ones((70, 1), dtype), activation=activation)
    x = np.array([np.nan, np.inf, -np.inf, 0, 2], dtype)[:, None]
    y = linear(x)
    assert (y == y[:, :1]).all(axis=1).tolist() == (~np.isnan(y[:, 0])).tolist()
    y = y[:, 0]
    assert np.isnan(y[0])
    assert y[1] == np.inf
    assert y[3] == 0
    below = {None: [-np.inf], "relu": [0]}.get(activation, [0, np.nan])
    assert any(np.array_equal(y[2], b, equal_nan=True) for b in below)
    of_two = {"gelu": 2 * 0.9772498680518208, "silu": 1.7615941559557649}
    of_two["gelu_tanh"] = 1.9545976940877752
    assert y[4] == pytest.approx(of_two.get(activation, 2), rel=1e-6)


def test_inf_minus_inf_is_nan(isa, dtype):
    linear = hw.Linear(np.array([[1, -1]], dtype), activation="relu")
    assert np.isnan(linear(np.array([[np.inf, np.inf]], dtype))).all()


@st.composite
def problems(draw):
    size = lambda most: st.integers(1, most)  # noqa: E731
    M, N, K = draw(st.integers(0, 80)), draw(size(150)), draw(size(90))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    arrays = [
        LAYOUTS[draw(st.sampled_from(sorted(LAYOUTS)))](rng.standard_normal(s).astype(dtype))
        for s in ((M, K), (N, K), (M, N))
    ]
    bias = draw(st.sampled_from([None, rng.standard_normal(N).astype(dtype)]))
    return arrays, bias, draw(st.sampled_from(ACTIVATIONS)), draw(st.booleans())


@given(problem=problems())
def test_any_problem(isa, threads, problem):
    (x, weight, residual), bias, activation, adds = problem
    residual = residual if adds else None
    linear = hw.Linear(weight, bias, activation=activation)
    got = linear(x, residual=residual)
    assert got.shape == (len(x), len(weight))
    if got.size:
        # Some of these have one number for a result, where NumPy may be lucky.
        before = reference.linear(*map(np.abs, (x, weight))).max() + 1
        options = {"bias": bias, "residual": residual, "activation": activation}
        assert_same_bits(check(x, weight, before=before, **options), got)
        assert_same_bits(linear(x[-1:], residual=residual[-1:] if adds else None), got[-1:])
