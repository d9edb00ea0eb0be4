"""The options that all forms of attention share: checked, and in the form that kernels take."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

import numpy as np
import numpy.typing as npt

from ._arrays import Array, as_array, as_finite, as_flag, as_integers, describe

if TYPE_CHECKING:
    Window = tuple[int | None, int | None]

MAX_HEAD_DIM = 512

NO_WINDOW = (None, None)

# What scores are multiplied with and added to: sums of a few, in float32, are far from overflowing.
_LARGEST = 1e30

# Distances that float32 tells apart.
_FARTHEST_FLOAT32 = 2**24

Lengths = npt.NDArray[np.int64]


class MaskOptions(TypedDict, total=False):
    """What decides which keys a query attends, and with which scores."""

    is_causal: bool
    query_offset: npt.ArrayLike | None
    window: Window
    scale: float | None
    softcap: float | None
    alibi_slopes: npt.ArrayLike | None
    sinks: npt.ArrayLike | None


class DenseOptions(MaskOptions, total=False):
    """And those for sequences that are not packed."""

    attn_mask: npt.ArrayLike | None
    key_lengths: npt.ArrayLike | None


class KernelOptions(NamedTuple):
    """In the order of the arguments of ``_core.attention``, from `key_lengths` on."""

    key_lengths: Lengths | None
    query_offsets: Lengths | None
    window_left: int
    window_right: int
    scale: float
    softcap: float
    attn_mask: Array | None
    mask_starts: Lengths | None
    alibi_slopes: npt.NDArray[np.float64] | None
    sinks: npt.NDArray[np.float64] | None

    def vectors(self) -> list[Array | None]:
        """Return what kernels read besides the mask."""
        return [self.key_lengths, self.query_offsets, self.alibi_slopes, self.sinks]


def kernel_options(
    *,
    batch: tuple[int, ...],
    heads: int,
    queries: int | Lengths,
    keys: int | Lengths,
    head_dim: int,
    dtype: np.dtype[Any],
    is_causal: Any,
    query_offset: npt.ArrayLike | None,
    window: Any,
    scale: float | None,
    softcap: float | None,
    alibi_slopes: npt.ArrayLike | None,
    sinks: npt.ArrayLike | None,
    key_lengths: npt.ArrayLike | None = None,
    attn_mask: npt.ArrayLike | None = None,
) -> KernelOptions:
    """Check the options of attention over sequences with this batch shape and these lengths."""
    lengths = None
    if key_lengths is not None:
        assert isinstance(keys, int)
        lengths = _key_lengths(key_lengths, batch, keys)
    left, right = (0, 0) if window is NO_WINDOW else _window(window)
    if as_flag("is_causal", is_causal):
        right = 1
    offsets = None
    if query_offset is not None:
        offsets = per_batch("query_offset", query_offset, batch)
    elif left or right or alibi_slopes is not None:
        last = (keys if lengths is None else lengths) - queries
        offsets = np.full(math.prod(batch), last, np.int64)
    if alibi_slopes is not None and dtype.itemsize < 8:
        assert offsets is not None
        _check_distances(offsets, queries, keys)
    mask = starts = None
    if attn_mask is not None:
        assert isinstance(keys, int)
        assert isinstance(queries, int)
        mask, starts = _mask(attn_mask, dtype, (*batch, heads, queries, keys))
    return KernelOptions(
        lengths,
        offsets,
        left,
        right,
        1 / math.sqrt(head_dim) if scale is None else _factor("scale", scale),
        0.0 if softcap is None else _softcap(softcap),
        mask,
        starts,
        None if alibi_slopes is None else _slopes(alibi_slopes, batch, heads),
        None if sinks is None else _sinks(sinks, heads),
    )


def per_batch(name: str, given: npt.ArrayLike, batch: tuple[int, ...]) -> Lengths:
    """Return one integer for each batch entry, from one for all or from an array."""
    x = as_integers(name, given)
    if x.shape == batch:
        return np.ascontiguousarray(x).reshape(-1)
    if x.ndim:
        raise ValueError(
            f"{name} has shape {describe(x.shape)}: it must be an integer or have the batch shape "
            f"{describe(batch)}"
        )
    return np.full(math.prod(batch), x)


def _key_lengths(given: npt.ArrayLike, batch: tuple[int, ...], keys: int) -> Lengths:
    lengths = per_batch("key_lengths", given, batch)
    if lengths.size and not 0 <= lengths.min() <= lengths.max() <= keys:
        raise ValueError(
            f"key_lengths goes from {lengths.min()} to {lengths.max()}: it must be 0 to the key's "
            f"length {keys}"
        )
    return lengths


def _window(given: Any) -> tuple[int, int]:
    """Return the bounds as the kernels take them: exclusive, 0 for none."""
    if not isinstance(given, Sequence) or isinstance(given, str) or len(given) != 2:
        raise ValueError(f"window is {given!r}: it must be (left, right), each an integer or None")
    bounds = []
    for side, bound in zip(("left", "right"), given, strict=True):
        if bound is None:
            bounds.append(0)
            continue
        if isinstance(bound, bool) or not isinstance(bound, (int, np.integer)):
            raise TypeError(f"window's {side} is {bound!r}: it must be an integer or None")
        if bound < 0:
            raise ValueError(f"window's {side} is {bound}: it must be 0 or more, or None for all")
        bounds.append(min(int(bound), 2**63 - 2) + 1)
    return bounds[0], bounds[1]


def _factor(name: str, given: Any) -> float:
    factor = as_finite(name, given)
    if abs(factor) > _LARGEST:
        raise ValueError(f"{name} is {given!r}: its magnitude must be at most {_LARGEST:.0e}")
    return factor


def _softcap(given: Any) -> float:
    softcap = _factor("softcap", given)
    if softcap <= 0:
        raise ValueError(f"softcap is {given!r}: it must be positive, or None for none")
    if softcap < 1 / _LARGEST:
        raise ValueError(f"softcap is {given!r}: it must be at least {1 / _LARGEST:.0e}")
    return softcap


def _check_distances(offsets: Lengths, queries: int | Lengths, keys: int | Lengths) -> None:
    """Raise if float32 does not tell all distances of a query and a key apart."""
    ends = np.concatenate((offsets + queries - 1.0, offsets - keys + 1.0))
    farthest = np.abs(ends).max(initial=0)
    if farthest > _FARTHEST_FLOAT32:
        raise ValueError(
            f"alibi_slopes with these lengths and this query_offset weigh distances up to "
            f"{farthest:.0f}: they must be at most {_FARTHEST_FLOAT32}, but in float64"
        )


def _mask(
    given: npt.ArrayLike, dtype: np.dtype[Any], shape: tuple[int, ...]
) -> tuple[Array, Lengths]:
    """Return the first batch entry's mask (1, heads, queries, keys), and where each one begins."""
    mask = as_array("attn_mask", given)
    wanted = [np.dtype(bool), dtype] + ([np.dtype(np.float32)] if dtype.itemsize == 2 else [])
    if mask.dtype not in wanted:
        raise TypeError(
            f"attn_mask has dtype {mask.dtype}: it must be {' or '.join(map(str, wanted))}"
        )
    try:
        mask = np.broadcast_to(mask if mask.flags.aligned else mask.copy(), shape)
    except ValueError:
        raise ValueError(
            f"attn_mask has shape {describe(mask.shape)}: it must broadcast to {describe(shape)}"
        ) from None
    starts = np.zeros(shape[:-3], np.int64)
    if mask.size == 0:
        return np.empty((1, *shape[-3:]), mask.dtype), starts.reshape(-1)
    for axis, length in enumerate(shape[:-3]):
        step = mask.strides[axis] // mask.itemsize
        steps = np.arange(length, dtype=np.int64) * step
        starts += steps.reshape((-1,) + (1,) * (starts.ndim - axis - 1))
    return mask[(0,) * starts.ndim][None], starts.reshape(-1)


