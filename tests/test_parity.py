"""The report of what a precision costs."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from tiny import MEAN, write_sentence_model

import headwise as hw
from headwise import TextEncoder
from headwise.parity import compare, default_texts


def test_float32_equals_itself(minilm):
    result = hw.parity(minilm, "float32")
    assert (result.precision, result.texts, result.neighbours) == ("float32", 214, 10)
    assert result.largest_error == 0
    assert result.lowest_cosine == pytest.approx(1, abs=1e-12)
    assert result.mean_cosine == pytest.approx(1, abs=1e-12)
    assert result.neighbour_agreement == 1


# What the README says of this model.
@pytest.mark.parametrize(
    ("precision", "cosine", "agreement"), [("bfloat16", 0.9999, 0.99), ("int8", 0.99, 0.95)]
)
def test_of_a_real_model(minilm, isa, precision, cosine, agreement):
    if isa == "scalar":
        pytest.skip("minutes on the slowest instruction set")
    result = hw.parity(minilm, precision)
    assert cosine < result.lowest_cosine < 1
    assert agreement < result.neighbour_agreement < 1


def test_what_is_compared_with_what(tmp_path, monkeypatch):
    """float32 is what the other precision is held against, on the texts that were given."""
    folder = write_sentence_model(tmp_path, MEAN)
    texts = ["a", "b c", "d", "e f g", "a " * 30]
    exact = TextEncoder.from_pretrained(folder).encode(texts, on_truncate="ignore")
    loaded = []

    class Rough:
        def __init__(self, precision):
            self.precision = precision

        @classmethod
        def from_pretrained(cls, name, precision):
            loaded.append((name, precision))
            return cls(precision)

        def encode(self, given, *, on_truncate):
            assert (given, on_truncate) == (texts, "ignore")
            return exact + (0.25 if self.precision == "int8" else 0)

    monkeypatch.setattr("headwise.text.TextEncoder", Rough)
    result = hw.parity(folder, "int8", iter(texts), neighbours=2)
    assert sorted(loaded) == [(folder, "float32"), (folder, "int8")]
    assert result == compare(exact + np.float32(0.25), exact, "int8", neighbours=2)
    assert result.largest_error == pytest.approx(0.25)
    assert 0 < result.lowest_cosine < result.mean_cosine < 1


def angles(*degrees: float) -> np.ndarray:
    """Return the unit vectors of the plane at these angles."""
    radians = np.radians(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], 1)


def test_numbers_by_hand():
    exact = angles(0, 10, 30, 70)  # the nearest of each: 1, 0, 1, 2
    moved = angles(0, 10, 60, 70)  # 1, 0, 3, 2
    result = compare(2 * moved, exact, "bfloat16", neighbours=1)
    assert result.precision == "bfloat16"
    assert result.texts == 4
    assert result.neighbours == 1
    assert result.largest_error == pytest.approx(2 * np.sin(np.pi / 3) - 0.5)
    assert result.lowest_cosine == pytest.approx(np.cos(np.pi / 6))
    assert result.mean_cosine == pytest.approx((3 + np.cos(np.pi / 6)) / 4)
    assert result.neighbour_agreement == 3 / 4
    # Of two: {1, 2}, {0, 2}, {0, 1}, {1, 2}, and {1, 2}, {0, 2}, {1, 3}, {1, 2}.
    assert compare(moved, exact, "x", neighbours=2).neighbour_agreement == 7 / 8
    assert compare(moved, exact, "x", neighbours=3).neighbour_agreement == 1


def test_many_texts_in_parts(monkeypatch, rng):
    """The matrix of cosines is never whole, whatever its parts."""
    exact = rng.standard_normal((50, 8))
    close = exact + 0.3 * rng.standard_normal((50, 8))
    whole = compare(close, exact, "int8", neighbours=5)
    assert 0.2 < whole.neighbour_agreement < 0.95
    for rows in (1, 7, 49):
        monkeypatch.setattr(sys.modules["headwise.parity"], "_ROWS", rows)
        assert compare(close, exact, "int8", neighbours=5) == whole


def test_equal_texts_do_not_count_as_themselves():
    same = np.repeat(angles(0, 90), 3, axis=0)
    assert compare(same, same, "float32", neighbours=2).neighbour_agreement == 1
    swapped = same[[0, 1, 3, 2, 4, 5]]
    assert compare(swapped, same, "float32", neighbours=2).neighbour_agreement < 1


def test_report():
    assert str(hw.Parity("bfloat16", 214, 5, 0.00312, 0.999871, 0.9999502, 1.0)) == (
        "bfloat16 against float32, 214 texts\n"
        "  largest error of an element  3.1e-03\n"
        "  cosine, lowest               0.999871\n"
        "  cosine, mean                 0.999950\n"
        "  same 5 nearest texts         100.0 %"
    )


def test_default_texts_are_varied():
    texts = default_texts()
    assert len(texts) == len(set(texts)) == 214
    assert all(text == text.strip() != "" for text in texts)
    words = sorted(len(text.split()) for text in texts)
    assert words[0] == 1
    assert 100 < words[-1] <= 160
    assert any(not text.isascii() for text in texts)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"precision": "int4"}, ValueError, r"precision is 'int4': it must be one of"),
        ({"texts": ["a"] * 10}, ValueError, "texts has 10: it must have more than neighbours, 10"),
        ({"texts": []}, ValueError, "texts has 0: it must have more than neighbours, 10"),
        ({"texts": "a" * 20}, TypeError, "texts is a str: it must be an iterable of several"),
        ({"texts": 7}, TypeError, "texts is a int: it must be an iterable of several"),
        ({"texts": ["a"] * 20 + [3]}, TypeError, r"texts\[20\] is a int: it must be a str"),
        ({"neighbours": 0}, ValueError, "neighbours is 0: it must be at least 1"),
        ({"neighbours": 500}, ValueError, "texts has 214: .* more than neighbours, 500"),
        ({"folder": "no where"}, FileNotFoundError, "there is no model folder no where"),
    ],
)
def test_bad_arguments(tmp_path, arguments, error, message):
    folder = write_sentence_model(tmp_path, MEAN)
    with pytest.raises(error, match=message):
        hw.parity(**({"folder": folder, "precision": "float32"} | arguments))


def test_shapes_that_do_not_fit():
    for wrong in (angles(0, 10), angles(0, 10, 20)[:, :1], np.ones(6)):
        with pytest.raises(ValueError, match=r"vectors has shape .* both must be \(n, dim\)"):
            compare(wrong, angles(0, 10, 20), "int8", neighbours=1)
