"""Layers with weights, and the encoder they make."""

from .encoder import Encoder, sinusoidal_positions
from .layers import EncoderLayer, FeedForward, LayerNorm, MultiHeadAttention

__all__ = [
    "Encoder",
    "EncoderLayer",
    "FeedForward",
    "LayerNorm",
    "MultiHeadAttention",
    "sinusoidal_positions",
]
