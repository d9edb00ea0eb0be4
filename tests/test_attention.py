"""Attention against the formula: every option, odd sizes, packed sequences, weights."""

from __future__ import annotations

import numpy as np
import pytest
import reference
from checks import ISAS_OF_ATTENTION, LAYOUTS, assert_accurate, assert_same_bits, run_python
from hypothesis import given
from hypothesis import strategies as st

import headwise as hw

ISAS = ISAS_OF_ATTENTION

# B, Hq, Hkv, Sq, Sk, D, Dv: around the tile of 64 rows, the blocks of 48 and 96 keys, the 16 lanes.
SHAPES = [
    (1, 1, 1, 1, 1, 1, 1),
    (2, 1, 1, 2, 3, 5, 7),
    (1, 2, 1, 16, 48, 16, 16),
    (1, 2, 2, 17, 49, 15, 17),
    (2, 4, 2, 33, 97, 33, 31),
    (1, 2, 2, 64, 96, 64, 64),
    (1, 1, 1, 65, 95, 65, 64),
    (1, 6, 2, 22, 193, 32, 80),
    (1, 5, 1, 13, 47, 72, 96),
    (1, 1, 1, 130, 131, 8, 4),
    (3, 2, 1, 1, 289, 40, 40),
    (1, 1, 1, 7, 100, 128, 1),
    (1, 2, 2, 6, 50, 1, 512),
    (1, 2, 1, 5, 97, 512, 130),
    (1, 1, 1, 3, 60, 257, 255),
]
MASKS = {
    "full": {},
    "causal": {"is_causal": True},
    "causal_top_left": {"is_causal": True, "query_offset": 0},
    "causal_some_rows_empty": {"is_causal": True, "query_offset": -3},
    "causal_all_rows_empty": {"is_causal": True, "query_offset": -1000},
    "causal_all_attended": {"is_causal": True, "query_offset": 1000},
    "offset_without_causal": {"query_offset": -5},
    "negative_scale": {"scale": -0.7},
    "zero_scale": {"scale": 0.0},
}


def draw(rng, shape, dtype):
    B, Hq, Hkv, Sq, Sk, D, Dv = shape
    sizes = (B, Hq, Sq, D), (B, Hkv, Sk, D), (B, Hkv, Sk, Dv)
    return tuple(rng.standard_normal(size).astype(dtype) for size in sizes)


def check_all(query, key, value, **options):
    """The output, its log-sum-exp and the weights are those of the formula."""
    out, lse = hw.attention(query, key, value, return_lse=True, **options)
    assert_accurate(out, reference.attention, query, key, value, **options)
    assert_accurate(lse, reference.logsumexp, query, key, **options)
    weights = hw.attention_weights(query, key, **options)
    assert_accurate(weights, reference.attention_weights, query, key, **options)
    assert_same_bits(hw.attention(query, key, value, **options), out)
    return out, lse, weights


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_formula(isa, dtype, rng, shape, mask):
    check_all(*draw(rng, shape, dtype), **MASKS[mask])


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("lengths", [[0, 1, 130], [97, 96, 95], [49, 48, 47], [130, 130, 130]])
def test_key_lengths(isa, dtype, rng, lengths, is_causal):
    q, k, v = draw(rng, (3, 2, 1, 34, 130, 20, 24), dtype)
    out, lse, weights = check_all(q, k, v, key_lengths=lengths, is_causal=is_causal)
    for b, length in enumerate(lengths):
        assert (weights[b, ..., length:] == 0).all()
        if length == 0:
            assert (out[b] == 0).all()
            assert np.isneginf(lse[b]).all()


def test_key_lengths_of_all_entries_by_one_number(rng):
    q, k, v = draw(rng, (3, 1, 1, 4, 9, 8, 8), np.float32)
    assert_same_bits(
        hw.attention(q, k, v, key_lengths=5), hw.attention(q, k, v, key_lengths=[5] * 3)
    )


