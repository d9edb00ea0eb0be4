"""The oracle: each formula as the papers write it, in whatever precision its arrays have.

Given float64 copies of float32 arrays it is the truth; given the arrays themselves it is what plain
NumPy makes of them, and the measure of how wrong headwise may be.
"""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
WIDER = {
    np.dtype(np.float16): np.float64,
    BFLOAT16: np.float64,
    np.dtype(np.float32): np.float64,
    np.dtype(np.float64): np.longdouble,
}


def widen(x):
    """Return a float array in more precision than it needs; leave anything else alone."""
    wider = WIDER.get(getattr(x, "dtype", None))
    return x if wider is None else x.astype(wider)


def arithmetic_dtype(dtype):
    """The dtype of sums: float32 for the two of 16 bits, else the dtype itself."""
    return np.dtype(np.float32 if np.dtype(dtype).itemsize == 2 else dtype)


def in_arithmetic(x):
    return x.astype(arithmetic_dtype(x.dtype), copy=False)


def softmax_parts(x, sink=-np.inf):
    """exp(x - shift), exp(sink - shift) + its sum, and the shift that keeps both finite."""
    largest = np.maximum(x.max(-1, keepdims=True, initial=-np.inf), sink)
    shift = np.where(np.isneginf(largest), 0, largest).astype(x.dtype)
    e = np.exp(x - shift)
    return e, e.sum(-1, keepdims=True) + np.exp(sink - shift), shift


def softmax(x, sink=-np.inf):
    """exp(x) / (exp(sink) + sum(exp(x))) of the last axis; nothing but -inf gives 0."""
    e, total, _ = softmax_parts(x, sink)
    return e / np.where(total == 0, 1, total).astype(x.dtype)


# Plain NumPy has no product of 16-bit arrays worth the name (ml_dtypes gives float32, and its sums
# stand still once they are large). So for those dtypes each of the three steps, scores,
# probabilities and output, is computed in float32 and its result rounded to the dtype.


