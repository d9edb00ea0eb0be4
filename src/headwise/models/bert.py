"""BERT (Devlin et al. 2019, https://arxiv.org/abs/1810.04805) as transformers saves it."""

from __future__ import annotations

from typing import Any

from .family import Family
from .files import Config

_ACTIVATIONS = ("gelu", "relu")


def _options(config: Config) -> dict[str, Any]:
    hidden_size = config.get("hidden_size", int)
    num_heads = config.get("num_attention_heads", int)
    if hidden_size % num_heads:
        raise config.error(
            "hidden_size", f"is {hidden_size}: it must be a multiple of the {num_heads} heads"
        )
    activation = config.get("hidden_act", str, "gelu")
    if activation not in _ACTIVATIONS:
        raise config.error("hidden_act", f"is {activation!r}: it must be one of {_ACTIVATIONS}")
    positions = config.get("position_embedding_type", str, "absolute")
    if positions != "absolute":
        raise config.error("position_embedding_type", f"is {positions!r}: it must be 'absolute'")
    if config.get("is_decoder", bool, False):
        raise config.error(
            "is_decoder", "is true: it must be false, as only encoders are supported"
        )
    return {
        "vocab_size": config.get("vocab_size", int),
        "hidden_size": hidden_size,
        "num_layers": config.get("num_hidden_layers", int),
        "num_heads": num_heads,
        "intermediate_size": config.get("intermediate_size", int),
        "max_positions": config.get("max_position_embeddings", int),
        "positions": "learned",
        "num_token_types": config.get("type_vocab_size", int),
        "activation": activation,
        "norm": "post",
        "layer_norm_eps": config.get("layer_norm_eps", float, 1e-12),
        "embedding_norm": True,
    }


BERT = Family(
    names={
        "embeddings.token": "embeddings.word_embeddings.weight",
        "embeddings.position": "embeddings.position_embeddings.weight",
        "embeddings.token_type": "embeddings.token_type_embeddings.weight",
        "embeddings.norm.*": "embeddings.LayerNorm.*",
        "layers.#.attention.query.*": "encoder.layer.#.attention.self.query.*",
        "layers.#.attention.key.*": "encoder.layer.#.attention.self.key.*",
        "layers.#.attention.value.*": "encoder.layer.#.attention.self.value.*",
        "layers.#.attention.output.*": "encoder.layer.#.attention.output.dense.*",
        "layers.#.attention_norm.*": "encoder.layer.#.attention.output.LayerNorm.*",
        "layers.#.feed_forward.up.*": "encoder.layer.#.intermediate.dense.*",
        "layers.#.feed_forward.down.*": "encoder.layer.#.output.dense.*",
        "layers.#.feed_forward_norm.*": "encoder.layer.#.output.LayerNorm.*",
    },
    options=_options,
    prefix="bert.",
    # The heads of pre-training and of fine-tuned tasks, and 0, 1, 2, ... as a buffer.
    ignored=("pooler.", "cls.", "classifier.", "qa_outputs.", "embeddings.position_ids"),
    # Layer norms of checkpoints converted from TensorFlow, as in bert-base-uncased.
    old_endings={".gamma": ".weight", ".beta": ".bias"},
)
