"""Keys and values of the tokens so far, for decoding."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ._arrays import Array, as_attention_floats, as_integer, describe, is_attention_dtype
from ._options import MAX_HEAD_DIM, Lengths, per_batch


class KVCache:
    """Preallocated keys and values: append new tokens, attend to all so far, truncate.

    Parameters
    ----------
    batch, num_kv_heads : int
    capacity : int
        The most tokens that each batch entry can hold. It never grows.
    head_dim : int
    value_dim : int, optional
        `head_dim` by default.
    dtype : dtype
        float32 by default; float64, float16 or ml_dtypes.bfloat16.

    Raises
    ------
    TypeError
        If a size is no integer, or the dtype not one of those.
    ValueError
        If a size is out of range: dimensions are 1 to 512.

    Attributes
    ----------
    lengths : array of int, shape (B,)
        Tokens held for each batch entry; a copy.
    key, value : array, shape (B, Hkv, capacity, D)
        Views of the storage; what lies past `lengths` means nothing.

    Examples
    --------
    >>> import numpy as np, headwise as hw
    >>> cache = hw.KVCache(batch=1, num_kv_heads=2, capacity=100, head_dim=8)
    >>> prompt = np.ones((1, 2, 5, 8), np.float32)
    >>> cache.append(prompt, prompt)
    >>> hw.attention(np.ones((1, 4, 5, 8), np.float32), cache, is_causal=True).shape
    (1, 4, 5, 8)
    >>> cache.append(prompt[:, :, :1], prompt[:, :, :1])
    >>> cache.lengths
    array([6])
    """

    def __init__(
        self,
        batch: int,
        num_kv_heads: int,
        capacity: int,
        head_dim: int,
        *,
        value_dim: int | None = None,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        value_dim = head_dim if value_dim is None else value_dim
        sizes = {
            "batch": (batch, 0, 2**62),
            "num_kv_heads": (num_kv_heads, 1, 2**62),
            "capacity": (capacity, 0, 2**62),
            "head_dim": (head_dim, 1, MAX_HEAD_DIM),
            "value_dim": (value_dim, 1, MAX_HEAD_DIM),
        }
        for name, (size, least, most) in sizes.items():
            as_integer(name, size, least, most)
        try:
            held = np.dtype(dtype)
        except TypeError:
            held = None
        if held is None or not is_attention_dtype(held):
            raise TypeError(f"dtype is {dtype!r}: it must be float32, float64, float16 or bfloat16")
        self.key: Array = np.zeros((batch, num_kv_heads, capacity, head_dim), held)
        self.value: Array = np.zeros((batch, num_kv_heads, capacity, value_dim), held)
        self._lengths = np.zeros(batch, np.int64)

    @property
    def capacity(self) -> int:
        """The most tokens that each batch entry can hold."""
        return int(self.key.shape[2])

    @property
    def lengths(self) -> Lengths:
        """Tokens held for each batch entry."""
        return self._lengths.copy()

    def append(
        self, key: npt.ArrayLike, value: npt.ArrayLike, lengths: npt.ArrayLike | None = None
    ) -> None:
        """Add tokens after those held.

        Parameters
        ----------
        key : array, shape (B, Hkv, S, D)
        value : array, shape (B, Hkv, S, Dv)
        lengths : int or array of int, shape (B,), optional
            How many of the S tokens of each batch entry are real, the first ones; all by default.

        Raises
        ------
        TypeError
            If a dtype is not that of the cache.
        ValueError
            If shapes do not fit the cache, or an entry would hold more than `capacity` tokens; then
            nothing is appended.
        """
        k, v = as_attention_floats(key=key, value=value)
        for name, x, held in (("key", k, self.key), ("value", v, self.value)):
            if x.dtype != held.dtype:
                raise TypeError(f"{name} has dtype {x.dtype}: the cache holds {held.dtype}")
            wanted = (*held.shape[:2], k.shape[2] if k.ndim == 4 else "S", held.shape[3])
            if x.shape != wanted:
                text = ", ".join(map(str, wanted))
                raise ValueError(f"{name} has shape {describe(x.shape)}: it must be ({text})")
        new = self._per_entry("lengths", k.shape[2] if lengths is None else lengths, k.shape[2])
        total = self._lengths + new
        if (total > self.capacity).any():
            raise ValueError(
                f"the cache has capacity {self.capacity} and holds {self._lengths.max()} tokens: "
                f"it cannot take {new.max()} more"
            )
        begin, count = _shared(self._lengths), _shared(new)
        if begin is not None and count is not None:
            self.key[:, :, begin : begin + count] = k[:, :, :count]
            self.value[:, :, begin : begin + count] = v[:, :, :count]
        else:
            for b, (first, added) in enumerate(zip(self._lengths, new, strict=True)):
                self.key[b, :, first : first + added] = k[b, :, :added]
                self.value[b, :, first : first + added] = v[b, :, :added]
        self._lengths = total

    def truncate(self, length: npt.ArrayLike) -> None:
        """Forget all but the first tokens.

        Parameters
        ----------
        length : int or array of int, shape (B,)
            How many tokens to keep.

        Raises
        ------
        ValueError
            If that is more than a batch entry holds, or negative.
        """
        kept = self._per_entry("length", length, None)
        if (kept > self._lengths).any():
            entry = int(np.argmax(kept > self._lengths))
            raise ValueError(
                f"length is {kept[entry]} for batch entry {entry}, which holds "
                f"{self._lengths[entry]} tokens: it must not be more"
            )
        self._lengths = kept

    def _held(self) -> tuple[Array | None, Array | None]:
        """Return views of what is held, or None where batch entries hold different numbers."""
        length = _shared(self._lengths)
        if length is None:
            return None, None
        return self.key[:, :, :length], self.value[:, :, :length]

    def _per_entry(self, name: str, given: Any, most: int | None) -> Lengths:
        counts = per_batch(name, given, self._lengths.shape)
        if counts.size and (counts.min() < 0 or (most is not None and counts.max() > most)):
            raise ValueError(
                f"{name} goes from {counts.min()} to {counts.max()}: it must be 0 or more"
                + ("" if most is None else f" and at most the {most} tokens given")
            )
        return counts.copy()


def _shared(counts: Lengths) -> int | None:
    """Return the one number that all batch entries have, if there is one."""
    distinct = set(counts.tolist())
    return distinct.pop() if len(distinct) == 1 else None
