"""The options of attention against the formula: alone, together, in every dtype, at odd sizes."""

from __future__ import annotations

import functools

import ml_dtypes
import numpy as np
import pytest
import reference
from checks import (
    ISAS_OF_ATTENTION,
    LAYOUTS,
    assert_accurate,
    assert_close,
    assert_same_bits,
    exact_and_plain,
    lse_dtype,
    qkv,
    read_only,
)
from hypothesis import given
from hypothesis import strategies as st

import headwise as hw

ISAS = ISAS_OF_ATTENTION

# Options by name: a function of rng, of (B, Hq, Sq, Sk) and of the dtype of small arrays, which
# is the query's or, beside 16 bits, float32.


def constant(**options):
    return lambda rng, shape, small: options


def bool_mask(*axes):
    """True in 70 of 100 places; an axis that is not named has length 1, or is not there."""
    return lambda rng, shape, small: {"attn_mask": rng.random(sizes(shape, axes)) < 0.7}


def float_mask(*axes):
    def draw(rng, shape, small):
        mask = rng.standard_normal(sizes(shape, axes))
        mask[rng.random(mask.shape) < 0.3] = -np.inf
        return {"attn_mask": np.asarray(mask, small)}

    return draw


def sizes(shape, axes):
    named = dict(zip("BHij", shape, strict=True))
    return tuple(named.get(axis, 1) for axis in axes)


def blocks(rng, shape, small):
    """Whole blocks of keys masked, for all queries of a tile or for some; whole rows too."""
    mask = np.ones(shape[-2:], bool)
    mask[:, 48:96] = False
    mask[::2, 96:192] = False
    mask[3::7] = False
    return {"attn_mask": mask}


def float_blocks(rng, shape, small):
    mask = np.where(blocks(rng, shape, small)["attn_mask"], 0, -np.inf)
    return {"attn_mask": np.asarray(mask, small)}


def slopes(*axes):
    return lambda rng, shape, small: {
        "alibi_slopes": (2 ** -rng.uniform(1, 8, sizes(shape, axes))).astype(small)
    }


def sinks(rng, shape, small):
    """Of every kind: none, as large as the scores, and far larger."""
    values = np.resize([0.5, -np.inf, 30, -2.25], shape[1])
    return {"sinks": values.astype(small)}


def lengths(rng, shape, small):
    return {"key_lengths": rng.integers(0, shape[3] + 1, shape[0])}


def offsets(rng, shape, small):
    return {"query_offset": rng.integers(-3, shape[3] + 3, shape[0])}


def together(*several):
    return lambda *arguments: {k: v for draw in several for k, v in draw(*arguments).items()}


