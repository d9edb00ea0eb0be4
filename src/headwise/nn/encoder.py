"""The whole encoder: embeddings, a stack of layers, its weights by name."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, Literal, get_args, overload

import numpy as np
import numpy.typing as npt

from .. import _core
from ..functional._arrays import (
    Array,
    as_integer,
    as_integers,
    contiguous,
    describe,
    empty,
)
from ..functional.linear import Activation, Precision
from .layers import (
    EncoderLayer,
    FeedForward,
    LayerNorm,
    MultiHeadAttention,
    NormOrder,
    place_together,
    stack_layers,
    starts_of,
)
from .parameters import checked_weights, random_weights
from .trace import Trace

Positions = Literal["sinusoidal", "learned"]


class Encoder:
    """A stack of encoder layers over token, position and token-type embeddings.

    The defaults are the base model of "Attention Is All You Need" (Vaswani et al., 2017):
    6 layers, hidden size 512, 8 heads of 64, intermediate size 2048, sinusoidal positions, ReLU,
    normalisation after the residual.

    Parameters
    ----------
    vocab_size : int
    hidden_size, num_layers, num_heads, intermediate_size : int
    num_kv_heads : int, optional
        `num_heads` by default.
    max_positions : int
        The longest sequence.
    positions : {"sinusoidal", "learned"}
    num_token_types : int
        0 for a model without token-type embeddings.
    activation : {"relu", "gelu", "gelu_tanh", "silu"}
    gated : bool
        Whether the feed-forward layers have a gate, see :class:`FeedForward`.
    norm : {"post", "pre"}
        See :class:`EncoderLayer`. "pre" has one more normalisation after the last layer.
    layer_norm_eps : float
    embedding_norm : bool
        Normalise the sum of the embeddings, as BERT does.
    precision : {"float32", "bfloat16", "int8"}
        Of the linear layers, see :class:`headwise.Linear`; with the last two attention runs in
        bfloat16. Embeddings, softmax, norms and residuals stay float32.
    weights : mapping of str to array, optional
        float32 arrays by the names of :meth:`parameter_shapes`: all of them and no others.
    seed : int
        Without `weights`, they are drawn at random (Glorot and Bengio, 2010) from this seed.

    Raises
    ------
    TypeError
        If a weight is not float32, or a size no integer.
    ValueError
        If an argument is out of range or not one of its choices, or `weights` lacks one, has one
        too many, or one of a wrong shape.

    Examples
    --------
    >>> import numpy as np, headwise as hw
    >>> encoder = hw.Encoder(vocab_size=100, num_layers=2)
    >>> encoder(np.array([[5, 7, 11], [2, 3, 5]])).shape
    (2, 3, 512)
    """

    def __init__(
        self,
        vocab_size: int,
        *,
        hidden_size: int = 512,
        num_layers: int = 6,
        num_heads: int = 8,
        num_kv_heads: int | None = None,
        intermediate_size: int = 2048,
        max_positions: int = 512,
        positions: Positions = "sinusoidal",
        num_token_types: int = 0,
        activation: Activation = "relu",
        gated: bool = False,
        norm: NormOrder = "post",
        layer_norm_eps: float = 1e-5,
        embedding_norm: bool = False,
        precision: Precision = "float32",
        weights: Mapping[str, Array] | None = None,
        seed: int = 0,
    ) -> None:
        for name, choice, choices in (
            ("positions", positions, get_args(Positions)),
            ("activation", activation, get_args(Activation)),
            ("norm", norm, get_args(NormOrder)),
            ("precision", precision, get_args(Precision)),
        ):
            if choice not in choices:
                raise ValueError(f"{name} is {choice!r}: it must be one of {choices}")
        kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        for name, size in (
            ("vocab_size", vocab_size),
            ("hidden_size", hidden_size),
            ("num_heads", num_heads),
            ("num_kv_heads", kv_heads),
            ("intermediate_size", intermediate_size),
            ("max_positions", max_positions),
        ):
            as_integer(name, size, 1)
        for name, count in (("num_layers", num_layers), ("num_token_types", num_token_types)):
            as_integer(name, count, 0)
        if not 0 <= layer_norm_eps < np.inf:
            raise ValueError(f"layer_norm_eps is {layer_norm_eps}: it must be finite, 0 or more")
        if hidden_size % num_heads:
            raise ValueError(
                f"hidden_size is {hidden_size}: it must be a multiple of num_heads, {num_heads}"
            )
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.num_heads = num_heads
        self.num_kv_heads = kv_heads
        self.head_dim = hidden_size // num_heads
        self.intermediate_size = intermediate_size
        self.max_positions = max_positions
        self.num_token_types = num_token_types
        self.positions = positions
        self.norm = norm
        self.gated = gated
        self.precision = precision
        self.embedding_norm = embedding_norm

        shapes = self.parameter_shapes()
        w = random_weights(shapes, seed) if weights is None else checked_weights(weights, shapes)

        def norm_at(prefix: str) -> LayerNorm:
            weight, bias = contiguous(w[f"{prefix}.weight"]), contiguous(w[f"{prefix}.bias"])
            return LayerNorm(weight, bias, layer_norm_eps)

        self._token = contiguous(w["embeddings.token"])
        self._token_type = contiguous(w["embeddings.token_type"]) if num_token_types else None
        self._position = (
            contiguous(w["embeddings.position"])
            if positions == "learned"
            else sinusoidal_positions(max_positions, hidden_size)
        )
        self._embedding_norm = norm_at("embeddings.norm") if embedding_norm else None
        self._final_norm = norm_at("final_norm") if norm == "pre" else None
        self.layers = [
            EncoderLayer(
                MultiHeadAttention(
                    *(w[f"layers.{i}.attention.{part}.weight"] for part in _PROJECTIONS),
                    num_heads=num_heads,
                    num_kv_heads=kv_heads,
                    **{f"{p}_bias": w[f"layers.{i}.attention.{p}.bias"] for p in _PROJECTIONS},
                    precision=precision,
                ),
                FeedForward(
                    w[f"layers.{i}.feed_forward.up.weight"],
                    w[f"layers.{i}.feed_forward.down.weight"],
                    up_bias=w[f"layers.{i}.feed_forward.up.bias"],
                    down_bias=w[f"layers.{i}.feed_forward.down.bias"],
                    gate_weight=w.get(f"layers.{i}.feed_forward.gate.weight"),
                    gate_bias=w.get(f"layers.{i}.feed_forward.gate.bias"),
                    activation=activation,
                    precision=precision,
                ),
                norm_at(f"layers.{i}.attention_norm"),
                norm_at(f"layers.{i}.feed_forward_norm"),
                norm,
            )
            for i in range(num_layers)
        ]
        self._build_stack()

    def _build_stack(self) -> None:
        if self.layers:
            place_together(self.layers)
            self._stack = stack_layers(self.layers)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_stack"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._build_stack()

    @classmethod
    def from_pretrained(
        cls, folder: str | PathLike[str], precision: Precision = "float32"
    ) -> Encoder:
        """Load a Hugging Face folder: config.json and model.safetensors of a BERT-class model.

        Parameters
        ----------
        folder : path
        precision : {"float32", "bfloat16", "int8"}

        Returns
        -------
        Encoder

        Raises
        ------
        FileNotFoundError
            If a file is missing.
        ValueError
            If the model type is not supported, a file is broken, or the weights do not fit the
            configuration; the message names the file and the parameter.
        """
        from ..models import load

        return load(Path(folder), precision)

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the names and shapes of all weights."""
        hidden, inner = self.hidden_size, self.intermediate_size
        kv = self.num_kv_heads * self.head_dim
        shapes: dict[str, tuple[int, ...]] = {"embeddings.token": (self.vocab_size, hidden)}
        if self.positions == "learned":
            shapes["embeddings.position"] = (self.max_positions, hidden)
        if self.num_token_types:
            shapes["embeddings.token_type"] = (self.num_token_types, hidden)
        norms = ["embeddings.norm"] if self.embedding_norm else []
        for i in range(self.num_layers):
            for name, rows, columns in (
                ("attention.query", hidden, hidden),
                ("attention.key", kv, hidden),
                ("attention.value", kv, hidden),
                ("attention.output", hidden, hidden),
                ("feed_forward.up", inner, hidden),
                *([("feed_forward.gate", inner, hidden)] if self.gated else []),
                ("feed_forward.down", hidden, inner),
            ):
                shapes[f"layers.{i}.{name}.weight"] = (rows, columns)
                shapes[f"layers.{i}.{name}.bias"] = (rows,)
            norms += [f"layers.{i}.attention_norm", f"layers.{i}.feed_forward_norm"]
        if self.norm == "pre":
            norms.append("final_norm")
        for name in norms:
            shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (hidden,)
        return shapes

    @overload
    def __call__(
        self,
        input_ids: npt.ArrayLike,
        cu_seqlens: npt.ArrayLike | None = ...,
        *,
        token_type_ids: npt.ArrayLike | None = ...,
        return_hidden_states: Literal[False] = ...,
    ) -> Array: ...
    @overload
    def __call__(
        self,
        input_ids: npt.ArrayLike,
        cu_seqlens: npt.ArrayLike | None = ...,
        *,
        token_type_ids: npt.ArrayLike | None = ...,
        return_hidden_states: Literal[True],
    ) -> tuple[Array, list[Array]]: ...
    def __call__(
        self,
        input_ids: npt.ArrayLike,
        cu_seqlens: npt.ArrayLike | None = None,
        *,
        token_type_ids: npt.ArrayLike | None = None,
        return_hidden_states: bool = False,
    ) -> Array | tuple[Array, list[Array]]:
        """Turn token ids into contextual vectors.

        Parameters
        ----------
        input_ids : array of int, shape (T,) or (N, S)
            A flat stream of tokens, cut into sequences by `cu_seqlens`, or N sequences of length S.
        cu_seqlens : array of int, shape (N + 1,), optional
            For a flat stream; by default it is one sequence.
        token_type_ids : array of int, of the shape of `input_ids`, optional
            0 by default.
        return_hidden_states : bool
            Also return what each layer reads, and the result.

        Returns
        -------
        hidden : array, shape (T, E) or (N, S, E)
        hidden_states : list of num_layers + 1 arrays of that shape
            Only with `return_hidden_states`: the embeddings first, then the output of each layer.

        Raises
        ------
        ValueError
            If an id is outside the vocabulary or a sequence is longer than `max_positions`.
        """
        ids = as_integers("input_ids", input_ids)
        if ids.ndim == 2:
            if cu_seqlens is not None:
                raise ValueError("cu_seqlens is for a flat stream, but input_ids is 2-D")
            starts = np.arange(len(ids) + 1, dtype=np.int64) * ids.shape[1]
        elif ids.ndim == 1:
            starts = starts_of(ids, cu_seqlens)
        else:
            raise ValueError(
                f"input_ids has shape {describe(ids.shape)}: it must be (T,) or (N, S)"
            )
        types = None
        if token_type_ids is not None:
            types = as_integers("token_type_ids", token_type_ids)
            if types.shape != ids.shape:
                raise ValueError(
                    f"token_type_ids has shape {describe(types.shape)} but input_ids has "
                    f"{describe(ids.shape)}"
                )
            types = types.reshape(-1)
        shape = (*ids.shape, self.hidden_size)
        flat = ids.reshape(-1)
        if not return_hidden_states:
            return self._run(flat, starts, types).reshape(shape)
        states: list[Array] = []
        output = self._run(flat, starts, types, states)
        return output.reshape(shape), [state.reshape(shape) for state in states]

    def trace(
        self, input_ids: npt.ArrayLike, *, token_type_ids: npt.ArrayLike | None = None
    ) -> Trace:
        """Encode one sequence, and keep what is needed to look into every layer.

        Parameters
        ----------
        input_ids : array of int, shape (T,)
        token_type_ids : array of int, shape (T,), optional
            0 by default.

        Returns
        -------
        Trace
            Hidden states of every layer, the same bits as without a trace, and attention weights,
            computed when they are asked for.

        Raises
        ------
        ValueError
            If `input_ids` is not one sequence, an id is outside the vocabulary or there are more
            than `max_positions`.

        Examples
        --------
        >>> import headwise as hw
        >>> encoder = hw.Encoder(vocab_size=100, num_layers=2)
        >>> trace = encoder.trace([5, 7, 11])
        >>> trace.hidden_states.shape, trace.attention(layers=1, heads=[0, 3]).shape
        ((3, 3, 512), (1, 2, 3, 3))
        """
        ids = as_integers("input_ids", input_ids)
        if ids.ndim != 1:
            raise ValueError(f"input_ids has shape {describe(ids.shape)}: it must be (T,)")
        output, states = self(ids, token_type_ids=token_type_ids, return_hidden_states=True)
        return Trace(self, ids, np.stack(states), output)

    def _run(
        self,
        ids: npt.NDArray[np.int64],
        starts: npt.NDArray[np.int64],
        types: npt.NDArray[np.int64] | None = None,
        states: list[Array] | None = None,
    ) -> Array:
        """Encode a flat stream whose arrays are as the kernels take them; `states` is filled.

        Nothing is checked here but the ids: after the weights of a call have gone through the
        caches, each Python operation costs several times its usual time.
        """
        x = self._embed(ids, starts, types)
        if states is None:
            if self.layers:
                self._stack.run(x, starts, 0, self.num_layers, False)
        else:
            states.append(x.copy())
            for layer in range(self.num_layers):
                self._stack.run(x, starts, layer, 1, False)
                states.append(x.copy())
        return x if self._final_norm is None else _normalise(self._final_norm, x)

    def _embed(
        self,
        ids: npt.NDArray[np.int64],
        starts: npt.NDArray[np.int64],
        types: npt.NDArray[np.int64] | None,
    ) -> Array:
        tables = [self._token, self._position]
        indices: list[npt.NDArray[np.int64] | None] = [ids, None]
        if self._token_type is not None:
            tables.append(self._token_type)
            indices.append(np.zeros(len(ids), np.int64) if types is None else types)
        elif types is not None and types.any():
            raise ValueError("token_type_ids is not 0 everywhere: the model has no token types")
        x = empty((len(ids), self.hidden_size), np.dtype(np.float32))
        try:
            _core.embed(tables, indices, starts, x)
        except IndexError:
            raise self._index_error(ids, starts, types) from None
        return x if self._embedding_norm is None else _normalise(self._embedding_norm, x)

    def _index_error(
        self,
        ids: npt.NDArray[np.int64],
        starts: npt.NDArray[np.int64],
        types: npt.NDArray[np.int64] | None,
    ) -> ValueError:
        longest = np.diff(starts).max()
        if longest > self.max_positions:
            return ValueError(
                f"a sequence has {longest} tokens: the model has {self.max_positions} positions"
            )
        if not 0 <= ids.min() <= ids.max() < self.vocab_size:
            return ValueError(
                f"input_ids goes from {ids.min()} to {ids.max()}: the vocabulary has "
                f"{self.vocab_size} entries"
            )
        assert types is not None
        return ValueError(
            f"token_type_ids goes from {types.min()} to {types.max()}: "
            f"the model has {self.num_token_types} types"
        )

    def __repr__(self) -> str:
        return (
            f"Encoder(vocab_size={self.vocab_size}, hidden_size={self.hidden_size}, "
            f"num_layers={self.num_layers}, num_heads={self.num_heads})"
        )


def _normalise(norm: LayerNorm, x: Array) -> Array:
    """Normalise the rows of x in place; `x` and the norm's weights are as the kernel takes them."""
    _core.layer_norm(x, None, norm.weight, norm.bias, x, norm.eps, False)
    return x


_PROJECTIONS = ("query", "key", "value", "output")


def sinusoidal_positions(length: int, hidden_size: int) -> Array:
    """Return the position embeddings of "Attention Is All You Need", section 3.5.

    Column 2i is ``sin(position / 10000^(2i / hidden_size))``, column 2i + 1 the cosine of the same.

    Returns
    -------
    array, shape (length, hidden_size), float32

    Examples
    --------
    >>> import headwise as hw
    >>> hw.nn.sinusoidal_positions(2, 4).round(4)
    array([[0.    , 1.    , 0.    , 1.    ],
           [0.8415, 0.5403, 0.01  , 1.    ]], dtype=float32)
    """
    column = np.arange(hidden_size)
    angle = np.arange(length)[:, None] / 10000.0 ** (column // 2 * 2 / hidden_size)
    return np.where(column % 2 == 0, np.sin(angle), np.cos(angle)).astype(np.float32)
