"""What headwise does, in four short parts, with all-MiniLM-L6-v2.

    python examples/demo.py [FOLDER or hub id]

Each part is a function that returns its figures; what they mean is tested in tests/test_demo.py.
"""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

import numpy as np

import headwise as hw

SENTENCES = [
    "How do I reset my password?",
    "I forgot the code to sign in.",
    "The cat sat on the mat.",
    "A kitten was resting on the rug.",
    "Stock prices fell sharply on Monday.",
    "Shares lost much of their value this week.",
]
WORDS = [
    ("apple", "I love Apple phones", "I love apple juice"),
    ("bank", "river bank", "go to the bank"),
    ("bank", "by the river bank", "go to the bank"),
]
CAT = "The cat sat on the mat because it was tired"


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Return the cosine of the angle between two vectors."""
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def similarities(model: hw.TextEncoder) -> np.ndarray:
    """Return the cosine of every pair of SENTENCES."""
    vectors = model.encode(SENTENCES)  # of length 1
    return vectors @ vectors.T


def follow(model: hw.TextEncoder, word: str, text: str) -> tuple[int, np.ndarray]:
    """Return a word's position in a text, and its vector before the first layer and after each."""
    trace = model.explain(text)
    position = trace.tokens.strings.index(word)
    return position, trace.hidden_states[:, position]


def where_it_looks(
    model: hw.TextEncoder, source: str = "it", target: str = "cat"
) -> tuple[int, int, list[tuple[str, float]]]:
    """Find the head in which `source` looks most at `target` in CAT.

    Returns its layer and number, from 1, and the tokens with their weights, heaviest first.
    """
    trace = model.explain(CAT)
    tokens = trace.tokens.strings
    row, column = tokens.index(source), tokens.index(target)
    weights = trace.attention()[:, :, row]  # (layers, heads, tokens): what `source` gives to each
    layer, head = np.unravel_index(weights[..., column].argmax(), weights.shape[:2])
    found = zip(tokens, weights[layer, head].tolist(), strict=True)
    return int(layer) + 1, int(head) + 1, sorted(found, key=lambda pair: -pair[1])


def mixed_texts(count: int, seed: int = 0) -> list[str]:
    """Return texts of one to twenty sentences, mostly short; the same for the same seed."""
    rng = random.Random(seed)
    who = ["The committee", "A young engineer", "My neighbour", "The old library", "Our team"]
    did = ["reviewed", "quietly repaired", "lost", "wrote about", "opened", "could not explain"]
    what = ["the annual report", "a broken window", "three letters", "the new bridge", "its plan"]
    when = ["in the morning", "after a long debate", "before winter came", "without any help"]
    return [
        " ".join(
            f"{rng.choice(who)} {rng.choice(did)} {rng.choice(what)} {rng.choice(when)}."
            for _ in range(min(20, 1 + int(rng.expovariate(0.25))))
        )
        for _ in range(count)
    ]


def speed(model: hw.TextEncoder, count: int = 256) -> tuple[int, int, float]:
    """Embed mixed texts; return how many, their tokens, and the seconds it took."""
    texts = mixed_texts(count)
    model.encode(texts[:16])  # wakes the threads
    start = time.perf_counter()
    model.encode(texts)
    seconds = time.perf_counter() - start
    return count, len(model.tokenize(texts)[0]), seconds


def main(name: str | Path) -> None:
    """Print all four parts."""
    model = hw.TextEncoder.from_pretrained(name)

    print("How alike are these sentences? (cosine of their vectors)\n")
    for number, (sentence, row) in enumerate(zip(SENTENCES, similarities(model), strict=True), 1):
        print(f"  {number}  {sentence:44}", *(f"{value:5.2f}" for value in row))

    print("\nHow does a word's vector change with its sentence?\n")
    columns = []
    for number, (word, *texts) in enumerate(WORDS, 1):
        (place_a, a), (place_b, b) = (follow(model, word, text) for text in texts)
        columns.append([cosine(*pair) for pair in zip(a, b, strict=True)])
        print(f"  {number}  {word:6} {' | '.join(texts):44} word {place_a} and word {place_b}")
    print("\n  cosine         ", *(f"{number:7}" for number in range(1, len(WORDS) + 1)))
    for layer, row in enumerate(zip(*columns, strict=True)):
        print(f"  {f'after layer {layer}' if layer else 'before layer 1':16}", end="")
        print("", *(f"{value:7.3f}" for value in row))
    print(
        "\n  Before the first layer a vector holds the word and its position, no more: it is the\n"
        "  same where the positions are. Then each layer mixes the sentence in. (The tokenizer\n"
        '  makes all letters small: "Apple" and "apple" are one word to this model.)'
    )

    layer, head, weights = where_it_looks(model)
    print(f'\nWhere does "it" look in "{CAT}"?')
    print(f'In layer {layer}, head {head}, of all heads the one where "cat" weighs most:\n')
    for token, weight in weights[:5]:
        print(f"  {token:8} {weight:5.2f}  {'#' * round(40 * weight)}")

    texts, tokens, seconds = speed(model)
    print(f"\nHow fast? {texts} texts of {tokens} tokens in {seconds:.2f} s:", end=" ")
    print(f"{texts / seconds:.0f} texts/s, {tokens / seconds:.0f} tokens/s")
    print(f"  headwise {hw.__version__}, {hw.active_isa()}, {hw.get_num_threads()} threads")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))
        from fetch_minilm import fetch

        main(fetch())