CAUSAL = constant(is_causal=True)
ALONE = {
    "mask ij": bool_mask("i", "j"),
    "mask 1j": bool_mask("1", "j"),
    "mask j": bool_mask("j"),
    "mask i1": bool_mask("i", "1"),
    "mask B11j": bool_mask("B", "1", "1", "j"),
    "mask H11": bool_mask("H", "1", "1"),
    "mask BHij": bool_mask("B", "H", "i", "j"),
    "mask of blocks": blocks,
    "mask True": constant(attn_mask=read_only(np.array(True))),
    "mask False": constant(attn_mask=read_only(np.array(False))),
    "bias ij": float_mask("i", "j"),
    "bias 1j": float_mask("1", "j"),
    "bias i1": float_mask("i", "1"),
    "bias B11j": float_mask("B", "1", "1", "j"),
    "bias H11": float_mask("H", "1", "1"),
    "bias BHij": float_mask("B", "H", "i", "j"),
    "bias of blocks": float_blocks,
    "bias scalar": lambda rng, shape, small: {"attn_mask": np.asarray(1.5, small)},
    "bias -inf": lambda rng, shape, small: {"attn_mask": np.asarray(-np.inf, small)},
    "window (0, 0)": constant(window=(0, 0)),
    "window (3, None)": constant(window=(3, None)),
    "window (None, 2)": constant(window=(None, 2)),
    "window (10, 5)": constant(window=(10, 5)),
    "window (100, 0)": constant(window=(100, 0)),
    "window (10**9, 0)": constant(window=(10**9, 0)),
    "window before the keys": constant(window=(10, 5), query_offset=-12),
    "window past the keys": together(
        constant(window=(20, 5)), lambda rng, shape, small: {"query_offset": shape[3] - 3}
    ),
    "window of each entry": together(constant(window=(10, 5)), offsets),
    "window and lengths": together(constant(window=(30, 5)), lengths),
    "causal window": together(CAUSAL, constant(window=(17, 3))),
    "softcap 0.5": constant(softcap=0.5),
    "softcap 1000": constant(softcap=1000.0),
    "softcap of large scores": constant(softcap=3.0, scale=40.0),
    "alibi H": slopes("H"),
    "alibi BH": slopes("B", "H"),
    "alibi, causal": together(slopes("H"), CAUSAL),
    "alibi, far before the keys": together(slopes("H"), constant(query_offset=-300)),
    "alibi of each entry": together(slopes("B", "H"), offsets, lengths),
    "alibi of a negative slope": lambda rng, shape, small: {
        "alibi_slopes": np.full(shape[1], -0.03, small)
    },
    "sinks": sinks,
    "sinks, causal, rows empty": together(sinks, constant(is_causal=True, query_offset=-5)),
    "lengths": lengths,
}
TOGETHER = {
    "bool mask": together(
        *(bool_mask("B", "H", "i", "j"), constant(window=(150, 9), softcap=2.0), sinks, offsets)
    ),
    "float mask": together(
        *(float_mask("H", "i", "j"), CAUSAL, slopes("B", "H"), constant(scale=-0.5), lengths)
    ),
    "all": together(
        *(float_mask("B", "1", "i", "j"), constant(is_causal=True, window=(1000, 3), softcap=9.0)),
        *(slopes("H"), sinks, lengths, offsets),
    ),
}
SHAPE = (2, 6, 2, 23, 200, 40, 24)
# B, Hq, Hkv, Sq, Sk, D, Dv: around the tile of 64 rows, or 32, the blocks of 48 and 96 keys, the
# parts of 960; all three group sizes.
SHAPES = [
    (1, 1, 1, 1, 1, 1, 1),
    (2, 3, 1, 2, 5, 3, 7),
    (1, 5, 1, 13, 47, 17, 16),
    (1, 3, 3, 31, 48, 40, 33),
    (1, 1, 1, 33, 49, 64, 80),
    (2, 3, 1, 21, 95, 80, 64),
    (1, 1, 1, 64, 96, 17, 3),
    (1, 3, 1, 22, 97, 128, 40),
    (1, 2, 2, 65, 200, 40, 128),
    (1, 1, 1, 3, 97, 512, 5),
    (1, 1, 1, 2, 50, 200, 512),
    (2, 3, 1, 1, 959, 64, 64),
    (1, 1, 1, 5, 960, 40, 17),
    (1, 5, 1, 1, 961, 40, 64),
    (1, 3, 1, 2, 2000, 17, 24),
]
CASES = {f"{name}": (SHAPE, options) for name, options in ALONE.items()}
CASES |= {f"{name} {s}": (s, options) for s in SHAPES for name, options in TOGETHER.items()}


@functools.cache
def problem(name, dtype):
    """Arrays, options, and what is expected of the output, log-sum-exp and weights."""
    shape, draw = CASES[name]
    rng = np.random.default_rng(sorted(CASES).index(name))
    q, k, v = qkv(rng, shape, dtype)
    small = dtype if dtype == np.float16 else lse_dtype(dtype)
    options = draw(rng, (*shape[:2], *shape[3:5]), small)
    if "alibi_slopes" in options:
        options["alibi_slopes"] = options["alibi_slopes"].astype(lse_dtype(dtype))
    if "sinks" in options:
        options["sinks"] = options["sinks"].astype(lse_dtype(dtype))
    expected = [
        exact_and_plain(reference.attention, q, k, v, **options),
        exact_and_plain(reference.logsumexp, q, k, **options),
        exact_and_plain(reference.attention_weights, q, k, **options),
    ]
    return (q, k, v), options, expected


