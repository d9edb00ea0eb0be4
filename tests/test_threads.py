"""Several Python threads calling at once: each gets the bits that it would get alone."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from checks import assert_same_bits, run_python

import headwise as hw

CALLERS = 4


def jobs():
    """Different sizes, so that threads need different amounts of working memory."""
    rng = np.random.default_rng(3)
    q, k = (rng.standard_normal((2, 3, n, 64)).astype(np.float32) for n in (150, 300))
    wide = rng.standard_normal((1, 40, 512)).astype(np.float64)
    linear = hw.Linear(rng.standard_normal((200, 100)).astype(np.float32), activation="gelu")
    x = rng.standard_normal((500, 100)).astype(np.float32)
    encoder = hw.Encoder(20, hidden_size=64, num_layers=2, num_heads=4, intermediate_size=128)
    ids = rng.integers(0, 20, 300)
    return [
        lambda: hw.attention(q, k, k, is_causal=True),
        lambda: hw.attention(wide, wide, wide),
        lambda: hw.attention_weights(q, k),
        lambda: linear(x),
        lambda: hw.softmax(np.tile(x, (4, 10))),
        lambda: hw.layer_norm(np.tile(x, (40, 1))),
        lambda: encoder(ids, [0, 100, 101, 300]),
    ]


@pytest.mark.parametrize("num_threads", [1, 3])
def test_same_bits(isa, num_threads):
    work = jobs()
    before = hw.get_num_threads()
    hw.set_num_threads(num_threads)
    try:
        alone = [job() for job in work]
        start = threading.Barrier(CALLERS)

        def caller(shift):
            start.wait(30)
            order = [(i + shift) % len(work) for i in range(2 * len(work))]
            return [(i, work[i]()) for i in order]

        with ThreadPoolExecutor(CALLERS) as pool:
            for results in pool.map(caller, range(CALLERS), timeout=60):
                for i, result in results:
                    assert_same_bits(result, alone[i])
    finally:
        hw.set_num_threads(before)


def test_one_layer_for_all_threads(rng):
    """A Linear holds no state of a call."""
    linear = hw.Linear(rng.standard_normal((70, 50)).astype(np.float32))
    inputs = [rng.standard_normal((100 + i, 50)).astype(np.float32) for i in range(20)]
    alone = [linear(x) for x in inputs]
    with ThreadPoolExecutor(CALLERS) as pool:
        for got, expected in zip(pool.map(linear, inputs, timeout=60), alone, strict=True):
            assert_same_bits(got, expected)


def test_number_of_threads_changed_meanwhile(rng):
    q = rng.standard_normal((2, 4, 200, 32)).astype(np.float32)
    expected = hw.attention(q, q, q)
    before = hw.get_num_threads()
    stop = threading.Event()

    def change():
        n = 0
        while not stop.is_set():
            n = n % 5 + 1
            hw.set_num_threads(n)

    changer = threading.Thread(target=change)
    changer.start()
    try:
        for _ in range(30):
            assert_same_bits(hw.attention(q, q, q), expected)
    finally:
        stop.set()
        changer.join(30)
        hw.set_num_threads(before)


def test_the_interpreter_runs_on_during_a_call():
    """The GIL is released: another thread counts while this one computes."""
    x = np.ones((1, 8, 1500, 64), np.float32)
    counted, done = [0], threading.Event()

    def count():
        while not done.is_set():
            counted[0] += 1

    counter = threading.Thread(target=count)
    before = hw.get_num_threads()
    hw.set_num_threads(1)
    counter.start()
    try:
        at_start = counted[0]
        hw.attention(x, x, x)
        during = counted[0] - at_start
    finally:
        done.set()
        counter.join(30)
        hw.set_num_threads(before)
    assert during > 1000


def test_many_short_lived_threads_leave_no_memory_behind():
    """Each thread's working memory goes with it."""
    code = """
import resource, threading
import numpy as np, headwise as hw
x = np.ones((1, 2, 64, 512), np.float32)
def run(n):
    for _ in range(n):
        t = threading.Thread(target=hw.attention, args=(x, x, x))
        t.start()
        t.join()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(run(300) - run(20))
"""
    code = code.replace("print(run(300) - run(20))", "first = run(20)\nprint(run(300) - first)")
    assert int(run_python(code, HEADWISE_NUM_THREADS="2")) < 30_000  # kB; 300 leaks are 100 MB
