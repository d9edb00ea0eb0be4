"""What ``bench_load.py`` runs in a process of its own: import, load and embed, and tell the cost.

python bench/embed_once.py LIBRARY PRECISION SET
"""

from __future__ import annotations

import importlib
import json
import sys
import time

import memory

LIBRARIES = {  # and what a program that embeds texts with it would import
    "headwise": ["headwise"],
    "onnxruntime": ["onnxruntime", "tokenizers"],
    "openvino": ["openvino", "tokenizers"],
    "sentence-transformers": ["sentence_transformers"],
}


def embed_once(library: str, precision: str, name: str) -> dict[str, float]:
    before = time.perf_counter()
    for module in LIBRARIES[library]:
        importlib.import_module(module)
    imported = time.perf_counter()

    # These import headwise and NumPy, which is in the memory of all but in no peer's time.
    import models
    import peers_encoder
    from texts import SETS

    folder = models.minilm()  # looks at its checksum: not part of loading it
    found = time.perf_counter()
    encode = peers_encoder.text_encoder(library, precision, folder)
    loaded = time.perf_counter()
    encode(SETS["one short"])
    first = time.perf_counter()
    encode(SETS[name])
    return {
        "ms to import": 1e3 * (imported - before),
        "ms to load": 1e3 * (loaded - found),
        "ms to the first vector": 1e3 * (first - loaded),
        "MB peak": memory.peak(),
    }


if __name__ == "__main__":
    print(json.dumps(embed_once(*sys.argv[1:])))
