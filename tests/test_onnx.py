"""The ONNX operator Attention: onnx's own cases, its reference implementation, bad input."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import onnx.backend.test.case.node.attention  # makes the operator's cases, as it is imported
import pytest
from checks import ISAS_OF_ATTENTION, assert_same_bits
from onnx.backend.test.case import node as onnx_cases
from onnx.reference import ReferenceEvaluator

import headwise.functional
from headwise.onnx import AttentionOutputs, attention

ISAS = ISAS_OF_ATTENTION

# The cases that one call of the operator makes, without those of its expansion into others.
# collect_testcases() would import the cases of all operators: seconds, and warnings.
CASES = {
    case.name: case
    for case in onnx_cases._NodeTestCases
    if [node.op_type for node in case.model.graph.node] == ["Attention"]
}
# Of the reference implementation too, which rounds to the dtype after each step.
TOLERANCE = {
    np.dtype(np.float64): 1e-13,
    np.dtype(np.float32): 1e-5,
    np.dtype(np.float16): 2e-3,
    np.dtype(ml_dtypes.bfloat16): 2e-2,
}


def run(node, present_inputs):
    """The outputs that the node names, by the adapter."""
    given = iter(present_inputs)
    inputs = [next(given) if name else None for name in node.input]
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    outputs = attention(
        *inputs,
        **attributes,
        return_present=any(node.output[1:3]),
        return_qk_matmul_output=any(node.output[3:]),
    )
    return [x for x, name in zip(outputs, node.output, strict=False) if name]


def check(got, expected):
    assert len(got) == len(expected)
    for ours, theirs in zip(got, expected, strict=True):
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        tolerance = TOLERANCE[ours.dtype]
        wide = (x.astype(np.float64) for x in (ours, theirs))
        np.testing.assert_allclose(*wide, rtol=tolerance, atol=tolerance)


def test_all_cases_are_found():
    assert len(CASES) >= 93


@pytest.mark.parametrize("name", CASES)
def test_case(isa, name):
    (node,) = CASES[name].model.graph.node
    for inputs, outputs in CASES[name].data_sets:
        check(run(node, inputs), outputs)


# Some that the cases above leave out: what draw() takes, and attributes.
COMBINATIONS = {
    "causal_past": ({"past": 5}, {"is_causal": 1}),
    "causal_past_short_mask": ({"past": 5, "mask": (2, 1, 4, 9)}, {"is_causal": 1}),
    "causal_lengths": ({"lengths": [3, 7]}, {"is_causal": 1}),
    "lengths_beyond_a_short_mask": ({"lengths": [4, 7], "mask": (4, 5)}, {}),
    "lengths_short_bool_mask": ({"lengths": [0, 6], "bool_mask": (1, 4, 4, 6)}, {}),
    "short_mask_of_one_column": ({"mask": (4, 1)}, {}),
    "short_mask_of_no_column": ({"bool_mask": (4, 0)}, {}),
    "mask_of_heads": ({"mask": (4, 1, 7)}, {"softcap": 1.5}),
    "window_past": ({"past": 3}, {"left_window_size": 2, "right_window_size": 1}),
    "window_lengths": ({"lengths": [7, 2]}, {"left_window_size": 0, "right_window_size": 2}),
    "window_causal_mask": (
        {"bool_mask": (2, 1, 4, 7)},
        {"is_causal": 1, "left_window_size": 1, "right_window_size": 3},
    ),
    "window_without_bound": ({}, {"left_window_size": 2**62, "right_window_size": 2**62}),
    "scale": ({}, {"scale": 4.0, "softcap": 2.0}),
    "heads_in_rows": (
        {"rows": True, "past": 2, "mask": (4, 6)},
        {"q_num_heads": 4, "kv_num_heads": 2, "is_causal": 1, "softcap": 3.0},
    ),
}


def draw(rng, dtype, *, past=0, lengths=None, mask=None, bool_mask=None, rows=False):
    """The operator's inputs by name: B 2, Hq 4, Hkv 2, Sq 4, S 7, D 8, Dv 5."""
    sizes = {"Q": (2, 4, 4, 8), "K": (2, 2, 7, 8), "V": (2, 2, 7, 5)}
    x = {name: rng.standard_normal(size).astype(dtype) for name, size in sizes.items()}
    if rows:
        x = {name: a.swapaxes(1, 2).reshape(2, a.shape[2], -1) for name, a in x.items()}
    if past:
        x["past_key"] = rng.standard_normal((2, 2, past, 8)).astype(dtype)
        x["past_value"] = rng.standard_normal((2, 2, past, 5)).astype(dtype)
    if lengths is not None:
        x["nonpad_kv_seqlen"] = np.array(lengths)
    if mask is not None:
        x["attn_mask"] = rng.standard_normal(mask).astype(dtype)
        x["attn_mask"][rng.random(mask) < 0.2] = -np.inf
    if bool_mask is not None:
        x["attn_mask"] = rng.random(bool_mask) < 0.7
    return x


