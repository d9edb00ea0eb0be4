"""What the demo says is true."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

import headwise as hw


@pytest.fixture(scope="module")
def demo():
    path = Path(__file__).parents[1] / "examples" / "demo.py"
    spec = importlib.util.spec_from_file_location("demo", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def model(minilm):
    return hw.TextEncoder.from_pretrained(minilm)


def test_similar_sentences_are_nearest(demo, model):
    """Each of SENTENCES is one of a pair."""
    table = demo.similarities(model)
    np.testing.assert_allclose(np.diag(table), 1, atol=1e-6)
    np.fill_diagonal(table, -1)
    assert table.argmax(1).tolist() == [1, 0, 3, 2, 5, 4]


def test_word_changes_with_its_sentence(demo, model):
    """Before the first layer a vector is one of word and position; after it, of the sentence."""
    places = []
    for word, *texts in demo.WORDS:
        (place_a, a), (place_b, b) = (demo.follow(model, word, text) for text in texts)
        assert a.shape == b.shape == (model.encoder.num_layers + 1, model.dim)
        assert np.array_equal(a[0], b[0]) == (place_a == place_b)
        assert demo.cosine(a[0], b[0]) > 0.95
        assert demo.cosine(a[-1], b[-1]) < 0.8
        places.append((place_a, place_b))
    assert places == [(3, 3), (2, 4), (4, 4)]


def test_it_looks_at_cat(demo, model):
    layer, head, weights = demo.where_it_looks(model)
    tokens, values = zip(*weights, strict=True)
    assert 1 <= layer <= 6
    assert 1 <= head <= 12
    assert list(values) == sorted(values, reverse=True)
    assert abs(sum(values) - 1) < 1e-5
    assert "cat" in tokens[:2]


def test_mixed_texts(demo):
    texts = demo.mixed_texts(300)
    assert texts == demo.mixed_texts(300)
    assert len(texts) == 300
    lengths = [len(text.split()) for text in texts]
    assert min(lengths) < 10
    assert max(lengths) > 100


def test_prints(demo, minilm, capsys):
    demo.main(minilm)
    printed = capsys.readouterr().out
    assert "texts/s" in printed
    assert hw.active_isa() in printed
    assert max(map(len, printed.splitlines())) <= 100
