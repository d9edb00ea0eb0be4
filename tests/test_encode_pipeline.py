"""Many texts: windows, order, batches, threads and forks change nothing but the time taken."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from checks import run_python
from tiny import MEAN, write_sentence_model
from tokenizers import Tokenizer, models

from headwise import TextEncoder, tokenization
from headwise.tokenization import Tokens, tokenize

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="module", params=["float32", "bfloat16", "int8"])
def encoder(minilm, request):
    return TextEncoder.from_pretrained(minilm, request.param)


@pytest.fixture(scope="module")
def texts():
    return json.loads((GOLDEN / "minilm.json").read_text())["texts"]


@pytest.fixture(scope="module")
def alone(encoder, texts):
    """The vector of each text when it is encoded by itself."""
    return np.stack([encoder.encode(text, on_truncate="ignore") for text in texts])


@pytest.fixture
def tiny(tmp_path):
    return TextEncoder.from_pretrained(write_sentence_model(tmp_path, MEAN))


@pytest.fixture
def window(monkeypatch):
    """Windows of 7 texts, so that few texts make several."""
    monkeypatch.setattr(tokenization, "WINDOW", 7)
    return 7


def letters(count: int, seed: int = 0) -> list[str]:
    """Return texts of no to six one-letter words."""
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(list("abcdefghijklmnop"), rng.integers(7))) for _ in range(count)]


def tokenizing_threads() -> list[str]:
    names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if name.startswith("headwise-tokenizer")]


# The bits


@pytest.mark.parametrize("batch_tokens", [1, 100, 1000, 16384])
def test_bits_of_any_batch(encoder, texts, alone, batch_tokens):
    vectors = encoder.encode(texts, batch_tokens=batch_tokens, on_truncate="ignore")
    np.testing.assert_array_equal(vectors, alone)


def test_bits_in_any_order(encoder, texts, alone):
    rng = np.random.default_rng(0)
    for _ in range(3):
        order = rng.permutation(len(texts))
        vectors = encoder.encode([texts[i] for i in order], on_truncate="ignore", batch_tokens=500)
        np.testing.assert_array_equal(vectors, alone[order])


def test_bits_on_any_number_of_threads(encoder, texts, alone, threads):
    np.testing.assert_array_equal(encoder.encode(texts, on_truncate="ignore"), alone)


def test_bits_of_windows_and_generators(encoder, texts, alone, window):
    for given in (texts, iter(texts), (text for text in texts), dict.fromkeys(texts)):
        np.testing.assert_array_equal(encoder.encode(given, on_truncate="ignore"), alone)
    assert not tokenizing_threads()


def test_bits_from_several_threads_at_once(encoder, texts, alone, window):
    vectors: dict[int, np.ndarray] = {}

    def work(part):
        vectors[part] = encoder.encode(iter(texts[part::2]), on_truncate="ignore")

    workers = [threading.Thread(target=work, args=(part % 2,)) for part in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for part in range(2):
        np.testing.assert_array_equal(vectors[part], alone[part::2])


# Batches


def test_batches_are_longest_first_and_within_the_budget():
    lengths = np.array([3, 9, 1, 9, 4, 2, 20, 4])
    sequences = [100 * i + np.arange(length) for i, length in enumerate(lengths)]
    tokens = Tokens(np.concatenate(sequences).astype(np.int32), lengths, 0)
    seen = []
    for rows, input_ids, cu_seqlens in tokens.batches(10):
        assert cu_seqlens[-1] == len(input_ids) <= 10 or len(rows) == 1
        for row, sequence in zip(rows, np.split(input_ids, cu_seqlens[1:-1]), strict=True):
            np.testing.assert_array_equal(sequence, sequences[row])
        seen.append(rows.tolist())
    assert seen == [[6], [1], [3], [4, 7], [0, 5, 2]]


def test_parts_bound_the_characters(monkeypatch, tiny):
    monkeypatch.setattr(tokenization, "_CHARACTERS", 10)
    parts = list(tokenization._parts(["a" * 4, "b" * 6, "c", "d" * 50, "e" * 10, "", "f"]))
    assert [list(map(len, part)) for part in parts] == [[4, 6], [1], [50], [10, 0], [1]]
    texts = letters(40)
    expected = np.stack([tiny.encode(text) for text in texts])
    np.testing.assert_array_equal(tiny.encode(texts), expected)


# Windows


@pytest.mark.parametrize("count", [0, 1, 6, 7, 8, 14, 15, 50])
def test_any_number_of_texts(tiny, window, count):
    texts = letters(count)
    vectors = tiny.encode(iter(texts))
    assert vectors.shape == (count, 12)
    assert vectors.flags.owndata
    for text, vector in zip(texts, vectors, strict=True):
        np.testing.assert_array_equal(vector, tiny.encode(text))
    input_ids, cu_seqlens = tiny.tokenize(iter(texts))
    assert (input_ids.dtype, cu_seqlens.dtype) == (np.int32, np.int64)
    for text, ids in zip(texts, np.split(input_ids, cu_seqlens[1:-1]), strict=False):
        np.testing.assert_array_equal(ids, tiny.tokenize(text)[0])


def test_an_iterator_is_read_as_it_is_needed(tiny, window, monkeypatch):
    """By the calling thread, and a window ahead of the one that is computed."""
    read: list[int] = []
    ahead = []
    inner = tiny.encoder._run

    def watched(input_ids, cu_seqlens):
        ahead.append(len(read) - computed[0])
        computed[0] += len(cu_seqlens) - 1
        return inner(input_ids, cu_seqlens)

    def generate():
        for number, text in enumerate(letters(70)):
            assert threading.current_thread() is threading.main_thread()
            read.append(number)
            yield text

    computed = [0]
    monkeypatch.setattr(tiny.encoder, "_run", watched)
    vectors = tiny.encode(generate())
    assert len(read) == len(vectors) == 70
    assert ahead == [2 * window] * 9 + [window]


def test_the_next_window_is_tokenized_meanwhile(tiny, window):
    class Slow:
        started = 0

        def encode_batch_fast(self, texts):
            Slow.started += 1
            return tiny.tokenizer.encode_batch_fast(texts)

    windows = tokenize(Slow(), letters(30), "warn")
    for number in range(1, 5):
        next(windows)
        deadline = time.monotonic() + 10
        while Slow.started < number + 1 and time.monotonic() < deadline:
            time.sleep(0.001)
        assert Slow.started == number + 1
    windows.close()
    assert not tokenizing_threads()


def test_no_thread_for_one_window(tiny, window, monkeypatch):
    monkeypatch.setattr(tokenization, "ThreadPoolExecutor", None)
    assert tiny.encode(iter(letters(window))).shape == (window, 12)
    with pytest.raises(TypeError, match="NoneType"):
        tiny.encode(iter(letters(window + 1)))


@pytest.mark.parametrize(
    ("index", "bad", "error", "message"),
    [
        (23, 5, TypeError, r"texts\[23\] is a int: it must be a str"),
        (13, "\ud800", ValueError, r"texts\[13\] is not valid Unicode"),
        (49, "a " * 30, ValueError, r"texts\[49\] has 32 tokens: .* max_length, 8"),
    ],
)
def test_errors_name_the_text(tiny, window, index, bad, error, message):
    texts = letters(50)
    texts[index] = bad
    for encode in (tiny.encode, tiny.tokenize):
        with pytest.raises(error, match=message):
            encode(iter(texts), on_truncate="error")
    assert not tokenizing_threads()


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError("broken")])
def test_leaving_early_leaves_nothing_behind(tiny, window, error, monkeypatch):
    def generate():
        yield from letters(30)
        raise error

    def fail(input_ids, cu_seqlens):
        raise error

    with pytest.raises(type(error) if isinstance(error, Exception) else error):
        tiny.encode(generate())
    assert not tokenizing_threads()
    monkeypatch.setattr(tiny.encoder, "_run", fail)
    with pytest.raises(type(error) if isinstance(error, Exception) else error):
        tiny.encode(letters(30))
    assert not tokenizing_threads()


def test_one_warning_with_the_total(tiny, window):
    texts = ["a " * (12 if number % 3 == 0 else 2) for number in range(30)]
    for call in (tiny.encode, tiny.tokenize):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            call(iter(texts))
        assert [str(w.message) for w in caught] == [
            "10 of 30 texts had more than 8 tokens and were cut"
        ]
        assert caught[0].filename == __file__


@pytest.mark.parametrize("text", ["a b", "", "a b c d e f g h"])
def test_one_text_in_any_wrapping(tiny, text):
    """A str and a list of one take a shorter way than an iterator."""
    for normalize in (None, True, False):
        expected = tiny.encode(iter([text]), on_truncate="ignore", normalize=normalize)
        assert expected.shape == (1, tiny.dim)
        for wrap, shape in ((str, (tiny.dim,)), (lambda text: [text], (1, tiny.dim))):
            vectors = tiny.encode(wrap(text), on_truncate="ignore", normalize=normalize)
            np.testing.assert_array_equal(vectors, expected.reshape(shape))


@pytest.mark.parametrize("wrap", [str, lambda text: [text], lambda text: iter([text])])
def test_one_text_that_is_too_long(tiny, wrap):
    text = "a " * 12
    with pytest.warns(UserWarning, match="1 of 1 texts had more than 8 tokens") as caught:
        tiny.encode(wrap(text))
    assert caught[0].filename == __file__
    with pytest.raises(ValueError, match=r"texts\[0\] has 14 tokens: it must have at most"):
        tiny.encode(wrap(text), on_truncate="error")


@pytest.mark.parametrize(
    ("wrap", "shown"), [(list, "20/20"), (iter, "20text"), (lambda texts: texts[0], "1/1")]
)
def test_progress_counts_texts(tiny, window, capsys, wrap, shown):
    pytest.importorskip("tqdm")
    tiny.encode(wrap(letters(20)), batch_tokens=9, progress=True)
    assert shown in capsys.readouterr().err
    tiny.encode([], progress=True)
    assert capsys.readouterr().err.endswith("\n")


# Tokenizers


@pytest.mark.parametrize("kind", ["BPE", "Unigram"])
def test_threads_share_a_tokenizer_with_a_cache(tiny, kind):
    """Many at once, on one object, with more words than its cache holds."""
    if kind == "BPE":
        vocabulary = {"[UNK]": 0, "x": 1} | {c: i for i, c in enumerate("abcdefgh", 2)}
        merges = [("a", "b"), ("c", "d")]
        model = models.BPE(vocabulary | {"ab": 10, "cd": 11}, merges, unk_token="[UNK]")
    else:
        model = models.Unigram([("x", -1.0), *((c, -2.0) for c in "abcdefgh")], unk_id=0)
    shared = TextEncoder(tiny.encoder, Tokenizer(model))
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(list("abcdefgh"), 9)) for _ in range(15_000)]
    expected = shared.tokenize(texts)
    wrong = []

    def work():
        for part, same in zip(shared.tokenize(texts), expected, strict=True):
            if not np.array_equal(part, same):
                wrong.append(kind)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


FORK = """
import os, time, warnings
warnings.simplefilter("ignore")  # newer Pythons warn of fork() in a process with threads
import headwise as hw
from headwise import tokenization
tokenization.WINDOW = 50
encoder = hw.TextEncoder.from_pretrained(folder)
texts = ["a b c", "d", "e f g h"] * 100
expected = encoder.encode(texts)
before = os.environ.get("TOKENIZERS_PARALLELISM")
pid = os.fork()
same = (encoder.encode(texts) == expected).all()
if pid == 0:
    os._exit(0 if same else 3)