def test_query_offset_of_each_entry(isa, rng):
    q, k, v = draw(rng, (3, 2, 2, 40, 110, 16, 16), np.float32)
    check_all(q, k, v, is_causal=True, query_offset=[0, 70, -20])
    check_all(q, k, v, is_causal=True, query_offset=[0, 70, -20], key_lengths=[110, 3, 99])


def test_scores_that_all_overflow_exp(isa, dtype):
    q = np.full((1, 1, 3, 4), 1e4, dtype)
    k = np.full((1, 1, 5, 4), 1e3, dtype)
    v = np.arange(5, dtype=dtype).reshape(1, 1, 5, 1)
    for sign in 1, -1:
        np.testing.assert_allclose(hw.attention(sign * q, k, v), 2, rtol=1e-6)


def test_attended_infinite_scores(isa, dtype):
    """A key at -inf gets exactly nothing; a row whose every score is -inf is 0, with lse -inf."""
    q = np.ones((1, 2, 1), dtype)
    k = np.array([[[-np.inf], [0.5], [-np.inf]]], dtype)
    v = np.array([[[7], [3], [9]]], dtype)
    assert_same_bits(hw.attention(q, k, v), np.full((1, 2, 1), 3, dtype))
    assert_same_bits(
        hw.attention_weights(q, k), np.broadcast_to(np.array([0, 1, 0], dtype), (1, 2, 3))
    )
    k[:] = -np.inf
    out, lse = hw.attention(q, k, v, return_lse=True)
    assert_same_bits(out, np.zeros((1, 2, 1), dtype))
    assert np.isneginf(lse).all()


def test_large_values(isa, dtype, rng):
    """Sums of probabilities far above 1, before they are divided, do not overflow."""
    q, k, v = draw(rng, (1, 1, 1, 128, 400, 64, 20), dtype)
    q[..., 0] = 1
    k[..., 0] = np.linspace(0, 200, 400)  # scores that rise by 25
    large = dtype(2.0**83 if dtype is np.float32 else 2.0**960)
    assert_same_bits(hw.attention(q, k, v * large), hw.attention(q, k, v) * large)


def test_two_dimensional(rng):
    q, k, v = (x[0, 0] for x in draw(rng, (1, 1, 1, 5, 7, 6, 3), np.float32))
    out, lse = hw.attention(q, k, v, return_lse=True)
    assert (out.shape, lse.shape) == ((5, 3), (5,))
    assert_same_bits(out, hw.attention(q[None], k[None], v[None])[0])
    assert_same_bits(hw.attention_weights(q, k), hw.attention_weights(q[None], k[None])[0])


@pytest.mark.parametrize(
    ("q_lead", "k_lead", "v_lead"),
    [
        ((), (), ()),
        ((3,), (1,), (1,)),
        ((1,), (3,), (3,)),
        ((), (3,), ()),
        ((2, 3), (2, 3), (2, 3)),
        ((2, 1), (3,), (1, 1)),
        ((2, 0), (1,), (2, 0)),
    ],
)
def test_leading_dimensions_broadcast(rng, q_lead, k_lead, v_lead):
    q = rng.standard_normal((*q_lead, 4, 5, 8)).astype(np.float32)
    k = rng.standard_normal((*k_lead, 2, 6, 8)).astype(np.float32)
    v = rng.standard_normal((*v_lead, 2, 6, 3)).astype(np.float32)
    lead = np.broadcast_shapes(q_lead, k_lead, v_lead)
    full = [np.broadcast_to(x, lead + x.shape[-3:]).copy() for x in (q, k, v)]
    out, lse = hw.attention(q, k, v, return_lse=True)
    assert (out.shape, lse.shape) == ((*lead, 4, 5, 3), (*lead, 4, 5))
    for at in np.ndindex(lead):
        alone, lse_alone = hw.attention(*(x[at] for x in full), return_lse=True)
        assert_same_bits(out[at], alone)
        assert_same_bits(lse[at], lse_alone)


