"""Softmax and layer normalisation."""

from __future__ import annotations

import numpy as np
import pytest
import reference
from checks import ISAS_OF_ATTENTION, LAYOUTS, assert_accurate, assert_same_bits

import headwise as hw

ISAS = ISAS_OF_ATTENTION

WIDTHS = [1, 2, 7, 8, 15, 16, 17, 33, 64, 100, 384, 1000]


@pytest.mark.parametrize("n", WIDTHS)
def test_softmax(isa, dtype, rng, n):
    x = (3 * rng.standard_normal((19, n))).astype(dtype)
    y = hw.softmax(x)
    assert_accurate(y, reference.softmax, x)
    np.testing.assert_allclose(y.sum(-1), 1, rtol=1e-5 if dtype == np.float32 else 1e-14)


def test_softmax_of_large_numbers(isa, dtype, rng):
    """A shift of all numbers changes nothing, and nothing overflows."""
    x = np.round(50 * rng.standard_normal((5, 33))).astype(dtype)
    for shift in 1e5, -1e5:
        assert_same_bits(hw.softmax(x + dtype(shift)), hw.softmax(x))
    largest = np.finfo(dtype).max
    wide = np.array([[largest, -largest, largest], [-largest] * 3], dtype)
    third, half = dtype(1) / dtype(3), dtype(0.5)
    assert_same_bits(hw.softmax(wide), np.array([[half, 0, half], [third] * 3], dtype))


def test_softmax_relative_error(isa, dtype):
    """Of small probabilities too, down to the least normal number."""
    least = np.log(np.finfo(dtype).tiny)
    x = np.linspace(0, least * 0.99, 200).astype(dtype)
    exact = reference.softmax(reference.widen(x))
    error = np.abs(hw.softmax(x) - exact) / exact
    assert error.max() < 8 * np.finfo(dtype).eps


@pytest.mark.parametrize("n", [3, 20, 40])
def test_softmax_of_infinities_and_nan(isa, dtype, n):
    x = np.zeros((5, n), dtype)
    x[0, 1] = -np.inf
    x[1] = -np.inf
    x[2, -1] = np.nan
    x[3, 0] = np.inf
    y = hw.softmax(x)
    assert y[0, 1] == 0
    assert_same_bits(np.delete(y[0], 1), np.full(n - 1, 1 / dtype(n - 1), dtype))
    assert_same_bits(y[1], np.zeros(n, dtype))
    assert np.isnan(y[2]).all()
    assert np.isnan(y[3]).all()
    assert_same_bits(y[4], np.full(n, 1 / dtype(n), dtype))


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2, -3])
def test_softmax_axis(rng, axis):
    x = rng.standard_normal((3, 4, 5)).astype(np.float32)
    y = hw.softmax(x, axis=axis)
    assert y.shape == x.shape
    expected = np.moveaxis(hw.softmax(np.moveaxis(x, axis, -1).copy()), -1, axis)
    assert_same_bits(y, expected)


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 3), (2, 0, 3)], ids=str)
def test_softmax_of_nothing(shape):
    assert hw.softmax(np.empty(shape, np.float32)).shape == shape


ALL_PARTS = ("weight", "bias", "residual")
PARTS = [(), ("weight",), ("bias",), ("weight", "bias"), ("residual",), ALL_PARTS]


def draw(rng, rows, n, dtype):
    shapes = {"weight": (n,), "bias": (n,), "residual": (rows, n)}
    x = rng.standard_normal((rows, n)).astype(dtype)
    return x, {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}


@pytest.mark.parametrize("n", WIDTHS)
@pytest.mark.parametrize("parts", PARTS, ids=lambda p: "+".join(p) or "plain")
def test_layer_norm(isa, dtype, rng, parts, n):
    x, options = draw(rng, 19, n, dtype)
    options = {name: options[name] for name in parts} | {"eps": 1e-5}
    assert_accurate(hw.layer_norm(x, **options), reference.layer_norm, x, **options)


