"""The layers and the encoder, against the formulas in float64 and against themselves."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import reference
from checks import assert_accurate, assert_same_bits

import headwise as hw

E, HEADS, F, V, P = 48, 4, 100, 30, 40


def attention_weights_of(rng, kv_heads=HEADS, head_dim=E // HEADS):
    """Random weights and biases by name."""
    rows = {"query": HEADS, "key": kv_heads, "value": kv_heads}
    w = {}
    for part, heads in rows.items():
        w[f"{part}.weight"] = rng.standard_normal((heads * head_dim, E))
        w[f"{part}.bias"] = rng.standard_normal(heads * head_dim)
    w["output.weight"] = rng.standard_normal((E, HEADS * head_dim))
    w["output.bias"] = rng.standard_normal(E)
    return {name: (a / 4).astype(np.float32) for name, a in w.items()}


def multi_head_attention(w, kv_heads=HEADS):
    return hw.MultiHeadAttention(
        *(w[f"{part}.weight"] for part in ("query", "key", "value", "output")),
        **{f"{part}_bias": w[f"{part}.bias"] for part in ("query", "key", "value", "output")},
        num_heads=HEADS,
        num_kv_heads=kv_heads,
    )


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("head_dim", [12, 20])
def test_multi_head_attention(isa, threads, rng, kv_heads, head_dim, is_causal):
    """Also with a head dimension that is not E / H."""
    w = attention_weights_of(rng, kv_heads, head_dim)
    layer = multi_head_attention(w, kv_heads)
    assert (layer.num_heads, layer.num_kv_heads, layer.head_dim) == (HEADS, kv_heads, head_dim)
    cu = [0, 70, 70, 75, 76]
    x = rng.standard_normal((76, E)).astype(np.float32)
    got = layer(x, cu, is_causal=is_causal)
    residual = rng.standard_normal((76, E)).astype(np.float32)
    assert_same_bits(layer(x, cu, is_causal=is_causal, residual=residual), got + residual)
    for begin, end in pairwise(cu):
        sequence = x[begin:end]
        assert_same_bits(layer(sequence, is_causal=is_causal), got[begin:end])
        if len(sequence):
            assert_accurate(
                got[begin:end],
                lambda x, *arrays: reference.multi_head_attention(
                    x, dict(zip(w, arrays, strict=True)), HEADS, is_causal
                ),
                sequence,
                *w.values(),
            )


def test_attention_weights_of_a_layer(rng):
    """One (H, S, S) array a sequence, whose product with the values is what the layer returns."""
    w = attention_weights_of(rng)
    w["output.weight"][:], w["output.bias"][:] = np.eye(E), 0
    layer = multi_head_attention(w)
    x = rng.standard_normal((9, E)).astype(np.float32)
    cu = [0, 4, 4, 9]
    weights = layer.weights(x, cu)
    assert [p.shape for p in weights] == [(HEADS, 4, 4), (HEADS, 0, 0), (HEADS, 5, 5)]
    values = (x @ w["value.weight"].T + w["value.bias"]).reshape(9, HEADS, -1).swapaxes(0, 1)
    heads = layer(x, cu).reshape(9, HEADS, -1).swapaxes(0, 1)
    for p, begin, end in zip(weights, cu[:-1], cu[1:], strict=True):
        np.testing.assert_allclose(p.sum(-1), 1, rtol=1e-6)
        np.testing.assert_allclose(p @ values[:, begin:end], heads[:, begin:end], atol=1e-5)
    causal = layer.weights(x, cu, is_causal=True)[2]
    assert (np.triu(causal, 1) == 0).all()
    np.testing.assert_allclose(causal.sum(-1), 1, rtol=1e-6)


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_feed_forward(isa, rng, activation):
    up, down = (rng.standard_normal(s).astype(np.float32) for s in ((F, E), (E, F)))
    up_bias, down_bias = (rng.standard_normal(n).astype(np.float32) for n in (F, E))
    layer = hw.FeedForward(up, down, up_bias=up_bias, down_bias=down_bias, activation=activation)
    x = rng.standard_normal((2, 5, E)).astype(np.float32)
    assert_accurate(
        layer(x, residual=x),
        lambda x, up, down, a, b: (
            reference.linear(reference.linear(x, up, a, None, activation), down, b) + x
        ),
        *(x, up, down, up_bias, down_bias),
    )
    assert_same_bits(layer(x, residual=x), layer(x) + x)


def make(rng, **options):
    """A small encoder with random weights, biases and norms, and those weights."""
    options = {
        "hidden_size": E,
        "num_layers": 2,
        "num_heads": HEADS,
        "intermediate_size": F,
        "max_positions": P,
    } | options
    shapes = hw.Encoder(V, **options).parameter_shapes()
    weights = {
        name: (rng.standard_normal(shape) * 0.3 + name.endswith("norm.weight")).astype(np.float32)
        for name, shape in shapes.items()
    }
    return hw.Encoder(V, **options, weights=weights), weights


def textbook(ids, w, *, types=None, norm="post", activation="relu", eps=1e-5, layers=2):
    """All hidden states of one sequence, and the result."""
    positions = w.get("embeddings.position")
    if positions is None:
        columns = np.arange(E)
        angles = np.arange(P)[:, None] / 10000 ** (columns // 2 * 2 / E)
        positions = np.where(columns % 2, np.cos(angles), np.sin(angles))
        positions = positions.astype(np.float32).astype(w["embeddings.token"].dtype)
    x = w["embeddings.token"][ids] + positions[: len(ids)]
    if "embeddings.token_type" in w:
        x = x + w["embeddings.token_type"][np.zeros_like(ids) if types is None else types]
    if "embeddings.norm.weight" in w:
        x = reference.layer_norm(x, w["embeddings.norm.weight"], w["embeddings.norm.bias"], eps=eps)
    states = [x]
    for i in range(layers):
        prefix = f"layers.{i}."
        layer = {k.removeprefix(prefix): a for k, a in w.items() if k.startswith(prefix)}
        options = {"norm": norm, "activation": activation, "eps": eps}
        states.append(reference.encoder_layer(states[-1], layer, HEADS, **options))
    if "final_norm.weight" not in w:
        return states, states[-1]
    final = reference.layer_norm(states[-1], w["final_norm.weight"], w["final_norm.bias"], eps=eps)
    return states, final


CONFIGURATIONS = {
    "transformer": {},
    "bert": {
        "positions": "learned",
        "num_token_types": 2,
        "embedding_norm": True,
        "activation": "gelu",
        "layer_norm_eps": 1e-12,
    },
    "pre_norm": {"norm": "pre", "activation": "gelu"},
    "grouped_heads": {"num_kv_heads": 2, "positions": "learned"},
    "gated": {"gated": True, "activation": "silu", "norm": "pre"},
    "no_layers": {"num_layers": 0},
}
FORMULA = {"norm": "norm", "activation": "activation"}
FORMULA |= {"layer_norm_eps": "eps", "num_layers": "layers"}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_encoder(isa, threads, rng, name):
    options = CONFIGURATIONS[name]
    encoder, weights = make(rng, **options)
    cu = np.array([0, 40, 40, 41, 60])
    ids = rng.integers(0, V, 60)
    types = rng.integers(0, 2, 60) if "num_token_types" in options else None
    got, states = encoder(ids, cu, token_type_ids=types, return_hidden_states=True)
    assert_same_bits(encoder(ids, cu, token_type_ids=types), got)
    assert len(states) == encoder.num_layers + 1
    for begin, end in pairwise(cu):
        part = slice(begin, end)
        of_part = None if types is None else types[part]
        alone, own = encoder(ids[part], token_type_ids=of_part, return_hidden_states=True)
        assert_same_bits(alone, got[part])
        for ours, packed in zip(own, states, strict=True):
            assert_same_bits(ours, packed[part])
        if begin == end:
            continue

        def formula(*arrays, part=part, of_part=of_part):
            w = dict(zip(weights, arrays, strict=True))
            given = {FORMULA[k]: v for k, v in options.items() if k in FORMULA}
            all_states, final = textbook(ids[part], w, types=of_part, **given)
            return np.stack([*all_states, final])

        assert_accurate(np.stack([*own, alone]), formula, *weights.values())


def test_hidden_states_are_not_overwritten(rng):
    """The first is what the first layer reads; the last of a post-norm encoder is the result."""
    encoder, _ = make(rng)
    ids = rng.integers(0, V, 12)
    got, states = encoder(ids, return_hidden_states=True)
    x = states[0]
    for layer, state in zip(encoder.layers, states[1:], strict=True):
        x = layer(x)
        assert_same_bits(x, state)
    assert_same_bits(x, got)


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_layer_by_its_formula_when_causal(isa, rng, norm):
    encoder, weights = make(rng, norm=norm)
    x = rng.standard_normal((70, E)).astype(np.float32)
    before = x.copy()
    names = {k.removeprefix("layers.1."): k for k in weights if k.startswith("layers.1.")}

    def formula(x, *arrays):
        w = dict(zip(names, arrays, strict=True))
        return reference.encoder_layer(x, w, HEADS, norm=norm, is_causal=True)

    got = encoder.layers[1](x, is_causal=True)
    assert_accurate(got, formula, x, *(weights[k] for k in names.values()))
    assert_same_bits(x, before)
    assert_same_bits(encoder.layers[1](x[:9], is_causal=True), got[:9])


def test_rectangular_batch(rng):
    encoder, _ = make(rng, num_token_types=2)
    ids = rng.integers(0, V, (3, 11))
    types = rng.integers(0, 2, (3, 11))
    got, states = encoder(ids, token_type_ids=types, return_hidden_states=True)
    assert got.shape == (3, 11, E)
    assert all(state.shape == got.shape for state in states)
    for row, row_types, hidden in zip(ids, types, got, strict=True):
        assert_same_bits(encoder(row, token_type_ids=row_types), hidden)


def test_bits_of_a_sequence_do_not_depend_on_its_batch(isa, threads, rng):
    encoder, _ = make(rng)
    sequences = [rng.integers(0, V, n) for n in (1, 40, 7, 16, 33, 2)]
    alone = [encoder(s) for s in sequences]
    for order in [0, 1, 2, 3, 4, 5], [5, 1, 0], [3, 3, 3, 2, 4]:
        cu = np.cumsum([0, *(len(sequences[i]) for i in order)])
        got = encoder(np.concatenate([sequences[i] for i in order]), cu)
        for i, begin in zip(order, cu[:-1], strict=True):
            assert_same_bits(got[begin : begin + len(sequences[i])], alone[i])


@pytest.mark.parametrize(
    ("ids", "cu", "shape"),
    [([], None, (0,)), ([], [0], (0,)), ([], [0, 0, 0], (0,)),
     (np.zeros((0, 3), int), None, (0, 3)), (np.zeros((2, 0), int), None, (2, 0))],
)  # fmt: skip
def test_no_tokens(rng, ids, cu, shape):
    encoder, _ = make(rng)
    got, states = encoder(ids, cu, return_hidden_states=True)
    assert got.shape == (*shape, E)
    assert [s.shape for s in states] == [got.shape] * 3


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
def test_packed_weights_lie_together_in_the_order_of_the_work(precision):
    encoder = hw.Encoder(
        vocab_size=9, hidden_size=40, num_layers=3, num_heads=2, intermediate_size=70,
        precision=precision,
    )  # fmt: skip
    linears = [
        linear
        for layer in encoder.layers
        for linear in (
            layer.attention.projection,
            layer.attention.output,
            layer.feed_forward.up,
            layer.feed_forward.down,
        )
    ]
    for one, following in pairwise(linear.packed for linear in linears):
        assert one.ctypes.data % 64 == 0
        assert one.ctypes.data + one.nbytes == following.ctypes.data


def test_defaults_are_those_of_the_paper():
    """Vaswani et al. (2017), table 3, base."""
    encoder = hw.Encoder(vocab_size=11)
    sizes = {
        "hidden_size": 512,
        "num_layers": 6,
        "num_heads": 8,
        "head_dim": 64,
        "intermediate_size": 2048,
        "vocab_size": 11,
    }
    assert {name: getattr(encoder, name) for name in sizes} == sizes
    shapes = encoder.parameter_shapes()
    assert len(encoder.layers) == 6
    assert shapes["layers.5.feed_forward.up.weight"] == (2048, 512)
    assert "embeddings.position" not in shapes
    per_layer = 4 * (512 * 512 + 512) + 2 * 512 * 2048 + 2048 + 512 + 4 * 512
    assert sum(np.prod(s) for s in shapes.values()) == 11 * 512 + 6 * per_layer
    hidden = encoder(np.arange(11))
    np.testing.assert_allclose(hidden.mean(-1), 0, atol=1e-5)  # it ends with a layer norm
    np.testing.assert_allclose(hidden.std(-1), 1, atol=1e-3)


def test_seed():
    options = {"hidden_size": 16, "num_heads": 2, "num_layers": 1, "intermediate_size": 8}
    first, again, other = (hw.Encoder(5, **options, seed=s)([1, 2, 3]) for s in (1, 1, 2))
    assert_same_bits(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("hidden_size", [1, 2, 7, 64])
def test_sinusoidal_positions(hidden_size):
    table = hw.nn.sinusoidal_positions(600, hidden_size)
    assert table.dtype == np.float32
    for position in 0, 1, 599:
        for i in range(hidden_size):
            angle = position / 10000 ** ((i - i % 2) / hidden_size)
            exact = np.cos(angle) if i % 2 else np.sin(angle)
            assert table[position, i] == pytest.approx(exact, abs=1e-7)
