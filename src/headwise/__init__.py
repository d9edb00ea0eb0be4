"""Attention and transformer-encoder inference for NumPy, on the CPU."""

from importlib import import_module
from typing import Any

from . import functional, nn
from .functional import (
    KVCache,
    Linear,
    attention,
    attention_varlen,
    attention_weights,
    layer_norm,
    merge_attention,
    rms_norm,
    scaled_dot_product_attention,
    softmax,
)
from .nn import Encoder, EncoderLayer, FeedForward, MultiHeadAttention, Trace, shared_words
from .parity import Parity, parity
from .runtime import (
    Peak,
    active_isa,
    available_isas,
    get_num_threads,
    peak,
    set_isa,
    set_num_threads,
    trim,
)

__version__ = "0.1.0"

__all__ = [
    "Encoder",
    "EncoderLayer",
    "FeedForward",
    "KVCache",
    "Linear",
    "MultiHeadAttention",
    "Parity",
    "Peak",
    "TextEncoder",
    "Trace",
    "active_isa",
    "attention",
    "attention_varlen",
    "attention_weights",
    "available_isas",
    "functional",
    "get_num_threads",
    "layer_norm",
    "merge_attention",
    "nn",
    "parity",
    "peak",
    "plot_attention",
    "rms_norm",
    "scaled_dot_product_attention",
    "set_isa",
    "set_num_threads",
    "shared_words",
    "softmax",
    "trim",
]


_LAZY = {"TextEncoder": ".text", "plot_attention": ".view.plot"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:  # on first use: importing headwise stays a matter of milliseconds
        return getattr(import_module(_LAZY[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
