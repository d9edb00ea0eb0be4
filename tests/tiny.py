"""Model folders small enough to be made for one test."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors

import headwise as hw

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefghijklmnop"]

CONFIG = {
    "model_type": "bert",
    "vocab_size": len(WORDS),
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "max_position_embeddings": 16,
    "type_vocab_size": 2,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
}


MEAN = {"word_embedding_dimension": 12, "pooling_mode_mean_tokens": True}


def bert_weights(config: dict = CONFIG, seed: int = 0) -> dict[str, np.ndarray]:
    """Return random weights under the names that transformers gives them."""
    E, F = config["hidden_size"], config["intermediate_size"]
    shapes = {
        "embeddings.word_embeddings.weight": (config["vocab_size"], E),
        "embeddings.position_embeddings.weight": (config["max_position_embeddings"], E),
        "embeddings.token_type_embeddings.weight": (config["type_vocab_size"], E),
        "embeddings.LayerNorm.weight": (E,),
        "embeddings.LayerNorm.bias": (E,),
    }
    for i in range(config["num_hidden_layers"]):
        for name, shape in {
            "attention.self.query": (E, E),
            "attention.self.key": (E, E),
            "attention.self.value": (E, E),
            "attention.output.dense": (E, E),
            "attention.output.LayerNorm": (E,),
            "intermediate.dense": (F, E),
            "output.dense": (E, F),
            "output.LayerNorm": (E,),
        }.items():
            shapes[f"encoder.layer.{i}.{name}.weight"] = shape
            shapes[f"encoder.layer.{i}.{name}.bias"] = shape[:1]
    rng = np.random.default_rng(seed)
    return {name: rng.normal(0, 0.5, shape).astype(np.float32) for name, shape in shapes.items()}


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def write_bert(folder: Path, weights: dict[str, np.ndarray] | None = None, **changes) -> Path:
    """Write config.json, with `changes`, and model.safetensors; a change to None leaves out."""
    config = {key: value for key, value in (CONFIG | changes).items() if value is not None}
    write_json(folder / "config.json", config)
    save_file(bert_weights() if weights is None else weights, folder / "model.safetensors")
    return folder


def write_sentence_model(folder: Path, pooling: dict, normalize: bool = False) -> Path:
    """Write a BERT whose tokenizer knows one-letter words, and what pools its hidden states."""
    write_bert(folder)
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[(word, WORDS.index(word)) for word in ("[CLS]", "[SEP]")],
    )
    # As in all-MiniLM-L6-v2: what tokenizer.json says of these two is not to be followed.
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=4)
    tokenizer.save(str(folder / "tokenizer.json"))
    kinds = ["Transformer", "Pooling", "Normalize"][: 3 if normalize else 2]
    paths = ["", "1_Pooling", "2_Normalize"]
    write_json(
        folder / "modules.json",
        [
            {"idx": i, "name": str(i), "path": paths[i], "type": f"sentence_transformers.{kind}"}
            for i, kind in enumerate(kinds)
        ],
    )
    write_json(folder / "1_Pooling" / "config.json", pooling)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 8, "do_lower_case": False})
    return folder


def load_sentence_model(folder: Path) -> hw.TextEncoder:
    """Write such a model, with mean pooling, and load it for texts of up to 16 tokens."""
    model = hw.TextEncoder.from_pretrained(write_sentence_model(folder, MEAN))
    model.max_length = 16
    return model
