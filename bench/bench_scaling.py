"""Time and memory over sequence length, time over threads; batches are in ``bench_encoder.py``."""

from __future__ import annotations

import memory
import models
import numpy as np
import peers_attention
import peers_encoder
import pytest
from bench_encoder import cost
from peers import Unavailable
from texts import SETS
from worker import Worker

import headwise as hw

HEADS, HEAD_DIM = 8, 64
LENGTHS = [2**n for n in range(6, 15)]
LIBRARIES = ("headwise", "numpy", "torch", "onnxruntime", "openvino")
HOLD_ALL_SCORES = ("numpy", "onnxruntime")

CPUS = hw.get_num_threads()
THREADS = sorted({CPUS, *(2**n for n in range(CPUS.bit_length()) if 2**n < CPUS)})


def attention_cost(length):
    return {
        "flops": 4 * HEADS * HEAD_DIM * length**2,
        "nbytes": 16 * HEADS * HEAD_DIM * length,
    }


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("length", LENGTHS)
def bench_length(measure, length, library, benchmark):
    """Attention as it grows. Memory is that of a first call, in a process of its own."""
    benchmark.group = f"attention 1x8x{length}x64, float32"
    length = min(length, 128) if benchmark.disabled else length
    need, there = 4 * HEADS * length**2 / 1e6, memory.available()
    if library in HOLD_ALL_SCORES and need > there / 1.5:
        raise Unavailable(f"{library} takes {need:.0f} MB at {length} and {there:.0f} MB are free")

    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((1, HEADS, length, HEAD_DIM), np.float32) for _ in "qkv")
    call = peers_attention.attention(library, "float32", q, k, v, False)
    last = np.s_[:, :, -64:]
    expected = peers_attention.numpy_attention(q[last], k, v, False)
    np.testing.assert_allclose(np.asarray(call())[last], expected, atol=2e-5)

    if not benchmark.disabled or length == LENGTHS[0]:
        with Worker("attention", library, length, CPUS) as worker:
            benchmark.extra_info["MB"] = worker.megabytes
    measure(call, **attention_cost(length))


@pytest.fixture
def threads(request):
    """So many, in this process too: the peak is measured with as many."""
    hw.set_num_threads(request.param)
    yield request.param
    hw.set_num_threads(CPUS)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("threads", THREADS, indirect=True)
def bench_attention_threads(measure, threads, library, benchmark):
    benchmark.group = f"attention 1x8x2048x64, float32, {threads} threads"
    tiny = np.zeros((1, 1, 1, HEAD_DIM), np.float32)
    peers_attention.attention(library, "float32", tiny, tiny, tiny, False)  # or skipped here
    length = 128 if benchmark.disabled else 2048
    with Worker("attention", library, length, threads) as call:
        measure(call, **attention_cost(length))


@pytest.mark.parametrize("library", peers_encoder.TEXT_ENCODERS["float32"])
@pytest.mark.parametrize("threads", THREADS, indirect=True)
def bench_encoder_threads(measure, threads, library, benchmark):
    benchmark.group = f"MiniLM float32, 256 short, {threads} threads"
    peers_encoder.text_encoder(library, "float32", models.minilm())  # or skipped here
    texts = SETS["256 short"][: 4 if benchmark.disabled else None]
    with Worker("encoder", library, len(texts), threads) as call:
        measure(call, **cost(texts, "float32"))
