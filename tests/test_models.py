"""Model folders: what is read, and what is refused, and by what name."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from tiny import CONFIG, bert_weights, write_bert, write_json

import headwise as hw
from headwise.models import load
from headwise.models.hub import resolve

TOKENS = np.array([2, 5, 9, 4, 4, 3, 2, 7, 3])
CU_SEQLENS = np.array([0, 6, 9])

ACTIVATIONS = {
    "gelu": lambda x: x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2,
    "relu": lambda x: np.maximum(x, 0),
}


def textbook_bert(weights, tokens, activation="gelu"):
    """Return BERT's hidden states of one sequence, in float64, as the papers write it."""
    w = {name: array.astype(np.float64) for name, array in weights.items()}

    def linear(x, name):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(x, name):
        deviation = np.sqrt(x.var(-1, keepdims=True) + CONFIG["layer_norm_eps"])
        return (x - x.mean(-1, keepdims=True)) / deviation * w[f"{name}.weight"] + w[f"{name}.bias"]

    def heads(x):
        return x.reshape(len(x), CONFIG["num_attention_heads"], -1).swapaxes(0, 1)

    x = w["embeddings.word_embeddings.weight"][tokens]
    x = x + w["embeddings.position_embeddings.weight"][: len(tokens)]
    x = norm(x + w["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    for i in range(CONFIG["num_hidden_layers"]):
        layer = f"encoder.layer.{i}"
        qkv = (linear(x, f"{layer}.attention.self.{name}") for name in ("query", "key", "value"))
        q, k, v = map(heads, qkv)
        scores = np.exp(q @ k.swapaxes(1, 2) / math.sqrt(q.shape[-1]))
        mixed = (scores / scores.sum(-1, keepdims=True) @ v).swapaxes(0, 1).reshape(x.shape)
        mixed = linear(mixed, f"{layer}.attention.output.dense")
        x = norm(x + mixed, f"{layer}.attention.output.LayerNorm")
        up = ACTIVATIONS[activation](linear(x, f"{layer}.intermediate.dense"))
        x = norm(x + linear(up, f"{layer}.output.dense"), f"{layer}.output.LayerNorm")
    return x


def textbook(activation="gelu"):
    sequences = np.split(TOKENS, CU_SEQLENS[1:-1])
    return np.concatenate([textbook_bert(bert_weights(), s, activation) for s in sequences])


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_bert_is_the_textbook_encoder(tmp_path, activation):
    encoder = load(write_bert(tmp_path, hidden_act=activation))
    expected = textbook(activation)
    np.testing.assert_allclose(encoder(TOKENS, CU_SEQLENS), expected, atol=1e-5)


def test_from_pretrained_is_load(tmp_path):
    encoder = hw.Encoder.from_pretrained(write_bert(tmp_path))
    np.testing.assert_array_equal(
        encoder(TOKENS, CU_SEQLENS), load(str(tmp_path))(TOKENS, CU_SEQLENS)
    )
    assert (encoder.hidden_size, encoder.num_layers, encoder.num_heads) == (12, 2, 3)
    assert (encoder.max_positions, encoder.vocab_size) == (16, 20)


def test_names_of_larger_and_older_checkpoints(tmp_path):
    """The encoder within a BertForMaskedLM, with the layer norms' names of TensorFlow."""

    def old(name):
        name = name.replace("LayerNorm.weight", "LayerNorm.gamma")
        return "bert." + name.replace("LayerNorm.bias", "LayerNorm.beta")

    weights = {old(name): array for name, array in bert_weights().items()}
    for name in ("bert.pooler.dense.weight", "cls.predictions.bias", "classifier.weight"):
        weights[name] = np.ones(3, np.float32)
    weights["bert.embeddings.position_ids"] = np.arange(16)[None]
    encoder = load(write_bert(tmp_path, weights))
    np.testing.assert_allclose(encoder(TOKENS, CU_SEQLENS), textbook(), atol=1e-5)


def test_shards(tmp_path):
    weights = bert_weights()
    write_bert(tmp_path)
    whole = load(tmp_path)(TOKENS, CU_SEQLENS)
    (tmp_path / "model.safetensors").unlink()
    files = {name: f"model-0000{i % 2 + 1}-of-00002.safetensors" for i, name in enumerate(weights)}
    for file in set(files.values()):
        save_file({n: a for n, a in weights.items() if files[n] == file}, tmp_path / file)
    index = tmp_path / "model.safetensors.index.json"
    write_json(index, {"metadata": {}, "weight_map": files})
    np.testing.assert_array_equal(load(tmp_path)(TOKENS, CU_SEQLENS), whole)

    write_json(index, {"weight_map": files | {"extra": files[min(files)]}})
    with pytest.raises(ValueError, match="lacks the tensor 'extra'"):
        load(tmp_path)
    for wrong in ({"a": "../model.safetensors"}, {"a": ".."}, {"a": ""}, {"a": 3}, ["a"], None):
        write_json(index, {"weight_map": wrong})
        with pytest.raises(
            ValueError, match=r"index\.json: weight_map is missing, or not an object"
        ):
            load(tmp_path)
    write_json(index, {"weight_map": {"a": "gone.safetensors"}})
    with pytest.raises(FileNotFoundError, match=r"gone\.safetensors"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": None}, "model_type is missing"),
        ({"model_type": "t5"}, "model_type is 't5': it must be one of .'bert',."),
        ({"model_type": 7}, "model_type is 7: it must be a string"),
        ({"vocab_size": None}, "vocab_size is missing"),
        ({"hidden_size": "12"}, "hidden_size is '12': it must be a positive integer"),
        ({"hidden_size": 0}, "hidden_size is 0: it must be a positive integer"),
        ({"hidden_size": 13}, "hidden_size is 13: it must be a multiple of the 3 heads"),
        ({"num_attention_heads": -3}, "num_attention_heads is -3: it must be a positive integer"),
        ({"num_hidden_layers": 2.0}, "num_hidden_layers is 2.0: it must be a positive integer"),
        ({"num_hidden_layers": True}, "num_hidden_layers is True: it must be a positive integer"),
        ({"intermediate_size": []}, r"intermediate_size is \[\]: it must be a positive integer"),
        (
            {"max_position_embeddings": {}},
            "max_position_embeddings is {}: it must be a positive integer",
        ),
        ({"layer_norm_eps": 0.0}, "layer_norm_eps is 0.0: it must be a positive number"),
        ({"layer_norm_eps": 10**400}, "layer_norm_eps is 1000"),
        ({"layer_norm_eps": math.nan}, "layer_norm_eps is nan: it must be a positive number"),
        ({"layer_norm_eps": math.inf}, "layer_norm_eps is inf: it must be a positive number"),
        (
            {"hidden_act": "gelu_new"},
            "hidden_act is 'gelu_new': it must be one of .'gelu', 'relu'.",
        ),
        ({"position_embedding_type": "relative_key"}, "is 'relative_key': it must be 'absolute'"),
        ({"is_decoder": True}, "is_decoder is true"),
        ({"is_decoder": 1}, "is_decoder is 1: it must be a boolean"),
        # Sound by themselves, but not what the weights were made for.
        ({"num_hidden_layers": 3}, r"lacks 'encoder\.layer\.2\.attention\.self\.query\.weight'"),
        ({"num_hidden_layers": 10**12}, r"lacks 'encoder\.layer\.2\."),
        ({"num_hidden_layers": 1}, r"16 parameters .* 'encoder\.layer\.1\.attention"),
        ({"hidden_size": 24}, r"'embeddings\.word_embeddings\.weight' has shape \(20, 12\)"),
        ({"vocab_size": 10**15}, r"'embeddings\.word_embeddings\.weight' .* \(10{15}, 12\)"),
        ({"intermediate_size": 21}, r"'encoder\.layer\.0\.intermediate\.dense\.weight' has shape"),
    ],
)
def test_bad_config(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        load(write_bert(tmp_path, **changes))
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", '"bert"', "[" * 100_000, "\x00"])
def test_config_that_is_no_object(tmp_path, text):
    write_bert(tmp_path)
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config\.json"):
        load(tmp_path)


def test_config_that_is_not_utf8(tmp_path):
    write_bert(tmp_path)
    (tmp_path / "config.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"config\.json is not valid JSON"):
        load(tmp_path)


def test_bad_weights(tmp_path):
    name = "encoder.layer.1.output.dense.weight"
    weights = bert_weights()
    write_bert(tmp_path, {n: a for n, a in weights.items() if n != name})
    with pytest.raises(ValueError, match=rf"lacks '{name}'"):
        load(tmp_path)
    write_bert(tmp_path, weights | {"encoder.extra": np.ones(3, np.float32)})
    with pytest.raises(ValueError, match=r"1 parameters .* 'encoder\.extra'"):
        load(tmp_path)
    write_bert(tmp_path, weights | {f"bert.{name}": weights[name]})
    with pytest.raises(ValueError, match="twice"):
        load(tmp_path)
    write_bert(tmp_path, weights | {name: weights[name].T})
    with pytest.raises(ValueError, match=rf"'{name}' has shape \(20, 12\): it must be \(12, 20\)"):
        load(tmp_path)


def test_missing_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere"):
        load(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        load(tmp_path)
    write_json(tmp_path / "config.json", CONFIG)
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):
        load(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=r"pytorch_model\.bin but no model\.safetensors"):
        load(tmp_path)


def test_unknown_precision(tmp_path):
    with pytest.raises(
        ValueError,
        match=r"precision is 'float16': it must be one of \('float32', 'bfloat16', 'int8'\)",
    ):
        load(write_bert(tmp_path), precision="float16")


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """Point huggingface_hub to an empty cache, and make any use of the network fail."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path / "cache"


def put_in_cache(cache: Path, repo_id: str, folder: Path) -> Path:
    """Lay a folder into a cache as huggingface_hub does."""
    repo = cache / ("models--" + repo_id.replace("/", "--"))
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text("0" * 40)
    return Path(shutil.copytree(folder, repo / "snapshots" / ("0" * 40)))


def test_resolve_folder(tmp_path):
    assert resolve(tmp_path) == resolve(str(tmp_path)) == tmp_path


NOT_IDS = ["./nowhere", "../nowhere", "/nowhere", "a/b/c", "a//b", "a b", "a..b", "~/a", "a.git"]


@pytest.mark.parametrize("name", NOT_IDS)
def test_resolve_what_cannot_be_an_id(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=f"there is no model folder {name}"):
        resolve(name)


def test_resolve_path_is_never_an_id(hub_cache, tmp_path):
    put_in_cache(hub_cache, "org/tiny", write_bert(tmp_path / "tiny"))
    with pytest.raises(FileNotFoundError, match="there is no model folder org"):
        resolve(Path("org/tiny"))


@pytest.mark.parametrize("local_files_only", [False, True])
def test_resolve_cached(hub_cache, tmp_path, local_files_only):
    cached = put_in_cache(hub_cache, "org/tiny", write_bert(tmp_path / "tiny"))
    assert resolve("org/tiny", local_files_only=local_files_only) == cached
    load(cached)


@pytest.mark.parametrize(
    ("local_files_only", "why"), [(False, "HF_HUB_OFFLINE"), (True, "local_files_only")]
)
def test_resolve_offline(hub_cache, local_files_only, why):
    with pytest.raises(FileNotFoundError) as caught:
        resolve("org/tiny", local_files_only=local_files_only)
    message = str(caught.value)
    assert "'org/tiny'" in message
    assert str(hub_cache) in message
    assert f"not downloaded because {why} is set" in message


def test_resolve_downloads_what_the_cache_lacks(hub_cache, tmp_path, monkeypatch):
    """A cache without modules.json may be what another program wanted: the hub knows."""
    part = put_in_cache(hub_cache, "org/tiny", write_bert(tmp_path / "tiny"))
    whole = tmp_path / "whole"
    network = True

    def snapshot_download(name, *, local_files_only=False, **options):
        assert name == "org/tiny"
        if local_files_only:
            return str(part)
        if not network:
            raise OSError("the network is down")
        return str(whole)

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert resolve("org/tiny") == whole
    assert resolve("org/tiny", local_files_only=True) == part
    network = False
    with pytest.raises(FileNotFoundError, match=r"'org/tiny' .* downloaded: the network is down"):
        resolve("org/tiny")
    for name in ("modules.json", "tokenizer.json", "1_Pooling/config.json"):
        write_json(part / name, {})
    assert resolve("org/tiny") == part
