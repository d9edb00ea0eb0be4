"""The numerics contract of attention: which bits depend on what, and what never leaks.

Each test computes the same rows in two ways and compares them to the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import ml_dtypes
import numpy as np
import pytest
import reference
from checks import ISAS_OF_ATTENTION, LAYOUTS, assert_same_bits, lse_dtype

import headwise as hw

ISAS = ISAS_OF_ATTENTION

# The 2 x 37 rows that share a key head are more than a tile's 64.
B, HQ, HKV, SQ, SK, D, DV = 3, 4, 2, 37, 205, 24, 20


@dataclass(frozen=True)
class Problem:
    """One call. Options have their full shapes: (B, HQ, SQ, SK), (B, HQ), (HQ,) and (B,)."""

    q: np.ndarray
    k: np.ndarray
    v: np.ndarray
    options: dict

    @property
    def arrays(self):
        return self.q, self.k, self.v

    def run(self):
        """The output, its log-sum-exp and the weights."""
        out, lse = hw.attention(*self.arrays, return_lse=True, **self.options)
        return out, lse, hw.attention_weights(self.q, self.k, **self.options)

    def given(self, **options):
        return replace(self, options=self.options | options)

    def where(self, name, change):
        """The same with one option changed, if it has it."""
        return self.given(**{name: change(self.options[name])}) if name in self.options else self

    def batch(self, b):
        part = Problem(*(x[b] for x in self.arrays), self.options)
        for name in "attn_mask", "alibi_slopes", "query_offset", "key_lengths":
            part = part.where(name, lambda x: x[b])
        return part

    def head(self, h):
        g = h // (self.q.shape[1] // self.k.shape[1])
        one, of_keys = np.s_[:, h : h + 1], np.s_[:, g : g + 1]
        part = Problem(self.q[one], self.k[of_keys], self.v[of_keys], self.options)
        for name in "attn_mask", "alibi_slopes":
            part = part.where(name, lambda x: x[one])
        return part.where("sinks", lambda x: x[h : h + 1])

    def rows(self, first, last):
        part = replace(self, q=self.q[:, :, first:last])
        part = part.where("attn_mask", lambda x: x[:, :, first:last])
        return part.where("query_offset", lambda x: x + first)

    def keys(self, n):
        part = replace(self, k=self.k[..., :n, :], v=self.v[..., :n, :])
        return part.where("attn_mask", lambda x: x[..., :n])


def mixed_options(rng, mask, shape, dtype):
    """All options at once, with rows and whole blocks of keys that are masked."""
    B, Hq, Sq, Sk = shape
    attended = rng.random(shape) < 0.8
    attended[:, :, ::5, 96:192] = False
    attended[:, 0, 2] = False
    sums = lse_dtype(dtype)
    options = {
        "softcap": 5.0,
        "alibi_slopes": (rng.random((B, Hq)) / 16).astype(sums),
        "sinks": np.append(rng.standard_normal(Hq - 1), -np.inf).astype(sums),
        "query_offset": np.array([Sk - Sq, Sk // 2, -1]),
    }
    if mask == "mixed_bool":
        return options | {"attn_mask": attended, "window": (Sk * 2 // 3, 30)}
    # Float masks have the query's dtype, or float32 beside 16 bits.
    mask_dtype = sums if dtype == ml_dtypes.bfloat16 else dtype
    float_mask = np.where(attended, rng.standard_normal(shape), -np.inf).astype(mask_dtype)
    lengths = np.array([Sk, Sk * 3 // 4, 97])
    causal = {"is_causal": True, "scale": 0.3, "key_lengths": lengths}
    return options | causal | {"attn_mask": float_mask}


def problem_of(kind, mask, dtype):
    rng = np.random.default_rng(7)
    Hq, Hkv, Sq, Sk, dim, value_dim = HQ, HKV, SQ, SK, D, DV
    if kind == "wide":  # more than a chain of products, and more than a register tile of columns
        dim, value_dim = 400, 100
    if kind == "long":  # keys in more than one part of 1024
        Hq, Hkv, Sq, Sk = 2, 1, 3, 2100
    if kind in ("blocks", "rising"):  # whole blocks of keys after the first
        Sk = 400
    sizes = (B, Hq, Sq, dim), (B, Hkv, Sk, dim), (B, Hkv, Sk, value_dim)
    q, k, v = (rng.standard_normal(size) for size in sizes)
    if kind == "rising":  # a block's largest scores are far above those before, in some rows
        k *= np.linspace(0.1, 16, Sk)[:, None]
    if kind == "infinite":  # the first scores, by which the others would be measured, are -inf
        q[..., 0], k[..., :7, 0] = np.abs(q[..., 0]), -np.inf
    if kind == "sharp":  # most probabilities underflow to 0
        q *= 60
    if kind == "tiny":  # products underflow, some of them to -0
        v = -np.abs(v) * float(ml_dtypes.finfo(dtype).smallest_subnormal) * 2
    options = {"is_causal": True, "query_offset": np.full(B, Sk - Sq)} if mask == "causal" else {}
    if mask.startswith("mixed"):
        options = mixed_options(rng, mask, (B, Hq, Sq, Sk), dtype)
    return Problem(*(x.astype(dtype) for x in (q, k, v)), options)


PROBLEMS = [
    ("normal", "full"),
    ("normal", "causal"),
    ("normal", "mixed_bool"),
    ("normal", "mixed_float"),
    ("blocks", "full"),
    ("blocks", "causal"),
    ("rising", "full"),
    ("rising", "causal"),
    ("wide", "causal"),
    ("infinite", "full"),
    ("infinite", "causal"),
    ("sharp", "full"),
    ("sharp", "mixed_float"),
    ("tiny", "full"),
    ("tiny", "causal"),
    ("tiny", "mixed_bool"),
    ("long", "full"),
    ("long", "mixed_bool"),
    ("long", "mixed_float"),
]


@pytest.fixture(params=PROBLEMS, ids="-".join)
def problem(request, any_dtype):
    return problem_of(*request.param, any_dtype)


@pytest.fixture(params=["full", "causal", "mixed_bool", "mixed_float"])
def normal_problem(request, any_dtype):
    return problem_of("normal", request.param, any_dtype)


def of_scores(options):
    return {name: x for name, x in options.items() if name != "sinks"}


def assert_all_same(got, expected, at=...):
    for x, y in zip(got, expected, strict=True):
        assert_same_bits(x, y[at])


def test_place_in_the_batch(isa, problem):
    whole = problem.run()
    for b in range(B):
        assert_all_same(problem.batch(np.s_[b : b + 1]).run(), whole, np.s_[b : b + 1])
    order = [2, 0, 1, 1, 2]
    assert_all_same(problem.batch(order).run(), whole, order)


def test_what_else_is_in_the_batch(isa, problem):
    whole = problem.run()
    spoiled = replace(problem, **{name: getattr(problem, name).copy() for name in "qkv"})
    most = ml_dtypes.finfo(problem.q.dtype).max
    for x, junk in zip(spoiled.arrays, (np.nan, np.inf, -np.inf), strict=True):
        x[0], x[2] = junk, most
    assert_all_same((x[1] for x in spoiled.run()), whole, 1)


def test_heads_apart(isa, problem):
    """Query heads that share a key head share tiles; alone they have the same bits."""
    whole = problem.run()
    heads, kv_heads = problem.q.shape[1], problem.k.shape[1]
    for h in range(heads):
        assert_all_same(problem.head(h).run(), whole, np.s_[:, h : h + 1])
    k, v = (x.repeat(heads // kv_heads, 1) for x in problem.arrays[1:])
    assert_all_same(replace(problem, k=k, v=v).run(), whole)


def test_many_heads(isa, threads, any_dtype):
    """A thread then takes whole heads, of some tiles each: the bits are those of each alone."""
    rng = np.random.default_rng(8)
    q, k, v = (rng.standard_normal((2, 17, 300, 8)).astype(any_dtype) for _ in "qkv")
    problem = Problem(q, k, v, {"is_causal": True})
    whole = problem.run()
    for h in 0, 8, 16:
        alone = problem.batch(np.s_[1:]).head(h).run()
        assert_all_same(alone, whole, np.s_[1:, h : h + 1])


@pytest.mark.parametrize("group", [5, 6, 7, 8, 9, 17])
def test_decoding_in_groups(isa, any_dtype, group):
    """Up to some number of rows keys are lanes, beyond it queries: no bit depends on it."""
    rng = np.random.default_rng(9)
    sizes = (1, group, 1, 40), (1, 1, 300, 40), (1, 1, 300, 40)
    problem = Problem(*(rng.standard_normal(size).astype(any_dtype) for size in sizes), {})
    whole = problem.run()
    for h in range(group):
        assert_all_same(problem.head(h).run(), whole, np.s_[:, h : h + 1])


@pytest.mark.parametrize("padding", [1, 12, 300])
def test_padding(isa, problem, padding):
    """Keys past key_lengths are not even read: they, and their place in the mask, are NaN here."""
    n = problem.k.shape[2]
    lengths = problem.options.get("key_lengths", n)
    pad = [(0, 0), (0, 0), (0, padding), (0, 0)]
    k, v = (np.pad(x, pad, constant_values=np.nan) for x in problem.arrays[1:])
    padded = replace(problem, k=k, v=v).given(key_lengths=lengths)
    pad = [(0, 0), (0, 0), (0, 0), (0, padding)]
    junk = True if "window" in problem.options else np.nan  # beside a mask of bools, or of floats
    padded = padded.where("attn_mask", lambda x: np.pad(x, pad, constant_values=junk))
    out, lse, weights = padded.run()
    assert_all_same((out, lse, weights[..., :n]), problem.run())
    assert (weights[..., n:] == 0).all()


@pytest.mark.parametrize("lengths", [[205, 1, 96], [97, 0, 48]])
def test_padding_of_different_lengths(isa, problem, lengths):
    out, lse, weights = problem.given(key_lengths=lengths).run()
    for b, n in enumerate(lengths):
        alone = problem.batch(np.s_[b : b + 1]).keys(n).given(key_lengths=n)
        at = np.s_[b : b + 1]
        assert_all_same(alone.run(), (out[at], lse[at], weights[at, ..., :n]))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_strides(isa, normal_problem, layout):
    laid_out = LAYOUTS[layout]
    laid = [laid_out(x) for x in normal_problem.arrays]
    for x, y in zip(laid, normal_problem.arrays, strict=True):
        np.testing.assert_array_equal(x, y)
    other = Problem(*laid, normal_problem.options).where("attn_mask", laid_out)
    assert_all_same(other.run(), normal_problem.run())


def test_broadcast_strides(isa, normal_problem):
    q, k, v = normal_problem.arrays
    k, v = (np.broadcast_to(x[1:2, :1], x.shape) for x in (k, v))
    assert 0 in k.strides
    shared = replace(normal_problem, k=k, v=v)
    assert_all_same(replace(shared, k=k.copy(), v=v.copy()).run(), shared.run())
    rows = [np.broadcast_to(x[:, :, :1], x.shape) for x in (q, k, v)]
    same_rows = Problem(*rows, normal_problem.options)
    copied = Problem(*(x.copy() for x in rows), normal_problem.options)
    assert_all_same(copied.run(), same_rows.run())


@pytest.mark.parametrize("chunk", [1, 2, 13, 32])
def test_query_chunks(isa, problem, chunk):
    whole = problem.run()
    queries = problem.q.shape[2]
    for i in range(0, queries, chunk if queries > 3 else 1):
        part = problem.rows(i, i + chunk).run()
        assert_all_same(part, whole, np.s_[:, :, i : i + chunk])


@pytest.mark.parametrize("first", [0, -10])
def test_query_chunks_of_other_offsets(isa, any_dtype, first):
    for kind, mask in ("normal", "causal"), ("tiny", "mixed_float"):
        problem = problem_of(kind, mask, any_dtype).given(query_offset=np.full(B, first))
        whole = problem.run()
        for i in range(0, SQ, 7):
            assert_all_same(problem.rows(i, i + 7).run(), whole, np.s_[:, :, i : i + 7])


@pytest.mark.parametrize("layout", ["heads first", "rows first"])
@pytest.mark.parametrize("options", [{}, {"softcap": 3}], ids=["plain", "softcap"])
def test_few_queries_of_many_keys(isa, any_dtype, rng, layout, options):
    """Up to 8 rows go another way: here over two splits of the keys, the last of no whole block."""
    for kv_heads, group, dim in (2, 1, 64), (1, 3, 80), (2, 2, 130):
        k, v = rng.normal(size=(2, 1, kv_heads, 1101, dim)).astype(any_dtype)
        if layout == "rows first":
            k, v = (np.ascontiguousarray(x.swapaxes(1, 2)).swapaxes(1, 2) for x in (k, v))
        q = (3 * rng.normal(size=(1, kv_heads * group, 70, dim))).astype(any_dtype)
        given = options | {"is_causal": True, "return_lse": True}
        out, lse = hw.attention(q, k, v, query_offset=1031, **given)
        for first, count in (0, 1), (1, 2), (11, 8), (69, 1):
            rows = np.s_[:, :, first : first + count]
            few, few_lse = hw.attention(q[rows], k, v, query_offset=1031 + first, **given)
            assert_same_bits(few, out[rows])
            assert_same_bits(few_lse, lse[rows])


@pytest.mark.parametrize("keys", [333, 4401])
def test_tiles_that_share_values(isa, any_dtype, rng, keys):
    """Later tiles of a head may use what earlier ones made of its values; a short call has one.

    The last tile comes first. Blocks of which a tile needs a part, and more of them than are kept.
    """
    q, k, v = (rng.normal(size=(2, n, 24)).astype(any_dtype) for n in (260, keys, keys))
    for offset in 71, 72, keys - 260:
        for window in (None, 0), (100, 0), (33, 0):
            given = {"query_offset": offset, "window": window}
            whole = Problem(q, k, v, given).run()
            for first in 0, 63, 196:
                rows = np.s_[:, first : first + 64]
                part = given | {"query_offset": offset + first}
                assert_all_same(Problem(q[rows], k, v, part).run(), whole, rows)


def test_tiles_that_share_values_hide_what_follows(isa, any_dtype, rng):
    """Each query's heads are a tile. The first attends an odd number of keys: NaN follow."""
    q = rng.normal(size=(64, 4, 24)).astype(any_dtype)
    k, v = rng.normal(size=(2, 1, 200, 24)).astype(any_dtype)
    v[:, 197:] = np.nan
    out = hw.attention(q, k, v, is_causal=True)
    assert_same_bits(out[:, :1], hw.attention(q[:, :1], k[:, :197], v[:, :197]))
    assert np.isnan(out[:, 1:].astype(np.float32)).all()


