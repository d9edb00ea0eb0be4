"""Weights: float32 views of a file where they can be, copies where they must, else a refusal."""

from __future__ import annotations

import gc
import json
import mmap
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save
from tiny import write_bert

from headwise.models import load
from headwise.models.weights import read_safetensors


def safetensors_bytes(tensors: dict[str, tuple[str, list[int], bytes]], padding: int = 0) -> bytes:
    """Return a file of (dtype, shape, bytes), which may be of any dtype there is.

    The data begins `padding` bytes after a multiple of 8.
    """
    header, data = {}, b""
    for name, (dtype, shape, raw) in tensors.items():
        offsets = [len(data), len(data) + len(raw)]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * ((padding - len(text)) % 8)
    return struct.pack("<Q", len(text)) + text + data


def test_every_float_becomes_float32(tmp_path):
    values = np.array([[0.0, -1.5, 2.0**-20], [np.inf, 3.25, 1e4]], np.float32)
    bfloat16 = (values.view(np.uint32) >> 16).astype(np.uint16)
    file = tmp_path / "floats.safetensors"
    file.write_bytes(
        safetensors_bytes(
            {
                "F32": ("F32", [2, 3], values.tobytes()),
                "F64": ("F64", [2, 3], values.astype(np.float64).tobytes()),
                "F16": ("F16", [2, 3], values.astype(np.float16).tobytes()),
                "BF16": ("BF16", [2, 3], bfloat16.tobytes()),
                "scalar": ("F32", [], values[0, 1].tobytes()),
                "empty": ("F32", [0, 3], b""),
            }
        )
    )
    tensors = read_safetensors(file)
    assert all(type(a) is np.ndarray and a.dtype == np.float32 for a in tensors.values())
    np.testing.assert_array_equal(tensors["F32"], values)
    np.testing.assert_array_equal(tensors["F64"], values)
    np.testing.assert_array_equal(tensors["F16"], values.astype(np.float16))
    np.testing.assert_allclose(tensors["BF16"], values, rtol=2**-7)
    assert tensors["scalar"].shape == ()
    assert tensors["scalar"] == -1.5
    assert tensors["empty"].shape == (0, 3)


@pytest.mark.parametrize(("dtype", "size"), [("I64", 8), ("U8", 1), ("BOOL", 1), ("F8_E4M3", 1)])
def test_other_dtypes_are_refused(tmp_path, dtype, size):
    file = tmp_path / "ints.safetensors"
    file.write_bytes(safetensors_bytes({"odd one": (dtype, [2], bytes(2 * size))}))
    with pytest.raises(ValueError, match=rf"ints\.safetensors: tensor 'odd one' .* {dtype}"):
        read_safetensors(file)
    assert read_safetensors(file, skip=lambda name: name == "odd one") == {}


SOUND = save({"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(5, np.float16)})


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        SOUND[:7],
        SOUND[:40],
        SOUND[:-1],
        SOUND + b"\0",
        struct.pack("<Q", 2**63) + SOUND[8:],
        struct.pack("<Q", 3) + b"not",
        struct.pack("<Q", 7) + b'["a":1]',
        SOUND.replace(b"F32", b"F99"),
        SOUND.replace(b"[2,3]", b"[3,3]"),
        SOUND.replace(b"[2,3]", b"[-2]"),
        SOUND.replace(b"[0,", b"[9,"),
        b"\x80\x04\x95" + SOUND,  # how a pickle begins
    ],
)
def test_damaged_safetensors(tmp_path, damaged):
    assert damaged != SOUND
    file = tmp_path / "damaged.safetensors"
    file.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"damaged\.safetensors is not a valid safetensors file"):
        read_safetensors(file)


@settings(deadline=None)
@given(
    cut=st.integers(0, len(SOUND)),
    edits=st.dictionaries(st.integers(0, len(SOUND) - 1), st.integers(0, 255), max_size=5),
)
def test_any_bytes_are_read_or_refused(tmp_path_factory, cut, edits):
    data = bytearray(SOUND)
    for position, byte in edits.items():
        data[position] = byte
    file = tmp_path_factory.getbasetemp() / "fuzzed.safetensors"
    file.write_bytes(data[:cut])
    try:
        with np.errstate(all="ignore"):
            tensors = read_safetensors(file)
    except ValueError as error:
        assert "fuzzed.safetensors" in str(error)  # noqa: PT017
    else:
        assert all(array.dtype == np.float32 for array in tensors.values())


def owner(array: np.ndarray) -> object:
    """Return what holds an array's memory."""
    while isinstance(array, np.ndarray) and array.base is not None:
        array = array.base
    return array


def test_float32_is_a_view_of_the_file(tmp_path):
    file = tmp_path / "model.safetensors"
    file.write_bytes(SOUND)
    tensors = read_safetensors(file)
    assert isinstance(owner(tensors["a"]), mmap.mmap)
    assert not isinstance(owner(tensors["b"]), mmap.mmap)
    with pytest.raises(ValueError, match="read-only"):
        tensors["a"][0, 0] = 1


@pytest.mark.parametrize("padding", range(8))
def test_unaligned_tensors_are_copied(tmp_path, padding):
    values = np.arange(6, dtype=np.float32)
    file = tmp_path / "model.safetensors"
    file.write_bytes(safetensors_bytes({"a": ("F32", [6], values.tobytes())}, padding))
    (array,) = read_safetensors(file).values()
    assert array.flags.aligned
    assert isinstance(owner(array), mmap.mmap) == (padding % 4 == 0)
    np.testing.assert_array_equal(array, values)


def test_views_keep_the_map_alive(tmp_path):
    """Whatever becomes of the file's name."""
    file = tmp_path / "model.safetensors"
    file.write_bytes(SOUND)
    array = read_safetensors(file)["a"]
    file.unlink()
    file.write_bytes(bytes(len(SOUND)))
    gc.collect()
    np.testing.assert_array_equal(array, np.arange(6).reshape(2, 3))


def test_an_encoder_outlives_its_file(tmp_path):
    tokens = np.array([2, 5, 9, 4, 3])
    encoder = load(write_bert(tmp_path))
    expected = encoder(tokens)
    (tmp_path / "model.safetensors").unlink()
    gc.collect()
    np.testing.assert_array_equal(encoder(tokens), expected)
