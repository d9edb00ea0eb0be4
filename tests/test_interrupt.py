"""Ctrl-C ends a call that is under way, and leaves headwise as it was."""

from __future__ import annotations

import sys

import pytest
from checks import run_python

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")

# One call that takes far longer than the test may: queries alone, keys alone, both dealt out.
PRELUDE = """
import os, signal, threading, time
import numpy as np, headwise as hw

# Also where it is ignored: in what a shell has started in the background.
signal.signal(signal.SIGINT, signal.default_int_handler)

def ones(*shape):
    return np.broadcast_to(np.ones(shape[-1], np.float32), shape)

def in_a_moment(act):
    timer = threading.Timer(0.3, act)
    timer.start()
    return timer

sent = None
def press():
    global sent
    sent = time.monotonic()
    os.kill(os.getpid(), signal.SIGINT)
"""

CALLS = {
    "many tiles": "x = ones(1, 64, 40_000, 64); hw.attention(x, x[:, :, :900], x[:, :, :900])",
    "one long tile": "hw.attention(ones(1, 1, 64, 512), *[ones(1, 1, 30_000_000, 512)] * 2)",
    "weights": "x = ones(1, 30_000, 64); hw.attention_weights(x, x, column_sums=True)",
    "encoder": "hw.Encoder(10)(np.zeros((500, 512), int))",
    "linear": "hw.Linear(np.ones((4000, 4000), np.float32))(np.ones((100_000, 4000), np.float32))",
}


@pytest.mark.parametrize("threads", ["1", "3"])
@pytest.mark.parametrize("call", CALLS)
def test_ctrl_c(call, threads):
    code = f"""
in_a_moment(press)
try:
    {CALLS[call]}
    print("finished")
except KeyboardInterrupt:
    print("interrupted", time.monotonic() - sent < 5)
x = np.ones((1, 4, 100, 64), np.float32)
print(np.all(hw.attention(x, x, x) == 1))
"""
    assert run_python(PRELUDE + code, HEADWISE_NUM_THREADS=threads) == "interrupted True\nTrue"


def test_a_handler_that_does_not_raise():
    """It runs while the call does, and the call goes on to its end."""
    code = """
seen = []
signal.signal(signal.SIGINT, lambda *_: seen.append(time.monotonic()))
x = np.random.default_rng(0).standard_normal((1, 4, 400, 64)).astype(np.float32)
expected = hw.attention(x, x, x)
timer = in_a_moment(press)
while timer.is_alive():
    assert (hw.attention(x, x, x) == expected).all()
print(len(seen))
"""
    assert run_python(PRELUDE + code) == "1"


def test_exceptions_of_a_handler_arrive():
    code = """
class Stop(Exception): pass
def stop(*_): raise Stop("enough")
signal.signal(signal.SIGINT, stop)
in_a_moment(press)
try:
    hw.attention(ones(1, 64, 40_000, 64), *[ones(1, 64, 20_000, 64)] * 2)
except Stop as error:
    print(error)
"""
    assert run_python(PRELUDE + code) == "enough"


def test_in_a_child_forked_from_another_thread():
    """Its one thread is the main one now."""
    code = f"""
def fork():
    if os.fork() == 0:
        in_a_moment(press)
        try:
            {CALLS["many tiles"]}
        except KeyboardInterrupt:
            os._exit(7)
        os._exit(0)

thread = threading.Thread(target=fork)
thread.start()
thread.join()
print(os.waitstatus_to_exitcode(os.wait()[1]))
"""
    assert run_python(PRELUDE + code) == "7"


def test_calls_of_other_threads_go_on():
    code = """
x = np.random.default_rng(0).standard_normal((1, 4, 6000, 64)).astype(np.float32)
expected = hw.attention(x, x, x)
results = []
thread = threading.Thread(target=lambda: results.append(hw.attention(x, x, x)))
try:
    thread.start()
    in_a_moment(press)
    time.sleep(60)
except KeyboardInterrupt:
    thread.join()
    print((results[0] == expected).all())
"""
    assert run_python(PRELUDE + code) == "True"
