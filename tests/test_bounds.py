"""Kernels read and write inside their arrays and nowhere else.

In an interpreter of its own, every array begins where a page begins, or ends where one ends, and
the page beyond may not be touched: one element too far ends the process.
"""

from __future__ import annotations

import sys

import pytest
from checks import BUILT_ISAS, run_python

import headwise as hw

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="mprotect() is called as on Linux")

PRELUDE = """
import ctypes, faulthandler, mmap, sys
import ml_dtypes, numpy as np, headwise as hw
from headwise.functional import embed, pool

faulthandler.enable()
libc = ctypes.CDLL(None, use_errno=True)
PAGE = mmap.PAGESIZE
rng = np.random.default_rng(0)
keep = []


def fenced(shape, dtype, at_end):
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    inside = -(-size // PAGE) * PAGE
    block = mmap.mmap(-1, inside + 2 * PAGE)
    keep.append(block)
    address = ctypes.addressof(ctypes.c_char.from_buffer(block))
    for fence in address, address + PAGE + inside:
        assert libc.mprotect(ctypes.c_void_p(fence), ctypes.c_size_t(PAGE), 0) == 0
    start = PAGE + (inside - size if at_end else 0)
    return np.frombuffer(block, dtype, int(np.prod(shape)), start).reshape(shape)


def numbers(*shape):
    x = fenced(shape, dtype, at_end)
    x[...] = rng.standard_normal(shape)
    return x


def integers(values):
    x = fenced(len(values), np.int64, at_end)
    x[...] = values
    return x


def result(*shape):
    return fenced(shape, dtype, at_end)
"""

CASES = {
    "attention": """
sizes = [(1, 1, 1, 1), (3, 97, 7, 13), (70, 49, 16, 33), (17, 100, 65, 1), (2, 5, 500, 509)]
for Sq, Sk, D, Dv in sizes:
    q, k, v = numbers(1, 2, Sq, D), numbers(1, 1, Sk, D), numbers(1, 1, Sk, Dv)
    for causal in False, True:
        hw.attention(q, k, v, is_causal=causal, out=result(1, 2, Sq, Dv), return_lse=True)
        hw.attention_weights(q, k, is_causal=causal)
    short = integers([Sk // 2])
    hw.attention(q, k, v, key_lengths=short, query_offset=integers([-1]), is_causal=True)
    v[..., Dv - 1] = np.nan  # another path where values are not finite
    hw.attention(q, k, v, is_causal=True, out=result(1, 2, Sq, Dv))
""",
    "attention_options": """
sizes = [(1, 1, 1, 1), (1, 130, 33, 31), (5, 200, 64, 64), (70, 301, 15, 7), (66, 2100, 3, 2)]
options = {"alibi_slopes": [0.1, 0.2], "sinks": [0.0, 1.0], "softcap": 3.0, "window": (90, 4)}
for Sq, Sk, D, Dv in sizes:
    for kind in np.float32, np.float64, np.float16, ml_dtypes.bfloat16:
        dtype = np.dtype(kind)
        q, k, v = numbers(2, 2, Sq, D), numbers(2, 1, Sk, D), numbers(2, 1, Sk, Dv)
        added = numbers(2, 1, Sq, Sk)
        added[..., Sk // 2 :: 7] = -np.inf
        allowed = fenced((Sq, Sk), bool, at_end)
        allowed[...] = rng.random((Sq, Sk)) < 0.7
        for mask in added, allowed, allowed[:1], allowed[:, :1], allowed.T.copy().T, None:
            hw.attention(q, k, v, attn_mask=mask, out=result(2, 2, Sq, Dv), return_lse=True)
            hw.attention(q, k, v, attn_mask=mask, **options)
            hw.attention_weights(q, k, attn_mask=mask, column_sums=True)
        v[:, :, Sk // 2] = np.nan
        hw.attention(q, k, v, attn_mask=allowed, is_causal=True)
""",
    "attention_varlen": """
cu = integers([0, 1, 1, 66, 90])
q, k, v = numbers(90, 4, 9), numbers(90, 2, 9), numbers(90, 2, 19)
hw.attention_varlen(q, k, v, cu, out=result(90, 4, 19))
hw.attention_varlen(q, k, v, cu, is_causal=True, query_offset=integers([5, 0, -5, 0]))
""",
    "linear": """
for M, N, K in (1, 1, 1), (7, 65, 3), (13, 31, 65), (25, 130, 200):
    for activation in None, "relu", "gelu":
        linear = hw.Linear(numbers(N, K), numbers(N), activation=activation)
        linear(numbers(M, K), residual=numbers(M, N), out=result(M, N))
        for precision in ("bfloat16", "int8") if dtype == np.float32 else ():
            options = {"activation": activation, "precision": precision}
            linear = hw.Linear(numbers(N, K), numbers(N), **options)
            linear(numbers(M, K), residual=numbers(M, N), out=result(M, N))
""",
    "softmax": """
for n in 1, 7, 16, 33, 100:
    x = numbers(5, n)
    hw.softmax(x)
""",
    "layer_norm": """
for n in 1, 7, 16, 33, 100:
    x = numbers(5, n)
    hw.layer_norm(x, numbers(n), numbers(n), residual=numbers(5, n), out=result(5, n))
    hw.layer_norm(x, out=x)
""",
    "embed_and_pool": """
if dtype == np.float32:
    for n in 1, 7, 16, 33:
        embed([numbers(4, n), numbers(3, n)], [integers([3, 0, 3]), integers([2, 2, 0])])
        for mode in "mean", "cls", "max":
            pool(numbers(5, n), integers([0, 2, 2, 5]), mode, normalize=True)
""",
}


@pytest.mark.parametrize("name", BUILT_ISAS)
@pytest.mark.parametrize("case", CASES)
def test_nothing_beyond_the_fence(name, case):
    if name not in hw.available_isas():
        pytest.skip(f"this CPU or operating system lacks {name}")
    body = "".join(f"        {line}\n" for line in CASES[case].strip().splitlines())
    loop = "for dtype in np.float32, np.float64:\n    for at_end in True, False:\n"
    run_python(PRELUDE + loop + body, HEADWISE_ISA=name)


def test_the_fence_holds():
    """Reading past an array does end the process."""
    code = (
        PRELUDE
        + "dtype, at_end = np.float32, True\nx = result(3)\nctypes.string_at(x.ctypes.data, 13)"
    )
    status, _, errors = run_python(code, check=False)
    assert status < 0
    assert "Segmentation fault" in errors
