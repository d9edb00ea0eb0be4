"""Attention under torch's name, with torch's arguments and meaning."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from ._arrays import Array, as_attention_floats, as_finite, describe
from .attention import attention


def scaled_dot_product_attention(
    query: npt.ArrayLike,
    key: npt.ArrayLike,
    value: npt.ArrayLike,
    attn_mask: npt.ArrayLike | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Array:
    """Compute what ``torch.nn.functional.scaled_dot_product_attention`` does.

    Parameters
    ----------
    query : array, shape (..., Hq, Sq, D)
    key : array, shape (..., Hkv, Sk, D)
    value : array, shape (..., Hkv, Sk, Dv)
    attn_mask : array, broadcastable to (..., Hq, Sq, Sk), optional
        Boolean, True where a query attends a key; or float, added to the scores.
    dropout_p : float
        Must be 0: this is inference.
    is_causal : bool
        Query i attends keys ``j <= i``: the first query is aligned with the first key, whatever the
        lengths. Not together with `attn_mask`.
    scale : float, optional
        ``1 / sqrt(D)`` by default.
    enable_gqa : bool
        Allow Hq to be a multiple of Hkv. Without it the head counts must be equal.

    Returns
    -------
    array, shape (..., Hq, Sq, Dv)
        A query that attends no key gives 0.

    Raises
    ------
    TypeError
        If a dtype is not one that :func:`attention` takes, or differs between the arrays.
    ValueError
        If shapes do not fit each other, `dropout_p` is not 0, or both `attn_mask` and
        `is_causal` are given.

    See Also
    --------
    attention : the same with all its options.

    Examples
    --------
    >>> import numpy as np, headwise as hw
    >>> x = np.ones((2, 4, 3, 8), dtype=np.float32)
    >>> hw.scaled_dot_product_attention(x, x, x, is_causal=True).shape
    (2, 4, 3, 8)
    """
    if as_finite("dropout_p", dropout_p) != 0:
        raise ValueError(f"dropout_p is {dropout_p!r}: it must be 0, this is inference")
    if is_causal and attn_mask is not None:
        raise ValueError("attn_mask and is_causal are both given: only one of them may be")
    q, k, v = as_attention_floats(query=query, key=key, value=value)
    heads = [x.shape[-3] if x.ndim > 2 else 1 for x in (q, k, v)]
    if not enable_gqa and len(set(heads)) > 1:
        shapes: dict[str, Any] = {"query": q, "key": k, "value": v}
        text = ", ".join(f"{name} {describe(x.shape)}" for name, x in shapes.items())
        raise ValueError(f"the numbers of heads differ ({text}): enable_gqa must be True for that")
    # Where the lengths are equal, query 0 is at key 0 anyway.
    offset = 0 if is_causal and q.shape[-2:-1] != k.shape[-2:-1] else None
    return attention(
        q, k, v, attn_mask=attn_mask, is_causal=is_causal, query_offset=offset, scale=scale
    )
