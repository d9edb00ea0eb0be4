"""Texts to token ids: a window of texts at a time, each one while the one before is computed."""

from __future__ import annotations

import os
from array import array
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from threading import Event
from typing import TYPE_CHECKING, Literal, TypeGuard, get_args

import numpy as np

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

OnTruncate = Literal["warn", "error", "ignore"]
ON_TRUNCATE: tuple[OnTruncate, ...] = get_args(OnTruncate)

# Texts that are sorted together: enough to fill batches with texts of one length, and to take so
# long that handing them to a thread costs nothing; few enough to hold (8 MB at 512 tokens each).
WINDOW = 4096

# Characters tokenized in one call: of a token the tokenizer holds its string, offsets and masks,
# some 100 bytes, and it holds what is cut off as well. This is 25 MB, whatever the texts.
_CHARACTERS = 1 << 20

# So few texts, of so many characters in all, are tokenized sooner one by one by the calling thread
# than the tokenizer's threads are woken.
_FEW = 16
_FEW_CHARACTERS = 1 << 10


@dataclass(frozen=True)
class Tokens:
    """The tokens of some texts.

    Attributes
    ----------
    input_ids : (T,) int32 array
        One text after the other, special tokens included.
    lengths : (n,) int64 array
        How many tokens each text has.
    num_cut : int
        How many of the texts had more than the tokenizer's limit.

    """

    input_ids: np.ndarray
    lengths: np.ndarray
    num_cut: int

    def batches(self, batch_tokens: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Cut into batches of at most `batch_tokens` tokens, or of one text, longest texts first.

        Yields
        ------
        rows : (B,) int64 array
            Which texts they are.
        input_ids : (T,) int64 array
            Their tokens.
        cu_seqlens : (B + 1,) int64 array
            Where each begins.

        """
        n = len(self.lengths)
        order = np.argsort(-self.lengths, kind="stable")
        starts = np.cumsum(self.lengths) - self.lengths
        cu_seqlens = np.concatenate(([0], np.cumsum(self.lengths[order])))
        first = 0
        while first < n:
            limit = cu_seqlens[first] + batch_tokens
            last = max(first + 1, int(np.searchsorted(cu_seqlens, limit, side="right")) - 1)
            rows, bounds = order[first:last], cu_seqlens[first : last + 1] - cu_seqlens[first]
            moved = np.repeat(starts[rows] - bounds[:-1], self.lengths[rows])
            yield rows, self.input_ids[np.arange(bounds[-1]) + moved].astype(np.int64), bounds
            first = last


def tokenize(
    tokenizer: Tokenizer, texts: str | Iterable[str], on_truncate: OnTruncate
) -> Generator[Tokens]:
    """Yield the tokens of each window of texts; the next is made while this one is used.

    The texts are taken from their iterable by the calling thread, a window ahead. A generator
    that is left early must be closed, which ends its thread.

    Parameters
    ----------
    tokenizer : tokenizers.Tokenizer
        It cuts texts and does not pad. Threads may share one that nobody changes: calls hold no
        lock, and the caches of its model (BPE, Unigram) are bounded and are never waited for.
    texts : str or iterable of str
    on_truncate : {"warn", "error", "ignore"}

    Raises
    ------
    TypeError
        If a text is not a str.
    ValueError
        If a text holds a lone surrogate, or is cut and `on_truncate` is "error".

    """
    windows = _windows(texts)
    first, second = next(windows, []), next(windows, [])
    left = Event()
    if not second:  # no thread for a short call
        if first:
            yield _tokenize(tokenizer, first, 0, on_truncate, left)
        return
    with ThreadPoolExecutor(1, "headwise-tokenizer") as thread:
        try:
            ahead = thread.submit(_tokenize, tokenizer, first, 0, on_truncate, left)
            for number, window in enumerate(chain([second], windows), 1):
                tokens = ahead.result()
                ahead = thread.submit(
                    _tokenize, tokenizer, window, number * WINDOW, on_truncate, left
                )
                yield tokens
            yield ahead.result()
        finally:
            left.set()


def _windows(texts: str | Iterable[str]) -> Iterator[list[str]]:
    if isinstance(texts, str):
        texts = (texts,)
    if not isinstance(texts, Iterable):
        raise TypeError(
            f"texts is a {type(texts).__name__}: it must be a str or an iterable of str"
        )
    iterator = iter(texts)
    while window := list(islice(iterator, WINDOW)):
        yield window


def _tokenize(
    tokenizer: Tokenizer, texts: list[str], first: int, on_truncate: OnTruncate, left: Event
) -> Tokens:
    """Tokenize texts of which the first is ``texts[first]`` to the caller, until that has left."""
    for index, text in enumerate(texts, first):
        _check_text(f"texts[{index}]", text)
    input_ids, lengths, num_cut = array("i"), array("q"), 0
    for part in _parts(texts):
        if left.is_set():
            break
        for encoding in tokenizer.encode_batch_fast(part):
            if encoding.overflowing:
                if on_truncate == "error":
                    raise _too_long(f"texts[{first + len(lengths)}]", tokenizer, encoding)
                num_cut += 1
            input_ids.extend(encoding.ids)
            lengths.append(len(encoding))
    return Tokens(np.array(input_ids, np.int32), np.array(lengths, np.int64), num_cut)


def _parts(texts: list[str]) -> Iterator[Sequence[str]]:
    """Cut the texts into runs of at most `_CHARACTERS`, or of one text."""
    start = size = 0
    for stop, text in enumerate(texts):
        size += len(text)
        if size > _CHARACTERS and stop > start:
            yield texts[start:stop]
            start, size = stop, len(text)
    yield texts[start:]


def are_few(texts: object) -> TypeGuard[list[str]]:
    """Return whether they are a list for `tokenize_few`, which says so if one is not a text."""
    if not isinstance(texts, list) or not 1 <= len(texts) <= _FEW:
        return False
    return (
        len(texts) == 1
        or sum(len(text) for text in texts if isinstance(text, str)) <= _FEW_CHARACTERS
    )


def tokenize_few(
    tokenizer: Tokenizer, texts: list[str], on_truncate: OnTruncate
) -> tuple[list[int], list[int], int]:
    """Return input_ids, cu_seqlens and how many texts were cut, on the calling thread.

    As lists: after the weights of a call have gone through the caches, each operation on arrays
    costs several times its usual time.
    """
    input_ids: list[int] = []
    cu_seqlens = [0]
    num_cut = 0
    for index, text in enumerate(texts):
        encoding = tokenize_one(tokenizer, f"texts[{index}]", text, on_truncate)
        input_ids += encoding.ids
        cu_seqlens.append(len(input_ids))
        num_cut += bool(encoding.overflowing)
    return input_ids, cu_seqlens, num_cut


def tokenize_one(tokenizer: Tokenizer, name: str, text: str, on_truncate: OnTruncate) -> Encoding:
    """Return what the tokenizer says of one text, with strings and offsets.

    Errors are as above, and call the text by the name that it has for the caller.
    """
    _check_text(name, text)
    encoding = tokenizer.encode(text)
    if encoding.overflowing and on_truncate == "error":
        raise _too_long(name, tokenizer, encoding)
    return encoding


def _check_text(name: str, text: object) -> None:
    if not isinstance(text, str):
        raise TypeError(f"{name} is a {type(text).__name__}: it must be a str")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{name} is not valid Unicode: {error}") from None


def _too_long(name: str, tokenizer: Tokenizer, encoding: Encoding) -> ValueError:
    special = tokenizer.num_special_tokens_to_add(False)
    length = len(encoding) + sum(len(part) - special for part in encoding.overflowing)
    return ValueError(
        f"{name} has {length} tokens: it must have at most max_length, {len(encoding)}"
    )


# The threads of the tokenizers package do not live on in a forked child, and a child that needs
# them waits forever. Told by its variable not to, it works on the calling thread alone. It has to
# be told before the fork: when it finds out by itself, it prints.
_VARIABLE = "TOKENIZERS_PARALLELISM"
_of_parent: list[str | None] = []


def _before_fork() -> None:
    _of_parent.append(os.environ.get(_VARIABLE))
    os.environ[_VARIABLE] = "false"


def _after_fork_in_parent() -> None:
    before = _of_parent.pop()
    if before is None:
        os.environ.pop(_VARIABLE, None)
    else:
        os.environ[_VARIABLE] = before


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_of_parent.clear,
    )
