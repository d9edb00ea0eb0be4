"""Text to vectors: what sentence-transformers would say, in the order asked for."""

from __future__ import annotations

import json
import sys
import threading
import warnings
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from tiny import MEAN, WORDS, write_json, write_sentence_model

from headwise import TextEncoder

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="module")
def encoder(minilm):
    return TextEncoder.from_pretrained(minilm)


@pytest.fixture(scope="module")
def texts():
    return json.loads((GOLDEN / "minilm.json").read_text())["texts"]


@pytest.fixture
def tiny(tmp_path):
    return write_sentence_model(tmp_path, MEAN)


# all-MiniLM-L6-v2


def test_equals_sentence_transformers(encoder, texts):
    """Within 2e-6, for empty, overlong, foreign and odd texts too."""
    vectors = encoder.encode(texts, on_truncate="ignore")
    expected = np.load(GOLDEN / "minilm.npy")
    assert vectors.dtype == np.float32
    assert vectors.shape == expected.shape == (40, 384)
    np.testing.assert_allclose(vectors, expected, rtol=0, atol=2e-6)


def test_model_attributes(encoder):
    """The limit is that of sentence_bert_config.json: tokenizer.json says 128."""
    assert (encoder.dim, encoder.max_length) == (384, 256)
    assert (encoder.pooling, encoder.normalize) == ("mean", True)
    assert repr(encoder) == ("TextEncoder(dim=384, max_length=256, pooling='mean', normalize=True)")


def test_same_bits_in_any_company(encoder, texts):
    together = encoder.encode(texts, on_truncate="ignore")
    order = np.random.default_rng(0).permutation(len(texts))
    shuffled = encoder.encode([texts[i] for i in order], on_truncate="ignore", batch_tokens=300)
    np.testing.assert_array_equal(shuffled, together[order])
    for i in (0, 13, 19, 39):
        np.testing.assert_array_equal(encoder.encode(texts[i], on_truncate="ignore"), together[i])


def test_normalize(encoder):
    plain = encoder.encode("I love apple juice", normalize=False)
    unit = encoder.encode("I love apple juice")
    assert abs(np.linalg.norm(plain) - 1) > 0.1
    np.testing.assert_allclose(unit, plain / np.linalg.norm(plain), atol=1e-6)
    np.testing.assert_array_equal(unit, encoder.encode("I love apple juice", normalize=True))


