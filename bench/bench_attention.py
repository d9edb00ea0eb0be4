"""Attention: headwise, naive NumPy and peers on the same arrays, one after the other."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import peers_attention
import pytest

import headwise as hw

# (B, Hq, Hkv, Sq, Sk, D), dtype, causal
CASES = [
    ((1, 1, 1, 16, 16, 64), "float32", False),
    ((1, 12, 12, 32, 32, 32), "float32", False),
    ((8, 12, 12, 128, 128, 32), "float32", False),
    ((1, 12, 12, 128, 128, 64), "float32", False),
    ((32, 12, 12, 64, 64, 64), "float32", False),
    ((32, 12, 12, 128, 128, 64), "float32", False),
    ((8, 12, 12, 512, 512, 64), "float32", False),
    ((8, 12, 12, 512, 512, 64), "float32", True),
    ((1, 12, 12, 2048, 2048, 64), "float32", False),
    ((1, 12, 12, 2048, 2048, 64), "float32", True),
    ((1, 8, 8, 4096, 4096, 128), "float32", False),
    ((1, 8, 8, 4096, 4096, 128), "float32", True),
    ((2, 15, 3, 1000, 1000, 80), "float32", True),
    ((8, 12, 12, 512, 512, 64), "bfloat16", False),
    ((1, 8, 8, 4096, 4096, 128), "bfloat16", True),
    ((1, 32, 32, 1, 4096, 128), "float32", False),
    ((8, 32, 8, 1, 4096, 128), "float32", False),
    ((2, 12, 12, 16, 3000, 128), "float32", False),
]


def name(case):
    shape, dtype, causal = case
    return "x".join(map(str, shape)) + f"-{dtype}" + ("-causal" if causal else "")


def describe(case):
    return f"attention {name(case).replace('-', ', ')}"


def draw(shape):
    B, Hq, Hkv, Sq, Sk, D = shape
    rng = np.random.default_rng(0)
    q = rng.standard_normal((B, Hq, Sq, D), np.float32)
    return q, *(rng.standard_normal((B, Hkv, Sk, D), np.float32) for _ in "kv")


@pytest.mark.parametrize("library", peers_attention.ATTENTION)
@pytest.mark.parametrize("case", CASES, ids=name)
def bench_attention(measure, case, library, benchmark):
    (B, Hq, Hkv, Sq, Sk, D), dtype, causal = case
    benchmark.group = describe(case)
    q, k, v = draw(case[0])
    call = peers_attention.attention(library, dtype, q, k, v, causal)

    last = slice(-64, None)  # of the queries: causal or not, those that attend most
    expected = peers_attention.numpy_attention(q[:1, :, last], k[:1], v[:1], causal)
    got = call()
    got = np.asarray(got.float() if hasattr(got, "float") else got)[:1, :, last].astype(np.float32)
    tolerance = 2e-5 if dtype == "float32" else 2e-2
    np.testing.assert_allclose(got, expected, atol=tolerance)

    pairs = Sq * Sk - (Sq * (Sq - 1) // 2 if causal else 0)
    size = 2 if dtype == "bfloat16" else 4
    measure(
        call,
        flops=4 * B * Hq * D * pairs,
        nbytes=size * D * (2 * B * Hq * Sq + 2 * B * Hkv * Sk),
        memory_bound=Sq == 1,
        precision=dtype,
    )


# What an option costs, by the flops of the pairs that are attended.
QUERIES = KEYS = 2048
OPTIONS = {
    "none": {},
    "boolean mask": {"attn_mask": np.random.default_rng(1).random((QUERIES, KEYS)) < 0.9},
    "float mask": {"attn_mask": np.zeros((QUERIES, KEYS), np.float32)},
    "softcap": {"softcap": 30.0},
    "alibi": {"alibi_slopes": 2.0 ** -np.arange(1, 13)},
    "sinks": {"sinks": np.zeros(12)},
}


@pytest.mark.parametrize("option", OPTIONS)
def bench_options(measure, option, benchmark):
    benchmark.group = "options at 1x12x12x2048x2048x64"
    q, k, v = draw((1, 12, 12, QUERIES, KEYS, 64))
    call = lambda: hw.attention(q, k, v, **OPTIONS[option])  # noqa: E731
    measure(call, flops=4 * 12 * QUERIES * KEYS * 64)


@pytest.mark.parametrize("window", [None, 4096, 1024, 256])
def bench_window(measure, window, benchmark):
    """A window of 256 keys at 8192: the time goes with the window."""
    benchmark.group = "causal windows at 1x8x8x8192x8192x64"
    q, k, v = draw((1, 8, 8, 8192, 8192, 64))
    width = 8192 if window is None else window
    pairs = sum(min(i + 1, width) for i in range(8192))
    left = None if window is None else window - 1
    measure(lambda: hw.attention(q, k, v, window=(left, 0)), flops=4 * 8 * 64 * pairs)


# A head after the other, and a token after the other: a view of what a projection computes.
LAYOUTS = {"BHSD": (0, 1, 2, 3), "BSHD": (0, 2, 1, 3)}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "shape", [(8, 12, 12, 512, 512, 64), (1, 8, 8, 4096, 4096, 128), (8, 32, 8, 1, 4096, 128)]
)
def bench_layouts(measure, shape, layout, benchmark):
    benchmark.group = f"layouts at {'x'.join(map(str, shape))}"
    axes = LAYOUTS[layout]
    q, k, v = (np.ascontiguousarray(x.transpose(axes)).transpose(axes) for x in draw(shape))
    B, Hq, Hkv, Sq, Sk, D = shape
    nbytes = 4 * D * (2 * B * Hq * Sq + 2 * B * Hkv * Sk)
    call = lambda: hw.attention(q, k, v)  # noqa: E731
    measure(call, flops=4 * B * Hq * D * Sq * Sk, nbytes=nbytes, memory_bound=Sq == 1)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def bench_dtypes(measure, dtype, benchmark):
    benchmark.group = "dtypes at 1x12x12x2048x2048x64"
    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.dtype(dtype)
    q, k, v = (x.astype(kind) for x in draw((1, 12, 12, QUERIES, KEYS, 64)))
    measure(lambda: hw.attention(q, k, v), flops=4 * 12 * QUERIES * KEYS * 64, precision=dtype)
