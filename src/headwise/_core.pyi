from typing import Any

import numpy as np
import numpy.typing as npt

_Array = npt.NDArray[Any]
_Lengths = npt.NDArray[np.int64]

OUTPUT: int
WEIGHTS: int
COLUMN_SUMS: int

def attention(
    what: int,
    query: _Array,
    key: _Array,
    value: _Array | None,
    out: _Array,
    lse: _Array | None,
    query_starts: _Lengths | None,
    key_starts: _Lengths | None,
    key_lengths: _Lengths | None,
    query_offsets: _Lengths | None,
    window_left: int,
    window_right: int,
    scale: float,
    softcap: float,
    attn_mask: _Array | None,
    mask_starts: _Lengths | None,
    alibi_slopes: npt.NDArray[np.float64] | None,
    sinks: npt.NDArray[np.float64] | None,
) -> None: ...
def plain_attention(query: Any, key: Any, value: Any, causal: Any) -> _Array | None: ...
def packed_weight_size(precision: str, out_features: int, in_features: int) -> int: ...
def pack_weight(precision: str, weight: _Array, packed: _Array) -> None: ...
def linear(
    x: _Array,
    packed: _Array,
    bias: _Array | None,
    residual: _Array | None,
    out: _Array,
    precision: str,
    activation: int,
    gated: bool,
) -> None: ...

class EncoderStack:
    arrays: list[tuple[_Array | float | None, ...]]
    def __init__(
        self,
        layers: list[tuple[_Array | float | None, ...]],
        precision: str,
        *,
        activation: int,
        gated: bool,
        pre_norm: bool,
        hidden_size: int,
        intermediate_size: int,
        num_heads: int,
        num_kv_heads: int,
        head_dim: int,
    ) -> None: ...
    def run(
        self, hidden: _Array, starts: _Lengths, first: int, count: int, is_causal: bool
    ) -> None: ...

def trim() -> None: ...
def softmax(x: _Array, out: _Array) -> None: ...
def layer_norm(
    x: _Array,
    residual: _Array | None,
    weight: _Array | None,
    bias: _Array | None,
    out: _Array,
    epsilon: float,
    rms: bool,
) -> None: ...
def embed(
    tables: list[_Array], indices: list[_Lengths | None], starts: _Lengths | None, out: _Array
) -> None: ...
def pool(hidden: _Array, starts: _Lengths, out: _Array, mode: int, normalize: bool) -> None: ...
def bfloat16_from_dlpack(capsule: Any) -> npt.NDArray[np.uint16] | None: ...
def active_isa() -> str: ...
def available_isas() -> tuple[str, ...]: ...
def set_isa(name: str) -> None: ...
def get_num_threads() -> int: ...
def set_num_threads(n: int) -> None: ...
def peak_flops(dtype: str, seconds: float) -> float: ...
def peak_bandwidth(seconds: float) -> float: ...
