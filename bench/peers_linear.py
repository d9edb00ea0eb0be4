"""Linear layers: NumPy and other libraries, as functions of the same arrays as headwise's."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from peers import need, onnx_session, openvino_request, torch_with_equal_threads

import headwise as hw

LINEAR = {
    "float32": ("headwise", "numpy", "torch", "onnxruntime", "openvino"),
    "float32_pairs": ("headwise", "onnxruntime", "openvino"),
    "bfloat16": ("headwise", "torch", "openvino"),
    "int8": ("headwise", "onnxruntime"),
}


def linear(library: str, precision: str, x, weight, bias) -> Callable[[], np.ndarray]:
    """Return the call that computes x Wᵀ + bias of float32 x (M, K); W (N, K) is given before.

    torch gets and returns x in `precision`; the others convert it from and to float32 in the call,
    as headwise does. None but headwise takes products in pairs.
    """
    if library == "headwise":
        options = {} if precision == "float32" else {"precision": precision}
        layer = hw.Linear(weight, bias, **options)
        return lambda: layer(x)
    if library == "numpy":
        return lambda: x @ weight.T + bias
    return globals()[f"_{library}"](precision.removesuffix("_pairs"), x, weight, bias)


def _torch(precision, x, weight, bias):
    torch = torch_with_equal_threads()
    tensors = [torch.from_numpy(a).to(getattr(torch, precision)) for a in (x, weight, bias)]

    def call():
        with torch.inference_mode():
            return torch.nn.functional.linear(*tensors)

    return call


def _openvino(precision, x, weight, bias):
    openvino = need("openvino")
    ops = openvino.opset13
    given = ops.parameter(list(x.shape), np.float32)
    product = ops.matmul(given, ops.constant(weight), False, True)
    model = openvino.Model([ops.add(product, ops.constant(bias))], [given])
    request = openvino_request(model, precision)
    return lambda: request.infer([x], share_inputs=True, share_outputs=True)[0]


def _onnxruntime(precision, x, weight, bias):
    """In int8, scales by output channel for W and one scale for x, found in each call."""
    onnx = need("onnx")
    helper = onnx.helper
    constants = {"B": weight.T, "bias": bias}
    if precision == "float32":
        node = helper.make_node("Gemm", ["x", "B", "bias"], ["y"])
    else:
        scales = np.abs(weight).max(axis=1) / 127
        quantised = np.rint(weight / scales[:, None]).astype(np.int8)
        constants = {"B": quantised.T, "scales": scales, "bias": bias}
        node = helper.make_node(
            "DynamicQuantizeMatMul",
            ["x", "B", "scales", "", "bias"],
            ["y"],
            domain="com.microsoft",
        )
    values = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in "xy"]
    tensors = [
        onnx.numpy_helper.from_array(np.ascontiguousarray(a), n) for n, a in constants.items()
    ]
    graph = helper.make_graph([node], "linear", values[:1], values[1:], tensors)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    session = onnx_session(model.SerializeToString())
    return lambda: session.run(None, {"x": x})[0]
