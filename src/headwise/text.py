"""Sentence embeddings: a tokenizer, an encoder, pooling."""

from __future__ import annotations

import warnings
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from .functional import pool
from .functional.embedding import Pooling
from .models import load
from .models.hub import resolve
from .models.sentence import read_sentence_model
from .nn import Encoder

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

OnTruncate = Literal["warn", "error", "ignore"]

_CHUNK = 1024  # texts tokenized in one call: enough for all threads, few enough to hold


class TextEncoder:
    """Turns texts into vectors.

    Several threads may use one `TextEncoder`: nothing in it changes after it is made.

    Parameters
    ----------
    encoder : Encoder
        From token ids to hidden states.
    tokenizer : tokenizers.Tokenizer
        Taken over: its truncation and padding are set here.
    max_length : int, optional
        Longest text in tokens, special tokens included; a longer one is cut. By default what the
        encoder has positions for, which is also the most it can be.
    pooling : {"mean", "cls", "max"}
        How the hidden states of a text become one vector.
    normalize : bool
        Whether vectors are scaled to length 1.

    Examples
    --------
    >>> encoder = headwise.TextEncoder.from_pretrained("models/all-MiniLM-L6-v2")  # doctest: +SKIP
    >>> encoder.encode(["I love Apple phones", "I love apple juice"]).shape  # doctest: +SKIP
    (2, 384)

    """

    def __init__(
        self,
        encoder: Encoder,
        tokenizer: Tokenizer,
        *,
        max_length: int | None = None,
        pooling: Pooling = "mean",
        normalize: bool = False,
    ):
        if pooling not in get_args(Pooling):
            raise ValueError(f"pooling is {pooling!r}: it must be one of {get_args(Pooling)}")
        most = encoder.max_positions
        max_length = most if max_length is None else min(max_length, most)
        special = tokenizer.num_special_tokens_to_add(False)
        if max_length <= special:
            raise ValueError(
                f"max_length is {max_length}: it must be more than the {special} special tokens "
                "that the tokenizer adds to a text"
            )
        # A tokenizer that is changed while another thread uses it raises: it is set once, here.
        tokenizer.no_padding()
        side = (tokenizer.truncation or {"direction": "right"})["direction"]
        tokenizer.enable_truncation(max_length, direction=side)
        self.encoder = encoder
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.pooling = pooling
        self.normalize = normalize
        self.dim = encoder.hidden_size

    @classmethod
    def from_pretrained(
        cls, name: str | Path, precision: str = "float32", *, local_files_only: bool = False
    ) -> TextEncoder:
        """Load a sentence-transformers model, or a plain transformers model with mean pooling.

        Parameters
        ----------
        name : str or Path
            A model folder, or an id of the Hugging Face hub, which is looked for in the local
            cache and then downloaded.
        precision : {"float32"}
            What the weights are held and multiplied in.
        local_files_only : bool
            Do not download. The environment variable ``HF_HUB_OFFLINE`` does the same.

        Raises
        ------
        FileNotFoundError
            If the model, or one of its files, cannot be found. The message says where it looked.
        ValueError
            If a file is damaged or asks for something that is not supported.
        ImportError
            If a package of ``headwise[text]`` is not installed.

        """
        model = read_sentence_model(resolve(name, local_files_only=local_files_only))
        return cls(
            load(model.folder, precision),
            model.tokenizer,
            max_length=model.max_length,
            pooling=model.pooling,
            normalize=model.normalize,
        )

    def encode(
        self,
        texts: str | Iterable[str],
        *,
        batch_tokens: int = 1024,
        normalize: bool | None = None,
        progress: bool = False,
        on_truncate: OnTruncate = "warn",
    ) -> np.ndarray:
        """Embed texts.

        A text's vector does not depend, in any bit, on the texts it is encoded with.

        Parameters
        ----------
        texts : str or iterable of str
            One text, or n of them.
        batch_tokens : int
            At most how many tokens run through the encoder at once, if no single text has more.
            Bounds the memory; far more, and hidden states fall out of the cache.
        normalize : bool, optional
            Whether vectors are scaled to length 1. By default as the model says.
        progress : bool
            Show a progress bar; needs tqdm.
        on_truncate : {"warn", "error", "ignore"}
            What to do about texts of more than `max_length` tokens, which are cut.

        Returns
        -------
        (n, dim) float32 array
            In the order of `texts`; (dim,) for one str.

        Raises
        ------
        TypeError
            If a text is not a str. The message gives its index.
        ValueError
            If a text holds a lone surrogate, or is too long and `on_truncate` is "error".

        """
        if batch_tokens < 1:
            raise ValueError(f"batch_tokens is {batch_tokens!r}: it must be at least 1")
        normalize = self.normalize if normalize is None else normalize
        input_ids, cu_seqlens = self._tokenize(texts, on_truncate)
        vectors = np.empty((len(cu_seqlens) - 1, self.dim), np.float32)
        batches: Iterable[tuple[int, int]] = list(_batches(cu_seqlens, batch_tokens))
        if progress:
            batches = _with_progress_bar(batches)
        for start, stop in batches:
            first, last = cu_seqlens[start], cu_seqlens[stop]
            bounds = cu_seqlens[start : stop + 1] - first
            hidden = self.encoder(input_ids[first:last], bounds)
            vectors[start:stop] = pool(hidden, bounds, self.pooling, normalize=normalize)
        return vectors[0] if isinstance(texts, str) else vectors

    def tokenize(
        self, texts: str | Iterable[str], *, on_truncate: OnTruncate = "warn"
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return what the encoder reads: all token ids in one row, and where each text begins.

        Returns
        -------
        input_ids : (T,) int32 array
            The tokens of all texts, special tokens included.
        cu_seqlens : (n + 1,) int64 array
            Text i is ``input_ids[cu_seqlens[i]:cu_seqlens[i + 1]]``.

        """
        return self._tokenize(texts, on_truncate)

    def _tokenize(
        self, texts: str | Iterable[str], on_truncate: OnTruncate
    ) -> tuple[np.ndarray, np.ndarray]:
        if on_truncate not in get_args(OnTruncate):
            raise ValueError(
                f"on_truncate is {on_truncate!r}: it must be one of {get_args(OnTruncate)}"
            )
        texts = _checked(texts)
        input_ids, cu_seqlens, cut = array("i"), array("q", [0]), 0
        for start in range(0, len(texts), _CHUNK):
            encodings = self.tokenizer.encode_batch_fast(texts[start : start + _CHUNK])
            for index, encoding in enumerate(encodings, start):
                if encoding.overflowing:
                    if on_truncate == "error":
                        raise ValueError(
                            f"texts[{index}] has {self._full_length(encoding)} tokens: it must "
                            f"have at most max_length, {self.max_length}"
                        )
                    cut += 1
                input_ids.extend(encoding.ids)
                cu_seqlens.append(len(input_ids))
        if cut and on_truncate == "warn":
            warnings.warn(
                f"{cut} of {len(texts)} texts had more than {self.max_length} tokens and were cut",
                stacklevel=3,
            )
        return np.array(input_ids, np.int32), np.array(cu_seqlens, np.int64)

    def _full_length(self, encoding: Encoding) -> int:
        special = int(self.tokenizer.num_special_tokens_to_add(False))
        return len(encoding.ids) + sum(len(part.ids) - special for part in encoding.overflowing)

    def __repr__(self) -> str:
        return (
            f"TextEncoder(dim={self.dim}, max_length={self.max_length}, pooling={self.pooling!r}, "
            f"normalize={self.normalize})"
        )


def _checked(texts: str | Iterable[str]) -> list[str]:
    if isinstance(texts, str):
        texts = [texts]
    if not isinstance(texts, Iterable):
        raise TypeError(
            f"texts is a {type(texts).__name__}: it must be a str or an iterable of str"
        )
    texts = list(texts)
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"texts[{index}] is a {type(text).__name__}: it must be a str")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"texts[{index}] is not valid Unicode: {error}") from None
    return texts


def _batches(cu_seqlens: np.ndarray, batch_tokens: int) -> Iterator[tuple[int, int]]:
    """Cut the texts, in order, into runs of at most `batch_tokens` tokens, or of one text."""
    start, end = 0, len(cu_seqlens) - 1
    while start < end:
        fits = int(np.searchsorted(cu_seqlens, cu_seqlens[start] + batch_tokens, side="right")) - 1
        stop = max(start + 1, fits)
        yield start, stop
        start = stop


def _with_progress_bar(batches: Iterable[tuple[int, int]]) -> Iterable[tuple[int, int]]:
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        raise ImportError("progress=True needs tqdm: pip install tqdm") from error
    bar: Iterable[tuple[int, int]] = tqdm(batches, unit="batch")
    return bar
