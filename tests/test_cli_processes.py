"""What only a process of its own shows: kills, locks, pipes, terminals, memory, completion."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import corpora
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from checks import run_python

import headwise as hw

HEADWISE = [sys.executable, "-m", "headwise"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(corpora.write_model(tmp_path_factory.mktemp("model")))


@pytest.fixture
def here(tmp_path, monkeypatch, model):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADWISE_MODEL", model)
    monkeypatch.delenv("COLUMNS", raising=False)
    # The same headwise in another working folder, even if PYTHONPATH is relative.
    monkeypatch.setenv("PYTHONPATH", str(Path(hw.__file__).parents[1]))
    return tmp_path


def start(*arguments, **options):
    return subprocess.Popen([*HEADWISE, *arguments], text=True, **options)


def wait_for(path: Path, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 60
    while not path.exists() and time.monotonic() < deadline:
        assert process.poll() is None, "it ended too early"
        time.sleep(0.002)
    assert path.exists()


def on_terminal(*arguments, command=HEADWISE):
    """Run a command on a terminal of 60 columns; return its exit code and what was shown."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
    process = subprocess.Popen(
        [*command, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        env=dict(os.environ),  # without what readline puts into that of the C library
    )
    os.close(theirs)
    shown = b""
    while select.select([ours], [], [], 60)[0]:
        try:
            data = os.read(ours, 4096)
        except OSError:  # Linux says so that the other side has closed
            break
        if not data:
            break
        shown += data
    os.close(ours)
    return process.wait(), shown.decode()


# Kills


def test_killed_and_run_again(here):
    """The same bits as without, whenever it was killed."""
    corpora.write(Path("a.parquet"), corpora.table(20_000))
    command = ["embed", "a.parquet", "-o", "out.parquet", "--part-rows", "50"]
    parts = Path("out.parquet.parts")
    for part in (1, 40):
        process = start(*command)
        wait_for(parts / f"part-{part:06d}.arrow", process)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        assert not Path("out.parquet").exists()
    done = len(list(parts.glob("part-*.arrow")))
    assert 40 < done < 400
    command[-1] = "5000"
    assert start(*command).wait() == 0
    assert start("embed", "a.parquet", "-o", "whole.parquet").wait() == 0
    assert pq.read_table("out.parquet").equals(pq.read_table("whole.parquet"))
    # That it did go on shows in the sizes of the parts.
    groups = pq.ParquetFile("out.parquet").metadata
    sizes = [groups.row_group(i).num_rows for i in range(groups.num_row_groups)]
    assert sizes[:done] == [50] * done
    assert sizes[done] == 5000
    assert not parts.exists()


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_stopped_politely_while_another_waits(here, number, code, word):
    """Which it does not: two at once are refused."""
    corpora.write(Path("a.txt"), pa.table({"text": corpora.letters(20_000)}))
    command = ["embed", "a.txt", "-o", "out.npy", "--part-rows", "50"]
    first = start(*command, stderr=subprocess.PIPE)
    wait_for(Path("out.npy.parts/part-000000.arrow"), first)
    if number == signal.SIGINT:
        # Both in the first one's time: it has some hundred parts to go.
        os.kill(first.pid, signal.SIGSTOP)
        second = subprocess.run([*HEADWISE, *command], check=False, text=True, capture_output=True)
        os.kill(first.pid, signal.SIGCONT)
        message = "headwise: another process is working in out.npy.parts\n"
        assert (second.returncode, second.stdout, second.stderr) == (1, "", message)
    first.send_signal(number)
    _, error = first.communicate(timeout=60)
    assert first.returncode == code
    assert error == f"headwise: {word}: the same command goes on where it stopped\n"
    assert not Path("out.npy").exists()
    assert Path("out.npy.parts/manifest.json").exists()


# Pipes


def test_a_pipe_of_commands(here):
    texts = corpora.letters(1000)
    corpora.write(Path("a.txt"), pa.table({"text": texts}))
    with Path("a.txt").open("rb") as file:
        embed = start("embed", "-", "-o", "-", stdin=file, stdout=subprocess.PIPE)
    search = start(
        *("similar", texts[17], "-", "--format", "arrow", "-k", "1"),
        stdin=embed.stdout,
        stdout=subprocess.PIPE,
    )
    embed.stdout.close()
    out, _ = search.communicate(timeout=60)
    assert (embed.wait(), search.returncode) == (0, 0)
    assert out.split()[1:] == ["1.0000", *texts[17].split()]


def test_nobody_reads_the_output(here):
    corpora.write(Path("a.txt"), pa.table({"text": corpora.letters(20_000)}))
    process = start(
        *("embed", "a.txt", "-o", "-", "--part-rows", "50"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.buffer.read(10)
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait() == 141


# Terminals


def test_a_bar_and_a_summary_on_a_terminal(here):
    corpora.write(Path("a.csv"), corpora.table(1000))
    code, shown = on_terminal("embed", "a.csv", "-o", "out.parquet")
    assert code == 0
    assert "1000/1000" in shown
    assert "texts/s" in shown
    assert shown.endswith("headwise: out.parquet has 1,000 texts\r\n")


def test_no_vectors_on_a_terminal(here):
    corpora.write(Path("a.csv"), corpora.table(10))
    code, shown = on_terminal("embed", "a.csv", "-o", "-")
    assert code == 2
    assert "standard output is a terminal" in shown


def test_texts_are_cut_to_the_terminal(here):
    Path("a.txt").write_text("a b " * 100 + "\n")
    code, shown = on_terminal("similar", "a", "a.txt")
    lines = [line for line in shown.split("\r\n") if not line.startswith("headwise: warning")]
    assert code == 0
    assert [len(line) for line in lines] == [60, 0]
    assert lines[0].endswith("a b...")


def test_the_bar_of_bench(here):
    code = """
import sys
from headwise.cli import main
from headwise.machine import Case, cases
cases.all_cases = lambda model: [Case("nothing", lambda: None, "float32", 1.0)]
sys.argv = ["headwise", "bench", "--seconds", "1"]
main()
"""
    code, shown = on_terminal(command=[sys.executable, "-c", code])
    assert code == 0, shown
    assert "measuring" in shown
    assert "100%" in shown


# Memory


def test_memory_does_not_grow_with_the_input(here, model):
    """Four times the rows, of 2 kB each: 60 MB more to read, and nothing more held."""
    code = f"""
import resource, sys
from headwise.corpus import embed_corpus
def generate(count):
    with open("a.jsonl", "w") as file:
        for i in range(count):
            file.write('{{"text": "' + "x" * 2000 + '", "id": %d}}\\n' % i)
generate(int(ROWS))
embed_corpus("a.jsonl", "out.parquet", {model!r}, part_rows=2000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""
    used = []
    for rows in (10_000, 40_000):
        used.append(int(run_python(code.replace("ROWS", str(rows)))))
        Path("out.parquet").unlink()
    assert used[1] - used[0] < 20, used


# Completion, starting up


def complete(words, **env):
    environment = os.environ | {
        "_HEADWISE_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - (not words.endswith(" "))),
    }
    return subprocess.check_output(HEADWISE, text=True, env=environment | env).split()


def test_completion():
    assert {"embed", "similar", "info", "bench"} <= set(complete("headwise "))
    assert complete("headwise embed a.txt --prec") == ["--precision"]
    assert complete("headwise embed a.txt --precision ") == ["float32", "bfloat16", "int8"]
    script = complete("headwise", _HEADWISE_COMPLETE="source_bash")
    assert "_HEADWISE_COMPLETE=complete_bash" in " ".join(script)


@pytest.mark.skipif(not shutil.which("bash"), reason="this system has no bash")
def test_the_script_of_the_shell_that_runs():
    command = f"{sys.executable} -m headwise --show-completion; exit $?"
    script = subprocess.check_output(["bash", "-c", command], text=True)
    assert "complete -o default -F _headwise_completion headwise" in script


def test_starting_up_loads_nothing_heavy():
    code = """
import sys
sys.argv = ["headwise", "--help"]
from headwise.cli import main
try:
    main()
except SystemExit as end:
    assert end.code in (0, None)
print([m for m in ("pyarrow", "tokenizers", "safetensors", "tqdm", "rich") if m in sys.modules])
"""
    assert run_python(code).splitlines()[-1] == "[]"


@pytest.mark.parametrize("package", ["typer", "pyarrow", "tokenizers"])
def test_a_package_that_is_missing_is_named(here, package):
    Path("a.txt").write_text("a\n")
    code = f"""
import sys
sys.modules[{package!r}] = None
sys.argv = ["headwise", "embed", "a.txt", "-o", "out.npy"]
from headwise.cli import main
main()
"""
    code, out, error = run_python(code, check=False)
    assert (code, out) == (1, "")
    assert package in error
    assert "pip install" in error
    assert error.count("\n") == 1