def scores(
    query,
    key,
    *,
    attn_mask=None,
    is_causal=False,
    query_offset=None,
    window=(None, None),
    scale=None,
    softcap=None,
    alibi_slopes=None,
    key_lengths=None,
):
    """scale Q Kᵀ, capped and biased, with -inf where a query does not attend."""
    (heads, queries, dim), (kv_heads, keys) = query.shape[-3:], key.shape[-3:-1]
    lengths = np.asarray(keys if key_lengths is None else key_lengths)
    offset = lengths - queries if query_offset is None else np.asarray(query_offset)
    i = np.arange(queries)[:, None] + offset[..., None, None, None]
    j = np.arange(keys)
    attended = j < lengths[..., None, None, None]

    key = np.repeat(key, heads // kv_heads, axis=-3)
    with np.errstate(invalid="ignore"):  # of keys that are masked below
        s = in_arithmetic(query) @ in_arithmetic(key).swapaxes(-1, -2)
        s = s * (1 / math.sqrt(dim) if scale is None else scale)
        if softcap is not None:
            s = softcap * np.tanh(s / softcap)
        if alibi_slopes is not None:
            s = s - alibi_slopes[..., None, None] * abs(i - j).astype(s.dtype)
        if attn_mask is not None and attn_mask.dtype == bool:
            attended = attended & attn_mask
        elif attn_mask is not None:
            s = s + in_arithmetic(attn_mask)
            attended = attended & ~np.isneginf(attn_mask)

    left, right = window
    if is_causal:
        attended = attended & (j <= i)
    if left is not None:
        attended = attended & (j >= i - left)
    if right is not None:
        attended = attended & (j <= i + right)
    return np.where(attended, s, s.dtype.type(-np.inf)).astype(query.dtype)


def _per_row(sinks):
    return -np.inf if sinks is None else in_arithmetic(sinks)[..., None, None]


def attention_weights(query, key, *, sinks=None, **options):
    s = in_arithmetic(scores(query, key, **options))
    return softmax(s, _per_row(sinks)).astype(query.dtype)


def attention(query, key, value, *, sinks=None, **options):
    s = in_arithmetic(scores(query, key, **options))
    p = in_arithmetic(softmax(s, _per_row(sinks)).astype(query.dtype))
    value = np.repeat(value, query.shape[-3] // value.shape[-3], axis=-3)
    seen = ~np.isneginf(s).all(-2)[..., None]  # the values that no query attends may be NaN
    return (p @ np.where(seen, in_arithmetic(value), 0)).astype(query.dtype)


def attention_column_sums(query, key, **options):
    """How much attention each key gets from all queries."""
    return in_arithmetic(attention_weights(query, key, **options)).sum(-2)


def logsumexp(query, key, *, sinks=None, **options):
    s = in_arithmetic(scores(query, key, **options))
    _, total, shift = softmax_parts(s, _per_row(sinks))
    with np.errstate(divide="ignore"):  # log(0) where nothing is attended
        return (shift + np.log(total))[..., 0]


def merge(outs, lses):
    """Attention over all keys from that over parts: sum(exp(lse) out) / sum(exp(lse))."""
    lse = np.stack(lses, -1)
    p = softmax(lse)
    out = sum(p[..., n, None] * in_arithmetic(out) for n, out in enumerate(outs))
    _, total, shift = softmax_parts(lse)
    with np.errstate(divide="ignore"):
        return out.astype(outs[0].dtype), (shift + np.log(total))[..., 0]


def relu(x):
    return np.maximum(x, 0)


def gelu(x):
    return x * (1 + np.vectorize(math.erf, otypes=[x.dtype])(x / math.sqrt(2))) / 2


def gelu_tanh(x):
    return x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2


def silu(x):
    with np.errstate(over="ignore"):
        return x / (1 + np.exp(-x))


ACTIVATIONS = {
    None: lambda x: x,
    "relu": relu,
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "silu": silu,
}


def linear(x, weight, bias=None, residual=None, activation=None, gate_weight=None, gate_bias=None):
    y = x @ weight.T
    y = y if bias is None else y + bias
    if gate_weight is None:
        y = ACTIVATIONS[activation](y)
    else:
        y = linear(x, gate_weight, gate_bias, None, activation) * y
    return y if residual is None else y + residual


def round_to_bfloat16(x):
    """The nearest bfloat16, ties to even, in x's dtype."""
    bits = np.asarray(x, np.float32).view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000
    return rounded.astype(np.uint32).view(np.float32).astype(x.dtype)


def quantise_rows(x):
    """(bytes 0 .. 255, scale, zero point) of each row, which spans its numbers and 0; float32."""
    low, high = np.minimum(x.min(-1), 0), np.maximum(x.max(-1), 0)
    scale = high / np.float32(255) - low / np.float32(255)
    inverse = np.divide(1, scale, out=np.zeros_like(scale), where=scale > 1e-37)
    zero_point = np.rint(-low * inverse)
    q = np.clip(np.rint(x * inverse[..., None]) + zero_point[..., None], 0, 255)
    return q.astype(np.int64), scale, zero_point.astype(np.int64)


def quantise_weight(weight):
    """(integers -127 .. 127, scale) of each output feature."""
    scale = np.abs(weight).max(-1) / np.float32(127)
    safe = np.where(scale > 0, scale, 1)[:, None]
    return np.rint(weight / safe).astype(np.int64), scale


def int8_linear(x, weight, bias=None):
    """The linear layer of 8-bit integers: exact sums, then float32 scales in float64."""
    q, scale, zero_point = quantise_rows(x)
    w, weight_scale = quantise_weight(weight)
    sums = (q - zero_point[:, None]) @ w.T
    y = sums * (scale[:, None] * weight_scale).astype(np.float64)
    return y if bias is None else y + bias


def layer_norm(x, weight=None, bias=None, residual=None, eps=1e-5):
    if residual is not None:
        x = x + residual
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + x.dtype.type(eps))
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def rms_norm(x, weight=None, residual=None, eps=1e-6):
    if residual is not None:
        x = x + residual
    x = x / np.sqrt((x * x).mean(-1, keepdims=True) + x.dtype.type(eps))
    return x if weight is None else x * weight


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
        gate = [w.get(f"feed_forward.gate.{kind}") for kind in ("weight", "bias")]
        up = [w[f"feed_forward.up.{kind}"] for kind in ("weight", "bias")]
        inner = linear(y, *up, None, activation, *gate)
        return linear(inner, w["feed_forward.down.weight"], w["feed_forward.down.bias"])

    def norm_of(y, name):
        return layer_norm(y, w[f"{name}.weight"], w[f"{name}.bias"], eps=eps)

    if norm == "post":
        x = norm_of(x + attend(x), "attention_norm")
        return norm_of(x + feed_forward(x), "feed_forward_norm")
    x = x + attend(norm_of(x, "attention_norm"))
    return x + feed_forward(norm_of(x, "feed_forward_norm"))
