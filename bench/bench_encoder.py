"""all-MiniLM-L6-v2: texts a second, headwise and peers with sorted batches of 32."""

from __future__ import annotations

import random
import sys
from functools import cache
from pathlib import Path

import numpy as np
import peers
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))

from fetch_minilm import fetch

import headwise as hw

WORDS = """
the of and in to was a is for on as with by he that at from his it an were are which this also be
has or had first one their its new after but who not they have two her she been other when there
all during into school time may years more most only over city some world would where later up such
used many can state about national out known university united then made house
""".split()  # noqa: SIM905


def texts(count, low, high, seed):
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(low, high))) for _ in range(count)]


SETS = {
    "one short": texts(1, 10, 10, 0),
    "256 short": texts(256, 5, 15, 1),
    "512 mixed": texts(384, 5, 30, 2) + texts(128, 30, 200, 3),
    "64 long": texts(64, 220, 230, 4),
}


@cache
def encoder(library):
    return peers.encoder(library, fetch())


@pytest.mark.parametrize("library", peers.ENCODERS)
@pytest.mark.parametrize("name", SETS)
def bench_minilm(measure, name, library, benchmark):
    benchmark.group = f"MiniLM, {name}"
    encode = encoder(library)
    tolerance = 5e-3 if library == "numpy" else 2e-6  # NumPy's GELU is the tanh one
    np.testing.assert_allclose(encode(SETS[name]), encoder("headwise")(SETS[name]), atol=tolerance)
    ids, starts = text_encoder().tokenize(SETS[name])
    lengths = np.diff(starts).astype(float)
    # Of the real tokens: linear layers 2 x 10.6 million each, attention 4 x 384 a pair, six layers.
    flops = 2 * 10_616_832 * len(ids) + 6 * 4 * 384 * (lengths**2).sum()
    measure(lambda: encode(SETS[name]), flops=flops, texts=len(SETS[name]))


@cache
def text_encoder():
    return hw.TextEncoder.from_pretrained(fetch())
