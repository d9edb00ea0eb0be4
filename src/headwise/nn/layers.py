"""The layers of a transformer encoder, on flat streams of tokens.

Dimension letters: T tokens of all sequences, N sequences, E hidden size, F intermediate size,
H heads, D = E / H head dimension, V vocabulary size, P positions.

A batch is a (T, E) array of hidden states and the cumulative lengths of its sequences
(`cu_seqlens`): no padding is stored or computed. Hidden states are float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from .. import _core
from ..functional import Linear, attention_varlen, attention_weights, layer_norm
from ..functional._arrays import (
    Array,
    aligned_empty,
    as_cu_seqlens,
    as_flag,
    as_float_like,
    as_floats,
    describe,
)
from ..functional._options import MAX_HEAD_DIM
from ..functional.linear import Activation, LinearPrecision, Precision, activation_code

NormOrder = Literal["post", "pre"]


@dataclass(frozen=True)
class LayerNorm:
    """Layer normalisation with its weights, of shape (E,) each."""

    weight: Array
    bias: Array
    eps: float = 1e-5

    def __call__(
        self, x: npt.ArrayLike, *, residual: npt.ArrayLike | None = None, out: Array | None = None
    ) -> Array:
        """Return :func:`headwise.layer_norm` of ``x + residual``."""
        return layer_norm(x, self.weight, self.bias, eps=self.eps, residual=residual, out=out)


class MultiHeadAttention:
    """Self-attention in several heads: ``concat(head_1, ..., head_H) W_O``.

    Head h is ``softmax(Q_h K_hᵀ / sqrt(D)) V_h`` with Q = x W_Q, K = x W_K and V = x W_V
    (Vaswani et al., 2017). The three projections are one packed matrix.

    Parameters
    ----------
    query_weight : array, shape (H D, E)
        Weights are float32, stored as torch does: out_features by in_features.
    key_weight, value_weight : array, shape (num_kv_heads D, E)
    output_weight : array, shape (E, H D)
    num_heads : int
        H.
    num_kv_heads : int, optional
        Key and value heads, each shared by ``num_heads / num_kv_heads`` query heads; `num_heads` by
        default.
    query_bias, key_bias, value_bias, output_bias : array, optional
        One number an output feature.
    precision : {"float32", "bfloat16", "int8"}
        Of the weights and their products, see :class:`headwise.Linear`, where "float32" is
        "float32_pairs".

    Raises
    ------
    TypeError
        If a weight is not float32.
    ValueError
        If the shapes or numbers of heads do not fit, or D is more than 512.

    Examples
    --------
    >>> import numpy as np, headwise as hw
    >>> w = np.eye(8, dtype=np.float32)
    >>> attention = hw.MultiHeadAttention(w, w, w, w, num_heads=2)
    >>> attention(np.ones((5, 8), np.float32), [0, 3, 5]).shape
    (5, 8)
    """

    def __init__(
        self,
        query_weight: npt.ArrayLike,
        key_weight: npt.ArrayLike,
        value_weight: npt.ArrayLike,
        output_weight: npt.ArrayLike,
        *,
        num_heads: int,
        num_kv_heads: int | None = None,
        query_bias: npt.ArrayLike | None = None,
        key_bias: npt.ArrayLike | None = None,
        value_bias: npt.ArrayLike | None = None,
        output_bias: npt.ArrayLike | None = None,
        precision: Precision = "float32",
    ) -> None:
        self.num_heads = num_heads
        self.num_kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        weights = [np.asarray(w) for w in (query_weight, key_weight, value_weight)]
        if num_heads < 1 or self.num_kv_heads < 1 or num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_heads is {num_heads} and num_kv_heads {self.num_kv_heads}: "
                "the first must be a multiple of the second"
            )
        if weights[0].ndim != 2 or weights[0].shape[0] % num_heads:
            raise ValueError(
                f"query_weight has shape {describe(weights[0].shape)}: its first axis must be a "
                f"multiple of num_heads, {num_heads}"
            )
        rows, self.hidden_size = weights[0].shape
        self.head_dim = rows // num_heads
        if self.head_dim > MAX_HEAD_DIM:
            raise ValueError(
                f"query_weight has heads of {self.head_dim}: head_dim must be at most "
                f"{MAX_HEAD_DIM}"
            )
        shape = (self.num_kv_heads * self.head_dim, self.hidden_size)
        for name, w in zip(("key_weight", "value_weight"), weights[1:], strict=True):
            if w.shape != shape:
                raise ValueError(
                    f"{name} has shape {describe(w.shape)}: it must be {describe(shape)}"
                )
        if np.shape(output_weight) != (self.hidden_size, rows):
            raise ValueError(
                f"output_weight has shape {describe(np.shape(output_weight))}: it must be "
                f"{describe((self.hidden_size, rows))}"
            )
        biases = []
        for name, b, w in zip(
            ("query_bias", "key_bias", "value_bias"),
            (query_bias, key_bias, value_bias),
            weights,
            strict=True,
        ):
            bias = np.zeros(w.shape[0], w.dtype) if b is None else np.asarray(b)
            if bias.shape != w.shape[:1]:
                raise ValueError(
                    f"{name} has shape {describe(bias.shape)}: it must be {describe(w.shape[:1])}"
                )
            biases.append(bias)
        self.precision = precision
        products = products_of(precision)
        self.projection = Linear(
            np.concatenate(weights), np.concatenate(biases), precision=products
        )
        self.output = Linear(output_weight, output_bias, precision=products)

    def __call__(
        self,
        hidden: npt.ArrayLike,
        cu_seqlens: npt.ArrayLike | None = None,
        *,
        is_causal: bool = False,
        residual: npt.ArrayLike | None = None,
    ) -> Array:
        """Attend within each sequence.

        Parameters
        ----------
        hidden : array, shape (T, E)
            float32.
        cu_seqlens : array of int, shape (N + 1,), optional
            Cumulative lengths of the sequences; by default all tokens are one.
        is_causal : bool
            A token attends itself and those before it only.
        residual : array, shape (T, E), optional
            Added to the result.

        Returns
        -------
        array, shape (T, E)

        Raises
        ------
        TypeError
            If `hidden` is not float32, or `cu_seqlens` not of integers.
        ValueError
            If `hidden` is not (T, E), or `cu_seqlens` does not ascend from 0 to T.
        """
        query, key, value = self._project(hidden)
        starts = starts_of(query, cu_seqlens)
        attended = attention_varlen(query, key, value, starts, is_causal=is_causal)
        rows = attended.reshape(len(query), self.output.in_features)
        return self.output(rows, residual=residual)

    def weights(
        self,
        hidden: npt.ArrayLike,
        cu_seqlens: npt.ArrayLike | None = None,
        *,
        heads: int | Sequence[int] | None = None,
        is_causal: bool = False,
    ) -> list[Array]:
        """Return the attention probabilities of each sequence.

        Parameters
        ----------
        hidden, cu_seqlens, is_causal
            As when the layer is called.
        heads : int or sequence of int, optional
            The heads wanted, in this order; all by default.

        Returns
        -------
        list of N arrays, shape (heads, S, S)
            For each sequence of length S: row i is what token i gives to each token.

        Raises
        ------
        TypeError, ValueError
            As when the layer is called, or if a head is out of range.
        """
        query, key, _ = self._project(hidden)
        starts = starts_of(query, cu_seqlens)
        return [
            attention_weights(
                query[begin:end].swapaxes(0, 1),
                key[begin:end].swapaxes(0, 1),
                heads=heads,
                is_causal=is_causal,
            )
            for begin, end in pairwise(starts)
        ]

    def _project(self, hidden: npt.ArrayLike) -> tuple[Array, Array, Array]:
        """Query (T, H, D), key and value (T, num_kv_heads, D): views of one array."""
        x = np.asarray(hidden)
        if x.ndim != 2:
            raise ValueError(f"hidden has shape {describe(x.shape)}: it must be (T, E)")
        keys = self.num_heads
        values = keys + self.num_kv_heads
        heads = self.projection(x).reshape(len(x), values + self.num_kv_heads, self.head_dim)
        return heads[:, :keys], heads[:, keys:values], heads[:, values:]


class FeedForward:
    """Two linear layers with an activation between: ``activation(x W_1 + b_1) W_2 + b_2``.

    With a gate the first is ``activation(x W_gate + b_gate) * (x W_1 + b_1)``: SwiGLU with "silu",
    GeGLU with "gelu".

    Parameters
    ----------
    up_weight : array, shape (F, E)
        Weights are float32, stored as torch does: out_features by in_features.
    down_weight : array, shape (E, F)
    up_bias : array, shape (F,), optional
    down_bias : array, shape (E,), optional
    gate_weight : array, shape (F, E), optional
    gate_bias : array, shape (F,), optional
    activation : {"relu", "gelu", "gelu_tanh", "silu"}
    precision : {"float32", "bfloat16", "int8"}
        Of the weights and their products, see :class:`headwise.Linear`, where "float32" is
        "float32_pairs".

    Raises
    ------
    TypeError
        If a weight is not float32.
    ValueError
        If the shapes do not fit.

    Examples
    --------
    >>> import numpy as np, headwise as hw
    >>> feed_forward = hw.FeedForward(np.ones((8, 2), np.float32), np.ones((2, 8), np.float32))
    >>> feed_forward(np.array([[1, 2]], np.float32))
    array([[24., 24.]], dtype=float32)
    """

    def __init__(
        self,
        up_weight: npt.ArrayLike,
        down_weight: npt.ArrayLike,
        *,
        up_bias: npt.ArrayLike | None = None,
        down_bias: npt.ArrayLike | None = None,
        gate_weight: npt.ArrayLike | None = None,
        gate_bias: npt.ArrayLike | None = None,
        activation: Activation = "relu",
        precision: Precision = "float32",
    ) -> None:
        self.precision = precision
        products = products_of(precision)
        self.up = Linear(
            up_weight,
            up_bias,
            activation=activation,
            precision=products,
            gate_weight=gate_weight,
            gate_bias=gate_bias,
        )
        self.down = Linear(down_weight, down_bias, precision=products)
        if self.down.in_features != self.up.out_features:
            raise ValueError(
                f"down_weight takes {self.down.in_features} features but up_weight gives "
                f"{self.up.out_features}"
            )
        self.hidden_size, self.intermediate_size = self.up.in_features, self.up.out_features
        if self.down.out_features != self.hidden_size:
            raise ValueError(
                f"down_weight gives {self.down.out_features} features but up_weight takes "
                f"{self.hidden_size}"
            )

    def __call__(self, x: npt.ArrayLike, *, residual: npt.ArrayLike | None = None) -> Array:
        """Return the (..., E) result for x (..., E), plus `residual`; all float32."""
        return self.down(self.up(x), residual=residual)


@dataclass(frozen=True)
class EncoderLayer:
    """Attention and feed-forward, each with a residual connection and a layer normalisation.

    Attributes
    ----------
    attention : MultiHeadAttention
    feed_forward : FeedForward
        Of the same hidden size and precision.
    attention_norm, feed_forward_norm : LayerNorm
    norm : {"post", "pre"}
        "post" is ``LayerNorm(x + f(x))``, as in the original transformer and in BERT; "pre" is
        ``x + f(LayerNorm(x))``.
    """

    attention: MultiHeadAttention
    feed_forward: FeedForward
    attention_norm: LayerNorm
    feed_forward_norm: LayerNorm
    norm: NormOrder = "post"

    def __post_init__(self) -> None:
        for name in ("hidden_size", "precision"):
            ours, theirs = getattr(self.attention, name), getattr(self.feed_forward, name)
            if ours != theirs:
                raise ValueError(
                    f"attention has {name} {ours!r} but feed_forward has {theirs!r}: "
                    "they must be the same"
                )

    def __call__(
        self,
        hidden: npt.ArrayLike,
        cu_seqlens: npt.ArrayLike | None = None,
        *,
        is_causal: bool = False,
    ) -> Array:
        """Return the (T, E) result for hidden (T, E); parameters as of the attention layer."""
        causal = as_flag("is_causal", is_causal)
        result = np.array(self._checked(hidden), order="C")
        self._stack.run(result, starts_of(result, cu_seqlens), 0, 1, causal)
        return result

    def attention_weights(
        self,
        hidden: npt.ArrayLike,
        cu_seqlens: npt.ArrayLike | None = None,
        *,
        heads: int | Sequence[int] | None = None,
        is_causal: bool = False,
    ) -> list[Array]:
        """Return the attention probabilities of this layer when it reads `hidden` (T, E).

        They are those of :meth:`MultiHeadAttention.weights`, of what the attention of this layer
        reads: `hidden`, or its normalisation if `norm` is "pre".
        """
        x = self._checked(hidden)
        if self.norm == "pre":
            x = self.attention_norm(x)
        return self.attention.weights(x, cu_seqlens, heads=heads, is_causal=is_causal)

    def _checked(self, hidden: npt.ArrayLike) -> Array:
        (x,) = as_floats(hidden=hidden)
        if x.dtype != np.float32:
            raise TypeError(f"hidden has dtype {x.dtype}: it must be float32")
        if x.ndim != 2 or x.shape[1] != self.attention.hidden_size:
            raise ValueError(
                f"hidden has shape {describe(x.shape)}: it must be "
                f"(T, {self.attention.hidden_size})"
            )
        return x

    @cached_property
    def _stack(self) -> _core.EncoderStack:
        return stack_layers([self])

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_stack"}

    @property
    def _linears(self) -> tuple[Linear, Linear, Linear, Linear]:
        """The linear layers, in the order of their work."""
        return (
            self.attention.projection,
            self.attention.output,
            self.feed_forward.up,
            self.feed_forward.down,
        )

    def _arrays(self) -> tuple[Array | float | None, ...]:
        """Everything the kernel reads, in the order of `_core.EncoderStack`."""
        norms = (self.attention_norm, self.feed_forward_norm)
        like = np.empty(0, np.float32)
        shape = (self.attention.hidden_size,)
        return (
            *(linear.packed for linear in self._linears),
            *(linear.bias for linear in self._linears),
            *(
                as_float_like(like, name, array, shape)
                for norm in norms
                for name, array in (("weight", norm.weight), ("bias", norm.bias))
            ),
            *(norm.eps for norm in norms),
        )


def products_of(precision: Precision) -> LinearPrecision:
    """Return how linear layers take their products: in float32 in pairs."""
    if precision not in get_args(Precision):
        raise ValueError(f"precision is {precision!r}: it must be one of {get_args(Precision)}")
    return "float32_pairs" if precision == "float32" else precision


def place_together(layers: Sequence[EncoderLayer]) -> None:
    """Move the packed weights of layers to one piece of memory, in the order of their work.

    NumPy asks the system for large pages for a piece of several MB. They help a few rows of input,
    whose time goes into reading all weights.
    """
    linears = [linear for layer in layers for linear in layer._linears]
    memory = aligned_empty((sum(linear.packed.size for linear in linears),), np.dtype(np.uint8))
    for linear in linears:  # one after the other: no more than one weight is there twice
        place, memory = np.split(memory, [linear.packed.size])
        place[:] = linear.packed
        linear.packed = place


def stack_layers(layers: Sequence[EncoderLayer]) -> _core.EncoderStack:
    """Return layers of one shape as one stack, for the kernel to run through."""
    attention, feed_forward = layers[0].attention, layers[0].feed_forward
    return _core.EncoderStack(
        [layer._arrays() for layer in layers],
        products_of(attention.precision),
        activation=activation_code(feed_forward.up.activation),
        gated=feed_forward.up.gated,
        pre_norm=layers[0].norm == "pre",
        hidden_size=attention.hidden_size,
        intermediate_size=feed_forward.intermediate_size,
        num_heads=attention.num_heads,
        num_kv_heads=attention.num_kv_heads,
        head_dim=attention.head_dim,
    )


def starts_of(x: Array, cu_seqlens: npt.ArrayLike | None) -> npt.NDArray[np.int64]:
    """Return cumulative sequence lengths; by default all rows of x are one sequence."""
    if cu_seqlens is None:
        return np.array([0, len(x)], np.int64)
    return as_cu_seqlens("cu_seqlens", cu_seqlens, len(x))
