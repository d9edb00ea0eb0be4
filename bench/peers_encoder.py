"""Encoders: headwise, naive NumPy and other libraries, on texts and on padded batches.

The threads of onnxruntime and OpenVINO spin for a while after a call and slow down whoever comes
next. pytest-benchmark measures one library after the other, so that this falls into a first call
that does not count; ``interleaved.py`` pauses.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import exports
import models
import numpy as np
from exports import Batch
from numpy_bert import NumpyBert
from peers import need, onnx_session, openvino_request, torch_with_equal_threads
from texts import CALIBRATION

import headwise as hw

# Which of onnxruntime's models is the faster depends on the texts: both are measured.
ONNXRUNTIME = ("onnxruntime", "onnxruntime-fused")
TEXT_ENCODERS = {
    "float32": ("headwise", *ONNXRUNTIME, "openvino", "sentence-transformers", "numpy"),
    "bfloat16": ("headwise", "openvino", "sentence-transformers"),
    "int8": ("headwise", *ONNXRUNTIME, "openvino"),
}
ENCODERS = {
    "float32": ("headwise", *ONNXRUNTIME, "openvino", "torch"),
    "bfloat16": ("headwise", "openvino", "torch"),
    "int8": ("headwise", *ONNXRUNTIME, "openvino"),
}
# Not what is hoped for, but what tells a lossy format from a wrong result.
LOWEST_COSINES = {"float32": 0.9999, "bfloat16": 0.999, "int8": 0.95}

Encode = Callable[[list[str]], np.ndarray]
HiddenStates = Callable[[np.ndarray, np.ndarray], np.ndarray]  # of ids and mask: (B, S, E)


def text_encoder(library: str, precision: str, folder: Path) -> Encode:
    """Return the function from texts to their vectors: means of hidden states, of length 1.

    Peers run batches of 32 texts, sorted by length and padded to the longest of the batch.
    """
    if library == "headwise":
        return hw.TextEncoder.from_pretrained(folder, precision).encode
    if library == "sentence-transformers":
        return _sentence_transformers(precision, folder)
    tokenize = tokenizer(folder)
    calibration = (batch for _, batch in _padded_batches(tokenize(CALIBRATION), 4))
    run = hidden_states(library, precision, folder, calibration)

    def encode(texts: list[str]) -> np.ndarray:
        rows = {}
        for members, (ids, mask) in _padded_batches(tokenize(texts), 32):
            sums = (mask[:, None].astype(np.float32) @ run(ids, mask))[:, 0]
            vectors = sums / np.linalg.norm(sums, axis=1, keepdims=True)
            rows.update(zip(members, vectors, strict=True))
        return np.stack([rows[i] for i in range(len(texts))])

    return encode


def tokenizer(folder: Path) -> Callable[[list[str]], list[list[int]]]:
    """Return the function from texts to their token ids."""
    tokenizer = need("tokenizers").Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(models.read(folder / "sentence_bert_config.json")["max_seq_length"])
    return lambda texts: [encoding.ids for encoding in tokenizer.encode_batch_fast(texts)]


def _padded_batches(ids: list[list[int]], size: int) -> Iterator[tuple[list[int], Batch]]:
    """Yield the indices of `size` texts and their batch, longest first."""
    order = sorted(range(len(ids)), key=lambda i: -len(ids[i]))
    for first in range(0, len(order), size):
        members = order[first : first + size]
        lengths = np.array([len(ids[i]) for i in members])
        mask = (np.arange(lengths[0]) < lengths[:, None]).astype(np.int64)
        padded = np.zeros_like(mask)
        padded[mask == 1] = np.concatenate([ids[i] for i in members])
        yield members, (padded, mask)


def _sentence_transformers(precision: str, folder: Path) -> Encode:
    torch_with_equal_threads()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = need("sentence_transformers").SentenceTransformer(str(folder), device="cpu")
    if precision == "bfloat16":  # up to 20 % faster than torch.autocast
        model = model.bfloat16()
    return lambda texts: model.encode(texts, batch_size=32, show_progress_bar=False)


def hidden_states(
    library: str, precision: str, folder: Path, calibration: Iterator[Batch]
) -> HiddenStates:
    """Return the function from int64 ids and mask (B, S) to float32 hidden states (B, S, E).

    headwise skips what is masked, the others compute it. `calibration` is drawn from only by who
    needs it.
    """
    if library == "numpy":
        return NumpyBert(folder)
    if library == "headwise":
        return _headwise(precision, folder)
    if library == "torch":
        return _torch(precision, folder)
    if library == "openvino":
        int8 = precision == "int8"
        model = exports.int8_openvino(folder, calibration) if int8 else exports.onnx(folder)
        request = openvino_request(model, precision)
        return lambda *batch: request.infer(batch, share_inputs=True, share_outputs=True)[0]
    model = exports.fused_onnx(folder) if library == "onnxruntime-fused" else exports.onnx(folder)
    session = onnx_session(exports.int8_onnx(model) if precision == "int8" else model)
    names = [given.name for given in session.get_inputs()]
    return lambda *batch: session.run(None, dict(zip(names, batch, strict=True)))[0]


def _headwise(precision: str, folder: Path) -> HiddenStates:
    encoder = hw.Encoder.from_pretrained(folder, precision)

    def run(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        if not mask.all():
            raise ValueError("mask hides tokens: only full batches are compared")
        starts = np.arange(0, ids.size + 1, ids.shape[1])
        return encoder(ids.reshape(-1), starts).reshape(*ids.shape, -1)

    return run


def _torch(precision: str, folder: Path) -> HiddenStates:
    torch = torch_with_equal_threads()
    model = need("transformers").BertModel.from_pretrained(folder, add_pooling_layer=False)
    model = model.to(getattr(torch, precision)).eval()

    def run(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            out = model(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask))
            return out.last_hidden_state.float().numpy()

    return run


def check(library: str, precision: str, got, expected, atol: float) -> float:
    """Hold (..., E) results against headwise's in float32; return the lowest cosine of a row."""
    if precision == "float32":
        atol = 5e-3 if library == "numpy" else atol  # NumPy's GELU is the tanh one
        np.testing.assert_allclose(got, expected, rtol=0, atol=atol)
    got, expected = got.astype(float), expected.astype(float)
    norms = np.linalg.norm(got, axis=-1) * np.linalg.norm(expected, axis=-1)
    lowest = float(((got * expected).sum(-1) / norms).min())
    assert lowest > LOWEST_COSINES[precision], f"the lowest cosine is {lowest}"
    return lowest
