"""Traces: what the encoder computed, attention weights and rollout, words of two texts."""

from __future__ import annotations

import numpy as np
import pytest
import reference
from checks import assert_close, assert_same_bits
from tiny import write_sentence_model

import headwise as hw

SIZES = {"hidden_size": 24, "num_layers": 3, "num_heads": 4, "intermediate_size": 40}
IDS = np.random.default_rng(0).integers(30, size=37)


def make(**options):
    return hw.Encoder(vocab_size=30, **SIZES | options)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = write_sentence_model(
        tmp_path_factory.mktemp("model"), {"pooling_mode_mean_tokens": True}
    )
    return hw.TextEncoder.from_pretrained(folder)


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("norm", ["post", "pre"])
def test_states_are_those_of_a_call(isa, threads, norm, precision):
    encoder = make(norm=norm, precision=precision, num_kv_heads=2)
    trace = encoder.trace(IDS)
    output, states = encoder(IDS, return_hidden_states=True)
    assert_same_bits(trace.output, output)
    assert_same_bits(trace.output, encoder(IDS))
    assert_same_bits(trace.hidden_states, np.stack(states))
    assert trace.tokens is None


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("norm", ["post", "pre"])
def test_attention_against_the_formula(isa, threads, norm, kv_heads):
    """From the weights as they were given, in float64."""
    shapes = make(norm=norm, num_kv_heads=kv_heads).parameter_shapes()
    rng = np.random.default_rng(1)
    w = {name: rng.normal(0, 0.4, shape).astype(np.float32) for name, shape in shapes.items()}
    trace = make(norm=norm, num_kv_heads=kv_heads, weights=w).trace(IDS)
    got = trace.attention()
    for layer in range(3):
        x = trace.hidden_states[layer]
        at = f"layers.{layer}."
        results = []
        for dtype in (np.float64, np.float32):
            rows = x.astype(dtype)
            if norm == "pre":
                scale, shift = (w[f"{at}attention_norm.{part}"] for part in ("weight", "bias"))
                rows = reference.layer_norm(rows, scale, shift, eps=1e-5)
            heads = [
                (rows @ w[f"{at}attention.{part}.weight"].T.astype(dtype))
                + w[f"{at}attention.{part}.bias"]
                for part in ("query", "key")
            ]
            query, key = (z.reshape(len(x), -1, 6).swapaxes(0, 1) for z in heads)
            results.append(reference.attention_weights(query, key))
        assert_close(got[layer], *results)
    np.testing.assert_allclose(got.sum(-1), 1, atol=1e-6)


def test_chosen_layers_and_heads():
    trace = make().trace(IDS)
    every = trace.attention()
    assert every.shape == (3, 4, 37, 37)
    assert every.dtype == np.float32
    assert_same_bits(trace.attention(1), every[[1]])
    assert_same_bits(trace.attention(-1, -2), every[[2]][:, [2]])
    assert_same_bits(trace.attention([2, 0], [3, 0, 1]), every[[2, 0]][:, [3, 0, 1]])
    assert trace.attention([], []).shape == (0, 0, 37, 37)
    layer = trace.encoder.layers[2]
    assert_same_bits(layer.attention_weights(trace.hidden_states[2])[0], every[2])
    both = layer.attention_weights(np.tile(trace.hidden_states[2], (2, 1)), [0, 37, 74], heads=1)
    assert len(both) == 2
    assert_same_bits(both[1], every[2, [1]])


def test_rollout():
    """The product of (mean over heads + identity) / 2, the last layer on the left."""
    trace = make().trace(IDS)
    made_of = np.eye(37)
    np.testing.assert_array_equal(trace.rollout(0), made_of)
    for layer, weights in enumerate(trace.attention().astype(float)):
        made_of = (weights.mean(0) + np.eye(37)) / 2 @ made_of
        np.testing.assert_allclose(trace.rollout(layer + 1), made_of, atol=1e-6)
    assert_same_bits(trace.rollout(), trace.rollout(3))
    np.testing.assert_allclose(trace.rollout().sum(1), 1, atol=1e-6)


def test_token_types_and_empty():
    encoder = make(num_token_types=2)
    types = IDS % 2
    trace = encoder.trace(IDS, token_type_ids=types)
    assert_same_bits(trace.output, encoder(IDS, token_type_ids=types))
    empty = encoder.trace([])
    assert empty.output.shape == (0, 24)
    assert empty.attention().shape == (3, 4, 0, 0)
    assert empty.rollout().shape == (0, 0)


def test_no_layers():
    trace = make(num_layers=0).trace(IDS)
    assert trace.hidden_states.shape == (1, 37, 24)
    assert trace.attention().shape == (0, 4, 37, 37)
    np.testing.assert_array_equal(trace.rollout(), np.eye(37))