@pytest.mark.parametrize("name", CASES)
def test_formula(isa, any_dtype, name):
    (q, k, v), options, expected = problem(name, any_dtype)
    out, lse = hw.attention(q, k, v, return_lse=True, **options)
    weights = hw.attention_weights(q, k, **options)
    assert (out.dtype, lse.dtype, weights.dtype) == (any_dtype, lse_dtype(any_dtype), any_dtype)
    for got, (exact, plain) in zip((out, lse, weights), expected, strict=True):
        assert_close(got, exact, plain)
    # What is masked weighs exactly nothing.
    assert (weights[np.broadcast_to(expected[2][0] == 0, weights.shape)] == 0).all()
    assert_same_bits(hw.attention(q, k, v, **options), out)


def test_float_mask_of_float32_beside_16_bits(isa, any_dtype):
    """Its own precision is used: 1/3 is not rounded to 16 bits."""
    rng = np.random.default_rng(4)
    q, k, v = qkv(rng, (2, 3, 1, 30, 130, 24, 16), any_dtype)
    for mask_dtype in {np.dtype(np.float32), any_dtype}:
        if any_dtype == np.float64 and mask_dtype == np.float32:
            continue
        mask = (rng.standard_normal((30, 130)) * 30 + 1 / 3).astype(mask_dtype)
        out, lse = hw.attention(q, k, v, attn_mask=mask, return_lse=True)
        assert_accurate(out, reference.attention, q, k, v, attn_mask=mask)
        exact = reference.logsumexp(*map(reference.widen, (q, k)), attn_mask=reference.widen(mask))
        tolerance = 2e-6 if any_dtype.itemsize < 8 else 1e-13
        np.testing.assert_allclose(lse, exact.astype(float), rtol=tolerance, atol=tolerance)


VIEWS = {
    "transposed": lambda x: np.ascontiguousarray(x.swapaxes(-1, -2)).swapaxes(-1, -2),
    **{
        name: LAYOUTS[name]
        for name in (
            *("gapped", "every_other", "rows_backwards", "first_axis_backwards"),
            *("last_axis_backwards", "axes_reversed", "read_only", "misaligned"),
        )
    },
}
BROADCASTS = [(), (200,), (1, 200), (23, 1), (23, 200), (6, 1, 1), (1, 23, 200), (6, 1, 200)]
BROADCASTS += [(2, 1, 1, 200), (2, 6, 1, 1), (1, 6, 23, 1), (2, 1, 23, 200)]


def masks(rng, shape, dtype):
    """The two kinds of mask; one element of a scalar's size attends."""
    attended = rng.random(shape) < (0.7 if shape else 1.1)
    of_floats = np.where(attended, rng.standard_normal(shape), -np.inf)
    return attended, np.asarray(of_floats, dtype)


@pytest.mark.parametrize("view", VIEWS)
def test_mask_in_other_strides(isa, any_dtype, view):
    rng = np.random.default_rng(8)
    q, k, v = qkv(rng, SHAPE, any_dtype)
    for mask in masks(rng, (2, 6, 23, 200), any_dtype):
        seen = VIEWS[view](mask)
        np.testing.assert_array_equal(seen, mask)
        for x, y in zip(both(q, k, v, seen), both(q, k, v, mask), strict=True):
            assert_same_bits(x, y)


def both(q, k, v, mask):
    return hw.attention(q, k, v, attn_mask=mask), hw.attention_weights(q, k, attn_mask=mask)


