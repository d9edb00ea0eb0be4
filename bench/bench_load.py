"""From nothing to vectors: importing, loading all-MiniLM-L6-v2, the first vector, peak memory.

Each run is a process of its own, timed from its start to 512 embedded texts. The files are in the
page cache.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys

import embed_once
import models
import peers_encoder
import pytest

CASES = [
    (precision, library)
    for precision, libraries in peers_encoder.TEXT_ENCODERS.items()
    for library in libraries
    if library in embed_once.LIBRARIES
]


@pytest.mark.parametrize(("precision", "library"), CASES)
def bench_load(measure, precision, library, benchmark):
    benchmark.group = f"load MiniLM {precision}, then 512 mixed"
    # Exports the model on first use, and skips here what is not installed.
    peers_encoder.text_encoder(library, precision, models.minilm())
    name = "one short" if benchmark.disabled else "512 mixed"
    command = [sys.executable, embed_once.__file__, library, precision, name]
    reports = []

    def run():
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        reports.append(json.loads(done.stdout.splitlines()[-1]))

    measure(run, precision=precision, rounds=3)
    for key in reports[0]:
        benchmark.extra_info[key] = statistics.median(report[key] for report in reports)
