"""What the peers share: finding them, equal threads, one way to run an ONNX or OpenVINO model.

The peers of each operation are in ``peers_attention.py``, ``peers_linear.py`` and
``peers_encoder.py``, as functions of the same arguments as headwise's.
"""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path

import headwise as hw

# OpenVINO's int8 operations are in the model itself; the hint is for the rest, which is as exact
# and 5 to 10 % faster in bfloat16 (64 long texts).
OPENVINO_HINTS = {"float32": "f32", "bfloat16": "bf16", "int8": "bf16"}


class Unavailable(Exception):
    """A peer is not installed or cannot do what is asked: its benchmark is skipped."""


def need(module: str):
    """Import a peer, or say that it is not there."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # theirs, not ours to turn into errors
            return importlib.import_module(module)
    except ImportError as error:
        raise Unavailable(f"no {module}: pip install 'headwise[bench]'") from error


def torch_with_equal_threads():
    torch = need("torch")
    torch.set_num_threads(hw.get_num_threads())
    return torch


def onnx_session(model: str | Path | bytes):
    ort = need("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = hw.get_num_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def openvino_request(model, precision: str):
    settings = {
        "INFERENCE_NUM_THREADS": hw.get_num_threads(),
        "INFERENCE_PRECISION_HINT": OPENVINO_HINTS[precision],
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled = need("openvino").Core().compile_model(model, "CPU", settings)
    return compiled.create_infer_request()