@pytest.mark.parametrize("shape", BROADCASTS, ids=str)
def test_mask_that_broadcasts(isa, any_dtype, shape):
    """As if it were written out, whether its axes are short, missing, or have stride 0."""
    rng = np.random.default_rng(9)
    q, k, v = qkv(rng, SHAPE, any_dtype)
    for mask in masks(rng, shape, any_dtype):
        view = np.broadcast_to(mask, (2, 6, 23, 200))
        expected = both(q, k, v, view.copy())
        for given_mask in mask, view:
            for x, y in zip(both(q, k, v, given_mask), expected, strict=True):
                assert_same_bits(x, y)


def test_mask_of_one_head(any_dtype):
    """2-D arrays are one head, and so is their mask; other leading dimensions broadcast."""
    rng = np.random.default_rng(9)
    q, k, v = (x[0, 0] for x in qkv(rng, (1, 1, 1, 5, 7, 6, 3), any_dtype))
    mask = rng.random((5, 7)) < 0.7
    options = {"alibi_slopes": np.full(1, 0.2, lse_dtype(any_dtype)), "window": (3, 3)}
    options["sinks"] = np.full(1, 0.3, lse_dtype(any_dtype))
    out = hw.attention(q, k, v, attn_mask=mask, **options)
    assert out.shape == (5, 3)
    assert_same_bits(out, hw.attention(q[None], k[None], v[None], attn_mask=mask, **options)[0])
    assert_same_bits(
        hw.attention_weights(q, k, attn_mask=mask, **options),
        hw.attention_weights(q[None], k[None], attn_mask=mask, **options)[0],
    )


def test_mask_of_several_leading_dimensions(any_dtype):
    rng = np.random.default_rng(9)
    q, k, v = (rng.standard_normal((2, 3, 2, n, 8)).astype(any_dtype) for n in (5, 7, 7))
    mask = rng.random((3, 1, 5, 7)) < 0.7
    slopes = rng.random((2, 3, 2)).astype(lse_dtype(any_dtype))
    out = hw.attention(q, k, v, attn_mask=mask, alibi_slopes=slopes)
    for b, c in np.ndindex(2, 3):
        alone = [x[b, c] for x in (q, k, v)]
        expected = hw.attention(*alone, attn_mask=mask[c], alibi_slopes=slopes[b, c])
        assert_same_bits(out[b, c], expected)


def test_options_that_change_nothing(isa, any_dtype):
    """Options that say what is the case anyway; the results are numbers near each other."""
    q, k, v = qkv(np.random.default_rng(5), (2, 4, 2, 20, 110, 24, 24), any_dtype)
    plain = hw.attention(q, k, v).astype(float)
    sums = lse_dtype(any_dtype)
    for options in (
        {"window": (None, None)},
        {"window": (10**9, 10**9)},
        {"window": (2**63 - 1, 2**63 - 1)},
        {"attn_mask": np.ones((20, 110), bool)},
        {"attn_mask": np.zeros((20, 110), any_dtype)},
        {"alibi_slopes": np.zeros(4, sums)},
        {"sinks": np.full(4, -np.inf, sums)},
        {"softcap": 1e6 if any_dtype.itemsize < 8 else 1e9},
        {"key_lengths": 110},
    ):
        got = hw.attention(q, k, v, **options).astype(float)
        np.testing.assert_allclose(got, plain, atol=16 * float(ml_dtypes.finfo(any_dtype).eps))


def test_two_words_for_one_mask(isa, any_dtype):
    """A causal mask or a window as options, and the same as an array."""
    q, k, v = qkv(np.random.default_rng(5), (2, 4, 2, 40, 130, 24, 24), any_dtype)
    i, j = np.arange(40)[:, None] + 90, np.arange(130)
    tolerance = 4 * float(ml_dtypes.finfo(any_dtype).eps)
    for options, mask in (
        ({"is_causal": True}, j <= i),
        ({"window": (None, 0)}, j <= i),
        ({"window": (20, 3)}, (j >= i - 20) & (j <= i + 3)),
        ({"window": (20, 3), "is_causal": True}, (j >= i - 20) & (j <= i)),
        ({"window": (0, 0)}, j == i),
    ):
        got = hw.attention(q, k, v, **options).astype(float)
        expected = hw.attention(q, k, v, attn_mask=mask).astype(float)
        np.testing.assert_allclose(got, expected, atol=tolerance)