def test_threads_share_an_encoder(encoder, texts):
    expected = encoder.encode(texts, on_truncate="ignore")
    wrong = []

    def work(part):
        for _ in range(3):
            vectors = encoder.encode(texts[part::4], on_truncate="ignore")
            if not np.array_equal(vectors, expected[part::4]):
                wrong.append(part)

    threads = [threading.Thread(target=work, args=(part,)) for part in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# Texts


def test_one_text_none_and_iterables(tiny):
    encoder = TextEncoder.from_pretrained(tiny)
    texts = ["a b c", "", "p"]
    vectors = encoder.encode(texts)
    assert vectors.shape == (3, 12)
    np.testing.assert_array_equal(encoder.encode(iter(texts)), vectors)
    np.testing.assert_array_equal(encoder.encode(np.array(texts)), vectors)
    one = encoder.encode("a b c")
    assert one.shape == (12,)
    np.testing.assert_array_equal(one, vectors[0])
    none = encoder.encode([])
    assert none.shape == (0, 12)
    assert none.dtype == np.float32


@pytest.mark.parametrize("batch_tokens", [1, 30, 16384])
def test_few_texts_go_a_short_way(tiny, batch_tokens):
    encoder = TextEncoder.from_pretrained(tiny)
    texts = ["a b c", "", "p " * 40, *"abcdefghijklmnop"]
    vectors = np.stack([encoder.encode(text, on_truncate="ignore") for text in texts])
    for n in range(2, len(texts) + 1):
        with pytest.warns(UserWarning, match=f"1 of {n} texts") if n > 2 else nullcontext():
            some = encoder.encode(texts[:n], batch_tokens=batch_tokens)
        np.testing.assert_array_equal(some, vectors[:n])


def test_tokenize(tiny):
    input_ids, cu_seqlens = TextEncoder.from_pretrained(tiny).tokenize(["a b", "", "zebra"])
    words = [WORDS[i] for i in input_ids]
    assert " ".join(words) == "[CLS] a b [SEP] [CLS] [SEP] [CLS] [UNK] [SEP]"
    assert cu_seqlens.tolist() == [0, 4, 6, 9]


@pytest.mark.parametrize(
    ("texts", "error", "message"),
    [
        (["a", 3], TypeError, r"texts\[1\] is a int: it must be a str"),
        (["a", None], TypeError, r"texts\[1\] is a NoneType: it must be a str"),
        (["a", 10**5000], TypeError, r"texts\[1\] is a int: it must be a str"),
        ([("a", "b")], TypeError, r"texts\[0\] is a tuple: it must be a str"),
        (b"a", TypeError, r"texts\[0\] is a int: it must be a str"),
        (7, TypeError, r"texts is a int: it must be a str or an iterable of str"),
        (["a", "b", "c \ud83d"], ValueError, r"texts\[2\] is not valid Unicode: .*surrogates"),
        ("\udc00", ValueError, r"texts\[0\] is not valid Unicode"),
    ],
)
def test_bad_texts(tiny, texts, error, message):
    with pytest.raises(error, match=message):
        TextEncoder.from_pretrained(tiny).encode(texts)


def test_bad_arguments(tiny):
    encoder = TextEncoder.from_pretrained(tiny)
    with pytest.raises(ValueError, match="batch_tokens is 0: it must be at least 1"):
        encoder.encode("a", batch_tokens=0)
    with pytest.raises(TypeError, match=r"batch_tokens is nan: it must be an integer"):
        encoder.encode("a", batch_tokens=float("nan"))
    with pytest.raises(ValueError, match=r"on_truncate is 'cut': it must be one of .'warn', "):
        encoder.encode("a", on_truncate="cut")
    with pytest.raises(ValueError, match=r"pooling is 'sum': it must be one of .'mean', "):
        TextEncoder(encoder.encoder, encoder.tokenizer, pooling="sum")
    with pytest.raises(ValueError, match="max_length is 2: it must be more than the 2 special"):
        TextEncoder(encoder.encoder, encoder.tokenizer, max_length=2)


def test_set_pooling(tiny):
    encoder = TextEncoder.from_pretrained(tiny)
    encoder.pooling = "max"
    with pytest.raises(ValueError, match=r"pooling is 'sum': it must be one of .'mean', "):
        encoder.pooling = "sum"
    assert encoder.pooling == "max"


def test_set_max_length(tiny):
    encoder = TextEncoder.from_pretrained(tiny)
    encoder.max_length = 4
    assert len(encoder.tokenize("a b c d", on_truncate="ignore")[0]) == encoder.max_length == 4
    encoder.max_length = 1000
    assert encoder.max_length == encoder.encoder.max_positions == 16
    with pytest.raises(ValueError, match="max_length is 2: it must be more than the 2 special"):
        encoder.max_length = 2
    with pytest.raises(TypeError, match=r"max_length is 5\.5: it must be an integer"):
        encoder.max_length = 5.5
    assert len(encoder.tokenize("a " * 50, on_truncate="ignore")[0]) == encoder.max_length == 16


def test_truncation(tiny):
    """Eight tokens fit: [CLS], six words, [SEP]."""
    encoder = TextEncoder.from_pretrained(tiny)
    texts = ["a b c d e f", "a b c d e f g", "a " * 30, "b"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fits = encoder.encode(texts[0], on_truncate="warn")
        cut = encoder.encode(texts[1], on_truncate="ignore")
    np.testing.assert_array_equal(cut, fits)
    with pytest.warns(UserWarning, match="2 of 4 texts had more than 8 tokens") as caught:
        encoder.encode(texts)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    with pytest.raises(ValueError, match=r"texts\[2\] has 32 tokens: .* max_length, 8"):
        encoder.encode([texts[0], texts[3], texts[2]], on_truncate="error")


def test_progress(tiny, capsys):
    pytest.importorskip("tqdm")
    encoder = TextEncoder.from_pretrained(tiny)
    vectors = encoder.encode(["a", "b", "c"], batch_tokens=6, progress=True)
    assert "3/3" in capsys.readouterr().err
    np.testing.assert_array_equal(vectors, encoder.encode(["a", "b", "c"]))


# Folders


@pytest.mark.parametrize(
    ("config", "pooling"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": False}, "mean"),
        ({"pooling_mode_max_tokens": True}, "max"),
        ({"pooling_mode_cls_token": False}, "mean"),
        ({"pooling_mode": "cls"}, "cls"),
        ({"pooling_mode": ["max"], "include_prompt": True}, "max"),
    ],
)
def test_pooling(tmp_path, config, pooling):
    encoder = TextEncoder.from_pretrained(write_sentence_model(tmp_path, config))
    assert encoder.pooling == pooling
    assert not encoder.normalize
    hidden = encoder.encoder(encoder.tokenize("a b c")[0])
    expected = {"mean": hidden.mean(0), "cls": hidden[0], "max": hidden.max(0)}[pooling]
    np.testing.assert_allclose(encoder.encode("a b c"), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"pooling_mode_lasttoken": True}, "'lasttoken': it must be one of .'mean', 'cls', 'max'."),
        ({"pooling_mode_mean_sqrt_len_tokens": True}, "'mean_sqrt_len': it must be"),
        ({"pooling_mode": "weightedmean"}, "'weightedmean': it must be"),
        ({"pooling_mode": ["mean", "max"]}, r"\['mean', 'max'\]: it must be"),
        ({"pooling_mode_cls_token": 1, "pooling_mode_max_tokens": 1}, r"\['cls', 'max'\]"),
        ({"pooling_mode": 3}, "3: it must be"),
    ],
)
def test_pooling_that_is_not_supported(tmp_path, config, message):
    write_sentence_model(tmp_path, config)
    with pytest.raises(ValueError, match=rf"1_Pooling/config\.json: pooling_mode is .*{message}"):
        TextEncoder.from_pretrained(tmp_path)


