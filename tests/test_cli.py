"""Every command, its options and what it says when something is wrong."""

from __future__ import annotations

import json
import os
import signal
import typing
from pathlib import Path

import corpora
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from checks import assert_same_bits
from typer.testing import CliRunner

import headwise as hw
from headwise import corpus, functional, machine, tokenization
from headwise.cli import options
from headwise.cli.app import app
from headwise.corpus.run import Run
from headwise.machine import speed

COMMANDS = ["embed", "similar", "info", "bench"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(corpora.write_model(tmp_path_factory.mktemp("model")))


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder with a.txt and a.csv, and nothing that says how to run."""
    monkeypatch.chdir(tmp_path)
    for name in ("HEADWISE_MODEL", "HEADWISE_TRACEBACK"):
        monkeypatch.delenv(name, raising=False)
    corpora.write(Path("a.txt"), pa.table({"text": corpora.letters(100)}))
    corpora.write(Path("a.csv"), corpora.table(100))
    threads = hw.get_num_threads()
    yield tmp_path
    hw.set_num_threads(threads)


def run(*arguments, input=None, code=0, **env):
    """Run a command and return what it wrote to stdout and stderr."""
    result = CliRunner().invoke(app, list(map(str, arguments)), input=input, env=env)
    assert result.exit_code == code, result.output
    return result.stdout_bytes if b"\0" in result.stdout_bytes else result.stdout, result.stderr


def fails(*arguments, code=1, **env):
    """Return the one line that a command fails with."""
    out, error = run(*arguments, code=code, **env)
    assert out == ""
    assert error.count("\n") == 1, error
    assert error.startswith("headwise: ")
    return error.removeprefix("headwise: ").rstrip("\n")


# All of them


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples(command):
    for flag in ("--help", "-h"):
        out, _ = run(command, flag)
        assert f"$ headwise {command}" in out.split("Examples:\n")[1]
    assert f"  {command} " in run("--help")[0]


def test_version():
    assert run("--version")[0] == f"headwise {hw.__version__}\n"


def test_usage():
    for arguments in ([], ["none"], ["embed"], ["embed", "a.txt", "-o"], ["info", "--what"]):
        out, error = run(*arguments, code=2)
        assert "Usage: " in out + error or "Error: " in error
        assert "Traceback" not in error


def test_choices_are_those_of_the_library():
    """Spelled twice: the library's need packages that the command line starts without."""
    for ours, theirs in {
        options.Format: corpus.Format,
        options.OutputFormat: corpus.OutputFormat,
        options.Precision: functional.linear.Precision,
        options.OnTruncate: tokenization.OnTruncate,
    }.items():
        assert typing.get_args(ours) == typing.get_args(theirs)


# embed


@pytest.mark.parametrize("output", ["out.parquet", "out.arrow", "out.npy"])
def test_embed(here, model, output):
    assert run("embed", "a.csv", "-o", output, "--model", model) == ("", "")
    assert corpus.read_manifest(Path(output)).rows == 100
    out, error = run("embed", "a.csv", "-o", output, "-m", model)
    assert (out, error) == ("", f"headwise: {output} is already complete, with 100 texts\n")


def test_embed_nothing(here, model):
    Path("empty.txt").write_text("")
    for message in ("", ""):
        assert run("embed", "empty.txt", "-o", "out.parquet", "-m", model) == ("", message)
    assert corpus.read_manifest(Path("out.parquet")).rows == 0


def test_embed_options(here, model):
    rows = pq.read_table(corpora.write(Path("a.parquet"), corpora.table(100)))
    pq.write_table(rows.rename_columns(["id", "body", "score"]), "in.data")
    given = "--format parquet --column body --to npy --precision int8 --threads 1 --batch-tokens 50"
    run("embed", "in.data", "-o", "out", *given.split(), "--part-rows", 30, HEADWISE_MODEL=model)
    assert hw.get_num_threads() == 1
    encoder = hw.TextEncoder.from_pretrained(model, "int8")
    assert_same_bits(np.load("out"), encoder.encode(rows["text"].to_pylist()))


def test_embed_from_stdin_to_stdout(here, model):
    data, error = run("embed", "-", "-o", "-", "--model", model, input=Path("a.txt").read_bytes())
    assert error == ""
    assert pa.ipc.open_stream(data).read_all().num_rows == 100
    arguments = ["--format", "csv", "--to", "parquet", "--model", model]
    data, _ = run("embed", "-", "-o", "-", *arguments, input=Path("a.csv").read_bytes())
    assert pq.read_table(pa.BufferReader(data))["id"].to_pylist() == [str(i) for i in range(100)]
    error = fails("embed", "a.txt", "-o", "-", "--to", "npy", "--model", model)
    assert error.startswith("npy cannot be written to a stream")


def test_embed_what_is_cut(here, model):
    Path("a.txt").write_text("a b c d e f g\n" * 3 + "a\n")
    given = ["embed", "a.txt", "--model", model]
    assert run(*given, "-o", "1.npy") == (
        "",
        "headwise: warning: 3 of 4 texts had more than 8 tokens and were cut\n",
    )
    assert run(*given, "-o", "2.npy", "--on-truncate", "ignore") == ("", "")
    error = fails(*given, "-o", "3.npy", "--on-truncate", "error")
    assert error == "row 0 has 9 tokens: it must have at most max_length, 8"


def test_embed_refuses_and_overwrites(here, model):
    given = ["embed", "a.txt", "-o", "out.parquet", "--model", model]
    run(*given)
    error = fails(*given, "--precision", "int8")
    assert error.startswith(
        "out.parquet was made with precision 'float32', and this run has 'int8' (with --overwrite"
    )
    assert run(*given, "--precision", "int8", "--overwrite") == ("", "")
    assert corpus.read_manifest(Path("out.parquet")).settings["precision"] == "int8"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.txt", "-o", "out.npy"], "none.txt does not exist"),
        (["a.txt", "-o", "out.doc"], "out.doc: its name must end in one of"),
        (["a.txt", "-o", "no/out.npy"], "there is no folder no to write to"),
        (["a.csv", "-o", "out.npy", "-c", "b"], "a.csv has no column 'b': it has id, text, score"),
        (["a.txt", "-o", "out.npy", "-m", "./no"], "there is no model folder ./no"),
    ],
)
def test_embed_errors(here, model, arguments, message):
    assert fails("embed", *arguments, HEADWISE_MODEL=model).startswith(message)
    assert {path.name for path in here.iterdir()} == {"a.txt", "a.csv"}