def test_window_of_one_key(isa, any_dtype):
    """window=(0, 0) copies each query's own value."""
    q, k, v = qkv(np.random.default_rng(5), (1, 3, 1, 70, 200, 24, 24), any_dtype)
    out = hw.attention(q, k, v, window=(0, 0), query_offset=60)
    assert_same_bits(out, np.broadcast_to(v[:, :, 60:130], out.shape))


def test_sinks_take_their_share(isa, any_dtype):
    """As one more key would that has value 0."""
    q, k, v = qkv(np.random.default_rng(5), (1, 2, 1, 9, 50, 8, 8), any_dtype)
    sinks = np.array([0.7, 4], lse_dtype(any_dtype))
    out, lse = hw.attention(q, k, v, return_lse=True)
    got, got_lse = hw.attention(q, k, v, sinks=sinks, return_lse=True)
    weights = hw.attention_weights(q, k, sinks=sinks).astype(float)
    both = np.logaddexp(lse.astype(float), sinks[:, None].astype(float))
    tolerance = 4 * float(ml_dtypes.finfo(any_dtype).eps)
    np.testing.assert_allclose(got_lse, both, rtol=1e-6)
    share = np.exp(lse - both)
    np.testing.assert_allclose(got.astype(float), out * share[..., None], atol=tolerance)
    np.testing.assert_allclose(weights.sum(-1), share, atol=tolerance)


def test_sinks_alone(isa, any_dtype):
    """Without a key that is attended: out 0, lse the sink, to the bit."""
    sums = lse_dtype(any_dtype)
    sinks = np.array([0.7, -300, 1e4, -np.inf], sums)
    q, k, v = qkv(np.random.default_rng(5), (2, 4, 2, 5, 50, 8, 8), any_dtype)
    for options in (
        {"key_lengths": 0},
        {"attn_mask": np.array(False)},
        {"is_causal": True, "query_offset": -9},
        {"window": (2, 2), "query_offset": 90},
    ):
        out, lse = hw.attention(q, k, v, sinks=sinks, return_lse=True, **options)
        assert_same_bits(out, np.zeros_like(out))
        np.testing.assert_allclose(lse, np.broadcast_to(sinks[:, None], lse.shape), rtol=1e-6)


@pytest.mark.parametrize("n", [(0, 2, 3, 4), (2, 0, 3, 4), (2, 2, 0, 4), (2, 2, 3, 0)], ids=str)
def test_nothing_to_do(any_dtype, n):
    """Of any size 0: the right shapes, and nothing attended."""
    B, H, Sq, Sk = n
    sums = lse_dtype(any_dtype)
    sizes = (B, H, Sq, 5), (B, 2, Sk, 5), (B, 2, Sk, 6)
    q, k, v = (np.ones(size, any_dtype) for size in sizes)
    for options in (
        {},
        {"attn_mask": np.ones((B, H, Sq, Sk), bool)},
        {"attn_mask": np.zeros((Sq, Sk), any_dtype), "is_causal": True},
        {"attn_mask": np.array(True), "window": (3, 3), "softcap": 3.0},
        {"alibi_slopes": np.ones(H, sums), "sinks": np.full(H, -np.inf, sums)},
        {"alibi_slopes": np.ones((B, H), sums), "key_lengths": np.full(B, Sk)},
    ):
        out, lse = hw.attention(q, k, v, return_lse=True, **options)
        assert (out.dtype, out.shape) == (any_dtype, (B, H, Sq, 6))
        assert (lse.dtype, lse.shape) == (sums, (B, H, Sq))
        weights = hw.attention_weights(q, k, **options)
        assert (weights.dtype, weights.shape) == (any_dtype, (B, H, Sq, Sk))
        assert (out == 0).all()
        assert np.isneginf(lse).all()
        summed = hw.attention_weights(q, k, column_sums=True, **options)
        assert_same_bits(summed, np.zeros((B, H, Sk), sums))


