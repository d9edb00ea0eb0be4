"""After fork() the child computes, in parallel, the bits its parent computes; nothing hangs.

Each test runs in an interpreter of its own that is ended if it takes too long.
"""

from __future__ import annotations

import os

import pytest
from checks import run_python

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork()")

PRELUDE = """
import hashlib, os, sys, threading, multiprocessing, warnings
import numpy as np, headwise as hw
warnings.simplefilter("ignore")  # newer Pythons warn of fork() in a process with threads
x = np.random.default_rng(0).standard_normal((2, 4, 300, 32)).astype(np.float32)
linear = hw.Linear(x[0, 0, :200])
def compute():
    return hw.attention(x, x, x, is_causal=True).tobytes() + linear(x).tobytes()
def tasks():
    return len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else None
def in_child(body):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = 0 if body() else 2
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""

CASES = {
    "after_a_parallel_region": """
expected = compute()
assert in_child(lambda: compute() == expected) == 0
assert compute() == expected
""",
    "before_any_region": """
reader, writer = os.pipe()
def send():
    return os.write(writer, hashlib.sha256(compute()).digest()) == 32
assert in_child(send) == 0
assert os.read(reader, 32) == hashlib.sha256(compute()).digest()
""",
    "in_parallel": """
expected = compute()
def parallel():
    before = tasks()
    same = compute() == expected
    return same and (before is None or tasks() - before >= 2)
assert in_child(parallel) == 0
""",
    "again_and_again": """
expected = compute()
for _ in range(10):
    assert in_child(lambda: compute() == expected and compute() == expected) == 0
    assert compute() == expected
""",
    "child_of_a_child": """
expected = compute()
def generation(n):
    return compute() == expected and (n == 0 or in_child(lambda: generation(n - 1)) == 0)
assert in_child(lambda: generation(3)) == 0
def childless_middle(n):  # forks before it has computed anything
    return compute() == expected if n == 0 else in_child(lambda: childless_middle(n - 1)) == 0
assert in_child(lambda: childless_middle(3)) == 0
assert compute() == expected
""",
    "threads_in_the_child": """
expected = compute()
def threads():
    results = []
    workers = [threading.Thread(target=lambda: results.append(compute())) for _ in range(4)]
    for w in workers: w.start()
    results.append(compute())
    for w in workers: w.join()
    return results == [expected] * 5
assert in_child(threads) == 0
""",
    "from_a_thread": """
expected = compute()
codes = []
def fork():
    compute()
    codes.append(in_child(lambda: compute() == expected))
worker = threading.Thread(target=fork)
worker.start()
worker.join()
assert codes == [0]
assert compute() == expected
""",
    "while_other_threads_compute": """
expected = compute()
stop = threading.Event()
def busy():
    while not stop.is_set(): compute()
workers = [threading.Thread(target=busy) for _ in range(2)]
for w in workers: w.start()
codes = [in_child(lambda: compute() == expected) for _ in range(5)]
stop.set()
for w in workers: w.join()
assert codes == [0] * 5, codes
""",
    "multiprocessing": """
expected = compute()
def job(i):
    return compute()
with multiprocessing.get_context("fork").Pool(3) as pool:
    assert pool.map(job, range(12), chunksize=1) == [expected] * 12
assert compute() == expected
""",
    "settings_are_inherited": """
expected = compute()
hw.set_num_threads(2)
hw.set_isa("scalar")
of_scalar = compute()
def inherited():
    return (hw.get_num_threads(), hw.active_isa(), compute()) == (2, "scalar", of_scalar)
assert in_child(inherited) == 0
""",
}


@pytest.mark.parametrize("num_threads", ["1", "3"])
@pytest.mark.parametrize("case", CASES)
def test_fork(case, num_threads):
    if case == "in_parallel" and num_threads == "1":
        num_threads = "4"
    run_python(PRELUDE + CASES[case], timeout=60, HEADWISE_NUM_THREADS=num_threads)


def test_spawn():
    """A fresh process, as multiprocessing starts elsewhere, gives the same bits too."""
    code = PRELUDE + "print(hashlib.sha256(compute()).hexdigest())"
    assert run_python(code, HEADWISE_NUM_THREADS="3") == run_python(code, HEADWISE_NUM_THREADS="1")
