"""Make tests/golden/minilm.{json,npy}: what sentence-transformers says of 40 sentences.

    pip install sentence-transformers
    python tools/make_golden.py

The tests compare with these files, so that they need no torch.
"""

from __future__ import annotations

import json
import platform
from importlib.metadata import version
from pathlib import Path

import numpy as np
from fetch_minilm import SHA256, fetch
from sentence_transformers import SentenceTransformer

GOLDEN = Path(__file__).resolve().parents[1] / "tests" / "golden"

TEXTS = [
    # Plain sentences.
    "I love Apple phones",
    "I love apple juice",
    "She sat on the river bank.",
    "He had to go to the bank before it closed.",
    "The cat sat on the mat because it was tired.",
    "Attention is all you need.",
    "How do I reset my password?",
    "What is the way to change a forgotten password?",
    "The quick brown fox jumps over the lazy dog.",
    "In 1905 Einstein published four papers, on 3.14% of the pages; e = mc^2.",
    "Dr. O'Neill's co-workers weren't re-elected (in the U.K.), were they?",
    "def attention(q, k, v): return softmax(q @ k.T) @ v  # O(n**2)",
    "https://example.org/a/b?c=d&e=%20f#g",
    # Next to nothing.
    "",
    " ",
    "\n\t \r\n",
    ".",
    "a",
    "?!?!?!...",
    # Emoji, scripts, accents.
    "😀",
    "I 💙 it 👩‍👩‍👧‍👦 🇨🇭 ✌🏽",
    "我喜欢苹果汁",
    "東京タワーはとても高いです。",
    "한국어 문장도 있습니다.",
    "Привет, как дела?",
    "مرحبا بالعالم",
    "שלום עולם",
    "नमस्ते दुनिया",
    "Crème brûlée à la façon de l'œuvre, naïve Ångström, İstanbul, straße",
    "e\u0301 and \u00e9 are one; \ufb01 is a ligature; \u2460 a circled digit",
    # What tokenizers trip over.
    "zero\u200bwidth\u200djoiner\ufeffmark \u00ad soft",
    "nul \x00 bell \x07 escape \x1b[31m delete \x7f replacement \ufffd",
    "right \u202eto left\u202c and \ue000 private, \U0010ffff last",
    "[CLS] a [MASK] b [SEP] c [PAD] d [UNK]",
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    "x" * 3000,
    "\N{CJK UNIFIED IDEOGRAPH-4E2D}" * 200,
    # 254 tokens fit between [CLS] and [SEP]; the next is one too many, the last many.
    "word " * 254,
    "word " * 254 + "cut",
    "Long texts are cut after the 256th token, whatever comes then. " * 40,
]


def main() -> None:
    """Write both files."""
    assert len(TEXTS) == 40
    model = SentenceTransformer(str(fetch()), device="cpu")
    # One text a batch: nothing is padded, and no text's numbers hang on the others.
    vectors = model.encode(TEXTS, batch_size=1).astype(np.float32)
    packages = ["sentence-transformers", "transformers", "tokenizers", "torch", "numpy"]
    made_with = {package: version(package) for package in packages}
    about = {
        "made_with": {"python": platform.python_version(), **made_with},
        "sha256": SHA256,
        "texts": TEXTS,
    }
    GOLDEN.mkdir(exist_ok=True)
    (GOLDEN / "minilm.json").write_text(json.dumps(about, indent=1) + "\n")
    np.save(GOLDEN / "minilm.npy", vectors)


if __name__ == "__main__":
    main()