def test_out_and_layouts_of_every_dtype(isa, any_dtype):
    q, k, v = qkv(np.random.default_rng(5), (3, 2, 2, 5, 9, 8, 7), any_dtype)
    expected = hw.attention(q, k, v)
    base = np.full((3, 2, 5, 12), -1, any_dtype)
    out = base[..., 5:]
    assert hw.attention(q, k, v, out=out) is out
    assert_same_bits(out, expected)
    assert (base[..., :5] == -1).all()
    for layout in LAYOUTS.values():
        assert_same_bits(hw.attention(*(layout(x) for x in (q, k, v))), expected)


def test_scores_that_all_overflow(isa, any_dtype):
    """Of exp(), and of float16 itself: 16-bit scores are never rounded to 16 bits."""
    q, k = np.full((1, 1, 3, 4), 1e3, any_dtype), np.full((1, 1, 5, 4), 1e3, any_dtype)
    v = np.arange(5, dtype=np.float32).astype(any_dtype).reshape(1, 1, 5, 1)
    for sign in 1, -1:
        out, lse = hw.attention(sign * q, k, v, return_lse=True)
        np.testing.assert_allclose(out.astype(float), 2, rtol=1e-6)
        expected = sign * float(q[0, 0, 0, 0]) * float(k[0, 0, 0, 0]) * 2
        np.testing.assert_allclose(lse, expected, rtol=1e-5)


def test_subnormals_of_16_bits(isa):
    """They are numbers like others: neither inputs nor results are flushed to 0.

    But by the instruction vdpbf16ps, which knows no other way.
    """
    for dtype in np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16):
        if isa == "avx512_bf16" and dtype == ml_dtypes.bfloat16:
            continue
        least = float(ml_dtypes.finfo(dtype).smallest_subnormal)
        v = (np.arange(1, 4) * least).reshape(1, 3, 1).astype(dtype)
        q = np.zeros((1, 1, 4), dtype)
        out = hw.attention(q, np.zeros((1, 3, 4), dtype), v)
        assert float(out[0, 0, 0]) == 2 * least


def split(lengths):
    return np.concatenate([[0], np.cumsum(lengths, dtype=int)])


VARLEN = {
    "window": {"window": (9, 3)},
    "softcap, scale": {"softcap": 2.0, "scale": 0.7},
    "alibi": {"alibi_slopes": np.array([0.1, 0.4, 0.02, 0.3])},
    "alibi of each": {"alibi_slopes": np.linspace(0, 0.5, 20).reshape(5, 4), "is_causal": True},
    "sinks": {"sinks": np.array([0.3, -np.inf, 5, -2])},
    "all": {
        **{"window": (90, 3), "softcap": 2.0, "alibi_slopes": np.array([0.1, 0.4, 0.02, 0.3])},
        **{"sinks": np.array([0.3, -np.inf, 5, -2]), "query_offset": [0, 4, 900, -3, 2]},
        **{"is_causal": True},
    },
}


