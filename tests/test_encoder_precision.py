"""Encoders in each precision: how far from float32, and the same bits in any company."""

from __future__ import annotations

import threading
from itertools import pairwise

import numpy as np
import pytest
from checks import assert_same_bits, run_python

import headwise as hw

PRECISIONS = ["float32", "bfloat16", "int8"]
V = 50
SHAPES = {
    "plain": {"hidden_size": 48, "num_heads": 4, "intermediate_size": 100, "activation": "gelu"},
    # Heads that no vector ends with, groups of heads, a gate.
    "odd": {
        "hidden_size": 60,
        "num_heads": 6,
        "num_kv_heads": 2,
        "intermediate_size": 77,
        "norm": "pre",
        "activation": "gelu_tanh",
        "gated": True,
    },
}


def make(name, precision, seed=0):
    options = SHAPES[name] | {"num_layers": 3, "max_positions": 400}
    return hw.Encoder(V, **options, precision=precision, seed=seed)


@pytest.fixture
def sequences(rng):
    """Enough for groups of sequences on several threads, with some that are longer than a group."""
    lengths = [1, 2, 330, 40, 0, 7, 96, 48, 250, 3, *rng.integers(1, 60, 30)]
    return [rng.integers(0, V, n) for n in lengths]


def encode(encoder, sequences):
    cu = np.cumsum([0, *map(len, sequences)])
    hidden = encoder(np.concatenate(sequences), cu)
    return [hidden[begin:end] for begin, end in pairwise(cu)]


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize(("precision", "most"), [("bfloat16", 0.02), ("int8", 0.06)])
def test_close_to_float32(isa, rng, name, precision, most):
    """And not the same: the weights are what they are said to be."""
    ids = rng.integers(0, V, 60)
    exact, got = make(name, "float32")(ids), make(name, precision)(ids)
    error = np.sqrt(((got - exact) ** 2).mean() / (exact**2).mean())
    assert most / 40 < error < most


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_same_bits_in_any_company(isa, sequences, name, precision):
    encoder = make(name, precision)
    alone = [encoder(s) for s in sequences]
    before = hw.get_num_threads()
    try:
        for n in 1, 2, 5:
            hw.set_num_threads(n)
            for got, expected in zip(encode(encoder, sequences), alone, strict=True):
                assert_same_bits(got, expected)
            assert_same_bits(encoder(sequences[2]), alone[2])
        hw.set_num_threads(3)
        order = np.random.default_rng(1).permutation(len(sequences))
        for i, got in zip(order, encode(encoder, [sequences[i] for i in order]), strict=True):
            assert_same_bits(got, alone[i])
    finally:
        hw.set_num_threads(before)


@pytest.mark.parametrize("longest", [20, 120, 400])
@pytest.mark.parametrize("num_threads", [1, 2, 3, 8])
def test_however_a_batch_is_cut_for_the_threads(rng, num_threads, longest):
    """Into a group or many, of whole rounds or not, the last in parts or shared by all threads."""
    encoder = make("plain", "float32")
    sequences = [rng.integers(0, V, n) for n in rng.integers(0, longest + 1, 150)]
    alone = [encoder(s) for s in sequences]
    before = hw.get_num_threads()
    hw.set_num_threads(num_threads)
    try:
        for batch in 2, 3, 5, 8, 13, 34, 89, 150:
            together = encode(encoder, sequences[:batch])
            for got, expected in zip(together, alone[:batch], strict=True):
                assert_same_bits(got, expected)
    finally:
        hw.set_num_threads(before)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_layer_by_layer_is_the_same(isa, sequences, precision):
    """The whole stack in one call, its layers one by one, and the layers by themselves."""
    encoder = make("plain", precision)
    cu = np.cumsum([0, *map(len, sequences)])
    ids = np.concatenate(sequences)
    got, states = encoder(ids, cu, return_hidden_states=True)
    assert_same_bits(encoder(ids, cu), got)
    x = states[0]
    for layer, state in zip(encoder.layers, states[1:], strict=True):
        x = layer(x, cu)
        assert_same_bits(x, state)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_many_python_threads(sequences, precision):
    """Few tokens are shared by a team of threads, many are taken apart: both at once."""
    encoder = make("plain", precision)
    alone = [encoder(s) for s in sequences]
    failures = []

    def work(k):
        for _ in range(20):
            one = k % len(sequences)
            if not np.array_equal(encoder(sequences[one]), alone[one]):
                failures.append(one)
            if k % 2:
                failures.extend(
                    i
                    for i, got in enumerate(encode(encoder, sequences))
                    if not np.array_equal(got, alone[i])
                )

    before = hw.get_num_threads()
    hw.set_num_threads(3)
    try:
        workers = [threading.Thread(target=work, args=(k,)) for k in range(6)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    finally:
        hw.set_num_threads(before)
    assert not failures


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_forked_child_computes(precision):
    code = f"""
import os
import numpy as np, headwise as hw
encoder = hw.Encoder(50, num_layers=2, precision={precision!r})
cu = np.arange(0, 801, 20)
ids = np.arange(800) % 50
expected, one = encoder(ids, cu), encoder(ids[:20])
child = os.fork()
if child == 0:
    same = np.array_equal(encoder(ids, cu), expected) and np.array_equal(encoder(ids[:20]), one)
    os._exit(0 if same else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert run_python(code, HEADWISE_NUM_THREADS="2") == "0"


def test_memory_reaches_a_plateau_and_trim_gives_it_back():
    code = """
import numpy as np, headwise as hw
def resident():  # MB
    with open("/proc/self/status") as status:
        return int(next(s for s in status if s.startswith("VmRSS")).split()[1]) / 1024
encoder = hw.Encoder(50, hidden_size=256, num_heads=4, num_layers=2, intermediate_size=1024)
rng = np.random.default_rng(0)
def batch(tokens):
    lengths = rng.integers(1, 200, 200)
    cu = np.concatenate([[0], np.cumsum(lengths)])
    cu = cu[: np.searchsorted(cu, tokens, side="right")]
    encoder(rng.integers(0, 50, cu[-1]), cu)
encoder(np.zeros(512, int))
for _ in range(5):
    batch(8192)
start = resident()
for _ in range(100):
    batch(int(rng.integers(500, 8192)))
grown = resident() - start
before = resident()
hw.trim()
print(grown, before - resident())
"""
    grown, freed = map(float, run_python(code, HEADWISE_NUM_THREADS="2").split())
    assert grown < 10  # two buffers, in steps of 2 MB; every batch's hidden states would be 800
    assert freed > 2


def test_layers_of_two_precisions():
    layers = [make("plain", precision).layers[0] for precision in ("float32", "int8")]
    with pytest.raises(ValueError, match="attention has precision 'float32' but feed_forward has"):
        hw.EncoderLayer(
            layers[0].attention,
            layers[1].feed_forward,
            layers[0].attention_norm,
            layers[0].feed_forward_norm,
        )


def test_heads_that_are_too_wide():
    with pytest.raises(ValueError, match="query_weight has heads of 513: head_dim must be at most"):
        hw.Encoder(V, hidden_size=513, num_heads=1, num_layers=1, intermediate_size=8)


def test_unknown_precision():
    with pytest.raises(ValueError, match=r"precision is 'int4': it must be one of .*'int8'"):
        hw.Encoder(V, precision="int4")