def test_explain(model):
    trace = model.explain("b a  zz")
    assert trace.tokens.text == "b a  zz"
    assert trace.tokens.strings == ("[CLS]", "b", "a", "[UNK]", "[SEP]")
    assert trace.tokens.offsets.tolist() == [[0, 0], [0, 1], [2, 3], [5, 7], [0, 0]]
    assert trace.tokens.words.tolist() == [-1, 0, 1, 2, -1]
    ids, _ = model.tokenize("b a  zz")
    assert trace.input_ids.tolist() == ids.tolist()
    assert_same_bits(trace.output, model.encoder(ids))
    assert repr(trace) == "Trace('b a  zz', 5 tokens, 2 layers, 3 heads)"
    assert repr(model.encoder.trace([1])) == "Trace(1 tokens, 2 layers, 3 heads)"
    assert model.explain("").tokens.strings == ("[CLS]", "[SEP]")


def test_explain_cuts_a_long_text(model):
    """The tiny model reads 8 tokens."""
    text = "a b c d e f g h"
    with pytest.warns(UserWarning, match="1 of 1 texts had more than 8 tokens"):
        assert model.explain(text).tokens.strings[-2:] == ("f", "[SEP]")
    assert len(model.explain(text, on_truncate="ignore").input_ids) == 8
    with pytest.raises(ValueError, match="text has 10 tokens: it must have at most max_length, 8"):
        model.explain(text, on_truncate="error")


def test_shared_words(model):
    first, second = model.explain("a b c b"), model.explain("b d b b A")
    shared = hw.shared_words(first, second)
    assert [(s.word, s.first, s.second) for s in shared] == [
        ("a", (1,), (5,)),
        ("b", (2,), (1,)),
        ("b", (4,), (3,)),
    ]
    for s in shared:
        assert s.cosines.shape == (3,)
        x, y = first.hidden_states[:, s.first[0]], second.hidden_states[:, s.second[0]]
        expected = [a @ b / np.sqrt((a @ a) * (b @ b)) for a, b in zip(x, y, strict=True)]
        np.testing.assert_allclose(s.cosines, expected, atol=1e-6)
    (same, *_) = hw.shared_words(first, first)
    np.testing.assert_allclose(same.cosines, 1, atol=1e-6)
    assert hw.shared_words(first, model.explain("n o")) == []


def test_a_word_of_several_pieces(minilm):
    model = hw.TextEncoder.from_pretrained(minilm)
    first, second = model.explain("Unbelievably, apples"), model.explain("so unbelievably good")
    (shared,) = hw.shared_words(first, second)
    assert shared.word == "unbelievably"
    assert [first.tokens.strings[i] for i in shared.first] == [
        "un",
        "##bel",
        "##ie",
        "##va",
        "##bly",
    ]
    x, y = (
        t.hidden_states[3, list(at)].mean(0)
        for t, at in ((first, shared.first), (second, shared.second))
    )
    np.testing.assert_allclose(shared.cosines[3], x @ y / np.sqrt((x @ x) * (y @ y)), atol=1e-6)


def test_bad_input(model):
    trace = model.explain("a b")
    for call, error, message in (
        (lambda: model.encoder.trace([[1, 2]]), ValueError, r"input_ids has shape \(1, 2\)"),
        (lambda: model.encoder.trace([1.0]), TypeError, "input_ids has dtype float64"),
        (lambda: model.encoder.trace([99]), ValueError, "input_ids goes from 99 to 99"),
        (lambda: model.encoder.trace([1] * 99), ValueError, "the model has 16 positions"),
        (lambda: trace.attention(2), ValueError, "layers holds 2: it must be -2 to 1"),
        (lambda: trace.attention(0, [0, -4]), ValueError, "heads holds -4: it must be -3 to 2"),
        (lambda: trace.attention(0.5), TypeError, "layers is 0.5: it must be an integer"),
        (lambda: trace.attention(heads="a"), TypeError, "heads is 'a': it must be an integer"),
        (lambda: trace.rollout(3), ValueError, "num_layers is 3: it must be 0 to 2"),
        (lambda: trace.rollout(-1), ValueError, "num_layers is -1: it must be 0 to 2"),
        (lambda: trace.rollout(1.5), TypeError, "num_layers is 1.5: it must be an integer"),
        (lambda: model.explain(7), TypeError, "text is a int: it must be a str"),
        (lambda: model.explain("a\ud800"), ValueError, "text is not valid Unicode"),
        (lambda: model.explain("a", on_truncate="no"), ValueError, "on_truncate is 'no'"),
        (
            lambda: hw.shared_words(trace, model.encoder.trace([1])),
            ValueError,
            "second is a trace of token ids: it must be one of a text",
        ),
        (
            lambda: hw.shared_words(trace, make().trace([1])),
            ValueError,
            "first and second are traces of different encoders",
        ),
    ):
        with pytest.raises(error, match=message):
            call()


def test_what_is_no_trace_is_refused(model):
    trace = model.explain("a b")
    for name, call in (
        ("first", lambda: hw.shared_words(1, trace)),
        ("second", lambda: hw.shared_words(trace, "a")),
        ("compare", lambda: trace.to_html("a")),
        ("trace", lambda: hw.plot_attention("a")),
    ):
        with pytest.raises(TypeError, match=f"{name} is a .*: it must be a Trace"):
            call()
