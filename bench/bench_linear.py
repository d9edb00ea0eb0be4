"""Linear layers: headwise, NumPy and torch on the same arrays."""

from __future__ import annotations

import numpy as np
import peers
import pytest

SHAPES = [  # (M, K, N)
    (2048, 384, 1536),
    (2048, 1536, 384),
    (2048, 768, 3072),
    (12, 384, 1536),
    (1, 384, 1536),
]


@pytest.mark.parametrize("library", peers.LINEAR)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "x".join(map(str, s)))
def bench_linear(measure, shape, library, benchmark):
    M, K, N = shape
    benchmark.group = f"linear {M} x {K} -> {N}"
    rng = np.random.default_rng(0)
    x, weight = (rng.standard_normal(s, np.float32) for s in ((M, K), (N, K)))
    bias = rng.standard_normal(N, np.float32)
    call = peers.linear(library, x, weight, bias)
    np.testing.assert_allclose(call(), x @ weight.T + bias, atol=1e-3)
    measure(call, flops=2 * M * K * N)
