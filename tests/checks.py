"""What the tests assert again and again, and the odd arrays that they feed."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys

import ml_dtypes
import numpy as np
from reference import arithmetic_dtype, widen

X86 = platform.machine() in ("x86_64", "AMD64")
ISAS_OF_ATTENTION = (
    ("avx512_bf16", "avx512_vnni", "avx512", "avx2", "scalar") if X86 else ("scalar",)
)
# One more, which differs from the first of these in linear layers alone.
BUILT_ISAS = ("avx512_zen4", *ISAS_OF_ATTENTION) if X86 else ("scalar",)


def assert_same_bits(got, expected):
    """Equal to the last bit, the sign of zero included; one NaN is as good as another."""
    got, expected = np.asarray(got), np.asarray(expected)
    assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
    integers = f"u{got.itemsize}"
    same = np.ascontiguousarray(got).view(integers) == np.ascontiguousarray(expected).view(integers)
    same |= np.isnan(got) & np.isnan(expected)
    if not same.all():
        at = tuple(int(i) for i in np.argwhere(~same)[0])
        raise AssertionError(
            f"{(~same).sum()} of {same.size} elements differ, first at {at}: "
            f"{got[at]!r} instead of {expected[at]!r}"
        )


def assert_accurate(got, formula, *arrays, dtype=None, scale_of_errors=None, **options):
    """The error of one result is of the order of plain NumPy's in the same dtype.

    Of the order, as in a single draw either may be lucky: test_accuracy.py holds the ratio to 2.
    `dtype` is that of the result, where it is not that of the arrays. `scale_of_errors` is what a
    few roundings are relative to; the largest result by default.
    """
    assert got.dtype == (arrays[0].dtype if dtype is None else dtype)
    assert_close(got, *exact_and_plain(formula, *arrays, **options), scale_of_errors)


def assert_close(got, exact, plain, scale_of_errors=None):
    """The error of `got` is of the order of that of `plain`, as `assert_accurate` says."""
    assert got.dtype == plain.dtype
    assert got.shape == exact.shape
    if got.size == 0:
        return
    special = ~np.isfinite(exact)
    np.testing.assert_array_equal(got[special].astype(float), exact[special].astype(float))
    if special.all():
        return
    ours, theirs = (np.abs(x[~special] - exact[~special]) for x in (got, plain))
    if scale_of_errors is None:
        scale_of_errors = np.abs(exact[~special]).max()
    # With 16 bits the sums are float32 either way: what differs is a rounding or two.
    roundings, times = (2, 2) if got.itemsize == 2 else (8, 10)
    floor = roundings * eps(got.dtype) * scale_of_errors
    for name, size in (("mean square", root_mean_square), ("largest", np.max)):
        assert size(ours) <= times * size(theirs) + floor, (
            f"{name} error {size(ours):.3g}, plain NumPy's {size(theirs):.3g}, floor {floor:.3g}"
        )
        times *= 2


def eps(dtype):
    return float(ml_dtypes.finfo(dtype).eps)


def lse_dtype(dtype):
    """What attention gives the log-sum-exp in, and the sums of columns."""
    return arithmetic_dtype(dtype)


def exact_and_plain(formula, *arrays, **options):
    """The formula in a wider dtype, and in that of the arrays."""
    exact = formula(*map(widen, arrays), **{k: widen(v) for k, v in options.items()})
    return exact, formula(*arrays, **options)


def root_mean_square(x):
    return np.sqrt(np.mean(x * x))


def qkv(rng, shape, dtype):
    """Normally distributed query, key and value of B, Hq, Hkv, Sq, Sk, D, Dv."""
    B, Hq, Hkv, Sq, Sk, D, Dv = shape
    sizes = (B, Hq, Sq, D), (B, Hkv, Sk, D), (B, Hkv, Sk, Dv)
    return tuple(rng.standard_normal(size).astype(dtype) for size in sizes)


def _gapped(x):
    """Each row followed by NaN that is not part of it."""
    wide = np.full((*x.shape[:-1], x.shape[-1] + 3), np.nan, x.dtype)
    wide[..., : x.shape[-1]] = x
    return wide[..., : x.shape[-1]]


def _every_other(x):
    wide = np.full((*x.shape[:-1], 2 * x.shape[-1]), np.nan, x.dtype)
    wide[..., ::2] = x
    return wide[..., ::2]


def read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


def misaligned(x):
    """The same numbers one byte past where they should be."""
    raw = np.empty(x.nbytes + 1, np.uint8)
    y = raw[1:].view(x.dtype) if x.nbytes == 0 else np.frombuffer(raw, x.dtype, x.size, offset=1)
    y = y.reshape(x.shape)
    y[...] = x
    return y


# Arrays that equal x and lie otherwise in memory.
LAYOUTS = {
    "contiguous": np.ascontiguousarray,
    "fortran": np.asfortranarray,
    "gapped": _gapped,
    "every_other": _every_other,
    "rows_backwards": lambda x: np.ascontiguousarray(x[..., ::-1, :])[..., ::-1, :],
    "first_axis_backwards": lambda x: np.ascontiguousarray(x[::-1])[::-1],
    "last_axis_backwards": lambda x: np.ascontiguousarray(x[..., ::-1])[..., ::-1],
    "axes_reversed": lambda x: np.ascontiguousarray(x.T).T,
    "read_only": read_only,
    "misaligned": misaligned,
}


def run_python(code, *, timeout=60, check=True, **environment):
    """Run code in a new interpreter and return what it printed; None removes a variable."""
    env = {k: v for k, v in os.environ.items() if k not in environment}
    env |= {k: v for k, v in environment.items() if v is not None}
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a group of its own, so that forked children can be ended too
    )
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise AssertionError(f"still running after {timeout} s") from None
    if check:
        assert process.returncode == 0, err
        return out.strip()
    return process.returncode, out, err
