"""Sentence embeddings: a tokenizer, an encoder, pooling."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Iterable, Sized
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .functional._arrays import as_integer
from .functional.embedding import POOLINGS, Pooling, pool_packed
from .functional.linear import Precision
from .models import load
from .models.hub import resolve
from .models.sentence import read_sentence_model
from .nn import Encoder, Tokens, Trace
from .tokenization import (
    ON_TRUNCATE,
    OnTruncate,
    are_few,
    tokenize,
    tokenize_few,
    tokenize_one,
)

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class TextEncoder:
    """Turns texts into vectors.

    Several threads may encode with one `TextEncoder`; its attributes `max_length`, `pooling` and
    `normalize` may be set while none does. One that was made by `from_pretrained` can be pickled
    and copied: that loads the model again, and takes the three along.

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
        self.pooling = pooling
        tokenizer.no_padding()
        self.encoder = encoder
        self.tokenizer = tokenizer
        self.max_length = encoder.max_positions if max_length is None else max_length
        self.normalize = normalize
        self.dim = encoder.hidden_size
        self._source: tuple[str, Precision, bool] | None = None
        self._folder: Path | None = None

    @property
    def max_length(self) -> int:
        """Longest text in tokens, special tokens included."""
        return self._max_length

    @max_length.setter
    def max_length(self, max_length: int) -> None:
        max_length = as_integer("max_length", max_length, 0)
        special = self.tokenizer.num_special_tokens_to_add(False)
        if max_length <= special:
            raise ValueError(
                f"max_length is {max_length}: it must be more than the {special} special tokens "
                "that the tokenizer adds to a text"
            )
        self._max_length = min(max_length, self.encoder.max_positions)
        side = (self.tokenizer.truncation or {"direction": "right"})["direction"]
        self.tokenizer.enable_truncation(self._max_length, direction=side)

    @property
    def pooling(self) -> Pooling:
        """How the hidden states of a text become one vector."""
        return self._pooling

    @pooling.setter
    def pooling(self, pooling: Pooling) -> None:
        if pooling not in POOLINGS:
            raise ValueError(f"pooling is {pooling!r}: it must be one of {POOLINGS}")
        self._pooling = pooling

    @classmethod
    def from_pretrained(
        cls, name: str | Path, precision: Precision = "float32", *, local_files_only: bool = False
    ) -> TextEncoder:
        """Load a sentence-transformers model, or a plain transformers model with mean pooling.

        Parameters
        ----------
        name : str or Path
            A model folder, or an id of the Hugging Face hub, which is looked for in the local
            cache and then downloaded.
        precision : {"float32", "bfloat16", "int8"}
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
        loaded = cls(
            load(model.folder, precision),
            model.tokenizer,
            max_length=model.max_length,
            pooling=model.pooling,
            normalize=model.normalize,
        )
        # Another process may run in another folder, and another machine may have to download.
        name = str(Path(name).absolute() if Path(name).is_dir() else name)
        loaded._source = name, precision, local_files_only
        loaded._folder = model.folder
        return loaded

    @classmethod
    def _restored(
        cls, source: tuple[str, Precision, bool], max_length: int, pooling: Pooling, normalize: bool
    ) -> TextEncoder:
        name, precision, local_files_only = source
        restored = cls.from_pretrained(name, precision, local_files_only=local_files_only)
        restored.max_length, restored.pooling, restored.normalize = max_length, pooling, normalize
        return restored

    def __reduce__(self) -> tuple[Any, ...]:
        if self._source is None:
            raise TypeError(
                "this TextEncoder was made of an encoder and a tokenizer, which have no path to "
                "pickle it by: pickle one that was made by TextEncoder.from_pretrained, or make "
                "it anew where it is needed"
            )
        state = self._source, self.max_length, self.pooling, self.normalize
        return type(self)._restored, state

    def encode(
        self,
        texts: str | Iterable[str],
        *,
        batch_tokens: int = 16384,
        normalize: bool | None = None,
        progress: bool = False,
        on_truncate: OnTruncate = "warn",
    ) -> np.ndarray:
        """Embed texts.

        A text's vector does not depend, in any bit, on the texts it is encoded with.

        Parameters
        ----------
        texts : str or iterable of str
            One text, or n of them. An iterator is read a few thousand texts ahead at most.
        batch_tokens : int
            At most how many tokens run through the encoder at once, if no single text has more.
            Bounds the memory.
        normalize : bool, optional
            Whether vectors are scaled to length 1. By default as the model says.
        progress : bool
            Show a progress bar, of texts; needs tqdm.
        on_truncate : {"warn", "error", "ignore"}
            What to do about texts of more than `max_length` tokens, which are cut.

        Returns
        -------
        (n, dim) float32 array
            In the order of `texts`; (dim,) for one str.

        Raises
        ------
        TypeError
            If a text is not a str, whose index the message gives, or `batch_tokens` no integer.
        ValueError
            If a text holds a lone surrogate, or is too long and `on_truncate` is "error", or
            `batch_tokens` is less than 1.

        """
        as_integer("batch_tokens", batch_tokens, 1)
        check_on_truncate(on_truncate)
        few = [texts] if isinstance(texts, str) else texts
        if are_few(few) and not progress:
            input_ids, cu_seqlens, num_cut = tokenize_few(self.tokenizer, few, on_truncate)
            if len(input_ids) <= batch_tokens or len(few) == 1:
                # Nothing to sort, to cut into batches or to make ahead.
                if num_cut and on_truncate == "warn":
                    self._warn(num_cut, len(few))
                ids, starts = np.array(input_ids, np.int64), np.array(cu_seqlens, np.int64)
                vectors = self._vectors(ids, starts, normalize)
                return vectors[0] if isinstance(texts, str) else vectors
        vectors = np.empty((0, self.dim), np.float32)
        done = num_cut = 0
        bar = _progress_bar(texts) if progress else None
        windows = self._encode_windows(
            texts, batch_tokens, normalize, on_truncate, None if bar is None else bar.update
        )
        with closing(windows), nullcontext() if bar is None else bar:
            for found, cut in windows:
                # In place: nobody else has seen the array, and its memory grows without a copy.
                vectors.resize((done + len(found), self.dim), refcheck=False)
                vectors[done:] = found
                done += len(found)
                num_cut += cut
        if num_cut and on_truncate == "warn":
            self._warn(num_cut, done)
        return vectors[0] if isinstance(texts, str) else vectors

    def _encode_windows(
        self,
        texts: str | Iterable[str],
        batch_tokens: int,
        normalize: bool | None,
        on_truncate: OnTruncate,
        progress: Callable[[int], object] | None = None,
    ) -> Generator[tuple[np.ndarray, int]]:
        """Yield the vectors of a few thousand texts at a time, and how many of them were cut.

        It warns of nothing, and tells `progress` of how many texts each batch was. The caller has
        checked `batch_tokens` and `on_truncate`.
        """
        with closing(tokenize(self.tokenizer, texts, on_truncate)) as windows:
            for tokens in windows:
                vectors = np.empty((len(tokens.lengths), self.dim), np.float32)
                for rows, input_ids, cu_seqlens in tokens.batches(batch_tokens):
                    vectors[rows] = self._vectors(input_ids, cu_seqlens, normalize)
                    if progress is not None:
                        progress(len(rows))
                yield vectors, tokens.num_cut

    def _vectors(
        self, input_ids: np.ndarray, cu_seqlens: np.ndarray, normalize: bool | None
    ) -> np.ndarray:
        """Return one vector a sequence of the int64 stream."""
        hidden = self.encoder._run(input_ids, cu_seqlens)
        normalize = self.normalize if normalize is None else normalize
        return pool_packed(hidden, cu_seqlens, self.pooling, normalize)

    def tokenize(
        self, texts: str | Iterable[str], *, on_truncate: OnTruncate = "warn"
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return what the encoder reads: all token ids in one row, and where each text begins.

        Parameters
        ----------
        texts : str or iterable of str
        on_truncate : {"warn", "error", "ignore"}

        Returns
        -------
        input_ids : (T,) int32 array
            The tokens of all texts, special tokens included.
        cu_seqlens : (n + 1,) int64 array
            Text i is ``input_ids[cu_seqlens[i]:cu_seqlens[i + 1]]``.

        Raises
        ------
        TypeError, ValueError
            As `encode`.

        """
        check_on_truncate(on_truncate)
        windows = list(tokenize(self.tokenizer, texts, on_truncate))
        input_ids = [np.empty(0, np.int32), *(tokens.input_ids for tokens in windows)]
        lengths = [np.zeros(1, np.int64), *(tokens.lengths for tokens in windows)]
        cu_seqlens = np.cumsum(np.concatenate(lengths))
        num_cut = sum(tokens.num_cut for tokens in windows)
        if num_cut and on_truncate == "warn":
            self._warn(num_cut, len(cu_seqlens) - 1)
        return np.concatenate(input_ids), cu_seqlens

    def explain(self, text: str, *, on_truncate: OnTruncate = "warn") -> Trace:
        """Encode one text, and keep what is needed to look into every layer.

        Parameters
        ----------
        text : str
        on_truncate : {"warn", "error", "ignore"}
            What to do about a text of more than `max_length` tokens, which is cut.

        Returns
        -------
        Trace
            Hidden states, attention weights and rollout, with the tokens as strings and their
            places in the text. In a notebook it shows itself.

        Raises
        ------
        TypeError
            If `text` is not a str.
        ValueError
            If `text` holds a lone surrogate, or is too long and `on_truncate` is "error".

        Examples
        --------
        >>> encoder = headwise.TextEncoder.from_pretrained("all-MiniLM-L6-v2")  # doctest: +SKIP
        >>> trace = encoder.explain("I love Apple phones")  # doctest: +SKIP
        >>> trace.tokens.strings  # doctest: +SKIP
        ('[CLS]', 'i', 'love', 'apple', 'phones', '[SEP]')
        >>> trace.attention(layers=0).shape  # doctest: +SKIP
        (1, 12, 6, 6)

        """
        check_on_truncate(on_truncate)
        encoding = tokenize_one(self.tokenizer, "text", text, on_truncate)
        if encoding.overflowing and on_truncate == "warn":
            self._warn(1, 1)
        words = [-1 if word is None else word for word in encoding.word_ids]
        tokens = Tokens(
            text,
            tuple(encoding.tokens),
            np.array(encoding.offsets, np.int64).reshape(-1, 2),
            np.array(words, np.int64),
        )
        return replace(self.encoder.trace(encoding.ids), tokens=tokens)

    def _warn(self, num_cut: int, num_texts: int) -> None:
        warnings.warn(
            f"{num_cut} of {num_texts} texts had more than {self.max_length} tokens and were cut",
            stacklevel=3,
        )

    def __repr__(self) -> str:
        return (
            f"TextEncoder(dim={self.dim}, max_length={self.max_length}, pooling={self.pooling!r}, "
            f"normalize={self.normalize})"
        )


def check_on_truncate(on_truncate: OnTruncate) -> None:
    """Raise if it is not one of the choices."""
    if on_truncate not in ON_TRUNCATE:
        raise ValueError(f"on_truncate is {on_truncate!r}: it must be one of {ON_TRUNCATE}")


def _progress_bar(texts: str | Iterable[str]) -> Any:
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        raise ImportError("progress=True needs tqdm: pip install tqdm") from error
    one = isinstance(texts, str)
    return tqdm(total=1 if one else len(texts) if isinstance(texts, Sized) else None, unit="text")
