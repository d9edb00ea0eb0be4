"""Attention over parts of the keys, put together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ._arrays import Array, as_array, as_attention_floats, describe, sum_dtype


def merge_attention(
    outs: Sequence[npt.ArrayLike], lses: Sequence[npt.ArrayLike]
) -> tuple[Array, Array]:
    """Merge attention computed over disjoint sets of keys into attention over all of them.

    Parameters
    ----------
    outs : sequence of arrays, shape (..., Hq, Sq, Dv)
        What :func:`attention` gave for each set of keys.
    lses : sequence of arrays, shape (..., Hq, Sq)
        The log-sum-exps it returned with them. A set that a query attended nothing of has -inf.

    Returns
    -------
    out : array, shape (..., Hq, Sq, Dv)
        Equal, to rounding, to attention over all keys at once. In the dtype of `outs`.
    lse : array, shape (..., Hq, Sq)

    Raises
    ------
    ValueError
        If there are no parts, or their shapes differ.
    TypeError
        If their dtypes differ, or `outs` or `lses` is no sequence.

    Notes
    -----
    The weight of part i is exp(lse_i - lse), with lse the logarithm of the sum of exp(lse_i). Where
    attention has `sinks`, give them to one part only.

    Examples
    --------
    >>> import numpy as np, headwise as hw
    >>> q, k = np.ones((1, 2, 4), np.float32), np.ones((1, 6, 4), np.float32)
    >>> shards = k[:, :4], k[:, 4:]
    >>> parts = [hw.attention(q, shard, shard, return_lse=True) for shard in shards]
    >>> out, lse = hw.merge_attention(*zip(*parts))
    >>> np.allclose(out, hw.attention(q, k, k))
    True
    """
    outs, lses = _parts("outs", outs), _parts("lses", lses)
    if len(outs) == 0 or len(outs) != len(lses):
        raise ValueError(
            f"outs has {len(outs)} parts and lses has {len(lses)}: there must be as many, and one "
            "or more"
        )
    parts = as_attention_floats(**{f"outs[{i}]": out for i, out in enumerate(outs)})
    real = sum_dtype(parts[0].dtype)
    logs = [as_array(f"lses[{i}]", lse) for i, lse in enumerate(lses)]
    if parts[0].ndim < 1:
        raise ValueError("outs[0] has shape (): it must be (..., Hq, Sq, Dv)")
    for i, (part, log) in enumerate(zip(parts, logs, strict=True)):
        if part.shape != parts[0].shape:
            raise ValueError(
                f"outs[{i}] has shape {describe(part.shape)}: it must be "
                f"{describe(parts[0].shape)}, as outs[0]"
            )
        if log.dtype != real:
            raise TypeError(f"lses[{i}] has dtype {log.dtype}: it must be {real}")
        if log.shape != part.shape[:-1]:
            raise ValueError(
                f"lses[{i}] has shape {describe(log.shape)}: it must be {describe(part.shape[:-1])}"
            )
    largest = np.maximum.reduce(logs)
    shift = np.where(np.isneginf(largest), 0, largest).astype(real)
    weights = [np.exp(log - shift) for log in logs]
    total = np.add.reduce(weights)
    inverse = (1 / np.where(total == 0, 1, total)).astype(real)
    out = np.zeros(parts[0].shape, real)
    for part, log, weight in zip(parts, logs, weights, strict=True):
        nothing = np.isneginf(log)[..., None]  # was attended: what the part holds is no matter
        share = (weight * inverse)[..., None]
        np.add(out, np.where(nothing, 0, part.astype(real, copy=False)) * share, out=out)
    with np.errstate(divide="ignore"):  # log(0) = -inf where nothing was attended
        return out.astype(parts[0].dtype, copy=False), shift + np.log(total)


def _parts(name: str, given: Sequence[npt.ArrayLike]) -> list[npt.ArrayLike]:
    try:
        return list(given)
    except TypeError:
        raise TypeError(f"{name} is {given!r}: it must be a sequence of arrays") from None