@pytest.mark.parametrize("name", VARLEN)
@pytest.mark.parametrize("keys", [None, [7, 0, 1000, 3, 99]], ids=["self", "cross"])
def test_varlen(isa, any_dtype, name, keys):
    """Each packed sequence is what it is alone, to the bit, in both outputs."""
    rng = np.random.default_rng(6)
    queries = [33, 1, 5, 0, 13]
    cu_q, cu_k = split(queries), split(queries if keys is None else keys)
    q, k, v = (
        rng.standard_normal(size).astype(any_dtype)
        for size in ((cu_q[-1], 4, 24), (cu_k[-1], 2, 24), (cu_k[-1], 2, 10))
    )
    options = {
        k: v.astype(lse_dtype(any_dtype)) if isinstance(v, np.ndarray) else v
        for k, v in VARLEN[name].items()
    }
    given_k = None if keys is None else cu_k
    out, lse = hw.attention_varlen(q, k, v, cu_q, given_k, return_lse=True, **options)
    assert (out.shape, lse.shape) == ((len(q), 4, 10), (4, len(q)))
    assert (out.dtype, lse.dtype) == (any_dtype, lse_dtype(any_dtype))
    for b in range(len(queries)):
        rows, columns = slice(*cu_q[b : b + 2]), slice(*cu_k[b : b + 2])
        alone = [x.swapaxes(0, 1) for x in (q[rows], k[columns], v[columns])]
        one = dict(options)
        if np.ndim(one.get("alibi_slopes")) == 2:
            one["alibi_slopes"] = one["alibi_slopes"][b]
        if "query_offset" in one:
            one["query_offset"] = one["query_offset"][b]
        expected, expected_lse = hw.attention(*alone, return_lse=True, **one)
        assert_same_bits(out[rows].swapaxes(0, 1), expected)
        assert_same_bits(lse[:, rows], expected_lse)
        assert_accurate(expected, reference.attention, *alone, **one)


@st.composite
def problems(draw):
    """Any shapes, layouts, dtype and options."""
    size = lambda most: st.integers(1, most)  # noqa: E731
    B, Hkv, group = draw(size(3)), draw(size(2)), draw(size(5))
    Sq, Sk = draw(st.integers(0, 40)), draw(st.integers(0, 200) | st.integers(950, 970))
    Sq = Sq if Sk < 900 else min(Sq, 3)
    D, Dv = draw(size(70)), draw(size(40))
    dtype = np.dtype(draw(st.sampled_from([np.float32, np.float64, "f2", ml_dtypes.bfloat16])))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    layout = st.sampled_from(sorted(LAYOUTS)).map(LAYOUTS.get)
    Hq = Hkv * group
    arrays = [draw(layout)(x) for x in qkv(rng, (B, Hq, Hkv, Sq, Sk, D, Dv), dtype)]

    sums = lse_dtype(dtype)
    per_entry = lambda least, most: st.lists(  # noqa: E731
        st.integers(least, most), min_size=B, max_size=B
    )
    each = {
        "is_causal": st.booleans(),
        "query_offset": per_entry(-80, 210) | st.integers(-(10**12), 10**12),
        "key_lengths": per_entry(0, Sk) | st.integers(0, Sk),
        "window": st.tuples(*2 * [st.none() | st.integers(0, 100) | st.just(10**12)]),
        "scale": st.floats(-2, 2),
        "softcap": st.floats(0.1, 100),
        "alibi_slopes": st.sampled_from([(Hq,), (B, Hq)]).map(
            lambda shape: rng.random(shape).astype(sums) / 4
        ),
        "sinks": st.lists(st.sampled_from([-np.inf, -1.5, 0, 3, 20]), min_size=Hq, max_size=Hq).map(
            lambda values: np.array(values, sums)
        ),
    }
    options = {name: draw(values) for name, values in each.items() if draw(st.booleans())}
    if "alibi_slopes" in options and np.ndim(options.get("query_offset")) == 0:
        options.pop("query_offset", None)  # far away, distances are not exact in float32
    if draw(st.booleans()):
        shape = tuple(n if draw(st.booleans()) else 1 for n in (B, Hq, Sq, Sk))
        shape = shape[draw(st.integers(0, 4)) :]
        mask_dtype = draw(st.sampled_from([bool, dtype, sums]))
        attended = rng.random(shape) < draw(st.sampled_from([0.1, 0.6, 1.1]))
        mask = np.where(attended, rng.standard_normal(shape), -np.inf).astype(mask_dtype)
        mask = np.asarray(attended if mask_dtype is bool else mask)
        options["attn_mask"] = draw(layout)(mask) if mask.ndim > 1 else mask
    return arrays, options


