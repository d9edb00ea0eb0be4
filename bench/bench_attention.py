"""Attention: headwise, naive NumPy and peers on the same arrays."""

from __future__ import annotations

import numpy as np
import peers
import pytest

# (B, Hq, Hkv, Sq, Sk, D), causal
SHAPES = [
    ((1, 1, 1, 16, 16, 64), False),
    ((1, 12, 12, 32, 32, 32), False),
    ((8, 12, 12, 128, 128, 32), False),
    ((1, 12, 12, 128, 128, 64), False),
    ((8, 12, 12, 512, 512, 64), False),
    ((8, 12, 12, 512, 512, 64), True),
    ((1, 12, 12, 2048, 2048, 64), False),
    ((1, 12, 12, 2048, 2048, 64), True),
    ((1, 8, 8, 4096, 4096, 128), True),
    ((2, 15, 3, 1000, 1000, 80), True),
    ((1, 32, 32, 1, 4096, 128), False),
]


def name(case):
    shape, causal = case
    return "x".join(map(str, shape)) + ("-causal" if causal else "")


@pytest.mark.parametrize("library", peers.ATTENTION)
@pytest.mark.parametrize("case", SHAPES, ids=name)
def bench_attention(measure, case, library, benchmark):
    (B, Hq, Hkv, Sq, Sk, D), causal = case
    benchmark.group = f"attention {name(case)}"
    rng = np.random.default_rng(0)
    q = rng.standard_normal((B, Hq, Sq, D), np.float32)
    k, v = (rng.standard_normal((B, Hkv, Sk, D), np.float32) for _ in "kv")
    call = peers.attention(library, q, k, v, causal)

    last = slice(-64, None)  # of the queries: causal or not, those that attend most
    expected = peers.numpy_attention(q[:1, :, last], k[:1], v[:1], causal)
    np.testing.assert_allclose(call()[:1, :, last], expected, atol=2e-5)

    pairs = Sq * Sk - (Sq * (Sq - 1) // 2 if causal else 0)
    measure(
        call,
        flops=4 * B * Hq * D * pairs,
        read_bytes=8 * B * Hkv * Sk * D if Sq == 1 else None,
    )