def test_embed_needs_a_model(here):
    _, error = run("embed", "a.txt", "-o", "out.npy", code=2)
    assert "Missing option '--model'" in error


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_embed_interrupted(here, model, monkeypatch, number, code):
    before = signal.getsignal(signal.SIGTERM)
    embed = Run.embed

    def interrupting(run, *arguments):
        if run.rows == 60:
            os.kill(os.getpid(), number)
        return embed(run, *arguments)

    monkeypatch.setattr(Run, "embed", interrupting)
    given = ["embed", "a.txt", "-o", "out.npy", "--model", model]
    error = fails(*given, "--part-rows", "20", code=code)
    word = {130: "interrupted", 143: "terminated"}[code]
    assert error == f"{word}: the same command goes on where it stopped"
    assert signal.getsignal(signal.SIGTERM) == before
    assert len(list(Path("out.npy.parts").glob("part-*"))) == 3
    monkeypatch.undo()
    monkeypatch.chdir(here)
    run(*given)
    assert len(np.load("out.npy")) == 100


def test_errors_that_nobody_thought_of(here, model, monkeypatch):
    def broken(*_, **__):
        raise KeyError("what\nis this")

    monkeypatch.setattr(corpus, "embed_corpus", broken)
    given = ["embed", "a.txt", "-o", "out.npy", "--model", model]
    assert fails(*given) == r"KeyError: 'what\nis this' (HEADWISE_TRACEBACK=1 shows where)"
    result = CliRunner().invoke(app, given, env={"HEADWISE_TRACEBACK": "1"})
    assert isinstance(result.exception, KeyError)


# similar


def test_similar(here, model):
    run("embed", "a.csv", "-o", "out.parquet", "--model", model)
    found = corpus.similar("a b c", "out.parquet", k=10)
    lines = run("similar", "a b c", "out.parquet")[0].splitlines()
    assert lines == [
        f"{rank:3}  {n.cosine:7.4f}  {' '.join(n.text.split())}" for rank, n in enumerate(found, 1)
    ]
    lines = run("similar", "a b c", "out.parquet", "-k", 3, "--json")[0].splitlines()
    assert [json.loads(line) for line in lines] == [
        {"rank": rank, "row": n.row, "cosine": n.cosine, "text": n.text}
        for rank, n in enumerate(found[:3], 1)
    ]