@pytest.mark.parametrize("n", WIDTHS)
@pytest.mark.parametrize("parts", [(), ("weight",), ("weight", "residual")], ids=str)
def test_rms_norm(isa, dtype, rng, parts, n):
    x, options = draw(rng, 19, n, dtype)
    options = {name: options[name] for name in parts} | {"eps": 1e-6}
    assert_accurate(hw.rms_norm(x, **options), reference.rms_norm, x, **options)
    out = x.copy()
    assert hw.rms_norm(out, **options, out=out) is out
    assert_same_bits(out, hw.rms_norm(x, **options))


def test_layer_norm_eps(isa, dtype):
    x = np.array([[1, 2, 3]], dtype)
    expected = 1 / np.sqrt(2 / 3 + 0.5)
    np.testing.assert_allclose(hw.layer_norm(x, eps=0.5)[0], [-expected, 0, expected], rtol=1e-6)
    constant = np.full((2, 40), 3, dtype)
    assert_same_bits(hw.layer_norm(constant), np.zeros_like(constant))


def test_layer_norm_nan_stays_in_its_row(isa, dtype, rng):
    x, options = draw(rng, 40, 30, dtype)
    clean = hw.layer_norm(x, **options)
    x[7, 3], x[20, 29], options["residual"][33, 0] = np.nan, np.inf, np.nan
    got = hw.layer_norm(x, **options)
    spoiled = [7, 20, 33]
    assert np.isnan(got[spoiled]).all()
    assert_same_bits(np.delete(got, spoiled, 0), np.delete(clean, spoiled, 0))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(isa, dtype, threads, rng, layout):
    """The bits of a row depend on it alone; inputs stay as they are."""
    x, options = draw(rng, 2000, 70, dtype)
    expected = hw.layer_norm(x, **options)
    probabilities = hw.softmax(x)
    laid, residual = LAYOUTS[layout](x), LAYOUTS[layout](options["residual"])
    bases = [a if a.base is None else a.base for a in (laid, residual)]
    before = [a.tobytes() for a in bases]
    assert_same_bits(hw.layer_norm(laid, **(options | {"residual": residual})), expected)
    assert_same_bits(hw.softmax(laid), probabilities)
    assert [a.tobytes() for a in bases] == before
    one = np.s_[1234:1235]
    assert_same_bits(hw.softmax(x[one]), probabilities[one])
    options["residual"] = options["residual"][one]
    assert_same_bits(hw.layer_norm(x[one], **options), expected[one])


@pytest.mark.parametrize("lead", [(), (0,), (2, 3), (2, 0, 3)], ids=str)
def test_layer_norm_leading_dimensions(rng, lead):
    x = rng.standard_normal((*lead, 6)).astype(np.float32)
    got = hw.layer_norm(x, residual=x)
    assert got.shape == x.shape
    flat = hw.layer_norm(x.reshape(-1, 6), residual=x.reshape(-1, 6))
    assert_same_bits(got.reshape(-1, 6), flat)


def test_layer_norm_in_place(isa, dtype, rng):
    x, options = draw(rng, 40, 30, dtype)
    expected = hw.layer_norm(x, **options)
    out = np.full((40, 35), -1, dtype)
    assert hw.layer_norm(x, **options, out=out[:, 5:]).base is out
    assert_same_bits(out[:, 5:], expected)
    assert (out[:, :5] == -1).all()
    cube = np.empty((4, 11, 30), dtype)[:, ::-1][:, :10]  # leading axes that do not merge
    options["residual"] = options["residual"].reshape(4, 10, 30)
    assert hw.layer_norm(x.reshape(4, 10, 30), **options, out=cube) is cube
    assert_same_bits(cube.reshape(40, 30), expected)
    options["residual"] = options["residual"].reshape(40, 30)
    assert hw.layer_norm(x, **options, out=x) is x
    assert_same_bits(x, expected)


def test_layer_norm_residual_is_itself(rng):
    x, _ = draw(rng, 5, 8, np.float32)
    assert_same_bits(hw.layer_norm(x, residual=x), hw.layer_norm(x, residual=x.copy()))
