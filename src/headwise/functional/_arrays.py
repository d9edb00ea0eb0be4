"""Arrays at the edge: what the kernels take, and messages that name what was given instead."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import _core

Array = npt.NDArray[Any]

_DLPACK_CPU = 1
_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


def describe(shape: Sequence[int]) -> str:
    """Write a shape as NumPy does."""
    return str(tuple(shape))


def as_floats(**arrays: npt.ArrayLike) -> list[Array]:
    """Return the named arrays if all have one dtype, float32 or float64."""
    return _of_one_dtype(arrays, lambda dtype: dtype in _FLOATS, "float32 or float64")


def as_attention_floats(**arrays: npt.ArrayLike) -> list[Array]:
    """Return the named arrays if all have one dtype that attention takes."""
    return _of_one_dtype(arrays, is_attention_dtype, "float32, float64, float16 or bfloat16")


def is_attention_dtype(dtype: np.dtype[Any]) -> bool:
    """Whether attention takes arrays of this dtype."""
    return dtype in _FLOATS or dtype == np.float16 or _is_bfloat16(dtype)


def _is_bfloat16(dtype: np.dtype[Any]) -> bool:
    return dtype.itemsize == 2 and dtype.name == "bfloat16"


def sum_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype that sums of this dtype are kept in."""
    return _FLOATS[1] if dtype.itemsize == 8 else _FLOATS[0]


def _of_one_dtype(
    arrays: dict[str, npt.ArrayLike], takes: Callable[[np.dtype[Any]], bool], names: str
) -> list[Array]:
    result: list[Array] = []
    for name, given in arrays.items():
        x = as_array(name, given)
        if result and x.dtype == result[0].dtype:
            result.append(x)
            continue
        if not takes(x.dtype):
            raise TypeError(f"{name} has dtype {x.dtype}: it must be {names}")
        if result:
            first = next(iter(arrays))
            raise TypeError(
                f"{name} has dtype {x.dtype} but {first} has {result[0].dtype}: "
                "they must be the same"
            )
        result.append(x if x.dtype.isnative else x.astype(x.dtype.newbyteorder("=")))
    return result


def as_array(name: str, given: Any) -> Array:
    """Return an array that shares the memory of what is given, if that lies on the CPU."""
    if isinstance(given, np.ndarray):
        if hasattr(given, "mask"):  # np.ma, which NumPy imports only when it is asked for
            raise TypeError(f"{name} is a masked array: it must be filled, or its mask is lost")
        return np.asarray(given)
    try:
        if not hasattr(given, "__dlpack__") or np.isscalar(given):
            return np.asarray(given)
        device, _ = given.__dlpack_device__()
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise TypeError(f"{name} cannot be read as an array: {error}") from error
    if device != _DLPACK_CPU:
        raise ValueError(f"{name} lies on a device (DLPack type {device}): it must be on the CPU")
    if getattr(given, "is_neg", bool)():  # a torch tensor, of which DLPack would lose the sign
        raise TypeError(f"{name} has its negative bit set: it must be resolved, with resolve_neg()")
    try:
        return np.from_dlpack(given)
    except (BufferError, RuntimeError) as error:
        # Either it cannot be exported, or NumPy has no such dtype: bfloat16.
        try:
            raw = _core.bfloat16_from_dlpack(given.__dlpack__())
        except (BufferError, RuntimeError):
            raise TypeError(f"{name} cannot be read as an array: {error}") from error
    if raw is None:
        raise TypeError(f"{name} has a dtype that NumPy does not know: {given!r:.80}")
    try:
        import ml_dtypes
    except ImportError:
        raise ImportError(
            f"{name} holds bfloat16, which needs ml_dtypes: pip install headwise[bfloat16]"
        ) from None
    return raw.view(ml_dtypes.bfloat16)


def as_float_like(x: Array, name: str, given: npt.ArrayLike, shape: tuple[int, ...]) -> Array:
    """Return a contiguous array of x's dtype and of this shape."""
    a = as_array(name, given)
    if a.dtype != x.dtype:
        raise TypeError(f"{name} has dtype {a.dtype}: it must be {x.dtype}")
    if a.shape != shape:
        raise ValueError(f"{name} has shape {describe(a.shape)}: it must be {describe(shape)}")
    return contiguous(a)


def contiguous(x: Array) -> Array:
    """Return x, copied if it is not contiguous and aligned."""
    if x.flags.c_contiguous and x.flags.aligned:
        return x
    return np.require(x, requirements=["C", "A"])


def rows_contiguous(x: Array) -> Array:
    """Return x, copied if its last axis is not contiguous or its elements are not aligned."""
    if x.flags.aligned and (x.strides[-1] == x.itemsize or x.shape[-1] == 1):
        return x
    return np.require(x, requirements=["C", "A"])