@pytest.mark.parametrize("mode", range(4))
@pytest.mark.parametrize("name", COMBINATIONS)
def test_reference_implementation(dtype, rng, name, mode):
    drawn, attributes = COMBINATIONS[name]
    x = draw(rng, dtype, **drawn)
    names = ["Q", "K", "V", "attn_mask", "past_key", "past_value", "nonpad_kv_seqlen"]
    outputs = ["Y", "present_key", "present_value", "qk_matmul_output"]
    if "nonpad_kv_seqlen" in x:
        outputs[1:3] = "", ""

    def make(attributes):
        inputs = [name if name in x else "" for name in names]
        return onnx.helper.make_node(
            "Attention", inputs, outputs, qk_matmul_output_mode=mode, **attributes
        )

    node, wanted = make(attributes), [name for name in outputs if name]
    expected = ReferenceEvaluator(node).run(wanted, x)
    if mode == 0:
        # It caps these scores too, against the operator's text, its function body and onnxruntime.
        uncapped = make({**attributes, "softcap": 0.0})
        expected[-1] = ReferenceEvaluator(uncapped).run(wanted, x)[-1]
    check(run(node, [x[name] for name in names if name in x]), expected)


def test_outputs_that_are_not_asked_for(rng, monkeypatch):
    monkeypatch.delattr(headwise.functional, "attention_weights")
    x = draw(rng, np.float32)
    got = attention(**x, qk_matmul_output_mode=3)
    assert isinstance(got, AttentionOutputs)
    assert got._fields == ("Y", "present_key", "present_value", "qk_matmul_output")
    assert got[1:] == (None, None, None)
    scores = attention(**x, return_qk_matmul_output=True)
    assert_same_bits(scores.Y, got.Y)
    assert scores[1:3] == (None, None)
    assert scores.qk_matmul_output.shape == (2, 4, 4, 7)


@pytest.mark.parametrize("rows", [False, True])
def test_present_without_past_is_a_view(rng, rows):
    x = draw(rng, np.float32, rows=rows)
    heads = {"q_num_heads": 4, "kv_num_heads": 2} if rows else {}
    got = attention(**x, **heads, return_present=True)
    assert got.present_key.shape == (2, 2, 7, 8)
    assert got.present_value.shape == (2, 2, 7, 5)
    assert np.shares_memory(got.present_key, x["K"])
    assert np.shares_memory(got.present_value, x["V"])


def test_empty_past(rng):
    x = draw(rng, np.float32)
    alone = attention(**x, is_causal=1)
    x |= {"past_key": x["K"][:, :, :0], "past_value": x["V"][:, :, :0]}
    assert_same_bits(attention(**x, is_causal=1).Y, alone.Y)


def test_decoding_has_the_bits_of_the_whole(isa, rng):
    """Token by token with a past, or all at once; 3-D or 4-D."""
    q, k, v = (rng.standard_normal((2, 6, 32)).astype(np.float32) for _ in "qkv")
    options = {"q_num_heads": 4, "kv_num_heads": 4, "is_causal": 1, "left_window_size": 3}
    whole = attention(q, k, v, **options).Y
    past = np.empty((2, 4, 0, 8), np.float32), np.empty((2, 4, 0, 8), np.float32)
    for i in range(6):
        step = np.s_[:, i : i + 1]
        y, *past, _ = attention(q[step], k[step], v[step], None, *past, **options,
                                return_present=True)  # fmt: skip
        assert_same_bits(y, whole[step])
    by_head = (x.reshape(2, 6, 4, 8).swapaxes(1, 2) for x in (q, k, v))
    y = attention(*by_head, is_causal=1, left_window_size=3).Y
    assert_same_bits(y.swapaxes(1, 2).reshape(2, 6, 32), whole)


def test_keys_behind_a_short_mask_are_not_read(isa, rng):
    x = draw(rng, np.float32, mask=(4, 5))
    clean = attention(**x, qk_matmul_output_mode=3, return_qk_matmul_output=True)
    x["K"][:, :, 5:] = np.nan
    x["V"][:, :, 5:] = np.inf
    got = attention(**x, qk_matmul_output_mode=3, return_qk_matmul_output=True)
    assert_same_bits(got.Y, clean.Y)
    assert_same_bits(got.qk_matmul_output, clean.qk_matmul_output)
    assert (got.qk_matmul_output[..., 5:] == 0).all()


