"""Layers with weights, and the encoder they make."""

from .encoder import Encoder, sinusoidal_positions
from .layers import EncoderLayer, FeedForward, LayerNorm, MultiHeadAttention
from .trace import SharedWord, Tokens, Trace, shared_words

__all__ = [
    "Encoder",
    "EncoderLayer",
    "FeedForward",
    "LayerNorm",
    "MultiHeadAttention",
    "SharedWord",
    "Tokens",
    "Trace",
    "shared_words",
    "sinusoidal_positions",
]
