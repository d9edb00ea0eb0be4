"""all-MiniLM-L6-v2: every library in turn, round after round, as the clock of a machine drifts.

    python bench/interleaved.py [--precision P] [--set NAME] [--rounds N] [--libraries L ...]

A ratio is the median over the rounds of a library's time to headwise's in the same round. Before a
turn comes a pause, in which the threads of the one before stop spinning: onnxruntime, OpenVINO and
BLAS keep theirs busy for some milliseconds after a call, on cores that the next one needs.
"""

from __future__ import annotations

import argparse
import statistics
import time

import conftest
import models
import peers_encoder
import threadpoolctl
from peers import Unavailable
from texts import SETS

import headwise as hw

PAUSE = 0.05  # s
TURN = 0.1  # s: at least as long a turn, so that a pause does not count for short calls


def turn(encode, texts) -> float:
    """Return the median time of as many calls as fill a turn: of long ones, one."""
    time.sleep(PAUSE)
    times = []
    while sum(times) < TURN:
        start = time.perf_counter()
        encode(texts)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def load(libraries, precision, texts):
    """Return the function of each library that is there, and its lowest cosine."""
    folder = models.minilm()
    expected = peers_encoder.text_encoder("headwise", "float32", folder)(texts)
    functions, cosines = {}, {}
    for library in libraries:
        try:
            encode = peers_encoder.text_encoder(library, precision, folder)
        except Unavailable as reason:
            print(f"{library} is left out: {reason}")
            continue
        cosines[library] = peers_encoder.check(
            library, precision, encode(texts), expected, atol=2e-6
        )
        functions[library] = encode
    return functions, cosines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--precision", choices=peers_encoder.TEXT_ENCODERS, default="float32")
    parser.add_argument("--set", choices=SETS, default="512 mixed")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--libraries", nargs="+", help="all of the precision but naive NumPy")
    options = parser.parse_args()
    texts = SETS[options.set]
    known = [x for x in peers_encoder.TEXT_ENCODERS[options.precision] if x != "numpy"]
    if unknown := set(options.libraries or ()) - {*known, "numpy"}:
        parser.error(f"--libraries: {', '.join(unknown)} is not one of {', '.join(known)}")
    libraries = dict.fromkeys(["headwise", *(options.libraries or known)])

    with threadpoolctl.threadpool_limits(hw.get_num_threads()):
        functions, cosines = load(libraries, options.precision, texts)
        print(f"MiniLM {options.precision}, {options.set}; {hw.active_isa()}", end=", ")
        print(f"{hw.get_num_threads()} threads, {options.rounds} rounds")
        before = hw.peak()
        print(f"peak before: {conftest.describe(before)}")
        times = {library: [] for library in functions}
        for _ in range(options.rounds):
            for library, encode in functions.items():
                times[library].append(turn(encode, texts))
        after = hw.peak()
        print(f"peak after:  {conftest.describe(after)}")
        if not 0.9 < after.float32 / before.float32 < 1.1:
            print("Another program was running: threads that spin suffer most from it.")

    print(f"{'':22} median ms  spread  to headwise  lowest cosine  texts/s")
    for library, spent in times.items():
        median = statistics.median(spent)
        spread = (max(spent) - min(spent)) / median
        pairs = zip(spent, times["headwise"], strict=True)
        ratio = statistics.median(theirs / ours for theirs, ours in pairs)
        print(
            f"{library:22} {1e3 * median:9.2f} {spread:7.0%} {ratio:10.2f} x "
            f"{cosines[library]:14.5f} {len(texts) / median:8.0f}"
        )


if __name__ == "__main__":
    main()