deadline = time.monotonic() + 30
while (done := os.waitpid(pid, os.WNOHANG)) == (0, 0) and time.monotonic() < deadline:
    time.sleep(0.01)
if done == (0, 0):
    os.kill(pid, 9)
assert done == (pid, 0), done
assert same
assert os.environ.get("TOKENIZERS_PARALLELISM") == before
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork()")
@pytest.mark.parametrize("parallelism", [None, "true", "false"])
def test_a_forked_child_encodes_and_prints_nothing(tmp_path, parallelism):
    write_sentence_model(tmp_path, MEAN)
    code = f"folder = {str(tmp_path)!r}" + FORK
    assert run_python(code, check=False, TOKENIZERS_PARALLELISM=parallelism) == (0, "", "")


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
def test_ctrl_c_while_texts_are_tokenized(tmp_path):
    """Nobody waits for the rest of a window of texts, which takes half a minute here."""
    write_sentence_model(tmp_path, MEAN)
    code = f"""
import os, signal, threading, time, headwise as hw

signal.signal(signal.SIGINT, signal.default_int_handler)
encoder = hw.TextEncoder.from_pretrained({str(tmp_path)!r})

def press():
    global sent
    sent = time.monotonic()
    os.kill(os.getpid(), signal.SIGINT)

threading.Timer(0.3, press).start()
try:
    encoder.tokenize(["a b " * 20_000] * 5000, on_truncate="ignore")
    print("finished")
except KeyboardInterrupt:
    print("interrupted", time.monotonic() - sent < 5)
print(len(encoder.encode("a b")))
"""
    assert run_python(code) == "interrupted True\n12"
