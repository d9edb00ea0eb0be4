"""A process of its own, with one library and so many threads, that makes a call when asked to.

    python bench/worker.py TASK LIBRARY SIZE

TASK is ``attention`` of 8 heads of 64 over SIZE keys and queries, or ``encoder``: SIZE short texts
by all-MiniLM-L6-v2, both in float32. A line of JSON says how much memory the first call took; then
a call is made and answered for each line that is read. `Worker` is the side that asks.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable

import memory

MARK = "worker: "  # libraries print, too


class Worker:
    """One that runs `task` with `threads` threads: to be entered, and called."""

    def __init__(self, task: str, library: str, size: int, threads: int) -> None:
        self.command = [sys.executable, __file__, task, library, str(size)]
        # headwise passes it on to torch, onnxruntime and OpenVINO; BLAS reads it here.
        names = ("HEADWISE", "OMP", "OPENBLAS", "MKL")
        self.threads = {f"{name}_NUM_THREADS": str(threads) for name in names}

    def __enter__(self) -> Worker:
        pipe, environment = subprocess.PIPE, os.environ | self.threads
        self.process = subprocess.Popen(
            self.command, stdin=pipe, stdout=pipe, text=True, env=environment
        )
        try:
            self.megabytes = json.loads(self.answer())["MB"]
        except BaseException:
            self.__exit__()
            raise
        return self

    def __call__(self) -> None:
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        self.answer()

    def __exit__(self, *error: object) -> None:
        self.process.communicate()  # the end of its input is its end

    def answer(self) -> str:
        for line in self.process.stdout:
            if line.startswith(MARK):
                return line.removeprefix(MARK)
        raise RuntimeError(f"{' '.join(self.command)} ended with {self.process.wait()}")


def attention(library: str, length: int) -> tuple[float, Callable[[], object]]:
    """Return the memory before, and the call that computes it."""
    import numpy as np
    import peers_attention

    def draw(length: int) -> list[np.ndarray]:
        rng = np.random.default_rng(0)
        return [rng.standard_normal((1, 8, length, 64), np.float32) for _ in "qkv"]

    peers_attention.attention(library, "float32", *draw(16), False)()
    arrays = draw(length)
    memory.forget_peak()
    before = memory.now()
    return before, peers_attention.attention(library, "float32", *arrays, False)


def encoder(library: str, count: int) -> tuple[float, Callable[[], object]]:
    import models
    import peers_encoder
    from texts import SETS

    encode = peers_encoder.text_encoder(library, "float32", models.minilm())
    texts = SETS["256 short"][:count]
    encode(texts[:1])
    memory.forget_peak()
    return memory.now(), lambda: encode(texts)


def main() -> None:
    task, library, size = sys.argv[1:]
    before, call = {"attention": attention, "encoder": encoder}[task](library, int(size))
    call()
    print(MARK + json.dumps({"MB": memory.peak() - before}), flush=True)
    for _ in sys.stdin:
        call()
        print(MARK, flush=True)


if __name__ == "__main__":
    main()
