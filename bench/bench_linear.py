"""Linear layers in every precision: headwise and peers on the same arrays."""

from __future__ import annotations

import numpy as np
import peers_linear
import pytest

SHAPES = [  # (M, K, N)
    (2048, 384, 1536),
    (2048, 1536, 384),
    (2048, 768, 3072),
    (12, 384, 1536),
    (1, 384, 1536),
]
CASES = [(p, library) for p, libraries in peers_linear.LINEAR.items() for library in libraries]
# Of the largest result.
TOLERANCES = {"float32": 1e-5, "float32_pairs": 1e-5, "bfloat16": 1e-2, "int8": 2e-2}


@pytest.mark.parametrize(("precision", "library"), CASES)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "x".join(map(str, s)))
def bench_linear(measure, shape, precision, library, benchmark):
    M, K, N = shape
    benchmark.group = f"linear {precision}, {M} x {K} -> {N}"
    rng = np.random.default_rng(0)
    x, weight = (rng.standard_normal(s, np.float32) for s in ((M, K), (N, K)))
    bias = rng.standard_normal(N, np.float32)
    call = peers_linear.linear(library, precision, x, weight, bias)

    expected = x @ weight.T + bias
    got = call()
    got = np.asarray(got.float() if hasattr(got, "float") else got)
    np.testing.assert_allclose(got, expected, atol=TOLERANCES[precision] * np.abs(expected).max())
    numbers = precision.removesuffix("_pairs")
    weights = {"float32": 4, "bfloat16": 2, "int8": 1}[numbers] * K * N
    measure(call, flops=2 * M * K * N, nbytes=4 * M * (K + N) + weights, precision=numbers)