def test_normalize_module(tmp_path):
    encoder = TextEncoder.from_pretrained(write_sentence_model(tmp_path, MEAN, normalize=True))
    assert encoder.normalize
    assert abs(np.linalg.norm(encoder.encode("a b")) - 1) < 1e-6


def test_other_modules(tiny):
    modules = json.loads((tiny / "modules.json").read_text())
    write_json(tiny / "modules.json", [*modules, {"path": "2", "type": "models.Dense"}])
    with pytest.raises(ValueError, match=r"modules\.json: the modules are .*Pooling, Dense"):
        TextEncoder.from_pretrained(tiny)
    for outside in ("/etc", "../other"):
        write_json(tiny / "modules.json", [modules[0], modules[1] | {"path": outside}])
        with pytest.raises(ValueError, match=r"modules\.json: a module is in .*(etc|other)"):
            TextEncoder.from_pretrained(tiny)
    for wrong in ({}, [3], [{"type": "a.Transformer"}], 3, None, [{"type": "x", "path": 3}]):
        write_json(tiny / "modules.json", wrong)
        with pytest.raises(ValueError, match=r"modules\.json"):
            TextEncoder.from_pretrained(tiny)


@pytest.mark.parametrize("key", ["default_prompt_name", "truncate_dim"])
def test_settings_that_are_not_supported(tiny, key):
    write_json(tiny / "config_sentence_transformers.json", {key: None, "prompts": {"query": ""}})
    TextEncoder.from_pretrained(tiny)
    write_json(tiny / "config_sentence_transformers.json", {key: 1})
    with pytest.raises(ValueError, match=rf"{key} is set, which is not supported"):
        TextEncoder.from_pretrained(tiny)


def test_without_modules_the_mean_is_taken(tiny):
    (tiny / "modules.json").unlink()
    with pytest.warns(UserWarning, match=r"no modules\.json") as caught:
        encoder = TextEncoder.from_pretrained(tiny)
    assert caught[0].filename == __file__
    assert (encoder.pooling, encoder.normalize) == ("mean", False)


