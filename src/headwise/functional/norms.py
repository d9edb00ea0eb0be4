"""Softmax, layer normalisation and RMSNorm."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .. import _core
from ._arrays import Array, as_finite, as_float_like, as_floats, describe, output, rows_contiguous


def softmax(x: npt.ArrayLike, axis: int = -1) -> Array:
    """Compute exp(x) / sum(exp(x)) along an axis.

    Parameters
    ----------
    x : array
        float32 or float64, at least 1-D.
    axis : int
        The last one by default; another is copied to be the last.

    Returns
    -------
    array
        Of the shape and dtype of `x`. The maximum is subtracted first, so that nothing overflows; a
        slice of nothing but -inf gives 0, as a query that attends no key does in attention.

    Examples
    --------
    >>> import numpy as np, headwise as hw
    >>> hw.softmax(np.array([-2.0, 8.0, 8.0])).round(6)
    array([2.30000e-05, 4.99989e-01, 4.99989e-01])
    """
    (a,) = as_floats(x=x)
    if a.ndim == 0:
        raise ValueError("x is a scalar: it must have at least one axis")
    moved = rows_contiguous(np.moveaxis(a, axis, -1))
    rows = rows_contiguous(moved.reshape(-1, moved.shape[-1])) if a.size else moved
    out = np.empty(moved.shape, a.dtype)
    if a.size:
        _core.softmax(rows, out.reshape(rows.shape))
    return np.moveaxis(out, -1, axis)


def layer_norm(
    x: npt.ArrayLike,
    weight: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    *,
    eps: float = 1e-5,
    residual: npt.ArrayLike | None = None,
    out: Array | None = None,
) -> Array:
    """Normalise the last axis to mean 0 and variance 1, then scale and shift it.

    Parameters
    ----------
    x : array, shape (..., E)
        float32 or float64.
    weight, bias : array, shape (E,), optional
        The scale and the shift, of the dtype of `x`.
    eps : float
        Added to the variance.
    residual : array, shape (..., E), optional
        Added to `x` first: the "add & norm" of a transformer layer.
    out : array, shape (..., E), optional
        Where to write the result. It may be `x` or `residual` itself; it must not overlap an input
        otherwise.

    Returns
    -------
    array, shape (..., E)

    Notes
    -----
    Ba, Kiros and Hinton, "Layer Normalization" (2016). The variance is taken about the mean in a
    second pass, so that a large mean does not cancel it.

    Examples
    --------
    >>> import numpy as np, headwise as hw
    >>> hw.layer_norm(np.array([[1.0, 2.0, 3.0]])).round(3)
    array([[-1.225,  0.   ,  1.225]])
    """
    return _normalise(x, weight, bias, eps, residual, out, rms=False)


def rms_norm(
    x: npt.ArrayLike,
    weight: npt.ArrayLike | None = None,
    *,
    eps: float = 1e-6,
    residual: npt.ArrayLike | None = None,
    out: Array | None = None,
) -> Array:
    """Divide the last axis by its root mean square, then scale it.

    Parameters
    ----------
    x : array, shape (..., E)
        float32 or float64.
    weight : array, shape (E,), optional
        The scale, of the dtype of `x`.
    eps : float
        Added to the mean square.
    residual : array, shape (..., E), optional
        Added to `x` first.
    out : array, shape (..., E), optional
        Where to write the result. It may be `x` or `residual` itself; it must not overlap an input
        otherwise.

    Returns
    -------
    array, shape (..., E)

    Raises
    ------
    TypeError
        If an array is neither float32 nor float64, or not all are the same.
    ValueError
        If a shape does not fit, `eps` is negative, or `out` overlaps what it must not.

    Notes
    -----
    Zhang and Sennrich, "Root Mean Square Layer Normalization" (2019).

    Examples
    --------
    >>> import numpy as np, headwise as hw
    >>> hw.rms_norm(np.array([[3.0, 4.0, 0.0, 0.0]]), eps=0)
    array([[1.2, 1.6, 0. , 0. ]])
    """
    return _normalise(x, weight, None, eps, residual, out, rms=True)


def _normalise(
    x: npt.ArrayLike,
    weight: npt.ArrayLike | None,
    bias: npt.ArrayLike | None,
    eps: float,
    residual: npt.ArrayLike | None,
    out: Array | None,
    *,
    rms: bool,
) -> Array:
    (a,) = as_floats(x=x)
    if a.ndim == 0 or a.shape[-1] == 0:
        raise ValueError(f"x has shape {describe(a.shape)}: its last axis must not be empty")
    epsilon = as_finite("eps", eps)
    if epsilon < 0:
        raise ValueError(f"eps is {eps}: it must not be negative")
    columns = a.shape[-1:]
    scale = None if weight is None else as_float_like(a, "weight", weight, columns)
    shift = None if bias is None else as_float_like(a, "bias", bias, columns)
    added = None if residual is None else as_float_like(a, "residual", residual, a.shape)
    rows = rows_contiguous(a.reshape(-1, *columns))
    apart = [p for p in (scale, shift) if p is not None]
    apart += [p for p in (a, added) if p is not None and p is not out]
    result = output(out, a.shape, a.dtype, *apart)
    target = result.reshape(-1, *columns)
    added_rows = None if added is None else added.reshape(rows.shape)
    _core.layer_norm(rows, added_rows, scale, shift, target, epsilon, rms)
    if not np.may_share_memory(target, result):  # an `out` whose leading axes do not merge
        result[...] = target.reshape(a.shape)
    return result
