"""What is timed. Every result is checked before: a wrong one would be no news if it were fast."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np

from ..functional import Linear, attention
from ..functional.linear import Precision
from ..nn import Encoder
from ..parity import default_texts
from .speed import Case

# all-MiniLM-L6-v2 but for the vocabulary, as a lookup costs the same in a large table.
_MINILM: dict[str, Any] = {
    "vocab_size": 1000,
    "hidden_size": 384,
    "num_layers": 6,
    "num_heads": 12,
    "intermediate_size": 1536,
    "positions": "learned",
    "num_token_types": 2,
    "activation": "gelu",
    "embedding_norm": True,
}

# Largest difference to NumPy, of results of the order of 1.
_TOLERANCE = {"float32": 1e-4, "bfloat16": 0.1, "int8": 0.2}


def all_cases(model: str | Path | None = None) -> list[Case]:
    """Return what is timed; with a model, texts through it as well."""
    return [*_attention(), *_linear(), *_encoder(), *([] if model is None else _texts(model))]


def encoder_flops(encoder: Encoder, lengths: np.ndarray) -> float:
    """Return the floating-point operations of the products, for sequences of these lengths.

    Examples
    --------
    >>> import numpy as np, headwise as hw
    >>> from headwise.machine.cases import encoder_flops
    >>> encoder_flops(hw.Encoder(10, hidden_size=64, num_layers=1, intermediate_size=128),
    ...               np.array([1]))
    65792.0

    """
    E, F = encoder.hidden_size, encoder.intermediate_size
    kv = encoder.num_kv_heads * encoder.head_dim
    weights = 2 * E * E + 2 * E * kv + (3 if encoder.gated else 2) * E * F
    lengths = np.asarray(lengths, np.float64)
    return float(encoder.num_layers * (2 * weights * lengths.sum() + 4 * E * (lengths**2).sum()))


def _attention() -> Iterator[Case]:
    rng = np.random.default_rng(0)
    for (B, H, Sq, Sk, D), is_causal in (
        ((8, 12, 128, 128, 32), False),
        ((1, 12, 1024, 1024, 64), False),
        ((1, 12, 1024, 1024, 64), True),
        ((1, 32, 1, 4096, 128), False),
    ):
        q = rng.standard_normal((B, H, Sq, D), np.float32)
        k, v = rng.standard_normal((2, B, H, Sk, D), np.float32)
        run = partial(attention, q, k, v, is_causal=is_causal)
        shape = f"{B} x {H} heads, {Sq} x {Sk} x {D}"
        # The last query attends everything.
        expected = _softmax(q[..., -1:, :] @ k.swapaxes(-1, -2) / np.sqrt(D)) @ v
        _check(f"attention {shape}", run()[..., -1:, :], expected, "float32")
        pairs = Sq * Sk - (Sq * (Sq - 1) // 2 if is_causal else 0)
        if Sq == 1:
            yield Case(f"decode {shape}", run, "float32", k.nbytes + v.nbytes, reads=True)
        else:
            causal = ", causal" if is_causal else ""
            yield Case(f"attention {shape}{causal}", run, "float32", 4 * B * H * D * pairs)


def _linear() -> Iterator[Case]:
    M, K, N = 2048, 384, 1536
    rng = np.random.default_rng(0)
    x = rng.standard_normal((M, K), np.float32)
    weight = rng.standard_normal((N, K), np.float32) / np.float32(np.sqrt(K))
    for precision in get_args(Precision):
        run = partial(Linear(weight, precision=precision), x)
        _check(f"linear {precision}", run()[:64], x[:64] @ weight.T, precision)
        yield Case(f"linear {M} x {K} -> {N}", run, precision, 2 * M * K * N)


def _encoder() -> Iterator[Case]:
    rng = np.random.default_rng(0)
    encoders = {kind: Encoder(**_MINILM, precision=kind) for kind in get_args(Precision)}
    for texts, length in ((16, 128), (64, 16)):
        ids = rng.integers(_MINILM["vocab_size"], size=(texts, length))
        expected = encoders["float32"](ids)
        for precision, encoder in encoders.items():
            run = partial(encoder, ids)
            _check_cosines(f"encoder {precision}", run(), expected)
            flops = encoder_flops(encoder, np.full(texts, length))
            name = f"encoder {texts} x {length} tokens"
            yield Case(name, run, precision, flops, texts=texts, tokens=ids.size)


def _texts(model: str | Path) -> Iterator[Case]:
    from ..text import TextEncoder

    texts = default_texts()
    expected = np.empty(0)
    for precision in get_args(Precision):
        encoder = TextEncoder.from_pretrained(model, precision)
        run = partial(encoder.encode, texts, on_truncate="ignore")
        vectors = run()
        expected = vectors if precision == "float32" else expected
        _check_cosines(f"texts {precision}", vectors, expected)
        _, cu_seqlens = encoder.tokenize(texts, on_truncate="ignore")
        flops = encoder_flops(encoder.encoder, np.diff(cu_seqlens))
        name = f"{len(texts)} texts"
        yield Case(name, run, precision, flops, texts=len(texts), tokens=int(cu_seqlens[-1]))


def _softmax(scores: np.ndarray) -> np.ndarray:
    weights: np.ndarray = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return weights


def _check(name: str, got: np.ndarray, expected: np.ndarray, precision: str) -> None:
    error = np.abs(got - expected).max()
    if not error <= _TOLERANCE[precision]:
        raise ArithmeticError(f"{name} differs from NumPy by {error:.2g}: please report it")


def _check_cosines(name: str, got: np.ndarray, expected: np.ndarray) -> None:
    """The vectors point where those of float32 do."""
    lengths = np.linalg.norm(got, axis=-1) * np.linalg.norm(expected, axis=-1)
    lowest = ((got * expected).sum(-1) / lengths).min()
    if not lowest > 0.95:
        raise ArithmeticError(f"{name} has a cosine of {lowest:.3f} to float32: please report it")