@pytest.mark.parametrize("n", [(0, 2, 3, 4), (2, 2, 0, 4), (2, 2, 3, 0), (0, 2, 0, 0)], ids=str)
def test_nothing_to_do(dtype, n):
    """Empty batch, no queries, no keys: the right shapes, zeros and -inf."""
    B, H, Sq, Sk = n
    q, k, v = (np.ones(s, dtype) for s in ((B, H, Sq, 5), (B, H, Sk, 5), (B, H, Sk, 6)))
    for is_causal in False, True:
        out, lse = hw.attention(q, k, v, is_causal=is_causal, return_lse=True)
        assert_same_bits(out, np.zeros((B, H, Sq, 6), dtype))
        assert_same_bits(lse, np.full((B, H, Sq), -np.inf, dtype))
        assert_same_bits(hw.attention_weights(q, k), np.zeros((B, H, Sq, Sk), dtype))


def test_no_query_heads():
    x = np.ones((2, 1, 3, 4), np.float32)
    out, lse = hw.attention(x[:, :0], x, x, return_lse=True)
    assert (out.shape, lse.shape) == ((2, 0, 3, 4), (2, 0, 3))


OUTS = {
    "contiguous": np.empty,
    "rows_apart": lambda shape, dtype: np.empty((*shape[:-1], shape[-1] + 5), dtype)[..., 5:],
    "heads_last": lambda shape, dtype: np.empty(
        (shape[0], shape[2], shape[1], shape[3]), dtype
    ).swapaxes(1, 2),
    "backwards": lambda shape, dtype: np.empty(shape, dtype)[::-1, :, ::-1],
    "batch_inside": lambda shape, dtype: np.empty(
        (*shape[1:3], shape[0], shape[3]), dtype
    ).transpose(2, 0, 1, 3),
}


@pytest.mark.parametrize("layout", OUTS)
def test_out(dtype, rng, layout):
    """`out` is what is returned, holds the same bits, and nothing around it changes."""
    q, k, v = draw(rng, (3, 2, 2, 5, 9, 8, 7), dtype)
    expected, expected_lse = hw.attention(q, k, v, return_lse=True)
    out = OUTS[layout](expected.shape, dtype)
    base = out if out.base is None else out.base
    base[...] = -1
    result, lse = hw.attention(q, k, v, out=out, return_lse=True)
    assert result is out
    assert_same_bits(out, expected)
    assert_same_bits(lse, expected_lse)
    assert (base == -1).sum() == base.size - out.size


def test_out_with_leading_axes_that_do_not_merge(rng):
    q, k, v = draw(rng, (6, 2, 2, 5, 9, 8, 8), np.float32)
    expected = hw.attention(q, k, v).reshape(2, 3, 2, 5, 8)
    out = np.empty((2, 7, 2, 5, 8), np.float32)[:, ::-2][:, :3]
    assert hw.attention(*(x.reshape(2, 3, *x.shape[1:]) for x in (q, k, v)), out=out) is out
    assert_same_bits(out, expected)


def split(lengths):
    return np.concatenate([[0], np.cumsum(lengths, dtype=int)])


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize(
    ("queries", "keys"),
    [
        ([70, 1, 0, 64, 13], None),
        ([5, 0, 30, 3], [0, 7, 99, 3]),
        ([0, 0], [4, 0]),
        ([3], [200]),
        ([], []),
    ],
)
def test_varlen(isa, dtype, rng, queries, keys, is_causal):
    """Each packed sequence is what it is alone, to the bit, in both outputs."""
    cu_q, cu_k = split(queries), split(queries if keys is None else keys)
    q = rng.standard_normal((cu_q[-1], 4, 24)).astype(dtype)
    k = rng.standard_normal((cu_k[-1], 2, 24)).astype(dtype)
    v = rng.standard_normal((cu_k[-1], 2, 10)).astype(dtype)
    given_k = None if keys is None else cu_k
    out, lse = hw.attention_varlen(q, k, v, cu_q, given_k, is_causal=is_causal, return_lse=True)
    assert (out.shape, lse.shape) == ((len(q), 4, 10), (4, len(q)))
    for b in range(len(queries)):
        rows, columns = slice(*cu_q[b : b + 2]), slice(*cu_k[b : b + 2])
        alone = [x.swapaxes(0, 1) for x in (q[rows], k[columns], v[columns])]
        expected, expected_lse = hw.attention(*alone, is_causal=is_causal, return_lse=True)
        assert_same_bits(out[rows].swapaxes(0, 1), expected)
        assert_same_bits(lse[:, rows], expected_lse)
        assert_accurate(expected, reference.attention, *alone, is_causal=is_causal)


