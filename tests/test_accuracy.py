"""The first rule of the numerics contract: errors at most twice those of plain NumPy.

Both are measured against the formula in more precision. In one draw either may be lucky, so the
median of many draws is compared; the inputs are those where long sums and large numbers hurt most.
"""

from __future__ import annotations

import functools
import statistics

import numpy as np
import pytest
import reference
from checks import eps, exact_and_plain, lse_dtype, root_mean_square

import headwise as hw

DRAWS = 15


def normal(*shape):
    return lambda rng: rng.standard_normal(shape)


def shifted(mean, *shape):
    return lambda rng: rng.standard_normal(shape) + mean


def uniform(*shape):
    return lambda rng: rng.random(shape)


def wide(*shape):
    return lambda rng: 5 * rng.standard_normal(shape)


def attention_inputs(draw, D, Sk, draw_value=normal):
    return draw(2, 20, D), draw(2, Sk, D), draw_value(2, Sk, 24)


def lse(q, k, **options):
    return hw.attention(q, k, k, return_lse=True, **options)[1]


def layer_of(activation):
    return lambda x, w: hw.Linear(w, activation=activation)(x)


def layer_in_pairs(x, w):
    return hw.Linear(w, precision="float32_pairs")(x)


def formula_of(activation):
    return functools.partial(reference.linear, activation=activation)


def slopes(*shape):
    return lambda rng: 2.0 ** -rng.integers(1, 9, shape)


def bias(*shape):
    """A float mask that hides a third of the keys."""
    return lambda rng: np.where(rng.random(shape) < 0.3, -np.inf, 2 * rng.standard_normal(shape))


def with_options(call, *names, **options):
    """The call whose last arguments are the options of these names."""

    def called(*arguments):
        arrays = arguments[: len(arguments) - len(names)]
        given = dict(zip(names, arguments[len(arrays) :], strict=True))
        for name in given.keys() & {"alibi_slopes", "sinks"}:  # they have the dtype of sums
            if given[name].dtype.itemsize < 8:
                given[name] = given[name].astype(lse_dtype(given[name].dtype))
        return call(*arrays, **given, **options)

    return called


# What is called, its formula, and how its arguments are drawn: first attention, of every dtype.
ATTENTION = {}
for D in 1, 16, 64, 128, 512:
    of_attention = hw.attention, reference.attention
    ATTENTION[f"attention, D={D}"] = (*of_attention, attention_inputs(normal, D, 300))
    ATTENTION[f"attention, large scores, D={D}"] = (*of_attention, attention_inputs(wide, D, 300))
ATTENTION["attention, one sign"] = (*of_attention, attention_inputs(normal, 64, 1500, uniform))
ATTENTION["attention, long keys"] = (
    *of_attention,
    (normal(2, 3, 64), normal(2, 3000, 64), normal(2, 3000, 24)),
)
ATTENTION["attention, long keys, one sign"] = (
    *of_attention,
    (normal(2, 3, 64), normal(2, 3000, 64), uniform(2, 3000, 24)),
)
ATTENTION["log-sum-exp"] = lse, reference.logsumexp, attention_inputs(normal, 64, 700)[:2]
ATTENTION["log-sum-exp, long keys"] = (
    *(lse, reference.logsumexp),
    (normal(2, 3, 64), normal(2, 3000, 64)),
)
ATTENTION["attention_weights"] = (
    *(hw.attention_weights, reference.attention_weights),
    attention_inputs(normal, 64, 300)[:2],
)
ATTENTION["column sums"] = (
    with_options(hw.attention_weights, column_sums=True),
    reference.attention_column_sums,
    attention_inputs(normal, 64, 300)[:2],
)
OPTIONS = {
    "softcap=0.5": ({"softcap": 0.5}, {}),
    "softcap=5": ({"softcap": 5.0}, {}),
    "softcap=1000": ({"softcap": 1000.0}, {}),
    "softcap=5 of large scores": ({"softcap": 5.0, "scale": 3.0}, {}),
    "alibi": ({}, {"alibi_slopes": slopes(2)}),
    "sinks": ({}, {"sinks": wide(2)}),
    "float mask": ({}, {"attn_mask": bias(2, 20, 300)}),
    "window": ({"window": (100, 5)}, {}),
    "all": (
        {"softcap": 5.0, "is_causal": True, "window": (200, 0)},
        {"attn_mask": bias(20, 300), "alibi_slopes": slopes(2), "sinks": wide(2)},
    ),
}
for name, (fixed, drawn) in OPTIONS.items():
    for words, draw in ("", normal), (", large scores", wide):
        inputs = (*attention_inputs(draw, 64, 300), *drawn.values())
        calls = (with_options(f, *drawn, **fixed) for f in of_attention)
        ATTENTION[f"attention, {name}{words}"] = (*calls, inputs)
    inputs = (*attention_inputs(normal, 64, 300)[:2], *drawn.values())
    calls = (with_options(f, *drawn, **fixed) for f in (lse, reference.logsumexp))
    ATTENTION[f"log-sum-exp, {name}"] = (*calls, inputs)

