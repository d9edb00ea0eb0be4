"""The forms of a model that onnxruntime and OpenVINO read, made on first use and kept beside it.

Each is written whole or not at all: another run may look for it at the same time.
"""

from __future__ import annotations

import json
import os
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from peers import need

Batch = tuple[np.ndarray, np.ndarray]  # int64 token ids and mask, (B, S) each

FUSED = ("EmbedLayerNormalization", "Attention", "SkipLayerNormalization", "BiasGelu")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path to write to, which becomes `path` when all is written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporters': tracing, deprecations
            yield Path(scratch, path.name)
        for file in sorted(Path(scratch).iterdir()):  # a model.bin before its model.xml
            os.replace(file, path.parent / file.name)


def _path(folder: Path, name: str) -> Path:
    return folder.with_name(folder.name + "-exports") / name


def onnx(folder: Path) -> Path:
    """Export a BERT, from token ids and mask to hidden states, by torch.

    Attention is exported as its plain products and softmax: with that of torch's fused function
    both libraries are up to a quarter slower on long texts.
    """
    path = _path(folder, "plain.onnx")
    if path.is_file():
        return path
    torch, transformers = need("torch"), need("transformers")
    need("onnx")
    model = transformers.BertModel.from_pretrained(
        folder, attn_implementation="eager", add_pooling_layer=False
    ).eval()

    class HiddenStates(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, ids, mask):
            return self.model(input_ids=ids, attention_mask=mask).last_hidden_state

    example = torch.ones((2, 8), dtype=torch.int64)
    names = ["input_ids", "attention_mask"]
    axes = {name: {0: "batch", 1: "length"} for name in (*names, "hidden")}
    with replacing(path) as file:
        torch.onnx.export(
            HiddenStates(),
            (example, example),
            str(file),
            input_names=names,
            output_names=["hidden"],
            dynamic_axes=axes,
            opset_version=17,
            dynamo=False,
        )
    return path


def fused_onnx(folder: Path) -> Path:
    """Fuse attention, norms with residuals and GELU with its bias (the exact GELU, by erf)."""
    path = _path(folder, "fused.onnx")
    if not path.is_file():
        plain = onnx(folder)
        optimizer = need("onnxruntime.transformers.optimizer")
        options = need("onnxruntime.transformers.fusion_options").FusionOptions("bert")
        options.enable_gelu_approximation = False
        config = json.loads((folder / "config.json").read_text())
        with replacing(path) as file:
            # Level 0: these fusions alone. A session does the rest when it loads the model.
            model = optimizer.optimize_model(
                str(plain),
                "bert",
                num_heads=config["num_attention_heads"],
                hidden_size=config["hidden_size"],
                optimization_options=options,
                opt_level=0,
            )
            # A pattern that the optimizer does not find is left as it is, in silence.
            fused = model.get_fused_operator_statistics()
            missing = [name for name in FUSED if not fused[name]]
            assert not missing, f"onnxruntime did not fuse {missing}"
            model.save_model_to_file(str(file))
    return path


def int8_onnx(source: Path) -> Path:
    """Quantise an ONNX model: weights by output channel, activations by tensor in each call."""
    path = source.with_name(f"{source.stem}-int8.onnx")
    if not path.is_file():
        quantization = need("onnxruntime.quantization")
        float32 = need("onnx").TensorProto.FLOAT
        with replacing(path) as file:
            quantization.quantize_dynamic(
                source,
                file,
                per_channel=True,
                reduce_range=False,
                extra_options={"DefaultTensorType": float32},  # which fused operators do not tell
            )
    return path


def int8_openvino(folder: Path, calibration: Iterable[Batch]) -> Path:
    """Quantise weights and activations, with ranges that are measured on some batches."""
    path = _path(folder, "openvino-int8.xml")
    if not path.is_file():
        plain = onnx(folder)
        openvino, nncf = need("openvino"), need("nncf")
        batches = list(calibration)
        with replacing(path) as file:
            model = nncf.quantize(
                openvino.Core().read_model(plain),
                nncf.Dataset(batches, list),
                model_type=nncf.ModelType.TRANSFORMER,
                subset_size=len(batches),
            )
            openvino.save_model(model, file, compress_to_fp16=False)
    return path
