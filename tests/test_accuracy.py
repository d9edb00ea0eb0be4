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
from checks import exact_and_plain, root_mean_square

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


def lse(q, k):
    return hw.attention(q, k, k, return_lse=True)[1]


def layer_of(activation):
    return lambda x, w: hw.Linear(w, activation=activation)(x)


def formula_of(activation):
    return functools.partial(reference.linear, activation=activation)


# What is called, its formula, and how its arguments are drawn.
CASES = {}
for D in 1, 16, 64, 128, 512:
    of_attention = hw.attention, reference.attention
    CASES[f"attention, D={D}"] = (*of_attention, attention_inputs(normal, D, 300))
    CASES[f"attention, large scores, D={D}"] = (*of_attention, attention_inputs(wide, D, 300))
CASES["attention, one sign"] = (*of_attention, attention_inputs(normal, 64, 1500, uniform))
CASES["log-sum-exp"] = lse, reference.logsumexp, attention_inputs(normal, 64, 700)[:2]
CASES["attention_weights"] = (
    *(hw.attention_weights, reference.attention_weights),
    attention_inputs(normal, 64, 300)[:2],
)
for K in 33, 192, 384, 768, 1536, 3072:
    for sample in normal, uniform:
        inputs = sample(10, K), sample(33, K)
        CASES[f"linear, {sample.__name__}, K={K}"] = layer_of(None), formula_of(None), inputs
for activation in "relu", "gelu":
    CASES[activation] = layer_of(activation), formula_of(activation), (normal(40, 1), normal(40, 1))
for n in 10, 100, 1000, 5000, 40000:
    CASES[f"softmax, n={n}"] = hw.softmax, reference.softmax, (normal(5, n),)
for n in 20, 384, 1000, 4096:
    for mean in 0, 100, 1e4, -1e4:
        case = hw.layer_norm, reference.layer_norm, (shifted(mean, 30, n),)
        CASES[f"layer_norm, n={n}, mean={mean:g}"] = case


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


@pytest.mark.parametrize("name", CASES)
def test_at_most_twice_the_error_of_numpy(isa, dtype, name):
    call = CASES[name][0]
    ratios = []
    for arrays, exact, error_of_numpy in draws(name, dtype):
        floor = np.finfo(dtype).eps / 4 * root_mean_square(exact)
        ratios.append(root_mean_square(call(*arrays) - exact) / (error_of_numpy + floor))
    assert statistics.median(ratios) <= 2
