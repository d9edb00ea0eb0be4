"""Functions on NumPy arrays: checks, defaults and allocation above the kernels."""

from .attention import attention
from .cache import KVCache
from .embedding import embed, pool
from .linear import Linear
from .merge import merge_attention
from .norms import layer_norm, rms_norm, softmax
from .sdpa import scaled_dot_product_attention
from .varlen import attention_varlen
from .weights import attention_weights

__all__ = [
    "KVCache",
    "Linear",
    "attention",
    "attention_varlen",
    "attention_weights",
    "embed",
    "layer_norm",
    "merge_attention",
    "pool",
    "rms_norm",
    "scaled_dot_product_attention",
    "softmax",
]
