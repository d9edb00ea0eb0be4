"""Corpora are read as they are, whatever their format, and what is wrong with one is named."""

from __future__ import annotations

import io
import json
import os
import threading

import corpora
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headwise.corpus import open_source
from headwise.corpus.jsonlines import infer_schema

TYPED = ["a.jsonl", "a.jsonl.gz", "a.parquet", "a.arrow", "a.arrows"]


def read(source, format=None) -> pa.Table:
    with open_source(source, format) as rows:
        tables = []
        while (part := rows.take(300)).num_rows:
            tables.append(part)
        return pa.concat_tables(tables) if tables else part


# Formats


@pytest.mark.parametrize("name", TYPED)
def test_typed_formats_keep_the_types(tmp_path, name):
    rows = corpora.table(1000)
    assert read(corpora.write(tmp_path / name, rows)).equals(rows)


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.csv.bz2"])
def test_values_of_csv_are_strings_as_they_stand_there(tmp_path, name):
    rows = corpora.table(1000)
    got = read(corpora.write(tmp_path / name, rows))
    assert set(got.schema.types) == {pa.string()}
    assert got["text"].to_pylist() == rows["text"].to_pylist()
    assert got["score"].to_pylist()[:3] == ["", "0.5", "1.0"]


def test_a_book_in_a_field(tmp_path):
    rows = pa.table({"text": ["a book, " * 100_000, "b"]})
    assert read(corpora.write(tmp_path / "a.csv", rows)).equals(rows)


@pytest.mark.parametrize("name", ["a.txt", "A.TXT", "a.txt.gz"])
def test_lines_of_text(tmp_path, name):
    texts = corpora.letters(1000)
    rows = pa.table({"text": texts})
    assert read(corpora.write(tmp_path / name, rows)).equals(rows)


@pytest.mark.parametrize("end", ["", "\n"])
def test_ends_of_lines_and_a_byte_order_mark(end):
    data = f"\ufeffone\r\n\ntwo\u2028three\rfour{end}".encode()
    texts = ["one", "", "two\u2028three\rfour"]
    assert read(io.BytesIO(data))["text"].to_pylist() == texts


@pytest.mark.parametrize("format", ["csv", "tsv", "jsonl", "parquet", "arrow"])
def test_streams_and_forced_formats(tmp_path, format):
    rows = corpora.table(1000)
    path = corpora.write(tmp_path / f"a.{format}", rows)
    expected = read(path)
    assert read(io.BytesIO(path.read_bytes()), format).equals(expected)
    other = path.rename(tmp_path / "a.data")
    assert read(other, format).equals(expected)


@pytest.mark.parametrize("format", ["csv", "jsonl", "arrow"])
def test_pipes(tmp_path, format):
    """Which cannot be read twice."""
    rows = corpora.table(1000)
    path = corpora.write(tmp_path / f"a.{format}", rows)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(path.read_bytes()))
    writer.start()
    assert read(pipe, format).equals(read(path))
    writer.join()


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.jsonl", "a.parquet", "a.arrow"])
def test_rows_are_taken_as_they_are_asked_for(tmp_path, name):
    rows = corpora.table(700)["text"].combine_chunks().slice(3)
    path = corpora.write(tmp_path / name, pa.table({"text": rows}))
    with open_source(path) as source:
        sizes = (1, 256, 300, 1000, 1)
        parts = [source.take(size)["text"].to_pylist() for size in sizes]
    assert [len(part) for part in parts] == [1, 256, 300, 140, 0]
    assert [text for part in parts for text in part] == rows.to_pylist()


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.parquet", "a.arrow"])
def test_long_texts_make_few_rows(tmp_path, name):
    path = corpora.write(tmp_path / name, pa.table({"text": ["x" * 1000] * 2000}))
    with open_source(path) as source:
        first = source.take(2000, max_bytes=300_000).num_rows
        assert 300 <= first < 300 + 256
        assert source.take(2000).num_rows == 2000 - first


def test_how_many_rows(tmp_path):
    rows = corpora.table(1000)
    for name, known in [("a.parquet", 1000), ("a.jsonl", 1000), ("a.csv", None), ("a.arrow", None)]:
        with open_source(corpora.write(tmp_path / name, rows)) as source:
            assert source.num_rows == known
            assert source.count() == 1000


def test_dictionaries_become_what_they_stand_for(tmp_path):
    text = pa.array(["a", "b", None] * 100).dictionary_encode()
    for name in ("a.arrow", "a.parquet"):
        got = read(corpora.write(tmp_path / name, pa.table({"text": text})))
        assert got["text"].type == pa.string()
        assert got["text"].to_pylist() == text.to_pylist()
    nested = pa.ListArray.from_arrays([0, 300], text)
    path = corpora.write(tmp_path / "b.arrow", pa.table({"tags": nested}))
    with pytest.raises(
        ValueError, match=r"column 'tags' is list<.*dictionaries inside other types"
    ):
        read(path)


