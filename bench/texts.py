"""Sets of made-up texts: MiniLM takes a time that goes with the number of words, not with them."""

from __future__ import annotations

import random

WORDS = """
the of and in to was a is for on as with by he that at from his it an were are which this also be
has or had first one their its new after but who not they have two her she been other when there
all during into school time may years more most only over city some world would where later up such
used many can state about national out known university united then made house
""".split()  # noqa: SIM905


def texts(count: int, low: int, high: int, seed: int) -> list[str]:
    """Draw `count` texts of `low` to `high` words."""
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(low, high))) for _ in range(count)]


SETS = {
    "one short": texts(1, 10, 10, 0),
    "256 short": texts(256, 5, 15, 1),
    "512 mixed": texts(384, 5, 30, 2) + texts(128, 30, 200, 3),
    "64 long": texts(64, 220, 230, 4),
}
CALIBRATION = texts(96, 5, 200, 5)  # for static quantisation: none of the texts above