def test_varlen_offsets_and_out(rng):
    cu = split([6, 9])
    q, k, v = (rng.standard_normal((15, 2, 8)).astype(np.float32) for _ in range(3))
    out = np.empty((2, 15, 8), np.float32).swapaxes(0, 1)
    options = {"is_causal": True, "scale": 0.3}
    assert hw.attention_varlen(q, k, v, cu, query_offset=[0, -4], out=out, **options) is out
    for b, offset in enumerate([0, -4]):
        alone = [x[cu[b] : cu[b + 1]].swapaxes(0, 1) for x in (q, k, v)]
        expected = hw.attention(*alone, query_offset=offset, **options)
        assert_same_bits(out[cu[b] : cu[b + 1]].swapaxes(0, 1), expected)


@pytest.mark.parametrize(("queries", "keys"), [(60_000, 2_000), (2_000, 60_000), (1, 1_000_000)])
def test_memory_does_not_grow_with_the_lengths(queries, keys):
    """The matrix of scores would take 480 MB; 2 threads may take 2 MB each."""
    code = f"""
import resource
import numpy as np, headwise as hw
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # kB on Linux, bytes elsewhere
q, k = np.ones((1, {queries}, 16), np.float32), np.ones((1, {keys}, 16), np.float32)
out = np.zeros_like(q)
hw.attention(q[:, :200], k[:, :200], k[:, :200], out=out[:, :200])
before = peak()
hw.attention(q, k, k, out=out, is_causal=True)
print(peak() - before)
"""
    assert int(run_python(code, HEADWISE_NUM_THREADS="2")) < 6_000


@st.composite
def problems(draw):
    """Any shapes, layouts, dtype and mask."""
    size = lambda most: st.integers(1, most)  # noqa: E731
    B, Hkv, group = draw(size(3)), draw(size(2)), draw(size(3))
    Sq, Sk = draw(st.integers(0, 70)), draw(st.integers(0, 200))
    D, Dv = draw(size(70)), draw(size(40))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    arrays = [
        LAYOUTS[draw(st.sampled_from(sorted(LAYOUTS)))](rng.standard_normal(s).astype(dtype))
        for s in ((B, Hkv * group, Sq, D), (B, Hkv, Sk, D), (B, Hkv, Sk, Dv))
    ]
    options = {"is_causal": draw(st.booleans())}
    if draw(st.booleans()):
        options["query_offset"] = draw(st.lists(st.integers(-80, 210), min_size=B, max_size=B))
    if draw(st.booleans()):
        options["key_lengths"] = draw(st.lists(st.integers(0, Sk), min_size=B, max_size=B))
    if draw(st.booleans()):
        options["scale"] = draw(st.floats(-2, 2))
    return arrays, options


@given(problem=problems())
def test_any_problem(isa, threads, problem):
    (q, k, v), options = problem
    out, lse = hw.attention(q, k, v, return_lse=True, **options)
    # Some of these have one number for a result, where NumPy may be lucky: the floor is what
    # rounding the scores and values may do.
    scores = np.abs(reference.scores(q, k, scale=options.get("scale"))).max(initial=1)
    scale = scores * np.abs(v).max(initial=1)
    assert_accurate(out, reference.attention, q, k, v, scale_of_errors=scale, **options)
    scale = scores + np.log(k.shape[-2] + 1)
    assert_accurate(lse, reference.logsumexp, q, k, scale_of_errors=scale, **options)
    row = np.index_exp[-1:]  # the last entry alone: nothing of the others is in its bits
    alone = {k: v if np.ndim(v) == 0 else v[-1:] for k, v in options.items()}
    assert_same_bits(hw.attention(q[row], k[row], v[row], **alone), out[row])