def test_one_row_group_of_any_size_is_read_page_by_page(tmp_path):
    rows = pa.table({"text": [f"{i} " * 200 for i in range(20_000)]})
    pq.write_table(rows, tmp_path / "a.parquet", compression="none", use_dictionary=False)
    size = rows.nbytes
    del rows
    before = pa.total_allocated_bytes()
    with open_source(tmp_path / "a.parquet") as source:
        most = 0
        while source.take(500).num_rows:
            most = max(most, pa.total_allocated_bytes() - before)
    assert most < size / 4


# JSON


def test_types_that_all_rows_have_in_common(tmp_path):
    """Also those far down the file."""
    lines = [{"text": "a", "n": 1, "tags": None}] * 9000
    lines += [{"text": "b", "n": 0.5, "tags": ["x"], "more": {"x": 1}}, {"text": "c"}]
    path = tmp_path / "a.jsonl"
    path.write_text("\n\n".join(map(json.dumps, lines)) + "\n")
    got = read(path)
    assert got.schema == pa.schema(
        {
            "text": pa.string(),
            "n": pa.float64(),
            "tags": pa.list_(pa.string()),
            "more": pa.struct({"x": pa.int64()}),
        }
    )
    assert got.slice(8999).to_pylist() == [
        {"text": "a", "n": 1.0, "tags": None, "more": None},
        {"text": "b", "n": 0.5, "tags": ["x"], "more": {"x": 1}},
        {"text": "c", "n": None, "tags": None, "more": None},
    ]
    with pytest.raises(ValueError, match=r"row 9000 has the key 'more', which no row had"):
        read(io.BytesIO(path.read_bytes()), "jsonl")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (5, r"row 300: 'text' is 5, .* string"),
        ({"a": 1}, r"row 300: 'text' is \{'a': 1\}, .* string"),
        ("\ud800", r"row 300: 'text' is '\\ud800', .*surrogates"),
        (2**70, r"row 300: 'text' is 1180591620717411303424"),
    ],
)
def test_values_that_do_not_go_together(value, message):
    with pytest.raises(ValueError, match=message):
        infer_schema([{"text": "a"}] * 300 + [{"text": value}], "a.jsonl")


# What is wrong


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.txt", b"a\nb\n\xff\n", "a.txt, line 3 is not UTF-8"),
        ("a.csv", b"", "a.csv is empty: it must begin with the names"),
        ("a.csv", b"text,b\na,1\nb\n", "a.csv, row 1 has 1 fields: it must have 2"),
        ("a.csv", b'text\na\n"b', "a.csv, line 3 is not CSV: unexpected end"),
        ("a.csv", b'text\n"a"b\n', "a.csv, line 2 is not CSV"),
        ("a.csv", b"text\n\xff\n", "a.csv, line 2 is not UTF-8"),
        ("a.jsonl", b'{"text": "a"}\n\n{"text"\n', "a.jsonl, line 3 is not JSON"),
        ("a.jsonl", b'"a"\n', "a.jsonl, line 1 is 'a': it must be an object"),
        ("a.jsonl", b"[" * 100_000, "a.jsonl, line 1 is not JSON"),
        ("a.jsonl", b'{"text": "\xff"}\n', "a.jsonl, line 1 is not JSON"),
        ("a.parquet", b"text", "a.parquet cannot be read as parquet"),
        ("a.parquet", b"", "a.parquet cannot be read as parquet"),
        ("a.arrow", b"", "a.arrow cannot be read as arrow"),
        ("a.arrow", b"some text, no table at all", "a.arrow cannot be read as arrow"),
        ("a.txt.gz", b"not compressed", "a.txt.gz cannot be read"),
        ("a.parquet.gz", b"", "a pipe or compressed"),
        ("a.md", b"", "a.md: its name does not tell its format"),
        ("a", b"", "a: its name does not tell its format"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, name, data, message):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(ValueError, match=message):
        read(path)


def test_a_file_that_ends_early(tmp_path):
    for name in ("a.arrow", "a.txt.gz"):
        path = corpora.write(tmp_path / name, corpora.table(5000))
        path.write_bytes(path.read_bytes()[:-3000])
        with pytest.raises(ValueError, match=f"{name} cannot be read"):
            read(path)


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a\.txt does not exist"):
        read(tmp_path / "a.txt")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        read(tmp_path, "text")
    with pytest.raises(ValueError, match="format is 'xml': it must be one of"):
        read(tmp_path / "a.txt", "xml")
