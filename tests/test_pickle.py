"""A TextEncoder pickles by its path, so that other processes can have it."""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from tiny import MEAN, write_sentence_model

import headwise as hw
from headwise import TextEncoder

TEXTS = ["a b c", "", "p o n m", "d"]


@pytest.fixture
def folder(tmp_path):
    return write_sentence_model(tmp_path / "tiny", MEAN)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickled_encoder_has_the_same_bits(folder, protocol):
    encoder = TextEncoder.from_pretrained(folder)
    pickled = pickle.dumps(encoder, protocol)
    assert len(pickled) < 1000
    again = pickle.loads(pickle.dumps(pickle.loads(pickled)))
    np.testing.assert_array_equal(again.encode(TEXTS), encoder.encode(TEXTS))
    np.testing.assert_array_equal(copy.copy(encoder).encode(TEXTS), encoder.encode(TEXTS))
    np.testing.assert_array_equal(copy.deepcopy(encoder).encode(TEXTS), encoder.encode(TEXTS))


def test_what_was_changed_goes_along(folder):
    encoder = TextEncoder.from_pretrained(folder)
    encoder.pooling, encoder.normalize, encoder.max_length = "max", True, 6
    again = pickle.loads(pickle.dumps(encoder))
    assert repr(again) == repr(encoder)
    assert len(again.tokenize("a b c d e f", on_truncate="ignore")[0]) == 6
    np.testing.assert_array_equal(again.encode(TEXTS), encoder.encode(TEXTS))


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
def test_encoders_and_layers_of_one_s_own(precision):
    encoder = hw.Encoder(20, hidden_size=16, num_heads=2, num_layers=2, precision=precision)
    ids, hidden = np.arange(7), np.ones((3, 16), np.float32)
    for again in (pickle.loads(pickle.dumps(encoder)), copy.deepcopy(encoder)):
        np.testing.assert_array_equal(again(ids), encoder(ids))
    layer = encoder.layers[0]
    expected = layer(hidden)
    for again in (pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer), copy.copy(layer)):
        np.testing.assert_array_equal(again(hidden), expected)


def test_relative_path(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    pickled = pickle.dumps(TextEncoder.from_pretrained("tiny"))
    monkeypatch.chdir("/")
    assert pickle.loads(pickled).encode(TEXTS).shape == (4, 12)


def test_hub_id_stays_an_id(folder, tmp_path, monkeypatch):
    """The cache may be elsewhere where it is unpickled."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    caches = [tmp_path / "one", tmp_path / "two"]
    for cache in caches:
        repo = cache / "models--org--tiny"
        (repo / "refs").mkdir(parents=True)
        (repo / "refs" / "main").write_text("0" * 40)
        shutil.copytree(folder, repo / "snapshots" / ("0" * 40))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(caches[0]))
    encoder = TextEncoder.from_pretrained("org/tiny", local_files_only=True)
    pickled, expected = pickle.dumps(encoder), encoder.encode(TEXTS)
    shutil.rmtree(caches[0])
    with pytest.raises(FileNotFoundError, match=r"'org/tiny' .* local_files_only is set"):
        pickle.loads(pickled)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(caches[1]))
    np.testing.assert_array_equal(pickle.loads(pickled).encode(TEXTS), expected)


def test_folder_that_is_gone(folder):
    pickled = pickle.dumps(TextEncoder.from_pretrained(folder))
    shutil.rmtree(folder)
    with pytest.raises(FileNotFoundError, match=r"there is no model folder .*tiny"):
        pickle.loads(pickled)


def test_made_of_pieces(folder):
    loaded = TextEncoder.from_pretrained(folder)
    made = TextEncoder(loaded.encoder, loaded.tokenizer)
    for call in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match=r"TextEncoder\.from_pretrained, or make it anew"):
            call(made)


def encode(encoder: TextEncoder, text: str) -> tuple[int, np.ndarray]:
    return os.getpid(), encoder.encode(text)


@pytest.mark.parametrize(
    "method", [m for m in ("spawn", "fork") if m in multiprocessing.get_all_start_methods()]
)
def test_in_other_processes(folder, method, monkeypatch):
    source = str(Path(__file__).parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([source, os.environ.get("PYTHONPATH", "")]))
    encoder = TextEncoder.from_pretrained(folder)
    expected = [encoder.encode(text) for text in TEXTS]
    with multiprocessing.get_context(method).Pool(2) as pool:
        results = pool.map(partial(encode, encoder), TEXTS, chunksize=1)
    assert os.getpid() not in [pid for pid, _ in results]
    np.testing.assert_array_equal([vector for _, vector in results], expected)