def test_similar_in_texts_and_vectors_alone(here, model):
    run("embed", "a.txt", "-o", "out.npy", "--model", model)
    found = corpus.similar("a b c", "out.npy", k=2)
    out, _ = run("similar", "a b c", "out.npy", "-k", 2)
    assert out == "".join(
        f"{rank:3}  {n.cosine:7.4f}  row {n.row}\n" for rank, n in enumerate(found, 1)
    )
    texts = Path("a.txt").read_text().splitlines()
    for source, input in (("a.txt", None), ("-", Path("a.txt").read_text())):
        out, _ = run("similar", "a b c", source, "-k", 2, input=input, HEADWISE_MODEL=model)
        assert out == "".join(
            f"{rank:3}  {n.cosine:7.4f}  {texts[n.row]}\n" for rank, n in enumerate(found, 1)
        )


def test_similar_takes_the_model_of_the_vectors_before_that_of_the_environment(here, model):
    run("embed", "a.txt", "-o", "out.parquet", "--model", model)
    run("similar", "a", "out.parquet", HEADWISE_MODEL="./none")
    assert fails("similar", "a", "a.txt", HEADWISE_MODEL="./none").startswith("there is no model")
    assert fails("similar", "a", "out.parquet", "--model", "./none").startswith("there is no mod")


def test_similar_errors(here, model):
    assert "model is needed" in fails("similar", "a", "a.txt")
    assert fails("similar", "a", "none.txt") == "none.txt does not exist"
    _, error = run("similar", "a", "a.txt", "-k", 0, code=2)
    assert "-k" in error


# info


def test_info():
    out, _ = run("info", "--no-peak", HEADWISE_NUM_THREADS=None, OMP_NUM_THREADS=None)
    lines = dict(line.split(None, 1) for line in out.splitlines() if not line.startswith(" "))
    assert lines["headwise"] == hw.__version__
    assert lines["NumPy"] == np.__version__
    assert lines["ISA"].startswith(f"{hw.active_isa()} of ")
    assert lines["threads"].startswith(f"{hw.get_num_threads()}: ")
    assert "HEADWISE_ISA not set" in out or "HEADWISE_ISA =" in out
    assert "peak" not in lines
    found = json.loads(run("info", "--no-peak", "--json")[0])
    assert found["isa"]["available"] == list(hw.available_isas())


def test_info_measures_the_peak(monkeypatch):
    peak = hw.Peak(5.4, 3.2, 10.6, 20.1, 7.77)
    monkeypatch.setitem(machine.report.__globals__, "peak", lambda seconds: peak)
    last = run("info")[0].splitlines()[-1]
    assert last.split(None, 1)[1] == (
        "float32 5, float64 3, bfloat16 11, int8 20 GFLOP/s; read 7.8 GB/s"
    )


# bench


@pytest.fixture
def quick(monkeypatch):
    """Two cases that take no time, and peaks that are there at once."""
    peaks = [hw.Peak(1000, 500, 2000, 4000, 40), hw.Peak(1050, 500, 2000, 4000, 40)]
    cases = [
        speed.Case("attention", lambda: None, "float32", 1e9),
        speed.Case("decode", lambda: None, "float32", 1e8, reads=True),
        speed.Case("encoder", lambda: None, "int8", 1e9, texts=3, tokens=30),
    ]
    times = {"attention": 2e-3, "decode": 5e-3, "encoder": 1e-3}
    monkeypatch.setattr(speed, "peak", lambda seconds: peaks.pop(0))
    monkeypatch.setattr("headwise.machine.cases.all_cases", lambda model: cases)
    monkeypatch.setattr(speed, "_time", lambda case, calls: times[case.name])


def test_bench(quick):
    out, _ = run("bench", "--seconds", 1)
    table = [line.split() for line in out.splitlines()]
    assert ["attention", "float32", "2.00", "500.0", "GFLOP/s", "48%"] in table
    assert ["decode", "float32", "5.00", "20.0", "GB/s", "50%"] in table
    assert ["encoder", "int8", "1.00", "1000.0", "GFLOP/s", "25%", "3000"] in table
    assert ["float32", "1000", "1050", "GFLOP/s"] in table
    assert out.splitlines()[-1].startswith("In float32 48% to 48% of the peak")


def test_bench_json(quick):
    found = json.loads(run("bench", "--seconds", 1, "--json")[0])
    assert found["machine"]["isa"]["active"] == hw.active_isa()
    assert found["peak"]["after"]["float32"] == 1050
    assert found["cases"][0]["fraction_of_peak"] == pytest.approx(500 / 1050)
    assert found["steady"] is True
