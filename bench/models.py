"""The models that are measured: all-MiniLM-L6-v2, and a BERT-base with random weights."""

from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path

import numpy as np
from exports import replacing
from peers import need

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))

from fetch_minilm import FOLDER, fetch

minilm = cache(fetch)

BERT_BASE = {
    "model_type": "bert",
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "vocab_size": 1000,  # small: a lookup costs the same in a large table
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
}


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def flops(folder: Path, lengths: np.ndarray) -> float:
    """Return what sequences of these lengths cost: linear layers and attention, no padding."""
    c = read(folder / "config.json")
    E, F, layers = c["hidden_size"], c["intermediate_size"], c["num_hidden_layers"]
    lengths = np.asarray(lengths, float)
    return layers * (2 * (4 * E * E + 2 * E * F) * lengths.sum() + 4 * E * (lengths**2).sum())


def nbytes(folder: Path, precision: str, vectors: int) -> float:
    """Return what has to be read and written at least: linear weights once, and `vectors` rows."""
    c = read(folder / "config.json")
    E, F, layers = c["hidden_size"], c["intermediate_size"], c["num_hidden_layers"]
    size = {"float32": 4, "bfloat16": 2, "int8": 1}[precision]
    return size * layers * (4 * E * E + 2 * E * F) + 4 * E * vectors


def bert_base() -> Path:
    """Return the folder of a BERT-base as it is before training, written on first use."""
    folder = FOLDER / "bert-base-random"
    E, F = BERT_BASE["hidden_size"], BERT_BASE["intermediate_size"]
    if not (folder / "config.json").is_file():  # the last that is written
        folder.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(0)
        weights = {}

        def table(name: str, rows: int, columns: int) -> None:
            weights[f"{name}.weight"] = 0.02 * rng.standard_normal((rows, columns), np.float32)

        def linear(name: str, rows: int, columns: int) -> None:
            table(name, rows, columns)
            weights[f"{name}.bias"] = np.zeros(rows, np.float32)

        def norm(name: str) -> None:
            weights[f"{name}.weight"] = np.ones(E, np.float32)
            weights[f"{name}.bias"] = np.zeros(E, np.float32)

        table("embeddings.word_embeddings", BERT_BASE["vocab_size"], E)
        table("embeddings.position_embeddings", BERT_BASE["max_position_embeddings"], E)
        table("embeddings.token_type_embeddings", BERT_BASE["type_vocab_size"], E)
        norm("embeddings.LayerNorm")
        for layer in range(BERT_BASE["num_hidden_layers"]):
            at = f"encoder.layer.{layer}."
            for part in "query", "key", "value":
                linear(f"{at}attention.self.{part}", E, E)
            linear(f"{at}attention.output.dense", E, E)
            linear(f"{at}intermediate.dense", F, E)
            linear(f"{at}output.dense", E, F)
            norm(f"{at}attention.output.LayerNorm")
            norm(f"{at}output.LayerNorm")
        save_file = need("safetensors.numpy").save_file
        with replacing(folder / "model.safetensors") as path:
            save_file(weights, path)
        with replacing(folder / "config.json") as path:
            path.write_text(json.dumps(BERT_BASE))
    return folder
