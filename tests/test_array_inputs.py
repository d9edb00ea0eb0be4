"""Arrays that are not NumPy's: read through __array__, the buffer protocol or DLPack, uncopied."""

from __future__ import annotations

import ctypes
import gc

import ml_dtypes
import numpy as np
import pytest
from checks import assert_same_bits

import headwise as hw


class DLTensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class DLManagedTensor(ctypes.Structure):
    pass


DELETER = ctypes.CFUNCTYPE(None, ctypes.POINTER(DLManagedTensor))
DLManagedTensor._fields_ = (
    ("tensor", DLTensor),
    ("manager", ctypes.c_void_p),
    ("deleter", DELETER),
)
new_capsule = ctypes.pythonapi.PyCapsule_New
new_capsule.restype = ctypes.py_object
new_capsule.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)


class BFloat16Tensor:
    """What torch exports: NumPy's from_dlpack() refuses it."""

    def __init__(self, array, *, with_strides=True, code=4, device=1):
        self.array, self.device, self.deleted = array, device, 0
        axes = ctypes.c_int64 * array.ndim
        self.shape = axes(*array.shape)
        self.strides = axes(*(s // 2 for s in array.strides)) if with_strides else None

        def delete(_):
            self.deleted += 1

        tensor = DLTensor(
            array.ctypes.data - 4,  # the offset takes it back
            device,
            0,
            array.ndim,
            code,
            16,
            1,
            self.shape,
            self.strides,
            4,
        )
        self.managed = DLManagedTensor(tensor, None, DELETER(delete))

    def __dlpack_device__(self):
        return self.device, 0

    def __dlpack__(self, **_):
        return new_capsule(ctypes.addressof(self.managed), b"dltensor", None)


class Exporter:
    """A tensor with DLPack and nothing else."""

    def __init__(self, array):
        self.array = array

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)


class WithArray:
    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return self.array


@pytest.fixture
def qkv(rng):
    return [rng.standard_normal((2, 3, n, 16)).astype(np.float32) for n in (20, 50, 50)]


@pytest.mark.parametrize("wrap", [Exporter, WithArray, memoryview, np.ndarray.tolist])
def test_same_as_arrays(qkv, wrap):
    expected = hw.attention(*qkv)
    if wrap is np.ndarray.tolist:  # nested lists are float64
        expected = hw.attention(*(x.astype(float) for x in qkv))
    assert_same_bits(hw.attention(*map(wrap, qkv)), expected)


@pytest.mark.parametrize("order", ["C", "F"])
def test_bfloat16_through_dlpack(qkv, order):
    arrays = [np.array(x.astype(ml_dtypes.bfloat16), order=order) for x in qkv]
    tensors = [BFloat16Tensor(x, with_strides=order == "F") for x in arrays]
    out = hw.attention(*tensors)
    assert out.dtype == ml_dtypes.bfloat16
    assert_same_bits(out, hw.attention(*arrays))
    del out
    gc.collect()
    assert [t.deleted for t in tensors] == [1, 1, 1]


def test_bfloat16_memory_is_shared(qkv):
    array = qkv[0].astype(ml_dtypes.bfloat16)
    tensor = BFloat16Tensor(array)
    out = np.zeros_like(array)
    with pytest.raises(ValueError, match="out shares memory with an input"):
        hw.attention(tensor, array, array, out=array)
    hw.attention(tensor, tensor, tensor, out=out)
    assert tensor.deleted == 4  # the refused call too


def test_float_masks_too(qkv):
    mask = np.zeros((20, 50), np.float32)
    mask[:, 30:] = -np.inf
    assert_same_bits(
        hw.attention(*qkv, attn_mask=Exporter(mask)), hw.attention(*qkv, attn_mask=mask)
    )


def test_elsewhere_than_on_the_cpu(qkv):
    tensor = BFloat16Tensor(qkv[1].astype(ml_dtypes.bfloat16), device=2)
    with pytest.raises(ValueError, match=r"key lies on a device .*2.*: it must be on the CPU"):
        hw.attention(qkv[0], tensor, qkv[2])


def test_a_dtype_unknown_to_numpy(qkv):
    tensor = BFloat16Tensor(qkv[1].astype(ml_dtypes.bfloat16), code=17)
    with pytest.raises(TypeError, match="key has a dtype that NumPy does not know"):
        hw.attention(qkv[0], tensor, qkv[2])
    assert tensor.deleted == 0  # the capsule was not consumed: its owner frees it


def test_torch(qkv):
    torch = pytest.importorskip("torch")
    tensors = [torch.from_numpy(x) for x in qkv]
    assert_same_bits(hw.attention(*tensors), hw.attention(*qkv))
    half = [t.to(torch.bfloat16) for t in tensors]
    assert_same_bits(
        hw.attention(*half), hw.attention(*(x.astype(ml_dtypes.bfloat16) for x in qkv))
    )
    negative = torch.complex(tensors[1], tensors[1]).conj().imag  # in the memory of what it negates
    with pytest.raises(TypeError, match=r"key has its negative bit set: .* resolve_neg"):
        hw.attention(tensors[0], negative, tensors[2])
    with pytest.raises(TypeError, match=r"attn_mask cannot be read as an array: .*meta"):
        hw.attention(*tensors, attn_mask=torch.ones(1, device="meta"))
    with pytest.raises(TypeError, match=r"query cannot be read as an array: .*grad"):
        hw.attention(tensors[0].requires_grad_(), *tensors[1:])
