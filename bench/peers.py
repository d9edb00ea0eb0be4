"""Naive NumPy, and other libraries, as functions of the same arguments as headwise's.

A library that is not installed skips its benchmarks and says so: ``pip install headwise[bench]``.
"""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import headwise as hw

MODELS = Path(__file__).resolve().parents[1] / ".models"
ONNXRUNTIME = ("onnxruntime", "onnxruntime-mha")
ATTENTION = ("headwise", "numpy", "torch", *ONNXRUNTIME, "openvino")
LINEAR = ("headwise", "numpy", "torch")
ENCODERS = ("headwise", "numpy", "onnxruntime", "sentence-transformers")


def need(module: str):
    """Import a peer or skip the benchmark."""
    return pytest.importorskip(module, reason=f"{module} is not installed")


def torch_with_equal_threads():
    torch = need("torch")
    torch.set_num_threads(hw.get_num_threads())
    return torch


def onnx_session(model: str | bytes):
    ort = need("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = hw.get_num_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


# ---- attention -----------------------------------------------------------------------------------


def numpy_attention(q, k, v, causal):
    group = q.shape[1] // k.shape[1]
    k, v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(np.float32(q.shape[-1]))
    if causal:
        ahead = np.triu(np.ones(scores.shape[-2:], bool), 1 + k.shape[2] - q.shape[2])
        scores[..., ahead] = -np.inf
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
    return scores @ v


def attention(library: str, dtype: str, q, k, v, causal: bool) -> Callable[[], np.ndarray]:
    """Return the call that computes attention of float32 (B, H, S, D) arrays, given as `dtype`.

    A library that has no grouped heads gets the keys and values of each group repeated, and one
    that wants another layout gets it, before the call.
    """
    if q.shape[2] != k.shape[2] and causal and library not in ("headwise", "numpy"):
        pytest.skip(f"{library} aligns the first query with the first key")
    if dtype == "bfloat16" and library in ("numpy", *ONNXRUNTIME):
        pytest.skip(f"{library} has no bfloat16")
    return globals()[f"_{library.replace('-', '_')}_attention"](dtype, q, k, v, causal)


def _repeat(q, *arrays):
    return [np.repeat(x, q.shape[1] // x.shape[1], axis=1) for x in arrays]


def _headwise_attention(dtype, q, k, v, causal):
    if dtype == "bfloat16":
        bfloat16 = need("ml_dtypes").bfloat16
        q, k, v = (x.astype(bfloat16) for x in (q, k, v))
    return lambda: hw.attention(q, k, v, is_causal=causal)


def _numpy_attention(dtype, q, k, v, causal):
    return lambda: numpy_attention(q, k, v, causal)


def _torch_attention(dtype, q, k, v, causal):
    torch = torch_with_equal_threads()
    tensors = [torch.from_numpy(x).to(getattr(torch, dtype)) for x in (q, k, v)]
    sdpa = torch.nn.functional.scaled_dot_product_attention
    grouped = q.shape[1] != k.shape[1]

    def call():
        with torch.inference_mode():
            return sdpa(*tensors, is_causal=causal, enable_gqa=grouped)

    return call


def _onnx_model(op, inputs, domain="", **attributes):
    onnx = need("onnx")
    helper, float32 = onnx.helper, onnx.TensorProto.FLOAT
    values = [helper.make_tensor_value_info(name, float32, None) for name in (*inputs, "Y")]
    node = helper.make_node(op, inputs, ["Y"], domain=domain, **attributes)
    opsets = [helper.make_opsetid("", 23), helper.make_opsetid("com.microsoft", 1)]
    graph = helper.make_graph([node], "attention", values[:-1], values[-1:])
    return helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()


def _onnxruntime_attention(dtype, q, k, v, causal):
    session = onnx_session(_onnx_model("Attention", ["Q", "K", "V"], is_causal=int(causal)))
    return lambda: session.run(None, {"Q": q, "K": k, "V": v})[0]


def _onnxruntime_mha_attention(dtype, q, k, v, causal):
    """The contributed operator, which wants (B, S, H D) arrays."""
    shape = q.shape
    flat = [
        np.ascontiguousarray(x.swapaxes(1, 2)).reshape(x.shape[0], x.shape[2], -1)
        for x in (q, *_repeat(q, k, v))
    ]
    model = _onnx_model(
        "MultiHeadAttention",
        ["query", "key", "value"],
        "com.microsoft",
        num_heads=shape[1],
        unidirectional=int(causal),
    )
    session = onnx_session(model)
    feed = dict(zip(("query", "key", "value"), flat, strict=True))

    def call():
        out = session.run(None, feed)[0]
        return out.reshape(shape[0], shape[2], shape[1], -1).swapaxes(1, 2)

    return call


def _openvino_attention(dtype, q, k, v, causal):
    openvino = need("openvino")
    ops = openvino.opset13
    given = [q, *_repeat(q, k, v)]
    parameters = [ops.parameter(list(x.shape), np.float32) for x in given]
    node = ops.scaled_dot_product_attention(*parameters, causal=causal)
    precision = "bf16" if dtype == "bfloat16" else "f32"
    settings = {
        "INFERENCE_NUM_THREADS": hw.get_num_threads(),
        "INFERENCE_PRECISION_HINT": precision,
        "PERFORMANCE_HINT": "LATENCY",
    }
    model = openvino.Core().compile_model(openvino.Model([node], parameters), "CPU", settings)
    request = model.create_infer_request()

    def call():
        return request.infer(given, share_inputs=True, share_outputs=True)[0]

    return call


# ---- linear --------------------------------------------------------------------------------------


def linear(library: str, x, weight, bias) -> Callable[[], np.ndarray]:
    """Return the call that computes x Wᵀ + bias."""
    if library == "headwise":
        layer = hw.Linear(weight, bias)
        return lambda: layer(x)
    if library == "numpy":
        return lambda: x @ weight.T + bias
    torch = torch_with_equal_threads()
    tensors = [torch.from_numpy(a) for a in (x, weight, bias)]
    return lambda: torch.nn.functional.linear(*tensors).numpy()


# ---- encoders: all-MiniLM-L6-v2 ------------------------------------------------------------------


def encoder(library: str, folder: Path) -> Callable[[list[str]], np.ndarray]:
    """Return the function from texts to their embeddings; peers run sorted batches of 32."""
    if library == "headwise":
        return hw.TextEncoder.from_pretrained(folder).encode
    if library == "sentence-transformers":
        torch_with_equal_threads()
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = need("sentence_transformers").SentenceTransformer(str(folder), device="cpu")
        return lambda texts: model.encode(texts, batch_size=32, show_progress_bar=False)
    text_encoder = hw.TextEncoder.from_pretrained(folder)
    if library == "numpy":
        return padded_batches(text_encoder, NumpyEncoder(folder))
    session = onnx_session(str(export_onnx(folder)))
    names = "input_ids", "attention_mask"
    return padded_batches(
        text_encoder,
        lambda *ids_and_mask: session.run(None, dict(zip(names, ids_and_mask, strict=True)))[0],
    )


def padded_batches(text_encoder, hidden_states) -> Callable[[list[str]], np.ndarray]:
    """Run hidden_states(ids, mask) on padded batches of 32, longest first, and pool the means."""

    def encode(texts: list[str]) -> np.ndarray:
        ids, starts = text_encoder.tokenize(texts)
        lengths = np.diff(starts)
        order = np.argsort(-lengths, kind="stable")
        out = np.empty((len(texts), text_encoder.dim), np.float32)
        for first in range(0, len(order), 32):
            batch = order[first : first + 32]
            mask = (np.arange(lengths[batch[0]]) < lengths[batch, None]).astype(np.int64)
            padded = np.zeros_like(mask)
            padded[mask == 1] = np.concatenate([ids[starts[i] : starts[i + 1]] for i in batch])
            hidden = hidden_states(padded, mask)
            pooled = (hidden * mask[..., None].astype(np.float32)).sum(1) / mask.sum(1)[:, None]
            out[batch] = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
        return out

    return encode


class NumpyEncoder:
    """BERT as anyone would write it in NumPy."""

    def __init__(self, folder: Path) -> None:
        load_file = need("safetensors.numpy").load_file
        self.weights = load_file(folder / "model.safetensors")
        self.layers, self.heads = 6, 12

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


def export_onnx(folder: Path) -> Path:
    """Export the model with torch once; later runs find the file."""
    path = MODELS / "all-MiniLM-L6-v2.onnx"
    if path.is_file():
        return path
    torch, transformers = need("torch"), need("transformers")
    need("onnx")
    importlib.invalidate_caches()
    model = transformers.AutoModel.from_pretrained(folder, attn_implementation="eager").eval()

    class HiddenStates(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, ids, mask):
            return self.model(input_ids=ids, attention_mask=mask).last_hidden_state

    example = torch.ones((2, 8), dtype=torch.int64)
    names = ["input_ids", "attention_mask"]
    axes = {name: {0: "batch", 1: "length"} for name in (*names, "hidden")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            HiddenStates(),
            (example, example),
            str(path),
            input_names=names,
            output_names=["hidden"],
            dynamic_axes=axes,
            opset_version=17,
            dynamo=False,
        )
    return path
