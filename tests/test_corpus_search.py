"""The nearest texts are those that plain NumPy finds, in texts and in files of vectors."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path

import corpora
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny import bert_weights, write_bert

import headwise as hw
from headwise.corpus import embed_corpus, search, similar


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return corpora.write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def rows(tmp_path, monkeypatch):
    """The rows of a.parquet, in the working folder."""
    monkeypatch.chdir(tmp_path)
    rows = corpora.table(600)
    corpora.write(Path("a.parquet"), rows)
    return rows


def nearest(model, query, texts, k):
    """Return rows and cosines, by the definition."""
    encoder = hw.TextEncoder.from_pretrained(model)
    x, y = encoder.encode(query).astype(float), encoder.encode(texts).astype(float)
    cosines = y @ x / np.linalg.norm(y, axis=1) / np.linalg.norm(x)
    order = np.argsort(-cosines.round(6), kind="stable")[:k]
    return order.tolist(), cosines[order]


@pytest.mark.parametrize("embedded", ["a.parquet", "out.parquet", "out.arrow", "out.npy"])
@pytest.mark.parametrize("held", [64, 8192])
def test_nearest(rows, model, monkeypatch, embedded, held):
    monkeypatch.setattr(search, "_ROWS", held)
    texts = rows["text"].to_pylist()
    if embedded.startswith("out"):
        embed_corpus("a.parquet", embedded, model)
    found = similar("a b c", embedded, k=12, model=None if "out" in embedded else model)
    expected, cosines = nearest(model, "a b c", texts, 12)
    np.testing.assert_allclose([n.cosine for n in found], cosines, atol=1e-5)
    assert found[0].row == expected[0]
    # Equal texts have equal cosines: then the first goes first.
    for near, far in pairwise(found):
        assert (near.cosine, -near.row) > (far.cosine, -far.row)
    for neighbour in found:
        known = None if embedded == "out.npy" else texts[neighbour.row]
        assert neighbour.text == known


def test_fewer_than_asked_for(rows, model):
    Path("a.txt").write_text("a\nb\n")
    assert {n.text for n in similar("c", "a.txt", model=model)} == {"a", "b"}
    Path("a.txt").write_text("")
    assert similar("c", "a.txt", model=model) == []
    with pytest.raises(ValueError, match="k is 0"):
        similar("c", "a.txt", k=0, model=model)


def test_a_vector_of_zeros_points_nowhere(rows, model):
    np.save("a.npy", np.eye(12, dtype=np.float32) * [[0.0]] * 12)
    assert [n.cosine for n in similar("a", "a.npy", model=model)] == [0] * 10


def test_columns(rows, model):
    renamed = rows.rename_columns(["id", "body", "score"])
    renamed = renamed.append_column("title", pa.array([f"title {i}" for i in range(600)]))
    corpora.write(Path("b.parquet"), renamed)
    embed_corpus("b.parquet", "out.parquet", model, column="body")
    found = similar("a b", "out.parquet")
    assert [n.text for n in found] == [renamed["body"][n.row].as_py() for n in found]
    found = similar("a b", "out.parquet", column="title")
    assert [n.text for n in found] == [f"title {n.row}" for n in found]
    with pytest.raises(ValueError, match="has no column 'none' of texts"):
        similar("a b", "out.parquet", column="none")
    with pytest.raises(ValueError, match="has no column 'text'"):
        similar("a b", "b.parquet", model=model)


def test_the_model_is_the_one_of_the_vectors(rows, model):
    own = Path(shutil.copytree(model, "own"))
    for output in ("out.parquet", "out.npy"):
        embed_corpus("a.parquet", output, own, precision="int8")
    moved = own.rename("moved")
    with pytest.raises(FileNotFoundError, match=r"there is no model folder .*own"):
        similar("a", "out.parquet")
    assert similar("a", "out.parquet", model=moved, k=1)
    write_bert(moved, bert_weights(seed=1))
    for output in ("out.parquet", "out.npy"):
        message = rf"{output} was made with weights '?\w{{12}}\.\.\.'?, and this run has"
        with pytest.raises(ValueError, match=message):
            similar("a", output, model=moved)


def test_the_precision_is_that_of_the_vectors(rows, model, monkeypatch):
    embed_corpus("a.parquet", "out.parquet", model, precision="int8")
    loaded = []
    load = hw.TextEncoder.from_pretrained

    def recording(name, precision):
        loaded.append(precision)
        return load(name, precision)

    monkeypatch.setattr(search.TextEncoder, "from_pretrained", recording)
    similar("a", "out.parquet")
    similar("a", "out.parquet", precision="float32")
    similar("a", "a.parquet", model=model)
    assert loaded == ["int8", "float32", "float32"]


def test_vectors_of_others(rows, model):
    """Without a manifest, and lists of any length as far as Arrow knows."""
    embed_corpus("a.parquet", "out.parquet", model)
    ours = pq.read_table("out.parquet")
    lists = ours["embedding"].cast(pa.list_(pa.float64()))
    pq.write_table(pa.table({"text": ours["text"], "embedding": lists}), "theirs.parquet")
    with pytest.raises(ValueError, match=r"theirs\.parquet does not say what model"):
        similar("a b", "theirs.parquet")
    assert similar("a b", "theirs.parquet", model=model) == similar("a b", "out.parquet")
    for wrong, message in {
        "short": ([[1.0]] * 3, r"must hold vectors of 12"),
        "none": ([None] * 3, "has 3 nulls"),
        "text": (["a"] * 3, "is string: it must hold vectors of 12"),
    }.values():
        pq.write_table(pa.table({"text": ["a"] * 3, "embedding": wrong}), "wrong.parquet")
        with pytest.raises(ValueError, match=message):
            similar("a b", "wrong.parquet", model=model)
    np.save("wrong.npy", np.ones((3, 5)))
    with pytest.raises(ValueError, match=r"has shape \(3, 5\): it must be \(n, 12\)"):
        similar("a b", "wrong.npy", model=model)


def test_what_is_cut_is_told(rows, model):
    Path("a.txt").write_text("a b c d e f g h\nb\n")
    with pytest.warns(UserWarning, match="1 of 2 texts had more than 8 tokens"):
        similar("a", "a.txt", model=model)


def test_a_damaged_sidecar_is_none(rows, model):
    embed_corpus("a.parquet", "out.npy", model)
    Path("out.npy.json").write_text(json.dumps({"rows": 3}))
    with pytest.raises(ValueError, match=r"out\.npy does not say what model"):
        similar("a", "out.npy")


def test_wrong_types(model, rows):
    with pytest.raises(TypeError, match="query is a int: it must be a str"):
        similar(5, "a.parquet", model=model)
    with pytest.raises(TypeError, match="k is '3': it must be an integer"):
        similar("a", "a.parquet", model=model, k="3")
    with pytest.raises(TypeError, match="source is a int: it must be a path or a binary file"):
        similar("a", 5, model=model)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"on_truncate": "x"}, "on_truncate is 'x'"),
        ({"batch_tokens": 0}, "batch_tokens is 0"),
        ({"part_rows": 0}, "part_rows is 0"),
    ],
)
def test_a_refused_option_leaves_nothing(model, rows, option, message):
    """Or the manifest would refuse a better value."""
    with pytest.raises(ValueError, match=message):
        embed_corpus("a.parquet", "out.npy", model, **option)
    assert not Path("out.npy.parts").exists()