def as_integers(name: str, given: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Return a contiguous int64 array; anything but integers is a TypeError."""
    x = as_array(name, given)
    if x.size == 0 and x.dtype == np.float64:  # np.asarray([])
        return np.empty(x.shape, np.int64)
    if x.dtype.kind not in "iu":
        raise TypeError(f"{name} has dtype {x.dtype}: it must hold integers")
    if x.dtype == np.uint64 and x.size and int(x.max()) > np.iinfo(np.int64).max:
        raise ValueError(f"{name} holds {x.max()}: it must fit 64 bits with a sign")
    return contiguous(x.astype(np.int64, copy=False))


def chosen_indices(name: str, given: Any, size: int) -> list[int]:
    """Return the indices that a caller means, all in 0 .. size - 1; every one for None."""
    if given is None:
        return list(range(size))
    if isinstance(given, slice):
        try:
            return list(range(size)[given])
        except (TypeError, ValueError) as error:
            raise type(error)(f"{name} is {given!r}: {error}") from None
    indices = np.atleast_1d(as_array(name, given))
    if indices.size and (indices.dtype.kind not in "iu" or indices.ndim != 1):
        raise TypeError(f"{name} is {given!r}: it must be an integer or a sequence of integers")
    for i in indices.tolist():
        if not -size <= i < size:
            raise ValueError(f"{name} holds {i}: it must be {-size} to {size - 1}")
    return [i % size for i in indices.tolist()]


def as_cu_seqlens(name: str, given: npt.ArrayLike, tokens: int) -> npt.NDArray[np.int64]:
    """Return cumulative sequence lengths: 0, ascending, ending at ``tokens``."""
    starts = as_integers(name, given)
    if starts.ndim != 1 or len(starts) < 1:
        raise ValueError(f"{name} has shape {describe(starts.shape)}: it must be (sequences + 1,)")
    if starts[0] != 0 or starts[-1] != tokens or (starts[1:] < starts[:-1]).any():
        raise ValueError(
            f"{name} must ascend from 0 to the {tokens} tokens given; it goes from {starts[0]} to "
            f"{starts[-1]}" + ("" if (starts[1:] >= starts[:-1]).all() else " and descends between")
        )
    return starts


def as_flag(name: str, given: Any) -> bool:
    """Return True or False, also of 1 and 0."""
    if not isinstance(given, (bool, int, np.bool_, np.integer)) or given not in (0, 1):
        raise TypeError(f"{name} is {given!r}: it must be True or False")
    return bool(given)


def as_integer(name: str, given: Any, least: int, most: int | None = None) -> int:
    """Return an integer of this range as an int."""
    if isinstance(given, bool) or not isinstance(given, (int, np.integer)):
        raise TypeError(f"{name} is {given!r}: it must be an integer")
    if given < least or (most is not None and given > most):
        limit = f"at least {least}" if most is None else f"{least} to {most}"
        raise ValueError(f"{name} is {given}: it must be {limit}")
    return int(given)


def as_finite(name: str, given: Any) -> float:
    """Return a finite real number as a float."""
    if not isinstance(given, numbers.Real):
        raise TypeError(f"{name} is {given!r}: it must be a real number")
    try:
        number = float(given)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{name} is {given!r}: it must be finite")
    return number


def output(
    out: Array | None, shape: tuple[int, ...], dtype: np.dtype[Any], *inputs: Array | None
) -> Array:
    """Return ``out`` if a kernel can write the result there, or a new array if it is None."""
    if out is None:
        return empty(shape, dtype)
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out is a {type(out).__name__}: it must be a NumPy array")
    if out.dtype != dtype:
        raise TypeError(f"out has dtype {out.dtype}: it must be {dtype}")
    if out.shape != shape:
        raise ValueError(f"out has shape {describe(out.shape)}: it must be {describe(shape)}")
    if not out.flags.writeable:
        raise ValueError("out is read-only: it must be writeable")
    contiguous = out.size == 0 or out.shape[-1] == 1 or out.strides[-1] == out.itemsize
    if not (contiguous and out.flags.aligned):
        raise ValueError("out must be aligned and have a contiguous last axis")
    if _overlaps_itself(out):
        raise ValueError(
            "out overlaps itself, as a broadcast array does: each element must have its own place"
        )
    if any(x is not None and overlaps(out, x) for x in inputs):
        raise ValueError("out shares memory with an input: it must not")
    return out


def _overlaps_itself(x: Array) -> bool:
    """Whether two elements may share a place, as in a broadcast array."""
    if x.size == 0 or x.flags.c_contiguous:
        return False
    extent = x.itemsize
    for stride, n in sorted((abs(s), n) for s, n in zip(x.strides, x.shape, strict=True) if n > 1):
        if stride < extent:
            return True
        extent += (n - 1) * stride
    return False


def overlaps(a: Array, b: Array) -> bool:
    """Whether two arrays share an element; when it is hard to tell, yes."""
    if not np.may_share_memory(a, b):
        return False
    try:
        return np.shares_memory(a, b, max_work=10_000)  # type: ignore[arg-type]  # any int will do
    except np.exceptions.TooHardError:
        return True


# From here on it takes much longer to fill an array than to align it.
_LARGE = 1 << 18  # bytes


def empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Return a new array. A large one starts on a cache line: kernels write whole ones."""
    if math.prod(shape) * dtype.itemsize < _LARGE:
        return np.empty(shape, dtype)
    return aligned_empty(shape, dtype)


def aligned_empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Return an array that starts on a cache line."""
    size = math.prod(shape) * dtype.itemsize
    raw = np.empty(size + 64, np.uint8)
    skip = -raw.ctypes.data % 64
    return raw[skip : skip + size].view(dtype).reshape(shape)