def _slopes(given: npt.ArrayLike, batch: tuple[int, ...], heads: int) -> npt.NDArray[np.float64]:
    slopes = _per_head("alibi_slopes", given, [(heads,), (*batch, heads)])
    _check_factors("alibi_slopes", slopes)
    return slopes.reshape(-1, heads) if slopes.size else np.empty((1, heads), np.float64)


def _sinks(given: npt.ArrayLike, heads: int) -> npt.NDArray[np.float64]:
    sinks = _per_head("sinks", given, [(heads,)])
    _check_factors("sinks", sinks[np.isfinite(sinks)])
    return sinks


def _check_factors(name: str, x: npt.NDArray[np.float64]) -> None:
    beyond = x[~(np.abs(x) <= _LARGEST)]
    if beyond.size:
        raise ValueError(f"{name} holds {beyond[0]}: magnitudes must be at most {_LARGEST:.0e}")


def _per_head(
    name: str, given: npt.ArrayLike, shapes: list[tuple[int, ...]]
) -> npt.NDArray[np.float64]:
    x = as_array(name, given)
    if x.dtype.kind not in "fiu" and x.dtype.name != "bfloat16":
        raise TypeError(f"{name} has dtype {x.dtype}: it must hold real numbers")
    if x.shape not in shapes:
        wanted = " or ".join(map(describe, dict.fromkeys(shapes)))
        raise ValueError(f"{name} has shape {describe(x.shape)}: it must be {wanted}")
    return np.require(x, np.float64, ["C", "A"])
