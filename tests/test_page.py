"""The page of a trace, as far as it can be told without a browser."""

from __future__ import annotations

import base64
import json
import re
import zlib

import numpy as np
import pytest
from tiny import MEAN, write_sentence_model

import headwise as hw
from headwise.view.pieces import pieces_of


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return hw.TextEncoder.from_pretrained(write_sentence_model(tmp_path_factory.mktemp("m"), MEAN))


def encoder(**changes):
    options = {"vocab_size": 100, "hidden_size": 12, "num_layers": 3, "num_heads": 3}
    return hw.Encoder(**(options | {"intermediate_size": 8} | changes))


def data_of(page):
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page)
    return json.loads(found)


def maps_of(data, text=0):
    """Unpack thousandths of shape (layers, heads + 2, T, T) as the page does."""
    found = data["texts"][text]
    count, columns = len(found["tokens"]), len(data["heads"]) + 2
    planes = np.frombuffer(zlib.decompress(base64.b64decode(found["weights"])), np.uint8)
    low, high = np.moveaxis(planes.reshape(-1, 2, columns, count, count).astype(int), 1, 0)
    return low + 256 * high


def assert_shows(thousandths, weights):
    np.testing.assert_allclose(thousandths / 1000, weights, rtol=0, atol=0.5001e-3)


def test_weights_mean_and_rollout():
    trace = encoder().trace(np.arange(10))
    maps = maps_of(data_of(trace.to_html()))
    assert maps.shape == (3, 5, 10, 10)
    assert_shows(maps[:, :3], trace.attention())
    assert_shows(maps[:, 3], trace.attention().mean(1))
    assert_shows(maps[:, 4], [trace.rollout(1), trace.rollout(2), trace.rollout(3)])


def test_some_layers_and_heads():
    """Their mean is over all heads, and the rollout goes through all layers."""
    trace = encoder().trace(np.arange(10))
    data = data_of(trace.to_html(layers=[-1, 0, 2], heads=1))
    assert (data["layers"], data["heads"]) == ([0, 2], [1])
    maps = maps_of(data)
    assert_shows(maps[:, :1], trace.attention([0, 2], 1))
    assert_shows(maps[:, 1], trace.attention([0, 2]).mean(1))
    assert_shows(maps[:, 2], [trace.rollout(1), trace.rollout(3)])


def test_certain_weights():
    """A weight of 1 needs a high byte."""
    maps = maps_of(data_of(encoder().trace([7]).to_html()))
    assert (maps == 1000).all()


def test_two_texts(model):
    first, second = model.explain("a b c"), model.explain("c b d b")
    data = data_of(first.to_html(second))
    assert_shows(maps_of(data, 0)[:, :3], first.attention())
    assert_shows(maps_of(data, 1)[:, :3], second.attention())
    found = [(word["word"], *map(tuple, word["tokens"])) for word in data["words"]]
    shared = hw.shared_words(first, second)
    assert found == [(word.word, word.first, word.second) for word in shared]
    assert [word.word for word in shared] == ["b", "c"]
    for word, expected in zip(data["words"], shared, strict=True):
        np.testing.assert_allclose(word["cosines"], expected.cosines, atol=0.51e-4)


@pytest.mark.parametrize(("num_layers", "hidden_size"), [(6, 384), (12, 768)])
def test_size(num_layers, hidden_size):
    """64 tokens and 12 heads: far below 1 MB, of which all but the weights is below 50 kB."""
    big = encoder(num_layers=num_layers, num_heads=12, hidden_size=hidden_size)
    page = big.trace(np.arange(64)).to_html()
    assert len(page) < 600_000
    assert len(page) - len(data_of(page)["texts"][0]["weights"]) < 50_000


def test_one_ascii_text_that_loads_nothing(model):
    page = model.explain("a \u05d0 \U0001f600 \u2028 b").to_html()
    assert page.isascii()
    assert not re.search(r"(?:src|href|action)=(?!\"data:,\")", page)
    page = page.replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?:|//\w+\.|@import|url\(", page)


def test_pieces_of_a_text(model):
    text = "  a<b\tzebra c "
    pieces, rest = pieces_of(model.explain(text))
    assert "".join(p.gap + p.text for p in pieces[1:-1]) + " " == text
    assert [p.name for p in pieces] == ["[CLS]", "a", "[UNK]", "b", "[UNK]", "c", "[SEP]"]
    assert [p.special for p in pieces] == [True, *[False] * 5, True]
    assert rest == ""


def test_pieces_that_share_a_character_and_long_ones():
    """As a tokenizer of bytes makes them."""
    tokens = hw.nn.Tokens(
        "\u20acx" + 100 * "y",
        ("\u00e2", "\u0124\u00ac", "xy"),
        np.array([[0, 1], [0, 1], [1, 102]]),
        np.array([0, 0, 0]),
    )
    made = encoder().trace([1, 2, 3])
    trace = hw.Trace(made.encoder, made.input_ids, made.hidden_states, made.output, tokens)
    pieces, _ = pieces_of(trace)
    assert [p.text for p in pieces] == ["\u20ac", "\u0124\u00ac", "x" + 58 * "y" + "\u2026"]


def test_what_is_cut_is_not_taken_along(model):
    trace = model.explain("a " * 6 + "tail " * 1000, on_truncate="ignore")
    _, rest = pieces_of(trace)
    assert rest.startswith(" tail tail")
    assert len(rest) == 60
    assert len(trace.to_html()) < 50_000


def test_of_token_ids():
    data = data_of(encoder().trace([5, 7]).to_html())
    assert [token["text"] for token in data["texts"][0]["tokens"]] == ["5", "7"]


def test_bad_input(model):
    trace = encoder().trace([5, 7])
    with pytest.raises(ValueError, match=r"layers holds 3: it must be -3 to 2"):
        trace.to_html(layers=3)
    with pytest.raises(TypeError, match=r"heads is 'all': it must be an integer"):
        trace.to_html(heads="all")
    with pytest.raises(ValueError, match=r"layers is empty: there must be one to show"):
        trace.to_html(layers=[])
    with pytest.raises(ValueError, match=r"layers is empty: there must be one to show"):
        encoder(num_layers=0).trace([5, 7]).to_html()
    with pytest.raises(ValueError, match=r"the trace has no token: there must be one to show"):
        encoder().trace(np.empty(0, int)).to_html()
    with pytest.raises(ValueError, match=r"first is a trace of token ids"):
        trace.to_html(trace)
    with pytest.raises(ValueError, match=r"traces of different encoders"):
        model.explain("a").to_html(trace)


def test_weights_that_are_not_finite():
    rng = np.random.default_rng(0)
    shapes = encoder().parameter_shapes()
    weights = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    weights["layers.1.attention.query.bias"][:] = np.nan
    with pytest.raises(ValueError, match=r"weights of layer 1 are not finite"):
        encoder(weights=weights).trace([5, 7]).to_html()


def test_notebook_gets_a_frame_or_a_sentence(model):
    trace = model.explain("a </iframe> b")
    frame = trace._repr_html_()
    assert re.fullmatch(r'<iframe srcdoc="[^"]*" title="Attention" style="[^"]*"></iframe>', frame)
    large = encoder(max_positions=1000).trace(np.arange(1000) % 100)
    sentence = large._repr_html_()
    assert len(sentence) < 200
    assert "to_html(layers=..., heads=...)" in sentence
    assert "0 layers" in encoder(num_layers=0).trace([5])._repr_html_()
