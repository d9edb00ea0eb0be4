"""Check an installed headwise as a user has it: ``python tools/check_wheel.py WHEEL``.

Run it away from the source tree, in an environment that has the wheel and NumPy only.
"""

import statistics
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

import numpy as np

import headwise as hw

MAX_WHEEL_BYTES = 5_000_000


def import_milliseconds() -> float:
    """Measure how long ``import headwise`` takes once NumPy is there; the median of 9 processes."""
    code = (
        "import time, numpy; start = time.perf_counter(); import headwise; "
        "print(time.perf_counter() - start)"
    )
    runs = (subprocess.check_output([sys.executable, "-c", code], text=True) for _ in range(9))
    return 1000 * statistics.median(float(run) for run in runs)


def main(wheel: Path) -> None:
    """Raise if the wheel is too large, needs more than NumPy or does not compute."""
    size = wheel.stat().st_size
    assert size < MAX_WHEEL_BYTES, f"{wheel} has {size} bytes"
    names = {d.metadata["Name"].lower() for d in distributions()} - {"pip", "setuptools"}
    assert names == {"headwise", "numpy"}, f"more is installed than NumPy: {names}"
    folder = Path(hw.__file__).parent
    for file in ("py.typed", "include/headwise.h", "parity_texts.txt"):
        assert (folder / file).is_file(), f"the wheel lacks {file}"
    assert "</html>" in hw.Encoder(vocab_size=9, num_layers=1).trace([1, 2]).to_html()

    x = np.random.default_rng(0).standard_normal((2, 4, 100, 32), np.float32)
    scores = x @ x.swapaxes(-1, -2) / np.sqrt(np.float32(32))
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    expected = weights / weights.sum(-1, keepdims=True) @ x
    for isa in hw.available_isas():
        hw.set_isa(isa)
        np.testing.assert_allclose(hw.attention(x, x, x), expected, atol=1e-5)
    print(
        f"headwise {hw.__version__}: wheel {size / 1e6:.2f} MB, "
        f"import {import_milliseconds():.0f} ms after NumPy"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
