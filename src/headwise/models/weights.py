"""Reading safetensors files, whole or sharded, as float32 arrays."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from .files import Config, require

# Little-endian on disk. A bfloat16 is the upper half of a float32, so it is read as 16 plain bits.
_DTYPES = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "F64": "<f8"}


def _keep_all(name: str) -> bool:
    return False


def read_safetensors(
    path: str | Path, skip: Callable[[str], bool] = _keep_all
) -> dict[str, np.ndarray]:
    """Read the tensors of one safetensors file as float32 arrays.

    The file is mapped into memory, and F32 tensors are read-only views of it: processes share them,
    and nothing is read before it is used. It must not be written to while they live; to replace a
    model, put a new file in its place.

    Parameters
    ----------
    path : str or Path
        The file. Its tensors may be F32, F16, BF16 or F64.
    skip : callable, optional
        Names for which it returns True are left out, whatever their dtype.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is truncated or not safetensors, or a tensor is not of a dtype above.

    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    safetensors = require("safetensors")
    try:
        # The library checks the header: its size, the dtypes, and that the offsets tile the file.
        with safetensors.safe_open(path, framework="numpy"):
            pass
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is not a valid safetensors file: {error}") from error
    # The map lives as long as an array that looks into it.
    data = np.memmap(path, np.uint8, "r")
    start = 8 + int.from_bytes(data[:8].tobytes(), "little")
    header = json.loads(data[8:start].tobytes())
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        if skip(name):
            continue
        if entry["dtype"] not in _DTYPES:
            raise ValueError(
                f"{path}: tensor {name!r} has dtype {entry['dtype']}: "
                f"it must be one of {tuple(_DTYPES)}"
            )
        first, last = (start + offset for offset in entry["data_offsets"])
        raw = np.asarray(data[first:last]).view(_DTYPES[entry["dtype"]])
        if entry["dtype"] == "BF16":
            raw = (raw.astype(np.uint32) << 16).view(np.float32)
        tensors[name] = np.require(raw, np.float32, "A").reshape(entry["shape"])
    return tensors


def read_weights(folder: Path, skip: Callable[[str], bool] = _keep_all) -> dict[str, np.ndarray]:
    """Read ``model.safetensors`` of a folder, or the shards its index names."""
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole.is_file():
        return read_safetensors(whole, skip)
    if index.is_file():
        return _read_shards(index, skip)
    if (folder / "pytorch_model.bin").is_file():
        raise FileNotFoundError(
            f"{folder} has pytorch_model.bin but no model.safetensors: "
            "headwise reads safetensors only, as loading a pickle can run any code"
        )
    raise FileNotFoundError(f"{whole} does not exist")


def _read_shards(index: Path, skip: Callable[[str], bool]) -> dict[str, np.ndarray]:
    config = Config(index)
    files = config.values.get("weight_map")
    # A plain file name, so that an index cannot reach outside its folder.
    if not isinstance(files, dict) or not all(
        isinstance(file, str) and file == Path(file).name not in ("", "..")
        for file in files.values()
    ):
        raise config.error("weight_map", "is missing, or not an object of file names")
    tensors: dict[str, np.ndarray] = {}
    for file in sorted(set(files.values())):
        tensors |= read_safetensors(index.parent / file, skip)
    for name, file in files.items():
        if name not in tensors and not skip(name):
            raise ValueError(f"{index.parent / file} lacks the tensor {name!r} that {index} names")
    return tensors