def test_scores_of_masked_keys_are_minus_infinity(rng):
    """Also those that are NaN before the mask, and those that float16 cannot hold."""
    x = draw(rng, np.float16, mask=(4, 7))
    x["attn_mask"][:] = 0
    x["attn_mask"][:, 2] = -np.inf
    x["K"][:, :, 2] = np.nan
    x["K"][:, :, 3] = 6e4
    x["Q"][:] = 100
    scores = attention(**x, qk_matmul_output_mode=2, return_qk_matmul_output=True).qk_matmul_output
    assert np.isneginf(scores[..., 2]).all()
    assert np.isposinf(scores[..., 3]).all()
    assert np.isfinite(np.delete(scores, [2, 3], -1)).all()


def test_value_of_another_dtype(rng):
    x = draw(rng, np.float32)
    wide = {**x, "V": x["V"].astype(np.float64)}
    got = attention(**wide, return_present=True)
    assert_same_bits(got.Y, attention(**x).Y)
    assert got.present_value is not None
    assert got.present_value.dtype == np.float64


@pytest.mark.parametrize("precision", [1, 10, 11, 16])
def test_softmax_precision_changes_nothing(dtype, rng, precision):
    x = draw(rng, dtype)
    assert_same_bits(attention(**x, softmax_precision=precision).Y, attention(**x).Y)


def test_head_counts_may_repeat_the_shapes(rng):
    x = draw(rng, np.float32)
    assert_same_bits(attention(**x, q_num_heads=4, kv_num_heads=2).Y, attention(**x).Y)


@pytest.mark.parametrize("empty", [(0, 4, 7), (2, 0, 7), (2, 4, 0)], ids=str)
def test_empty(empty):
    batch, queries, keys = empty
    q, k, v = (np.ones((batch, n, 12), np.float32) for n in (queries, keys, keys))
    options = {"q_num_heads": 4, "kv_num_heads": 2, "is_causal": 1}
    with pytest.raises(ValueError, match="head_size"):
        attention(q, k, v, **options)
    got = attention(q, k[..., :6], v[..., :6], **options, return_qk_matmul_output=True)
    assert_same_bits(got.Y, np.zeros((batch, queries, 12), np.float32))
    assert got.qk_matmul_output.shape == (batch, 4, queries, keys)


def call(q=(2, 4, 6, 8), k=(2, 2, 7, 8), v=(2, 2, 7, 5), *inputs, **options):
    arrays = [np.ones(x, np.float32) if isinstance(x, tuple) else x for x in (q, k, v, *inputs)]
    return attention(*arrays, **options)


def ints(*numbers):
    return np.array(numbers, np.int64)


ROWS = {"q": (2, 6, 32), "k": (2, 7, 16), "v": (2, 7, 10)}
PAST = {"past_key": np.ones((2, 2, 3, 8), np.float32),
        "past_value": np.ones((2, 2, 3, 5), np.float32)}  # fmt: skip
