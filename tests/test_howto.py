"""The commands of the how-to pages run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import corpora
import numpy as np
import pyarrow.parquet as pq

import headwise as hw

PAGE = Path(__file__).parents[1] / "docs" / "howto" / "embed.md"

ARTICLES = """id,body
1,"Attention compares every query with every key."
2,"A hash table finds a key in constant time."
3,"Plants turn light, water and air into sugar."
4,"The bus was late."
"""


def test_the_commands_of_embed_a_corpus(tmp_path, monkeypatch):
    """In one shell, in the order of the page, on a model of another size."""
    blocks = re.findall(r"```console\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    commands = [line[2:] for block in blocks for line in block.splitlines() if line[:2] == "$ "]
    assert len(commands) >= 10
    assert {command.split()[1] for command in commands if command.startswith("headwise")} == {
        "embed",
        "similar",
    }
    corpora.write_model(tmp_path / "models" / "all-MiniLM-L6-v2")
    (tmp_path / "articles.csv").write_text(ARTICLES)
    (tmp_path / "texts.txt").write_text("a b\nc\n")
    program = tmp_path / "headwise"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m headwise "$@"\n')
    program.chmod(0o755)
    monkeypatch.delenv("HEADWISE_MODEL", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("PYTHONPATH", str(Path(hw.__file__).parents[1]))
    done = subprocess.run(
        ["sh", "-ex"],
        input="\n".join(commands),
        cwd=tmp_path,
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("headwise: ")]
    complete = "headwise: small.parquet is already complete, with 4 texts"
    assert [line for line in said if "warning" not in line] == [complete]
    assert np.load(tmp_path / "vectors.npy").shape == (2, 12)
    for name in ("articles", "small", "piped"):
        assert pq.read_table(tmp_path / f"{name}.parquet").num_rows == 4
    assert "Plants turn light" in done.stdout
