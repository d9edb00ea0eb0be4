"""``headwise explain``: the page of a text, from the command line."""

from __future__ import annotations

import subprocess
import sys

import pytest
from tiny import MEAN, write_sentence_model
from typer.testing import CliRunner

import headwise as hw
from headwise.cli.app import app


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_sentence_model(tmp_path_factory.mktemp("model"), MEAN)


@pytest.fixture
def run(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(*arguments, stdin=None, model=folder):
        environment = {"HEADWISE_MODEL": model and str(model)}
        return CliRunner().invoke(app, ["explain", *arguments], input=stdin, env=environment)

    return run


def test_writes_the_page_of_the_trace(run, folder, tmp_path):
    result = run("a b c")
    page = (tmp_path / "attention.html").read_text("ascii")
    assert page == hw.TextEncoder.from_pretrained(folder).explain("a b c").to_html()
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == f"headwise: attention.html: 5 tokens, {len(page) / 1e6:.2f} MB\n"


def test_options(run, folder, tmp_path):
    result = run(
        *("a b", "--compare", "b c", "--layers", "1", "--heads", "0,1-2", "-o", "out.html"),
        *("--precision", "bfloat16", "--model", str(folder)),
        model=None,
    )
    assert result.exit_code == 0, result.stderr
    model = hw.TextEncoder.from_pretrained(folder, "bfloat16")
    expected = model.explain("a b").to_html(model.explain("b c"), layers=1, heads=[0, 1, 2])
    assert (tmp_path / "out.html").read_text("ascii") == expected


def test_standard_streams(run, folder):
    result = run("-", "-o", "-", stdin="a b\n")
    expected = hw.TextEncoder.from_pretrained(folder).explain("a b\n").to_html()
    assert (result.exit_code, result.stdout) == (0, expected)


def test_text_that_is_cut_is_said(run):
    result = run("a b c d e f g h i")
    assert result.exit_code == 0
    assert result.stderr.startswith(
        "headwise: warning: 1 of 1 texts had more than 8 tokens and were cut\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a", "--layers", "2"], "--layers is '2': it must be numbers from 0 to 1 and ranges of"),
        (["a", "--layers", "1-0"], "--layers is '1-0': it must be"),
        (["a", "--heads", "0,,1"], "--heads is '0,,1': it must be numbers from 0 to 2"),
        (["a", "--heads", "0-99999999999"], "--heads is '0-99999999999': it must be"),
        (["a", "--heads", "x"], "--heads is 'x': it must be"),
        (["a", "--model", "nowhere/at/all"], "there is no model folder nowhere/at/all"),
        (["a", "-o", "no/such/folder.html"], "No such file or directory"),
        (["-", "--compare", "-"], "both texts are -: standard input holds one"),
        (["\udcff"], "text is not valid Unicode"),
    ],
)
def test_errors_take_one_line(run, arguments, message):
    result = run(*arguments)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("headwise: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_wrong_usage(run):
    for result, named in (
        (run("a", model=None), "--model"),
        (run("a", "--precision", "half"), "--precision"),
    ):
        assert result.exit_code == 2
        assert named in result.stderr


def test_as_a_program(folder, tmp_path):
    command = [sys.executable, "-m", "headwise", "explain", "a b", "--model", str(folder)]
    done = subprocess.run([*command, "-o", "-"], check=True, capture_output=True, text=True)
    assert done.stdout == hw.TextEncoder.from_pretrained(folder).explain("a b").to_html()
    failed = subprocess.run([*command, "--heads", "9"], check=False, capture_output=True, text=True)
    assert failed.returncode == 1
    assert "Traceback" not in failed.stderr