BAD = [
    (lambda: call(q=np.ones((2, 4, 6, 8), int)), TypeError, "Q has dtype int64"),
    (lambda: call(k=np.ones((2, 2, 7, 8))), TypeError, "K has dtype float64", "Q has float32"),
    (lambda: call(v=np.ones((2, 2, 7, 5), "i4")), TypeError, "V has dtype int32"),
    (lambda: call(q=(6, 8)), ValueError, "Q has shape (6, 8)", "(batch, heads, length, head_size)"),
    (lambda: call(k=(2, 7, 16)), ValueError, "K has shape (2, 7, 16)", "all"),
    (lambda: call(v=(2, 2, 1, 7, 5)), ValueError, "V has shape (2, 2, 1, 7, 5)"),
    (lambda: call(k=(1, 2, 7, 8)), ValueError, "K has", "(1, 2, 7, 8)", "(2, any, any, 8)"),
    (lambda: call(k=(2, 2, 7, 9)), ValueError, "K has", "(2, 2, 7, 9)", "(2, any, any, 8)"),
    (lambda: call(v=(2, 2, 6, 5)), ValueError, "V has", "(2, 2, 6, 5)", "(2, 2, 7, any)"),
    (lambda: call(v=(2, 4, 7, 5)), ValueError, "V has", "(2, 4, 7, 5)", "(2, 2, 7, any)"),
    (lambda: call(q=(2, 3, 6, 8)), ValueError, "K has 2 heads", "Q has 3", "multiple"),
    (lambda: call(k=(2, 0, 7, 8), v=(2, 0, 7, 5)), ValueError, "K has 0 heads"),
    (lambda: call(q_num_heads=3), ValueError, "q_num_heads is 3", "Q has 4 heads"),
    (lambda: call(kv_num_heads=4), ValueError, "kv_num_heads is 4", "K has 2 heads"),
    (lambda: call(**ROWS, kv_num_heads=2), ValueError, "q_num_heads is None", "Q is 3-D"),
    (lambda: call(**ROWS, q_num_heads=4), ValueError, "kv_num_heads is None", "K is 3-D"),
    (lambda: call(**ROWS, q_num_heads=5, kv_num_heads=1), ValueError, "Q has hidden size 32",
     "multiple of q_num_heads, 5"),
    (lambda: call(**ROWS, q_num_heads=0, kv_num_heads=1), ValueError, "q_num_heads is 0",
     "1 or more"),
    (lambda: call(**ROWS, q_num_heads=4.0, kv_num_heads=1), TypeError, "q_num_heads is 4.0",
     "integer"),
    (lambda: call(attn_mask=np.ones((6, 7), int)), TypeError, "attn_mask", "int64"),
    (lambda: call(attn_mask=np.ones((6, 8), bool)), ValueError, "attn_mask", "(6, 8)"),
    (lambda: call(attn_mask=np.ones((3, 6, 7), bool)), ValueError, "attn_mask", "(3, 6, 7)"),
    (lambda: call(past_key=PAST["past_key"]), ValueError, "past_value is None"),
    (lambda: call(past_value=PAST["past_value"]), ValueError, "past_key is None"),
    (lambda: call(**{**PAST, "past_key": np.ones((2, 2, 3, 8))}), TypeError,
     "past_key has dtype float64", "K has float32"),
    (lambda: call(**{**PAST, "past_value": np.ones((2, 2, 3, 5))}), TypeError,
     "past_value has dtype float64", "V has float32"),
    (lambda: call(**{**PAST, "past_key": np.ones((2, 4, 3, 8), "f4")}), ValueError,
     "past_key has", "(2, 4, 3, 8)", "(2, 2, any, 8)"),
    (lambda: call(**{**PAST, "past_key": np.ones((2, 3, 16), "f4")}), ValueError,
     "past_key has", "(2, 3, 16)", "(2, 2, any, 8)"),
    (lambda: call(**{**PAST, "past_value": np.ones((2, 2, 4, 5), "f4")}), ValueError,
     "past_value has", "(2, 2, 4, 5)", "(2, 2, 3, 5)"),
    (lambda: call(nonpad_kv_seqlen=ints(7, 7), **PAST), ValueError, "nonpad_kv_seqlen", "past_key"),
    (lambda: call(nonpad_kv_seqlen=ints(7, 7), return_present=True), ValueError,
     "nonpad_kv_seqlen", "return_present"),
    (lambda: call(nonpad_kv_seqlen=7), ValueError, "nonpad_kv_seqlen has shape ()", "(2,)"),
    (lambda: call(nonpad_kv_seqlen=[7.0, 7.0]), TypeError, "nonpad_kv_seqlen", "float64"),
    (lambda: call(nonpad_kv_seqlen=ints(0, 8)), ValueError, "from 0 to 8", "0 to 7"),
    (lambda: call(nonpad_kv_seqlen=ints(-1, 7)), ValueError, "from -1 to 7", "0 to 7"),
    (lambda: call(is_causal=2), ValueError, "is_causal is 2", "0 to 1"),
    (lambda: call(is_causal="upper"), TypeError, "is_causal is 'upper'", "integer"),
    (lambda: call(qk_matmul_output_mode=4), ValueError, "qk_matmul_output_mode is 4", "0 to 3"),
    (lambda: call(scale="1"), TypeError, "scale is '1'"),
    (lambda: call(scale=np.inf), ValueError, "scale is inf"),
    (lambda: call(softcap=-1.0), ValueError, "softcap is -1.0", "positive"),
    (lambda: call(softcap=np.nan), ValueError, "softcap is nan"),
    (lambda: call(softmax_precision=7), ValueError, "softmax_precision is 7", "10 (FLOAT16)"),
    (lambda: call(softmax_precision="FLOAT"), TypeError, "softmax_precision is 'FLOAT'"),
    (lambda: call(left_window_size=-2), ValueError, "left_window_size is -2", "-1 or more"),
    (lambda: call(right_window_size=1.5), TypeError, "right_window_size is 1.5", "integer"),
]  # fmt: skip


@pytest.mark.parametrize("row", range(len(BAD)))
def test_bad_input(row):
    bad, error, *words = BAD[row]
    with pytest.raises(error) as caught:
        bad()
    for word in words:
        assert word in str(caught.value)
