"""Linear layers with packed weights."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from .. import _core
from ._arrays import (
    Array,
    aligned_empty,
    as_float_like,
    as_floats,
    describe,
    output,
    overlaps,
    rows_contiguous,
)

Activation = Literal["relu", "gelu", "gelu_tanh", "silu"]
Precision = Literal["float32", "bfloat16", "int8"]
LinearPrecision = Literal["float32", "float32_pairs", "bfloat16", "int8"]

MAX_INT8_FEATURES = 65536


class Linear:
    """A linear layer ``activation(x Wᵀ + bias)`` whose weight is packed once, when it is made.

    With a gate it is ``activation(x W_gateᵀ + bias_gate) * (x Wᵀ + bias)``: SwiGLU with "silu",
    GeGLU with "gelu".

    Parameters
    ----------
    weight : array, shape (N, K)
        float32 or float64, as torch and Hugging Face store it: out_features by in_features. It is
        copied into panels that the kernel reads in order; the array itself is not kept.
    bias : array, shape (N,), optional
    activation : {"relu", "gelu", "gelu_tanh", "silu"}, optional
        Applied to the sum, or to the gate, before the residual. "gelu" is the exact one, by erf
        (within 5e-5 in a reduced precision); "gelu_tanh" its approximation.
    precision : {"float32", "float32_pairs", "bfloat16", "int8"}, optional
        What the weight is held in and products are taken of; the dtype of `weight` by default. All
        are for a float32 weight, and take and give float32.

        "float32_pairs" takes two products with one multiplication, and additions, on CPUs whose
        adders work beside the multipliers ("avx512_zen4"), where it is up to 1.4 times as fast as
        "float32". Rounding is relative to each row of `x` and of the weight as a whole, not to each
        product: the error is about that of "float32", but several times it where the columns of `x`
        are of very different sizes, and 0 times something need not be exactly 0. A row that holds
        inf or NaN gives NaN. Elsewhere it gives the bits of "float32", but numbers above 1e35 may
        overflow. It is what the layers of :class:`Encoder` call "float32".

        "bfloat16" rounds the weight, and each input, to the nearest; sums are float32. "int8" has
        one scale an output feature, and quantises each row of the input to 256 steps from its
        least to its largest number and 0, which is exact; the integers are exact and the same on
        every instruction set, so K is at most 65,536. An input row that holds inf or NaN gives a
        row of NaN; one that spans less than 3e-35 may count as 0.
    gate_weight : array, shape (N, K), optional
        Of the dtype of `weight`.
    gate_bias : array, shape (N,), optional
        Only with `gate_weight`.

    Attributes
    ----------
    in_features, out_features : int
    dtype : numpy.dtype
        Of inputs and results.
    precision : str
    activation : str or None
    gated : bool
    packed : array of uint8
        The weights as the kernel reads them.
    bias : array or None
        Of the gate first, if there is one.

    Raises
    ------
    TypeError
        If a weight or bias is neither float32 nor float64, or not all are the same.
    ValueError
        If shapes do not fit, or `activation` or `precision` is none of the above.

    Notes
    -----
    The bits of a row of the result depend on that row alone, not on the other rows or the number of
    threads: each element is one chain of multiply-adds over K (or several, of 384 steps, added in
    order), fused on all instruction sets but the scalar one. In pairs a chain begins with what they
    add too much, and two of three of its steps are pairs.

    GeGLU and SwiGLU: Shazeer, "GLU Variants Improve Transformer" (2020). int8 by rows of the input
    and of the weight: Dettmers et al., "LLM.int8()" (2022), without its outliers. Pairs:
    Winograd, "A New Algorithm for Inner Product" (1968), on rows scaled by powers of 2.

    Examples
    --------
    >>> import numpy as np, headwise as hw
    >>> weight = np.array([[1, 2], [0, -1]], np.float32)
    >>> linear = hw.Linear(weight, activation="relu")
    >>> linear(np.array([[3, 4]], np.float32))
    array([[11.,  0.]], dtype=float32)
    >>> hw.Linear(weight, precision="float32_pairs")(np.array([[3, 4]], np.float32))
    array([[11., -4.]], dtype=float32)
    >>> hw.Linear(weight, precision="int8")(np.array([[3, 4]], np.float32)).round(1)
    array([[11., -4.]], dtype=float32)
    """

    def __init__(
        self,
        weight: npt.ArrayLike,
        bias: npt.ArrayLike | None = None,
        *,
        activation: Activation | None = None,
        precision: LinearPrecision | None = None,
        gate_weight: npt.ArrayLike | None = None,
        gate_bias: npt.ArrayLike | None = None,
    ) -> None:
        (w,) = as_floats(weight=weight)
        if w.ndim != 2 or 0 in w.shape:
            raise ValueError(
                f"weight has shape {describe(w.shape)}: it must be (out_features, in_features), "
                "both at least 1"
            )
        if activation is not None and activation not in get_args(Activation):
            raise ValueError(
                f"activation is {activation!r}: it must be None or one of {get_args(Activation)}"
            )
        if precision is not None and precision not in get_args(LinearPrecision):
            raise ValueError(
                f"precision is {precision!r}: it must be None or one of {get_args(LinearPrecision)}"
            )
        if precision is not None and w.dtype != np.float32:
            raise TypeError(f"weight has dtype {w.dtype}: with a precision it must be float32")
        if precision == "int8" and w.shape[1] > MAX_INT8_FEATURES:
            raise ValueError(
                f"weight has {w.shape[1]} input features: with precision 'int8' it must have at "
                f"most {MAX_INT8_FEATURES}"
            )
        if gate_bias is not None and gate_weight is None:
            raise ValueError("gate_bias is given without gate_weight")
        self.out_features, self.in_features = w.shape
        self.dtype = w.dtype
        self.precision = w.dtype.name if precision is None else precision
        self.activation = activation
        weights, biases = [w], [("bias", bias)]
        if gate_weight is not None:  # what is activated lies first
            weights.insert(0, as_float_like(w, "gate_weight", gate_weight, w.shape))
            biases.insert(0, ("gate_bias", gate_bias))
        self.gated = gate_weight is not None
        self.bias = None
        if any(b is not None for _, b in biases):
            self.bias = np.concatenate(
                [
                    np.zeros(self.out_features, w.dtype)
                    if b is None
                    else as_float_like(w, name, b, (self.out_features,))
                    for name, b in biases
                ]
            )
        size = _core.packed_weight_size(self.precision, *w.shape)
        self.packed = aligned_empty((len(weights) * size,), np.dtype(np.uint8))
        for i, one in enumerate(weights):
            packed = self.packed[i * size : (i + 1) * size]
            _core.pack_weight(self.precision, rows_contiguous(one), packed)
        self._code = activation_code(activation)

    def __call__(
        self, x: npt.ArrayLike, *, residual: npt.ArrayLike | None = None, out: Array | None = None
    ) -> Array:
        """Apply the layer to the last axis.

        Parameters
        ----------
        x : array, shape (..., K)
            Of the weight's dtype.
        residual : array, shape (..., N), optional
            Added to the result. It may be `out`, but not with a gate.
        out : array, shape (..., N), optional
            Where to write the result; it must not overlap `x`.

        Returns
        -------
        array, shape (..., N)

        Raises
        ------
        TypeError
            If `x`, `residual` or `out` is not of the layer's dtype.
        ValueError
            If a shape does not fit, or `out` overlaps what it must not.
        """
        (a,) = as_floats(x=x)
        if a.dtype != self.dtype:
            raise TypeError(f"x has dtype {a.dtype}: it must be {self.dtype}, as the weight is")
        if a.ndim < 1 or a.shape[-1] != self.in_features:
            raise ValueError(
                f"x has shape {describe(a.shape)}: it must be (..., {self.in_features})"
            )
        shape = (*a.shape[:-1], self.out_features)
        result = output(out, shape, a.dtype, a)
        added = None
        if residual is not None:
            added = np.asarray(residual)
            if added.dtype != a.dtype:
                raise TypeError(f"residual has dtype {added.dtype}: it must be {a.dtype}")
            if added.shape != shape:
                raise ValueError(
                    f"residual has shape {describe(added.shape)}: it must be {describe(shape)}"
                )
            if added is not out and out is not None and overlaps(added, out):
                raise ValueError("residual shares memory with out: it must be out itself, or apart")
            if self.gated and added is out:
                raise ValueError("residual is out itself: with a gate it must lie apart")
            added = rows_contiguous(_as_rows(added))
        target = _as_rows(result)
        _core.linear(
            rows_contiguous(_as_rows(a)),
            self.packed,
            self.bias,
            added,
            target,
            self.precision,
            self._code,
            self.gated,
        )
        if not np.may_share_memory(target, result):  # an `out` whose leading axes do not merge
            result[...] = target.reshape(shape)
        return result

    def __repr__(self) -> str:
        return (
            f"Linear({self.in_features} -> {self.out_features}, bias={self.bias is not None}, "
            f"activation={self.activation!r}, precision={self.precision!r})"
        )


def activation_code(activation: Activation | None) -> int:
    """Return the number of an activation in the C ABI."""
    return 0 if activation is None else 1 + get_args(Activation).index(activation)


def _as_rows(x: Array) -> Array:
    return x if x.ndim == 2 else x.reshape(-1, x.shape[-1])