# The layers, of float32 and float64. Matrices are of a layer's size: some of OpenBLAS's kernels sum
# products of small ones in more chains, with down to a third of the error.
LAYERS = {}
for K in 33, 192, 384, 768, 1536, 3072:
    for sample in normal, uniform:
        inputs = sample(64, K), sample(256, K)
        LAYERS[f"linear, {sample.__name__}, K={K}"] = layer_of(None), formula_of(None), inputs
for activation in "relu", "gelu":
    LAYERS[activation] = (
        layer_of(activation),
        formula_of(activation),
        (normal(40, 1), normal(40, 1)),
    )
for n in 10, 100, 1000, 5000, 40000:
    LAYERS[f"softmax, n={n}"] = hw.softmax, reference.softmax, (normal(5, n),)
for n in 20, 384, 1000, 4096:
    for mean in 0, 100, 1e4, -1e4:
        case = hw.layer_norm, reference.layer_norm, (shifted(mean, 30, n),)
        LAYERS[f"layer_norm, n={n}, mean={mean:g}"] = case


# The same products in pairs: where they round otherwise is rows of one sign, of outliers, of zeros.
PAIRS = {}
SAMPLES = {
    "normal": normal,
    "uniform": uniform,
    "outliers": lambda *shape: (
        lambda rng: rng.standard_normal(shape) * (1 + 50 * (rng.random(shape[-1]) < 0.01))
    ),
    "gelu": lambda *shape: lambda rng: reference.gelu(rng.standard_normal(shape)),
    "relu": lambda *shape: lambda rng: np.maximum(rng.standard_normal(shape), 0),
    "far from 0": lambda *shape: shifted(3, *shape),
    "rows apart": lambda *shape: (
        lambda rng: rng.standard_normal(shape) * 10.0 ** rng.integers(-5, 5, (shape[0], 1))
    ),
}
for K in 192, 384, 1000, 3072:
    for name, sample in SAMPLES.items():
        inputs = sample(64, K), normal(256, K)
        PAIRS[f"pairs, {name}, K={K}"] = layer_in_pairs, formula_of(None), inputs
        inputs = sample(64, K), sample(256, K)
        PAIRS[f"pairs, {name} twice, K={K}"] = layer_in_pairs, formula_of(None), inputs

CASES = ATTENTION | LAYERS | PAIRS


@functools.cache
def draws(name, dtype):
    """The arguments, the exact result and plain NumPy's error, several times."""
    _, formula, inputs = CASES[name]
    drawn = []
    for seed in range(DRAWS):
        rng = np.random.default_rng(seed)
        arrays = [draw(rng).astype(dtype) for draw in inputs]
        exact, plain = exact_and_plain(formula, *arrays)
        drawn.append((arrays, exact, root_mean_square(plain - exact)))
    return drawn


def ratio_of_errors(name, dtype):
    ratios = []
    for arrays, exact, error_of_numpy in draws(name, dtype):
        got = CASES[name][0](*arrays)
        floor = eps(got.dtype) / 4 * root_mean_square(exact)
        ratios.append(root_mean_square(got - exact) / (error_of_numpy + floor))
    return statistics.median(ratios)


@pytest.mark.parametrize("name", ATTENTION)
def test_attention_has_at_most_twice_the_error_of_numpy(isa, any_dtype, name):
    assert ratio_of_errors(name, any_dtype) <= 2


@pytest.mark.parametrize("name", LAYERS)
def test_at_most_twice_the_error_of_numpy(isa, dtype, name):
    assert ratio_of_errors(name, dtype) <= 2


@pytest.mark.parametrize("name", PAIRS)
def test_pairs_have_at_most_twice_the_error_of_numpy(isa, name):
    assert ratio_of_errors(name, np.float32) <= 2
