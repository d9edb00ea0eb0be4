"""Worked numbers of textbooks, recomputed: a published number may be wrong."""

from __future__ import annotations

import math

import numpy as np
import pytest

import headwise as hw


def test_softmax_of_three_scores(isa, dtype):
    """[-2, 8, 8]: e^-10 beside two ones."""
    got = hw.softmax(np.array([-2, 8, 8], dtype))
    small = math.exp(-10)
    expected = [small / (2 + small), 1 / (2 + small), 1 / (2 + small)]
    np.testing.assert_allclose(got, expected, rtol=4 * np.finfo(dtype).eps)
    assert [round(float(p), 6) for p in got] == [0.000023, 0.499989, 0.499989]
    assert got.sum() == pytest.approx(1, rel=1e-6)


def test_three_words_attend_themselves(isa, dtype):
    """E = [[1, 2], [3, 1], [2, 3]], written out with Python's own numbers."""
    words = [[1, 2], [3, 1], [2, 3]]
    scores = [[sum(a * b for a, b in zip(q, k, strict=True)) for k in words] for q in words]
    assert scores == [[5, 5, 8], [5, 10, 9], [8, 9, 13]]
    for scale in 1.0, 1 / math.sqrt(2):
        powers = [[math.exp(scale * s) for s in row] for row in scores]
        weights = [[p / sum(row) for p in row] for row in powers]
        attended = [
            [sum(w * word[d] for w, word in zip(row, words, strict=True)) for d in range(2)]
            for row in weights
        ]
        lse = [math.log(sum(row)) for row in powers]
        e = np.array(words, dtype)
        options = {} if scale != 1 else {"scale": 1.0}
        got, got_lse = hw.attention(e, e, e, return_lse=True, **options)
        tolerance = {"rtol": 8 * np.finfo(dtype).eps}
        np.testing.assert_allclose(got, attended, **tolerance)
        np.testing.assert_allclose(got_lse, lse, **tolerance)
        np.testing.assert_allclose(hw.attention_weights(e, e, **options), weights, **tolerance)


def test_three_words_rounded(isa):
    e = np.array([[1, 2], [3, 1], [2, 3]], np.float64)
    as_printed = [[2.0, 2.864], [2.723, 1.54], [2.011, 2.958]]
    np.testing.assert_allclose(hw.attention(e, e, e, scale=1.0), as_printed, atol=5e-4)
    divided = [[2.0, 2.71], [2.638, 1.667], [2.028, 2.865]]
    np.testing.assert_allclose(hw.attention(e, e, e), divided, atol=5e-4)


def test_shapes_of_the_base_model(rng):
    """Ten words of 512 numbers, 8 heads by W_Q, W_K, W_V of 512 x 64, joined by W_O."""
    x = rng.standard_normal((10, 512)).astype(np.float32)
    w_q, w_k, w_v = (rng.standard_normal((8, 512, 64)).astype(np.float32) / 23 for _ in range(3))
    w_o = rng.standard_normal((512, 512)).astype(np.float32) / 23
    q, k, v = x @ w_q, x @ w_k, x @ w_v
    assert q.shape == k.shape == v.shape == (8, 10, 64)
    assert hw.attention_weights(q, k).shape == (8, 10, 10)
    heads = hw.attention(q, k, v)
    assert heads.shape == (8, 10, 64)
    joined = heads.swapaxes(0, 1).reshape(10, 512) @ w_o
    layer = hw.MultiHeadAttention(
        *(w.transpose(0, 2, 1).reshape(512, 512) for w in (w_q, w_k, w_v)), w_o.T, num_heads=8
    )
    assert layer(x).shape == (10, 512)
    np.testing.assert_allclose(layer(x), joined, atol=2e-5)


def test_order_of_words_is_only_in_the_positions(rng):
    """Self-attention without positions gives each word the same vector in any order."""
    x = rng.standard_normal((6, 2, 16)).astype(np.float32)
    order = [3, 0, 5, 1, 2, 4]
    heads = x.swapaxes(0, 1)
    turned = x[order].swapaxes(0, 1)
    np.testing.assert_allclose(
        hw.attention(turned, turned, turned), hw.attention(heads, heads, heads)[:, order], atol=1e-5
    )
