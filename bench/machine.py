"""What a run records beside its times: versions, threads and their pinning, sizes on disk."""

from __future__ import annotations

import os
from importlib import metadata
from pathlib import Path

import numpy as np
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import headwise as hw

PEERS = ("torch", "sentence-transformers", "transformers", "onnxruntime", "openvino")
OTHERS = ("numpy", "tokenizers", "nncf", "onnx")
PINNING = (
    "HEADWISE_NUM_THREADS",
    "HEADWISE_ISA",
    "OMP_NUM_THREADS",
    "OMP_PROC_BIND",
    "OMP_PLACES",
    "OMP_WAIT_POLICY",
    "GOMP_CPU_AFFINITY",
    "KMP_AFFINITY",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
)

# What pip is told to install by someone who wants to embed texts.
ALTERNATIVES = {
    "headwise, arrays alone": ["headwise"],
    "headwise": ["headwise[text]"],
    "onnxruntime": ["onnxruntime", "tokenizers"],
    "openvino": ["openvino", "tokenizers"],
    "sentence-transformers": ["sentence-transformers"],
}


def record() -> dict:
    """Return what is the same in every run on this machine and in this environment."""
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return {
        "version": hw.__version__,
        "isa": hw.active_isa(),
        "threads": hw.get_num_threads(),
        "affinity": sorted(os.sched_getaffinity(0)),
        "environment": {name: os.environ[name] for name in PINNING if name in os.environ},
        "blas": f"{blas['name']} {blas['version']}",
        "versions": {name: version(name) for name in (*PEERS, *OTHERS)},
    }


def version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def sizes() -> dict[str, dict[str, float]]:
    """Return MB on disk of each alternative, by the distributions that it is made of."""
    found = {}
    for name, requirements in ALTERNATIVES.items():
        try:
            parts = everything(requirements)
            found[name] = {part: size(part) for part in sorted(parts)}
        except metadata.PackageNotFoundError:
            continue  # a peer that is not here; the report says so by its version
    return found


def everything(requirements: list[str]) -> set[str]:
    """Return the distributions that these and all that they require come to."""
    todo = [Requirement(text) for text in requirements]
    seen = set()
    while todo:
        wanted = todo.pop()
        name = canonicalize_name(wanted.name)
        for extra in {"", *wanted.extras} - {e for n, e in seen if n == name}:
            seen.add((name, extra))
            for text in metadata.requires(name) or []:
                needed = Requirement(text)
                if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                    todo.append(needed)
    return {name for name, _ in seen}


def size(name: str) -> float:
    """Return MB of the files of a distribution, in multiples of 10^6 bytes, with its bytecode."""
    if name == "headwise":  # the one that is measured, installed or not
        folder = Path(hw.__file__).parent
        files = [path for path in folder.rglob("*") if path.is_file()]
    else:
        files = [Path(file.locate()) for file in metadata.files(name) or []]
    return sum(file.stat().st_size for file in files if file.is_file()) / 1e6
