"""The oracle: each formula as the papers write it, in whatever precision its arrays have.

Given float64 copies of float32 arrays it is the truth; given the arrays themselves it is what plain
NumPy makes of them, and the measure of how wrong headwise may be.
"""

from __future__ import annotations

import math

import numpy as np

WIDER = {np.dtype(np.float32): np.float64, np.dtype(np.float64): np.longdouble}


def widen(x):
    """Return a float array in more precision than it needs; leave anything else alone."""
    wider = WIDER.get(getattr(x, "dtype", None))
    return x if wider is None else x.astype(wider)


def softmax(x):
    """exp(x) / sum(exp(x)) of the last axis; nothing but -inf gives 0."""
    largest = x.max(-1, keepdims=True, initial=-np.inf)
    e = np.exp(x - np.where(np.isneginf(largest), 0, largest).astype(x.dtype))
    total = e.sum(-1, keepdims=True)
    return e / np.where(total == 0, 1, total).astype(x.dtype)


def scores(query, key, *, is_causal=False, query_offset=None, scale=None, key_lengths=None):
    """scale Q Kᵀ, with -inf where a query does not attend."""
    (heads, queries, dim), (kv_heads, keys) = query.shape[-3:], key.shape[-3:-1]
    key = np.repeat(key, heads // kv_heads, axis=-3)
    s = query @ key.swapaxes(-1, -2) * (1 / math.sqrt(dim) if scale is None else scale)
    lengths = np.asarray(keys if key_lengths is None else key_lengths)
    offset = lengths - queries if query_offset is None else np.asarray(query_offset)
    i, j = np.arange(queries)[:, None], np.arange(keys)
    attended = j < lengths[..., None, None, None]
    if is_causal:
        attended = attended & (j <= i + offset[..., None, None, None])
    return np.where(attended, s, s.dtype.type(-np.inf))


def attention_weights(query, key, **options):
    return softmax(scores(query, key, **options))


def attention(query, key, value, **options):
    p = attention_weights(query, key, **options)
    return p @ np.repeat(value, query.shape[-3] // value.shape[-3], axis=-3)


def logsumexp(query, key, **options):
    s = scores(query, key, **options)
    largest = s.max(-1, initial=-np.inf)
    shift = np.where(np.isneginf(largest), 0, largest).astype(s.dtype)
    with np.errstate(divide="ignore"):  # log(0) where nothing is attended
        return shift + np.log(np.exp(s - shift[..., None]).sum(-1))


def relu(x):
    return np.maximum(x, 0)


def gelu(x):
    return x * (1 + np.vectorize(math.erf, otypes=[x.dtype])(x / math.sqrt(2))) / 2


ACTIVATIONS = {None: lambda x: x, "relu": relu, "gelu": gelu}


def linear(x, weight, bias=None, residual=None, activation=None):
    y = x @ weight.T
    y = ACTIVATIONS[activation](y if bias is None else y + bias)
    return y if residual is None else y + residual


def layer_norm(x, weight=None, bias=None, residual=None, eps=1e-5):
    if residual is not None:
        x = x + residual
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + x.dtype.type(eps))
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def multi_head_attention(x, w, num_heads, is_causal=False):
    """Concat(head_1, ..., head_H) W_O for x (S, E); `w` maps names to arrays."""
    heads = {
        part: (x @ w[f"{part}.weight"].T + w[f"{part}.bias"]) for part in ("query", "key", "value")
    }
    head_dim = heads["query"].shape[-1] // num_heads
    query, key, value = (h.reshape(len(x), -1, head_dim).swapaxes(0, 1) for h in heads.values())
    attended = attention(query, key, value, is_causal=is_causal).swapaxes(0, 1)
    return attended.reshape(len(x), -1) @ w["output.weight"].T + w["output.bias"]


def encoder_layer(x, w, num_heads, *, norm="post", activation="relu", eps=1e-5, is_causal=False):
    """One layer for x (S, E); `w` maps the names below ``layers.{i}.`` to arrays."""

    def attend(y):
        prefix = "attention."
        part = {k.removeprefix(prefix): v for k, v in w.items() if k.startswith(prefix)}
        return multi_head_attention(y, part, num_heads, is_causal)

    def feed_forward(y):
        inner = linear(y, w["feed_forward.up.weight"], w["feed_forward.up.bias"], None, activation)
        return linear(inner, w["feed_forward.down.weight"], w["feed_forward.down.bias"])

    def norm_of(y, name):
        return layer_norm(y, w[f"{name}.weight"], w[f"{name}.bias"], eps=eps)

    if norm == "post":
        x = norm_of(x + attend(x), "attention_norm")
        return norm_of(x + feed_forward(x), "feed_forward_norm")
    x = x + attend(norm_of(x, "attention_norm"))
    return x + feed_forward(norm_of(x, "feed_forward_norm"))
