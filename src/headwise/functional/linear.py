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

Activation = Literal["relu", "gelu"]


class Linear:
    """A linear layer ``activation(x Wᵀ + bias)`` whose weight is packed once, when it is made.

    Parameters
    ----------
    weight : array, shape (N, K)
        float32 or float64, as torch and Hugging Face store it: out_features by in_features. It is
        copied into panels that the kernel reads in order; the array itself is not kept.
    bias : array, shape (N,), optional
    activation : {"relu", "gelu"}, optional
        Applied to the sum, before the residual. "gelu" is the exact one, by erf.

    Attributes
    ----------
    in_features, out_features : int
    dtype : numpy.dtype
    activation : str or None

    Notes
    -----
    The bits of a row of the result depend on that row alone, not on the other rows or the number of
    threads: each element is one chain of fused multiply-adds over K.

    Examples
    --------
    >>> import numpy as np, headwise as hw
    >>> linear = hw.Linear(np.array([[1, 2], [0, -1]], np.float32), activation="relu")
    >>> linear(np.array([[3, 4]], np.float32))
    array([[11.,  0.]], dtype=float32)
    """

    def __init__(
        self,
        weight: npt.ArrayLike,
        bias: npt.ArrayLike | None = None,
        *,
        activation: Activation | None = None,
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
        w = rows_contiguous(w)
        self.out_features, self.in_features = w.shape
        self.dtype = w.dtype
        self.activation = activation
        self._bias = None
        if bias is not None:
            self._bias = as_float_like(w, "bias", bias, (self.out_features,)).copy()
        self._packed = aligned_empty(_core.packed_weight_size(w), w.dtype)
        _core.pack_weight(w, self._packed)
        self._code = 0 if activation is None else 1 + get_args(Activation).index(activation)

    def __call__(
        self, x: npt.ArrayLike, *, residual: npt.ArrayLike | None = None, out: Array | None = None
    ) -> Array:
        """Apply the layer to the last axis.

        Parameters
        ----------
        x : array, shape (..., K)
            Of the weight's dtype.
        residual : array, shape (..., N), optional
            Added to the result. It may be `out`.
        out : array, shape (..., N), optional
            Where to write the result; it must not overlap `x`.

        Returns
        -------
        array, shape (..., N)
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
            added = rows_contiguous(_as_rows(added))
        target = _as_rows(result)
        _core.linear(
            rows_contiguous(_as_rows(a)), self._packed, self._bias, added, target, self._code
        )
        if not np.may_share_memory(target, result):  # an `out` whose leading axes do not merge
            result[...] = target.reshape(shape)
        return result

    def __repr__(self) -> str:
        return (
            f"Linear({self.in_features} -> {self.out_features}, bias={self._bias is not None}, "
            f"activation={self.activation!r}, dtype={self.dtype})"
        )


def _as_rows(x: Array) -> Array:
    return x if x.ndim == 2 else x.reshape(-1, x.shape[-1])
