"""examples/server.py: its answers, and two workers of gunicorn that were forked from one model."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import numpy as np
import pytest
from checks import assert_same_bits

import headwise as hw

SERVER = Path(__file__).parents[1] / "examples" / "server.py"
TEXTS = ["I love Apple phones", "", "I love apple juice", "Äpfel und Birnen 🍎", "word " * 300]


@pytest.fixture(scope="module")
def server():
    spec = importlib.util.spec_from_file_location("server", SERVER)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def application(server, minilm):
    return server.embedder(minilm)


@pytest.fixture(scope="module")
def expected(minilm):
    return hw.TextEncoder.from_pretrained(minilm).encode(TEXTS, on_truncate="ignore")


def call(application, path, body=b"", method="POST", **changes):
    """Return the status, headers and JSON of a request; a change to None leaves a variable out."""
    environ = {
        "PATH_INFO": path,
        "SCRIPT_NAME": "",
        "QUERY_STRING": "",
        "REQUEST_METHOD": method,
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": io.BytesIO(body),
    } | changes
    environ = {name: value for name, value in environ.items() if value is not None}
    setup_testing_defaults(environ)
    started = []

    def start_response(status, headers, exc_info=None):
        started.append((status, dict(headers)))

    answer = application(environ, start_response)
    body = b"".join(answer)
    if hasattr(answer, "close"):
        answer.close()
    ((status, headers),) = started
    assert headers["Content-Type"] == "application/json"
    assert int(headers["Content-Length"]) == len(body)
    return int(status[:3]), headers, json.loads(body)


def test_vectors_keep_their_bits(application, expected):
    strict = validator(application)  # which fails on whatever breaks PEP 3333
    status, _, answer = call(strict, "/embed", json.dumps({"texts": TEXTS}).encode())
    assert status == 200
    assert_same_bits(np.array(answer["vectors"], np.float32), expected)


def test_no_texts(application):
    assert call(application, "/embed", b'{"texts": []}')[::2] == (200, {"vectors": []})


def test_health(application):
    status, _, answer = call(application, "/health", method="GET")
    assert (status, answer) == (200, {"dim": 384, "max_length": 256})


BAD_BODIES = {
    b"": "not JSON",
    b"{": "not JSON",
    b"\xff\xfe": "not JSON",
    b"[" * 100_000: "not JSON",
    b'["a"]': '{"texts": [...]}',
    b'{"texts": "a"}': '{"texts": [...]}',
    b'{"texts": [1]}': "texts[0] is a int",
    b'{"texts": ["a", null]}': "texts[1] is a NoneType",
    rb'{"texts": ["a", "\ud800"]}': "texts[1] is not valid Unicode",
}


@pytest.mark.parametrize("body", BAD_BODIES, ids=lambda body: body[:20].decode("latin-1"))
def test_bad_body(application, body):
    status, _, answer = call(application, "/embed", body)
    assert status == 400
    assert BAD_BODIES[body] in answer["error"]


def test_too_much(application, server):
    for_all = json.dumps({"texts": ["a"] * server.MAX_TEXTS}).encode()
    assert call(application, "/embed", for_all)[0] == 200
    one_more = json.dumps({"texts": ["a"] * (server.MAX_TEXTS + 1)}).encode()
    assert call(application, "/embed", one_more)[0] == 413
    for length in (str(server.MAX_BYTES + 1), "9" * 5000):
        assert call(application, "/embed", CONTENT_LENGTH=length)[0] == 413


@pytest.mark.parametrize("length", [None, "", "-1", "0x10", "²"])
def test_no_length(application, length):
    assert call(application, "/embed", CONTENT_LENGTH=length)[0] == 411


def test_elsewhere(application):
    assert call(application, "/")[0] == 404
    status, headers, _ = call(application, "/embed", method="GET")
    assert (status, headers["Allow"]) == (405, "POST")


def post(port, body):
    """Return the status and JSON of a request over the loopback."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}/embed", body)
    try:
        with urllib.request.urlopen(request, timeout=30) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


@pytest.fixture
def gunicorn(minilm, tmp_path):
    """Serve with two workers; yield the port, and the file to which they write their pids."""
    listening = socket.create_server(("127.0.0.1", 0))
    log = tmp_path / "log"
    options = [
        "--preload",
        "--workers=2",
        f"--bind=fd://{listening.fileno()}",
        f"--chdir={SERVER.parent}",
        f"--access-logfile={log}",
        "--access-logformat=%(p)s",
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", *options, f"server:embedder({str(minilm)!r})"],
        pass_fds=[listening.fileno()],
        env=os.environ | {"HEADWISE_NUM_THREADS": "1", "HOME": str(tmp_path)},
    )
    try:
        yield listening.getsockname()[1], log
        process.terminate()
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        listening.close()


@pytest.mark.skipif(sys.platform == "win32", reason="gunicorn needs fork()")
def test_two_workers(gunicorn, minilm, expected):
    port, log = gunicorn
    body = json.dumps({"texts": TEXTS}).encode()
    workers = set()
    with ThreadPoolExecutor(4) as clients:
        for _ in range(50):  # until each worker was busy when a request came
            for status, answer in clients.map(post, [port] * 4, [body] * 4):
                assert status == 200
                assert_same_bits(np.array(answer["vectors"], np.float32), expected)
            workers = {int(pid.strip("<>")) for pid in log.read_text().split()}
            if len(workers) == 2:
                break
    assert len(workers) == 2
    assert post(port, b"{")[0] == 400
    assert post(port, b'{"texts": [1]}')[0] == 400
    if sys.platform == "linux":
        packed = packed_bytes(hw.TextEncoder.from_pretrained(minilm).encoder)
        for pid in workers:
            assert shared_bytes(pid) > packed > 40e6
    assert post(port, body)[0] == 200


def test_limits_are_those_of_the_page(server):
    page = (SERVER.parents[1] / "docs" / "howto" / "gunicorn.md").read_text("utf-8")
    assert f"{server.MAX_BYTES >> 20} MiB, or more than {server.MAX_TEXTS} texts" in page


def packed_bytes(encoder):
    """Return the size of the weights as the kernels read them, which no file holds."""
    return sum(
        linear.packed.nbytes
        for layer in encoder.layers
        for part in (layer.attention, layer.feed_forward)
        for linear in vars(part).values()
        if isinstance(linear, hw.Linear)
    )


def shared_bytes(pid):
    """Return how much a process shares of what it or its parent has written."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    kilobytes = {line.split()[0]: int(line.split()[1]) for line in lines}
    return kilobytes["Shared_Dirty:"] * 1024