@pytest.mark.parametrize(
    ("sentence_bert", "tokenizer", "max_length"),
    [
        ({"max_seq_length": 8}, {"model_max_length": 12}, 8),
        ({"max_seq_length": None}, {"model_max_length": 12}, 12),
        ({"transformer_task": "feature-extraction"}, {"model_max_length": 12}, 12),
        (None, {"model_max_length": 12}, 12),
        # What transformers writes for "no limit", and more than there are positions.
        (None, {"model_max_length": 1000000000000000019884624838656}, 16),
        (None, {}, 16),
        (None, None, 16),
        ({"max_seq_length": 512}, None, 16),
    ],
)
def test_max_length(tiny, sentence_bert, tokenizer, max_length):
    (tiny / "sentence_bert_config.json").unlink()
    if sentence_bert is not None:
        write_json(tiny / "sentence_bert_config.json", sentence_bert)
    if tokenizer is not None:
        write_json(tiny / "tokenizer_config.json", tokenizer)
    encoder = TextEncoder.from_pretrained(tiny)
    assert encoder.max_length == max_length
    input_ids, _ = encoder.tokenize("a " * 50, on_truncate="ignore")
    assert len(input_ids) == max_length
    assert WORDS[input_ids[-1]] == "[SEP]"


def test_bad_max_length(tiny):
    write_json(tiny / "sentence_bert_config.json", {"max_seq_length": "8"})
    with pytest.raises(ValueError, match="max_seq_length is '8': it must be a positive integer"):
        TextEncoder.from_pretrained(tiny)


def test_truncation_side(tiny):
    write_json(tiny / "tokenizer_config.json", {"truncation_side": "left"})
    input_ids, _ = TextEncoder.from_pretrained(tiny).tokenize("a b c d e f g", on_truncate="ignore")
    assert " ".join(WORDS[i] for i in input_ids) == "[CLS] b c d e f g [SEP]"
    write_json(tiny / "tokenizer_config.json", {"truncation_side": "up"})
    with pytest.raises(ValueError, match="truncation_side is 'up': it must be left or right"):
        TextEncoder.from_pretrained(tiny)


def test_lower_case(tiny):
    encoder = TextEncoder.from_pretrained(tiny)
    assert WORDS[encoder.tokenize("A")[0][1]] == "[UNK]"
    write_json(tiny / "sentence_bert_config.json", {"do_lower_case": True})
    encoder = TextEncoder.from_pretrained(tiny)
    assert WORDS[encoder.tokenize("A")[0][1]] == "a"


def test_tokenizer_missing_or_damaged(tiny):
    (tiny / "tokenizer.json").write_text('{"version": "1.0"}')
    with pytest.raises(ValueError, match=r"tokenizer\.json is not a valid tokenizer"):
        TextEncoder.from_pretrained(tiny)
    (tiny / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json does not exist"):
        TextEncoder.from_pretrained(tiny)


def test_nothing_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no model folder .*nowhere"):
        TextEncoder.from_pretrained(tmp_path / "nowhere")


@pytest.mark.parametrize("module", ["tokenizers", "safetensors"])
def test_missing_extra(tiny, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf'{module}: pip install "headwise\[text\]"'):
        TextEncoder.from_pretrained(tiny)


def test_transformer_in_a_folder_of_its_own(tmp_path):
    """As sentence-transformers 1 saved models."""
    write_sentence_model(tmp_path, MEAN)
    expected = TextEncoder.from_pretrained(tmp_path).encode("a b")
    (tmp_path / "0_Transformer").mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (tmp_path / name).rename(tmp_path / "0_Transformer" / name)
    modules = json.loads((tmp_path / "modules.json").read_text())
    modules[0]["path"] = "0_Transformer"
    write_json(tmp_path / "modules.json", modules)
    np.testing.assert_array_equal(TextEncoder.from_pretrained(tmp_path).encode("a b"), expected)
