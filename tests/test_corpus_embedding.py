"""Corpora become files of vectors, the same to the last bit however the work was cut."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import corpora
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from checks import assert_same_bits
from tiny import bert_weights, write_bert, write_json

import headwise as hw
from headwise import corpus
from headwise.corpus import Embedded, embed_corpus, embed_to_stream, read_manifest
from headwise.corpus.parts import PartsFolder
from headwise.corpus.run import Run

INPUTS = ["a.txt", "a.csv", "a.tsv.gz", "a.jsonl", "a.parquet", "a.arrow", "a.arrows"]
OUTPUTS = ["out.parquet", "out.arrow", "out.npy"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return corpora.write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(path: Path) -> pa.Table:
    if path.suffix == ".parquet":
        return pq.read_table(path)
    with pa.memory_map(str(path)) as file:
        return pa.ipc.open_file(file).read_all()


def vectors(path: Path) -> np.ndarray:
    if path.suffix == ".npy":
        return np.load(path, mmap_mode="r")
    column = read(path)["embedding"].combine_chunks()
    return column.flatten().to_numpy().reshape(-1, column.type.list_size)


def encode(model: Path, texts: list[str], precision="float32") -> np.ndarray:
    encoder = hw.TextEncoder.from_pretrained(model, precision)
    return encoder.encode(texts, on_truncate="ignore")


# Formats


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("name", INPUTS)
def test_every_format_to_every_format(here, model, name, output):
    rows = corpora.table(500)
    if name == "a.txt":
        rows = pa.table({"text": corpora.letters(500)})
    corpora.write(Path(name), rows)
    assert embed_corpus(name, output, model, part_rows=130) == Embedded(500, 500, 0)
    assert_same_bits(vectors(Path(output)), encode(model, rows["text"].to_pylist()))
    assert not Path(f"{output}.parts").exists()
    if output != "out.npy":
        got = read(Path(output))
        with corpus.open_source(name) as source:
            assert got.drop_columns("embedding").equals(source.take(500))
        assert got["embedding"].type == pa.list_(pa.float32(), 12)


def test_real_model(here, minilm):
    texts = (Path(hw.__file__).parent / "parity_texts.txt").read_text("utf-8").splitlines()
    Path("a.txt").write_text("\n".join(texts) + "\n", "utf-8")
    for precision in ("float32", "int8"):
        embed_corpus("a.txt", f"{precision}.parquet", minilm, precision=precision, part_rows=100)
        expected = encode(minilm, texts, precision)
        assert_same_bits(vectors(Path(f"{precision}.parquet")), expected)


@pytest.mark.parametrize("to", ["arrow", "parquet"])
def test_streams(model, to):
    rows = corpora.table(500)
    texts = "\n".join(rows["text"].to_pylist()[3:])
    out = io.BytesIO()
    options = {"to": to, "part_rows": 100}
    assert embed_to_stream(io.BytesIO(texts.encode()), out, model, **options).rows == 497
    data = pa.BufferReader(out.getvalue())
    got = pa.ipc.open_stream(data).read_all() if to == "arrow" else pq.read_table(data)
    assert got["text"].to_pylist() == rows["text"].to_pylist()[3:]
    expected = encode(model, got["text"].to_pylist())
    assert_same_bits(np.stack(got["embedding"].to_pylist()).astype(np.float32), expected)
    with pytest.raises(ValueError, match="npy cannot be written to a stream"):
        embed_to_stream(io.BytesIO(b"a"), io.BytesIO(), model, to="npy")


@pytest.mark.parametrize("to", ["arrow", "parquet"])
def test_a_stream_that_ends_with_an_error_has_no_end_mark(model, to):
    out = io.BytesIO()
    source = io.BytesIO(b"a\n" * 1000 + b"\xff\n")
    with pytest.raises(ValueError, match="line 1001 is not UTF-8"):
        embed_to_stream(source, out, model, to=to, part_rows=100)
    data = out.getvalue()
    assert len(data) > 1000
    assert not data.endswith((b"PAR1", b"\xff\xff\xff\xff\0\0\0\0"))


def test_nothing(here, model):
    Path("a.txt").touch()
    for output in OUTPUTS:
        assert embed_corpus("a.txt", output, model) == Embedded(0, 0, 0)
        assert vectors(Path(output)).shape == (0, 12)
        assert embed_corpus("a.txt", output, model) == Embedded(0, 0, 0)


def test_the_metadata_of_the_input_is_kept(here, model):
    rows = corpora.table(10).replace_schema_metadata({"made": "by hand"})
    pq.write_table(rows, "a.parquet")
    for output in ("out.parquet", "out.arrow"):
        embed_corpus("a.parquet", output, model)
        assert read(Path(output)).schema.metadata[b"made"] == b"by hand"


def test_the_manifest_says_what_it_was_made_with(here, model):
    corpora.write(Path("a.csv"), corpora.table(30))
    for output in OUTPUTS:
        embed_corpus("a.csv", output, model)
        manifest = read_manifest(Path(output))
        assert (manifest.rows, manifest.num_cut) == (30, 0)
        settings = manifest.settings
        assert settings["headwise"] == hw.__version__
        assert settings["isa"] == hw.active_isa()
        assert settings["model"] == str(model)
        assert (settings["pooling"], settings["normalize"]) == ("mean", False)
        assert (settings["max_length"], settings["precision"]) == (8, "float32")
        assert settings["on_truncate"] == "warn"
    assert read_manifest(Path("a.csv")) is None


# Resuming


class Stop(Exception):
    """What a run is stopped by."""


@pytest.fixture
def stopped(here, model, monkeypatch):
    """A run of a.parquet to out.parquet that was stopped after 3 of 8 parts, of 70 rows."""
    corpora.write(Path("a.parquet"), corpora.table(500))
    with monkeypatch.context() as patch:
        embed, left = Run.embed, [3]

        def stopping(run, *arguments):
            if left[0] == 0:
                raise Stop
            left[0] -= 1
            return embed(run, *arguments)

        patch.setattr(Run, "embed", stopping)
        with pytest.raises(Stop):
            embed_corpus("a.parquet", "out.parquet", model, part_rows=70)
    assert sorted(path.name for path in Path("out.parquet.parts").iterdir()) == [
        "lock",
        "manifest.json",
        *(f"part-{number:06d}.arrow" for number in range(3)),
    ]
    assert not Path("out.parquet").exists()


@pytest.mark.parametrize("part_rows", [70, 11, 8192])
def test_a_run_goes_on_where_it_stopped(stopped, model, part_rows):
    done = embed_corpus("a.parquet", "out.parquet", model, part_rows=part_rows)
    assert done == Embedded(500, 290, 0)
    embed_corpus("a.parquet", "whole.parquet", model)
    assert read(Path("out.parquet")).equals(read(Path("whole.parquet")))
    manifest, whole = (read_manifest(Path(f"{name}.parquet")) for name in ("out", "whole"))
    assert manifest == whole
    assert sorted(path.name for path in Path().iterdir()) == [
        "a.parquet",
        "out.parquet",
        "whole.parquet",
    ]


def test_leftovers_are_no_parts(stopped, model):
    folder = Path("out.parquet.parts")
    (folder / "part-000003.arrow.tmp").write_bytes(b"half of it")
    (folder / "out.parquet.tmp").write_bytes(b"half of it")
    assert embed_corpus("a.parquet", "out.parquet", model).new_rows == 290
    assert not folder.exists()
    # Without a manifest nobody knows what they are.
    folder.mkdir()
    (folder / "part-000000.arrow").write_bytes(b"of a run that was being removed")
    (folder / "notes.txt").write_text("not ours")
    assert embed_corpus("a.parquet", "out.parquet", model).new_rows == 0
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


def test_what_comes_after_a_part_that_is_missing_is_made_again(stopped, model):
    Path("out.parquet.parts/part-000001.arrow").unlink()
    assert embed_corpus("a.parquet", "out.parquet", model) == Embedded(500, 430, 0)
    expected = encode(model, corpora.table(500)["text"].to_pylist())
    assert_same_bits(vectors(Path("out.parquet")), expected)


def test_a_damaged_folder_is_named(stopped, model):
    folder = Path("out.parquet.parts")
    part = folder / "part-000001.arrow"
    shutil.copy("a.parquet", part)
    for damage in (b"", part.read_bytes(), (folder / "part-000000.arrow").read_bytes()[:-50]):
        part.write_bytes(damage)
        with pytest.raises(ValueError, match=r"part-000001\.arrow is damaged: without it the run"):
            embed_corpus("a.parquet", "out.parquet", model)
    (folder / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match=r"manifest\.json is not valid JSON"):
        embed_corpus("a.parquet", "out.parquet", model)


def other_file(name, **values):
    def change(folder, monkeypatch):
        path = folder / name
        before = json.loads(path.read_text()) if path.exists() else {}
        write_json(path, before | values)

    return change


def normalizing(folder, monkeypatch):
    modules = json.loads((folder / "modules.json").read_text())
    last = {"idx": 2, "name": "2", "path": "2", "type": "sentence_transformers.models.Normalize"}
    write_json(folder / "modules.json", [*modules, last])


# What is done to the folder of the model or to headwise, and the arguments that are not as before.
CHANGES = {
    "weights": (lambda folder, _: write_bert(folder, bert_weights(seed=1)), {}),
    "config": (other_file("config.json", initializer_range=0.5), {}),
    "tokenizer": (other_file("tokenizer_config.json", model_max_length=512), {}),
    "pooling": (other_file("1_Pooling/config.json", pooling_mode="max"), {}),
    "max_length": (other_file("sentence_bert_config.json", max_seq_length=9), {}),
    "normalize": (normalizing, {}),
    "isa": (lambda _, patch: patch.setattr(corpus.manifest, "active_isa", lambda: "other"), {}),
    "headwise": (lambda _, patch: patch.setattr(corpus.manifest, "__version__", "9.9"), {}),
    "precision": (None, {"precision": "int8"}),
    "on_truncate": (None, {"on_truncate": "ignore"}),
    "column": (None, {"column": "other"}),
    "columns": (None, {"source": "b.parquet"}),
    "format": (None, {"to": "arrow"}),
}


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize("setting", CHANGES)
def test_a_changed_setting_is_refused(here, model, monkeypatch, setting, finished):
    """By name; and where it is meant, all is made anew."""
    model = Path(shutil.copytree(model, "model"))
    rows = corpora.table(200)
    rows = rows.append_column("other", rows["text"])
    corpora.write(Path("a.parquet"), rows)
    corpora.write(Path("b.parquet"), rows.append_column("third", rows["text"]))
    arguments = {"source": "a.parquet", "output": "out.parquet", "model": model, "part_rows": 50}
    if finished:
        embed_corpus(**arguments)
    else:
        stop_before_joining(monkeypatch, **arguments)
    change, options = CHANGES[setting]
    if change is not None:
        change(model, monkeypatch)
    arguments |= options
    where = "out.parquet" if finished else r"out\.parquet\.parts"
    with pytest.raises(ValueError, match=f"{where} was made with {setting} .*, and this run has"):
        embed_corpus(**arguments)
    assert embed_corpus(**arguments, overwrite=True).new_rows == 200
    if setting != "format":
        settings = read_manifest(Path("out.parquet")).settings
        expected = encode(model, rows["text"].to_pylist(), settings["precision"])
        assert_same_bits(vectors(Path("out.parquet")), expected)


def stop_before_joining(monkeypatch, **arguments):
    """Run until all parts are there."""
    with monkeypatch.context() as patch:
        patch.setattr(corpus.embedding, "write_file", raise_stop)
        with pytest.raises(Stop):
            embed_corpus(**arguments)


def raise_stop(*_):
    raise Stop


def test_both_values_are_told(stopped, model):
    message = "made with precision 'float32', and this run has 'int8'"
    with pytest.raises(ValueError, match=message):
        embed_corpus("a.parquet", "out.parquet", model, precision="int8")
    assert embed_corpus("a.parquet", "out.parquet", model).new_rows == 290


def test_a_moved_model_is_the_same(stopped, model):
    moved = Path(shutil.copytree(model, "elsewhere"))
    assert embed_corpus("a.parquet", "out.parquet", moved).new_rows == 290


def test_what_was_an_error_may_be_cut_from_now_on(here, model):
    Path("a.txt").write_text("a b\n" * 15 + "a b c d e f g\n" + "a\n" * 10)
    options = {"part_rows": 10}
    with pytest.raises(ValueError, match=r"^row 15 has 9 tokens: it must have at most max_length"):
        embed_corpus("a.txt", "out.npy", model, on_truncate="error", **options)
    with pytest.warns(UserWarning, match="1 of 26 texts had more than 8 tokens and were cut"):
        done = embed_corpus("a.txt", "out.npy", model, **options)
    assert done == Embedded(26, 16, 1)
    assert read_manifest(Path("out.npy")).settings["on_truncate"] == "warn"


def test_texts_that_were_cut_are_counted_over_all_runs(here, model, monkeypatch):
    Path("a.txt").write_text("a b c d e f g\n" * 30)
    stop_before_joining(monkeypatch, source="a.txt", output="out.npy", model=model)
    with pytest.warns(UserWarning, match="30 of 30 texts"):
        assert embed_corpus("a.txt", "out.npy", model) == Embedded(30, 0, 30)
    assert embed_corpus("a.txt", "out.npy", model) == Embedded(30, 0, 30)  # and no warning


# Changed inputs


def changed(row):
    rows = corpora.table(500)
    texts = rows["text"].to_pylist()
    texts[row] += " a"
    return rows.set_column(1, "text", pa.array(texts))


def test_a_changed_input_is_refused_by_its_rows(stopped, model):
    corpora.write(Path("a.parquet"), changed(100))
    message = "a.parquet has changed: its rows 70 to 139 are not those that were embedded"
    with pytest.raises(ValueError, match=message):
        embed_corpus("a.parquet", "out.parquet", model)
    done = embed_corpus("a.parquet", "out.parquet", model, overwrite=True)
    assert done == Embedded(500, 430, 0)  # the first part is still good
    expected = encode(model, changed(100)["text"].to_pylist())
    assert_same_bits(vectors(Path("out.parquet")), expected)


def test_a_shorter_input_is_refused(stopped, model):
    corpora.write(Path("a.parquet"), corpora.table(500).slice(0, 180))
    with pytest.raises(ValueError, match="its rows 140 to 209 are not those"):
        embed_corpus("a.parquet", "out.parquet", model)
    done = embed_corpus("a.parquet", "out.parquet", model, overwrite=True)
    assert done == Embedded(180, 40, 0)


def test_what_comes_after_the_finished_parts_may_change(stopped, model):
    corpora.write(Path("a.parquet"), changed(300))
    assert embed_corpus("a.parquet", "out.parquet", model) == Embedded(500, 290, 0)
    assert read(Path("out.parquet"))["text"].equals(changed(300)["text"])


@pytest.mark.parametrize("output", OUTPUTS)
def test_a_finished_output(here, model, output):
    corpora.write(Path("a.parquet"), corpora.table(100))
    embed_corpus("a.parquet", output, model)
    before = Path(output).stat()
    assert embed_corpus("a.parquet", output, model) == Embedded(100, 0, 0)
    assert Path(output).stat().st_mtime_ns == before.st_mtime_ns
    assert not Path(f"{output}.parts").exists()
    corpora.write(Path("a.parquet"), corpora.table(100, seed=1))
    with pytest.raises(ValueError, match=f"a.parquet has changed since {output} .* other texts"):
        embed_corpus("a.parquet", output, model)
    corpora.write(Path("a.parquet"), corpora.table(101))
    with pytest.raises(ValueError, match="it has 101 rows, not 100"):
        embed_corpus("a.parquet", output, model)
    assert embed_corpus("a.parquet", output, model, overwrite=True) == Embedded(101, 101, 0)
    assert len(vectors(Path(output))) == 101


@pytest.mark.parametrize("output", OUTPUTS)
def test_what_is_not_ours_is_kept(here, model, output):
    corpora.write(Path("a.parquet"), corpora.table(10))
    if output == "out.npy":
        np.save(output, np.ones(3))
    elif output == "out.arrow":
        corpora.write(Path(output), corpora.table(3))
    else:
        Path(output).write_text("my notes")
    data = Path(output).read_bytes()
    with pytest.raises(FileExistsError, match=f"{output} exists, and is no corpus"):
        embed_corpus("a.parquet", output, model)
    assert Path(output).read_bytes() == data
    assert embed_corpus("a.parquet", output, model, overwrite=True).rows == 10


def test_a_run_that_was_joined_but_not_cleared(here, model, monkeypatch):
    """Killed after the rename, before the parts went."""
    corpora.write(Path("a.parquet"), corpora.table(100))
    with monkeypatch.context() as patch:
        patch.setattr(PartsFolder, "drop", lambda folder, n: folder.parts() and raise_stop())
        with pytest.raises(Stop):
            embed_corpus("a.parquet", "out.parquet", model)
    assert Path("out.parquet").exists()
    assert embed_corpus("a.parquet", "out.parquet", model) == Embedded(100, 0, 0)
    assert not Path("out.parquet.parts").exists()


def test_two_at_once_are_refused(here, model):
    corpora.write(Path("a.parquet"), corpora.table(100))
    with PartsFolder(Path("out.parquet")):
        with pytest.raises(BlockingIOError, match=r"another process is working in out\.parquet"):
            embed_corpus("a.parquet", "out.parquet", model)
        embed_corpus("a.parquet", "other.parquet", model)
    assert embed_corpus("a.parquet", "out.parquet", model).rows == 100


# What is wrong with an input


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ({"body": ["a"]}, {}, "a.parquet has no column 'text': it has body"),
        ({"text": ["a"]}, {"column": "body"}, "has no column 'body': it has text"),
        ({"text": [1]}, {}, "column 'text' is int64: it must be of strings"),
        ({"text": ["a"], "embedding": [1]}, {}, "has a column 'embedding' already"),
        ({"text": ["a"] * 400 + [None]}, {}, "row 400 has no text: its 'text' is null"),
        ({"text": ["a"]}, {"part_rows": 0}, "part_rows is 0"),
        ({"text": ["a"]}, {"batch_tokens": 0}, "batch_tokens is 0"),
        ({"text": ["a"]}, {"precision": "int4"}, "precision is 'int4'"),
        ({"text": ["a"]}, {"on_truncate": "no"}, "on_truncate is 'no'"),
        ({"text": ["a"]}, {"to": "csv"}, "to is 'csv': it must be one of"),
    ],
)
def test_bad_inputs(here, model, rows, options, message):
    corpora.write(Path("a.parquet"), pa.table(rows))
    with pytest.raises(ValueError, match=message):
        embed_corpus("a.parquet", "out.parquet", model, **({"part_rows": 150} | options))
    with pytest.raises(ValueError, match=r"must end in one of \.parquet"):
        embed_corpus("a.parquet", "out.txt", model)


def test_what_is_not_there(here, model):
    corpora.write(Path("a.parquet"), corpora.table(3))
    for arguments, message in {
        ("b.parquet", "out.parquet", model): "b.parquet does not exist",
        ("a.parquet", "none/out.parquet", model): "there is no folder none to write to",
        ("a.parquet", "out.parquet", "./none"): "there is no model folder",
    }.items():
        with pytest.raises(FileNotFoundError, match=message):
            embed_corpus(*arguments)
    assert [path.name for path in Path().iterdir()] == ["a.parquet"]


def test_two_columns_of_a_name(here, model):
    Path("a.csv").write_text("text,x,x\na,b,c\n")
    with pytest.raises(ValueError, match="more than one column 'x'"):
        embed_corpus("a.csv", "out.npy", model)


def test_text_that_is_not_utf8(here, model):
    """Which no library checks when it reads it."""
    good = pa.array(["a", "b", "c"])
    bad = pa.Array.from_buffers(pa.string(), 3, [*good.buffers()[:2], pa.py_buffer(b"a\xffc")])
    corpora.write(Path("a.arrow"), pa.table({"text": pa.chunked_array([good, bad])}))
    with pytest.raises(ValueError, match="row 4 is not UTF-8"):
        embed_corpus("a.arrow", "out.npy", model)


def test_null_in_rows_that_were_done(stopped, model):
    rows = corpora.table(500)
    texts = rows["text"].to_pylist()
    texts[75] = None
    corpora.write(Path("a.parquet"), rows.set_column(1, "text", pa.array(texts)))
    with pytest.raises(ValueError, match="row 75 has no text"):
        embed_corpus("a.parquet", "out.parquet", model)


# Progress


@pytest.mark.parametrize(
    ("name", "shown"), [("a.txt", "500/500"), ("a.csv", "500/500"), ("a.parquet", "500/500")]
)
def test_progress_knows_how_many(here, model, capsys, name, shown):
    rows = pa.table({"text": corpora.letters(500)})
    corpora.write(Path(name), rows)
    embed_corpus(name, "out.npy", model, progress=True)
    assert shown in capsys.readouterr().err


def test_progress_of_a_stream_and_of_the_rest(stopped, model, capsys):
    embed_corpus("a.parquet", "out.parquet", model, progress=True)
    error = capsys.readouterr().err
    assert "210/500" in error
    assert "500/500" in error
    embed_to_stream(io.BytesIO(b"a\n" * 100), io.BytesIO(), model, progress=True)
    assert "100 texts" in capsys.readouterr().err
