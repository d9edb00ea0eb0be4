"""Small corpora in every format that headwise reads, and a model that takes no time."""

from __future__ import annotations

import bz2
import csv
import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tiny import MEAN, write_sentence_model


def write_model(folder: Path) -> Path:
    """Write a model of 12 dimensions that takes 8 tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    return write_sentence_model(folder, MEAN)


def letters(count: int, seed: int = 0) -> list[str]:
    """Return texts of no to six one-letter words, which is what the model knows."""
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(list("abcdefghijklmnop"), rng.integers(7))) for _ in range(count)]


def table(count: int, seed: int = 0) -> pa.Table:
    """Return rows with a text, which may have commas, quotes and line ends, and other columns."""
    texts = letters(count, seed)
    texts[:3] = ['a, "b"', "c\nd", "é a 図"]
    return pa.table(
        {
            "id": list(range(count)),
            "text": texts,
            "score": pa.array([None if i % 5 == 0 else i / 2 for i in range(count)]),
        }
    )


def write(path: Path, rows: pa.Table) -> Path:
    """Write rows in the format that the name says; .txt has the texts alone."""
    suffix = path.suffix
    if suffix == ".parquet":
        pq.write_table(rows, path, row_group_size=100)
    elif suffix == ".arrow":
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, rows.schema) as writer:
            writer.write_table(rows, max_chunksize=70)
    elif suffix == ".arrows":
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, rows.schema) as writer:
            writer.write_table(rows, max_chunksize=70)
    else:
        openers = {".gz": gzip.open, ".bz2": bz2.open}
        with openers.get(suffix, open)(path, "wt", encoding="utf-8", newline="") as file:
            kind = path.suffixes[-2] if suffix in openers else suffix
            if kind in (".csv", ".tsv"):
                writer = csv.writer(file, delimiter="," if kind == ".csv" else "\t")
                writer.writerow(rows.column_names)
                writer.writerows(row.values() for row in rows.to_pylist())
            elif kind == ".jsonl":
                file.writelines(json.dumps(row) + "\n" for row in rows.to_pylist())
            else:
                file.writelines(f"{text}\n" for text in rows["text"].to_pylist())
    return path
