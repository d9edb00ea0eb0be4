"""Shapes of query, key and value: checked, broadcast, and as the kernels take them."""

from __future__ import annotations

import math

import numpy as np

from ._arrays import Array, describe, rows_contiguous
from ._options import MAX_HEAD_DIM


def check_dense(q: Array, k: Array, v: Array | None) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the broadcast batch shape, and the query's shape with it."""
    named = {"query": q, "key": k} if v is None else {"query": q, "key": k, "value": v}
    for name, x in named.items():
        if x.ndim < 2:
            raise ValueError(
                f"{name} has shape {describe(x.shape)}: it must be (..., heads, length, head_dim)"
            )
    if v is not None and v.shape[-2] != k.shape[-2]:
        raise ValueError(f"value has length {v.shape[-2]} but key has length {k.shape[-2]}")
    check_head_dims(q, k, v)
    heads = q.shape[:-2]
    if q.ndim == 4 and heads[1] and k.shape[:-2] == heads and (v is None or v.shape[:-2] == heads):
        return q.shape[:1], q.shape  # nothing to broadcast
    if any(x.ndim == 2 for x in named.values()) and any(x.ndim != 2 for x in named.values()):
        shapes = ", ".join(f"{name} {describe(x.shape)}" for name, x in named.items())
        raise ValueError(f"either all arrays are 2-D (one head) or none is; got {shapes}")
    if q.ndim > 2:
        check_heads(q.shape[-3], k.shape[-3], k.shape[-3] if v is None else v.shape[-3])
    try:
        batch = np.broadcast_shapes(*(x.shape[:-3] for x in named.values()))
    except ValueError:
        shapes = ", ".join(f"{name} {describe(x.shape)}" for name, x in named.items())
        raise ValueError(f"the leading dimensions do not broadcast: {shapes}") from None
    return batch, (*batch, *q.shape[-3:])


def check_heads(query: int, key: int, value: int) -> None:
    if key != value:
        raise ValueError(f"value has {value} heads but key has {key}")
    if key == 0 or query % key:
        raise ValueError(
            f"key has {key} heads but query has {query}: the query heads must be a multiple of the "
            "key heads"
        )


def check_head_dims(q: Array, k: Array, v: Array | None) -> None:
    if k.shape[-1] != q.shape[-1]:
        raise ValueError(f"key has head_dim {k.shape[-1]} but query has head_dim {q.shape[-1]}")
    for name, x in (("query", q), ("value", v)):
        if x is not None and not 1 <= x.shape[-1] <= MAX_HEAD_DIM:
            raise ValueError(f"{name} has head_dim {x.shape[-1]}: it must be 1 to {MAX_HEAD_DIM}")


def as_batch(x: Array, batch: tuple[int, ...]) -> Array:
    """View x as (B, heads, length, dim), copied where strides do not allow it."""
    if x.ndim == 4 and x.shape[:1] == batch:
        return rows_contiguous(x)
    return rows_contiguous(as_4d(np.broadcast_to(x, (*batch, *x.shape[-3:]))))


def as_4d(x: Array) -> Array:
    if x.ndim == 4:
        return x
    shape = (1, *x.shape) if x.ndim == 2 else (math.prod(x.shape[:-3]), *x.shape[-3:])
    return x.reshape((1,) * (4 - len(shape)) + shape)