def of_last_entry(name, option, batch):
    """The option for the last batch entry alone; rows of few axes are for all entries."""
    axes = {"attn_mask": 4, "alibi_slopes": 2, "query_offset": 1, "key_lengths": 1}
    per_entry = np.ndim(option) == axes.get(name, 0) != 0 and np.shape(option)[0] == batch
    return option[-1:] if per_entry else option


@given(problem=problems())
def test_any_problem(isa, threads, problem):
    (q, k, v), options = problem
    out, lse = hw.attention(q, k, v, return_lse=True, **options)
    # Some of these have one number for a result, where NumPy may be lucky: the floor is what
    # rounding the scores and values may do.
    shaping = ("scale", "softcap", "alibi_slopes", "query_offset", "key_lengths")
    scores = reference.scores(q, k, **{n: x for n, x in options.items() if n in shaping})
    scores = np.abs(scores[np.isfinite(scores)]).max(initial=1).astype(float)
    scores += 5 * (np.asarray(options.get("attn_mask")).dtype.kind not in "bO")
    if "softcap" in options:  # its own rounding is relative to what it caps, and to the cap
        scores += options["softcap"]
    scale = scores * float(np.abs(v).max(initial=1))
    assert_accurate(out, reference.attention, q, k, v, scale_of_errors=scale, **options)
    scale = scores + np.log(k.shape[-2] + 1)
    sums = lse_dtype(q.dtype)
    assert_accurate(lse, reference.logsumexp, q, k, dtype=sums, scale_of_errors=scale, **options)
    row = np.index_exp[-1:]  # the last entry alone: nothing of the others is in its bits
    alone = {name: of_last_entry(name, x, len(q)) for name, x in options.items()}
    assert_same_bits(hw.attention(q[row], k[row], v[row], **alone), out[row])


@pytest.mark.parametrize("fill", ["least of all", "of some"])
def test_masks_of_the_least_finite_number(isa, any_dtype, rng, fill):
    """A usual way to mask: a query that has nothing else attends all keys alike, as torch does."""
    q, k, v = qkv(rng, (1, 2, 2, 5, 150, 16, 16), any_dtype)
    for dtype in {any_dtype, np.dtype(lse_dtype(any_dtype))}:
        least = ml_dtypes.finfo(dtype).min
        mask = np.full((5, 150), least, dtype)
        if fill == "of some":
            mask[:, ::3] = 0
        out, lse = hw.attention(q, k, v, attn_mask=mask, return_lse=True)
        assert np.isfinite(lse).all()
        expected = hw.attention(q, k, v, attn_mask=mask == 0)
        if fill == "least of all" and dtype != np.float16:  # whose scores are not lost beside it
            expected = np.broadcast_to(v.astype(float).mean(2, keepdims=True), out.shape)
        elif fill == "least of all":
            expected = hw.attention(q, k, v)
        tolerance = 0.02 if any_dtype.itemsize == 2 else 1e-5
        np.testing.assert_allclose(out.astype(float), expected.astype(float), atol=tolerance)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("far", [2**39, 2**41, 2**50, 2**62])
def test_windows_as_far_away_as_the_queries(isa, rng, far, sign):
    q, k, v = qkv(rng, (1, 2, 2, 40, 70, 8, 8), np.float32)
    for left, right in ((3, 5), (40, 0)):
        near = hw.attention(q, k, v, query_offset=7, window=(left, right))
        # The same keys, counted from queries far behind or before.
        if sign > 0:
            got = hw.attention(q, k, v, query_offset=far, window=(far - 7 + left, None))
            some = hw.attention(q, k, v, query_offset=7, window=(left, None))
        else:
            got = hw.attention(q, k, v, query_offset=-far, window=(None, far + 7 + right))
            some = hw.attention(q, k, v, query_offset=7, window=(None, right))
        assert_same_bits(got, some)
        assert not np.array_equal(near, some)
