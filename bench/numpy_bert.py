"""BERT as anyone would write it in NumPy."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from peers import need


class NumpyBert:
    def __init__(self, folder: Path) -> None:
        load_file = need("safetensors.numpy").load_file
        self.weights = load_file(folder / "model.safetensors")
        config = json.loads((folder / "config.json").read_text())
        self.layers, self.heads = config["num_hidden_layers"], config["num_attention_heads"]

    def linear(self, name, x):
        return x @ self.weights[name + ".weight"].T + self.weights[name + ".bias"]

    def norm(self, name, x):
        x = x - x.mean(-1, keepdims=True)
        x /= np.sqrt((x * x).mean(-1, keepdims=True) + 1e-12)
        return x * self.weights[name + ".weight"] + self.weights[name + ".bias"]

    def gelu(self, x):  # by tanh: NumPy has no erf
        return 0.5 * x * (1 + np.tanh(0.7978845608 * (x + 0.044715 * x * x * x)))

    def __call__(self, ids, mask):
        batch, length = ids.shape
        w = self.weights
        x = w["embeddings.word_embeddings.weight"][ids]
        x = x + w["embeddings.position_embeddings.weight"][:length]
        x = self.norm("embeddings.LayerNorm", x + w["embeddings.token_type_embeddings.weight"][0])
        hidden = np.where(mask, 0, -np.inf)[:, None, None].astype(np.float32)
        for i in range(self.layers):
            at = f"encoder.layer.{i}."

            def split(name, x=x, at=at):
                y = self.linear(f"{at}attention.self.{name}", x)
                return y.reshape(batch, length, self.heads, -1).swapaxes(1, 2)

            q, k, v = split("query"), split("key"), split("value")
            scores = q @ k.swapaxes(-1, -2) / np.sqrt(np.float32(q.shape[-1])) + hidden
            scores = np.exp(scores - scores.max(-1, keepdims=True))
            mixed = (scores / scores.sum(-1, keepdims=True)) @ v
            mixed = self.linear(
                at + "attention.output.dense", mixed.swapaxes(1, 2).reshape(x.shape)
            )
            x = self.norm(at + "attention.output.LayerNorm", x + mixed)
            inner = self.gelu(self.linear(at + "intermediate.dense", x))
            x = self.norm(at + "output.LayerNorm", x + self.linear(at + "output.dense", inner))
        return x
