"""Attention: naive NumPy and other libraries, as functions of the same arguments as headwise's."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from peers import Unavailable, need, onnx_session, openvino_request, torch_with_equal_threads

import headwise as hw

ONNXRUNTIME = ("onnxruntime", "onnxruntime-mha")
ATTENTION = ("headwise", "numpy", "torch", *ONNXRUNTIME, "openvino")


def numpy_attention(q, k, v, causal):
    k, v = _repeat(q, k, v)
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
        raise Unavailable(f"{library} aligns the first query with the first key")
    if dtype == "bfloat16" and library in ("numpy", *ONNXRUNTIME):
        raise Unavailable(f"{library} has no bfloat16")
    return globals()[f"_{library.replace('-', '_')}_attention"](dtype, q, k, v, causal)


def _repeat(q, *arrays):
    group = q.shape[1] // arrays[0].shape[1]
    return arrays if group == 1 else [np.repeat(x, group, axis=1) for x in arrays]


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
    need("onnxruntime")
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
    request = openvino_request(openvino.Model([node], parameters), dtype)
    return lambda: request.infer(given, share_inputs=True, share_outputs=True)[0]
