"""Functions on NumPy arrays: checks, defaults and allocation above the kernels."""

from .attention import attention, attention_varlen, attention_weights
from .embedding import embed, pool
from .linear import Linear
from .norms import layer_norm, softmax

__all__ = [
    "Linear",
    "attention",
    "attention_varlen",
    "attention_weights",
    "embed",
    "layer_norm",
    "pool",
    "softmax",
]