MASKS = {
    "random": lambda rng: rng.random((150, 400)) < 0.8,
    "not the first keys": lambda rng: (rng.random((150, 400)) < 0.8) & (np.arange(400) > 9),
    "not the first block": lambda rng: np.arange(400) > 130 * (np.arange(150)[:, None] == 70),
    "keys alone": lambda rng: rng.random((1, 400)) < 0.8,
    "padding": lambda rng: np.broadcast_to(np.arange(400) < 297, (150, 400)),
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("kind", ["even", "rising"])
def test_masked_tiles(isa, any_dtype, rng, mask, kind):
    """Whole tiles mask scores in registers, and leave out a float mask that is of zeros."""
    q, k, v = (rng.normal(size=(2, n, 24)) for n in (150, 400, 400))
    if kind == "rising":
        k *= np.linspace(0.1, 16, 400)[:, None]
    attended = MASKS[mask](rng)
    lowest = np.where(attended, 0, ml_dtypes.finfo(any_dtype).min).astype(any_dtype)
    hidden = np.where(attended, 0, -np.inf).astype(any_dtype)
    bias = np.where(np.arange(400) < 256, 0, rng.normal(size=(150, 400)))
    bias = np.where(attended, bias, -np.inf).astype(any_dtype)
    window = {"query_offset": 250, "window": (220, None)}
    masks = [{"attn_mask": x} for x in (attended, hidden, lowest, bias)]
    for options in *masks, window:
        problem = Problem(*(x.astype(any_dtype) for x in (q, k, v)), options)
        whole = problem.run()
        for first, last in (0, 40), (40, 80), (68, 72), (83, 143), (30, 94), (130, 150):
            rows = np.s_[first:last]
            part = replace(problem, q=problem.q[:, rows])
            if options is window:
                part = part.given(query_offset=250 + first)
            elif options["attn_mask"].shape[0] > 1:
                part = part.given(attn_mask=options["attn_mask"][rows])
            assert_all_same(part.run(), whole, np.s_[:, rows])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_masks_that_say_the_same(isa, rng, dtype):
    q, k, v = rng.normal(size=(3, 2, 130, 24)).astype(dtype)
    none = Problem(q, k, v, {}).run()
    for mask in np.zeros((130, 130), dtype), np.zeros((1, 130), dtype), np.ones((130, 130), bool):
        assert_all_same(Problem(q, k, v, {"attn_mask": mask}).run(), none)
    for mask in rng.random((130, 130)) < 0.8, np.arange(130)[None] < 97:
        of_bools = Problem(q, k, v, {"attn_mask": mask})
        of_floats = of_bools.given(attn_mask=np.where(mask, 0, -np.inf).astype(dtype))
        assert_all_same(of_floats.run(), of_bools.run())
    shorter = Problem(q, k, v, {"key_lengths": 97})
    assert_all_same(of_bools.run(), shorter.run())


@pytest.mark.parametrize(("heads", "group", "queries"), [(24, 1, 55), (12, 3, 140)])
def test_more_than_a_shared_cache_holds(isa, any_dtype, rng, heads, group, queries):
    """The next tile is asked for meanwhile, wherever it lies. Tiles of 49 rows and more."""
    shape = 12, queries, heads
    q = rng.normal(size=(*shape, 64)).astype(any_dtype).swapaxes(1, 2)
    k, v = rng.normal(size=(2, *shape[:2], heads // group, 64)).astype(any_dtype).swapaxes(2, 3)
    out, lse = hw.attention(q, k, v, return_lse=True)
    for b, h in (0, 0), (5, heads - 1), (11, 7):
        one, of_keys = np.s_[b, h : h + 1], np.s_[b, h // group : h // group + 1]
        part, part_lse = hw.attention(q[one], k[of_keys], v[of_keys], return_lse=True)
        assert_same_bits(out[one], part)
        assert_same_bits(lse[one], part_lse)
    row = np.s_[7, 2:3, queries - 1 :]
    assert_same_bits(out[row], hw.attention(q[row], k[7, 2 // group][None], v[7, 2 // group][None]))


def test_packed_or_dense(isa, problem):
    dense_only = "attn_mask", "key_lengths"
    options = {name: x for name, x in problem.options.items() if name not in dense_only}
    options["return_lse"] = True
    out, lse = hw.attention(*problem.arrays, **options)
    q, k, v = (x.swapaxes(1, 2).reshape(-1, x.shape[1], x.shape[3]) for x in problem.arrays)
    heads, queries, keys = problem.q.shape[1], problem.q.shape[2], problem.k.shape[2]
    cu_q, cu_k = np.arange(B + 1) * queries, np.arange(B + 1) * keys
    packed, packed_lse = hw.attention_varlen(q, k, v, cu_q, cu_k, **options)
    assert_same_bits(packed.reshape(B, queries, heads, -1).swapaxes(1, 2), out)
    assert_same_bits(packed_lse.reshape(heads, B, queries).swapaxes(0, 1), lse)


def test_threads_and_runs(isa, problem):
    before = hw.get_num_threads()
    try:
        hw.set_num_threads(1)
        whole = problem.run()
        alone = problem.batch(np.s_[:1])  # fewer tiles than threads
        for n in 1, 2, 3, 8, 8:
            hw.set_num_threads(n)
            assert_all_same(problem.run(), whole)
            assert_all_same(alone.run(), whole, np.s_[:1])
    finally:
        hw.set_num_threads(before)


def test_one_long_row(isa, any_dtype):
    """As in decoding: one query, keys in parts that any number of threads may share."""
    rng = np.random.default_rng(5)
    q, k, v = (rng.standard_normal((1, n, 64)).astype(any_dtype) for n in (1, 9000, 9000))
    mask = rng.random((1, 9000)) < 0.9
    mask[:, 960:1920] = False
    before = hw.get_num_threads()
    try:
        for options in {}, {"attn_mask": mask}, {"window": (5000, 0)}, {"key_lengths": 2881}:
            hw.set_num_threads(1)
            whole = Problem(q, k, v, options).run()
            for n in 2, 3, 8:
                hw.set_num_threads(n)
                assert_all_same(Problem(q, k, v, options).run(), whole)
    finally:
        hw.set_num_threads(before)


def test_rows_that_attend_nothing(isa, any_dtype):
    """They are 0, and -inf; the rows beside them in the tile are what they are elsewhere."""
    for kind in "normal", "sharp", "tiny":
        problem = problem_of(kind, "causal", any_dtype).given(query_offset=np.full(B, -20))
        out, lse, weights = problem.run()
        assert_same_bits(out[:, :, :20], np.zeros_like(out[:, :, :20]))
        assert_same_bits(weights[:, :, :20], np.zeros_like(weights[:, :, :20]))
        assert np.isneginf(lse[:, :, :20]).all()
        rest = problem.rows(20, SQ).run()
        assert_all_same(rest, (out, lse, weights), np.s_[:, :, 20:])


def test_rows_whose_mask_is_empty(isa, any_dtype):
    """By a mask of any kind, 0 and -inf; with a sink, 0 and the sink."""
    problem = problem_of("normal", "full", any_dtype)
    attended = np.random.default_rng(1).random((SQ, SK)) < 0.5
    attended[[0, 5, 36]] = False
    of_floats = np.where(attended, 0, -np.inf).astype(any_dtype)
    sinks = np.array([0.5, -np.inf, 3, -200], lse_dtype(any_dtype))
    for mask in attended, of_floats:
        out, lse, weights = problem.given(attn_mask=mask).run()
        for x in out, weights:
            assert_same_bits(x[:, :, [0, 5, 36]], np.zeros_like(x[:, :, [0, 5, 36]]))
        assert np.isneginf(lse[:, :, [0, 5, 36]]).all()
        assert np.isfinite(np.delete(lse, [0, 5, 36], axis=2)).all()
        out, lse, weights = problem.given(attn_mask=mask, sinks=sinks).run()
        for x in out, weights:
            assert_same_bits(x[:, :, [0, 5, 36]], np.zeros_like(x[:, :, [0, 5, 36]]))
        np.testing.assert_allclose(
            lse[:, :, [0, 5, 36]], np.broadcast_to(sinks[:, None], (B, HQ, 3)), rtol=1e-6
        )


JUNK = np.nan, np.inf, -np.inf
HIDERS = "bool", "float", "causal", "window_left", "window_right", "key_lengths", "all"


def hiding(how, queries, keys, first, dtype):
    """Options, and the (Sq, Sk) pairs that they leave."""
    i, j = np.arange(queries)[:, None] + first, np.arange(keys)
    random = np.random.default_rng(11).random((queries, keys)) < 0.5
    floats = np.where(random, 0.5, -np.inf).astype(dtype)
    offset = {"query_offset": first}
    if how == "bool":
        return {"attn_mask": random}, random
    if how == "float":
        return {"attn_mask": floats}, random
    if how == "causal":
        return offset | {"is_causal": True}, j <= i
    if how == "window_left":
        return offset | {"window": (10, None)}, j >= i - 10
    if how == "window_right":
        return offset | {"window": (None, 5)}, j <= i + 5
    n = first + 8
    if how == "key_lengths":
        return offset | {"key_lengths": n}, np.broadcast_to(j < n, (queries, keys))
    options = {"attn_mask": floats, "is_causal": True, "window": (30, 1), "key_lengths": n}
    options |= {"softcap": 3.0, "sinks": np.zeros(2, lse_dtype(dtype))}
    return offset | options, random & (j <= i) & (j >= i - 30) & (j < n)


@pytest.mark.parametrize(
    ("queries", "first", "places"),
    [
        (37, 92, (0, 1, 47, 48, 92, 95, 96, 97, 99, 100, 101, 128, 129)),
        (3, 957, (0, 95, 957, 958, 959, 960, 961, 1055, 1056)),
    ],
    ids=["blocks", "parts"],
)
@pytest.mark.parametrize("spoiled", ["k", "v"])
@pytest.mark.parametrize("how", HIDERS)
def test_what_is_masked_is_hidden(isa, any_dtype, how, spoiled, queries, first, places):
    """Junk at key j leaves every row that does not attend j as it was; NaN reaches all others."""
    rng = np.random.default_rng(3)
    keys = places[-1] + 1
    sizes = (1, 2, queries, D), (1, 1, keys, D), (1, 1, keys, DV)
    options, attended = hiding(how, queries, keys, first, any_dtype)
    clean = Problem(*(rng.standard_normal(size).astype(any_dtype) for size in sizes), options)
    expected = clean.run()
    columns = slice(5, 7)
    others = [c for c in range(DV) if c not in (5, 6)]
    for j in places:
        hidden = np.s_[:, :, ~attended[:, j]]
        seen = np.s_[:, :, attended[:, j]]
        for junk in JUNK:
            array = getattr(clean, spoiled).copy()
            array[:, :, j, columns] = junk
            out, lse, weights = got = replace(clean, **{spoiled: array}).run()
            assert_all_same((x[hidden] for x in got), expected, hidden)
            if spoiled == "v":  # in its own columns alone
                assert_all_same((lse, weights), expected[1:])
                reached = out[seen][..., columns]
                assert_same_bits(reached, np.full_like(reached, junk))
                assert_same_bits(out[seen][..., others], expected[0][seen][..., others])
            elif np.isnan(junk):
                assert np.isnan(out[seen]).all()
                assert np.isnan(lse[seen]).all()
                assert np.isnan(weights[seen][..., attended[attended[:, j]]]).all()
                assert (weights[seen][..., ~attended[attended[:, j]]] == 0).all()


@pytest.mark.parametrize("how", ["causal", "window_left", "window_right", "key_lengths"])
def test_the_float_mask_of_what_is_masked_is_hidden(isa, any_dtype, how):
    """It may hold NaN where a window or a length hides the key; else NaN reaches its row."""
    problem = problem_of("normal", "full", any_dtype)
    options, attended = hiding(how, SQ, SK, 92, any_dtype)
    mask = np.zeros((SQ, SK), any_dtype)
    clean = problem.given(attn_mask=mask, **options).run()
    junk = np.where(attended, mask, np.nan).astype(any_dtype)
    assert_all_same(problem.given(attn_mask=junk, **options).run(), clean)
    junk[7, 90] = np.nan
    assert attended[7, 90]
    got = problem.given(attn_mask=junk, **options).run()
    assert all(np.isnan(x[:, :, 7]).any(-1).all() for x in (got[0], got[2]))
    others = np.s_[:, :, np.arange(SQ) != 7]
    assert_all_same((x[others] for x in got), clean, others)


@pytest.mark.parametrize("n", [1, 48, 95, 96, 97, 204])
def test_key_lengths_hide(isa, normal_problem, n):
    problem = normal_problem.given(key_lengths=n)
    clean = problem.run()
    for junk in JUNK[:2]:
        k, v = (x.copy() for x in problem.arrays[1:])
        k[:, :, n:] = v[:, :, n:] = junk
        assert_all_same(replace(problem, k=k, v=v).run(), clean)


@pytest.mark.parametrize("chunk", [37, 9])
def test_junk_query_spoils_its_row_alone(isa, normal_problem, chunk):
    clean = normal_problem.run()
    scores = reference.scores(*normal_problem.arrays[:2], **of_scores(normal_problem.options))
    attended = ~np.isneginf(scores)
    bad = [3, 20, 36]
    q = normal_problem.q.copy()
    q[:, :, bad, 11] = np.nan
    for i in range(0, SQ, chunk):
        part = replace(normal_problem, q=q).rows(i, i + chunk).run()
        for row in range(i, min(SQ, i + chunk)):
            got = out, lse, weights = [x[:, :, row - i] for x in part]
            if row not in bad:
                assert_all_same(got, clean, np.s_[:, :, row])
                continue
            attends = attended[:, :, row]  # an empty row stays 0
            assert np.isnan(out[attends.any(-1)]).all()
            assert np.isnan(lse[attends.any(-1)]).all()
            assert np.isnan(weights[attends]).all()
            assert (weights[~attends] == 0).all()


def test_infinite_key_is_weighed_as_its_score_says(isa, any_dtype):
    """A score of -inf weighs nothing, one of +inf is NaN; other rows are untouched."""
    q = np.ones((1, 3, 2), any_dtype)
    q[0, 1] = -1
    k, v = np.zeros((1, 100, 2), any_dtype), np.ones((1, 100, 2), any_dtype)
    k[0, 50] = -np.inf
    out = hw.attention(q, k, v).astype(float)
    np.testing.assert_allclose(out[0, [0, 2]], 1, rtol=ml_dtypes.finfo(any_dtype).eps)
    assert np.isnan(out[0, 1]).all()


def test_masked_keys_of_infinite_score(isa, any_dtype):
    """A mask of -inf wins over a score of +inf."""
    rng = np.random.default_rng(2)
    q, k, v = (abs(rng.standard_normal((1, n, 8))).astype(any_dtype) for n in (3, 100, 100))
    mask = np.zeros((3, 100), any_dtype)
    mask[:, 50] = -np.inf
    clean = Problem(q, k, v, {"attn_mask": mask}).run()
    k[0, 50] = np.inf
    assert_all_same(Problem(q, k, v, {"attn_mask": mask}).run(), clean)
    assert_all_same(Problem(q, k, v, {"attn_mask": mask == 0}).run(), clean)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_inputs_are_not_written(isa, any_dtype, threads, layout):
    problem = problem_of("normal", "mixed_float", any_dtype)
    given = [LAYOUTS[layout](x) for x in (*problem.arrays, problem.options["attn_mask"])]
    problem = Problem(*given[:3], problem.options).given(attn_mask=given[3])
    given += [x for x in problem.options.values() if isinstance(x, np.ndarray)]
    bases = [x if x.base is None else x.base for x in given]
    before = [x.tobytes() for x in bases]
    problem.run()
    assert [x.tobytes() for x in bases] == before
