"""A look inside an encoder: what it did with one sequence, layer by layer."""

from __future__ import annotations

import operator
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..functional._arrays import Array, chosen_indices

if TYPE_CHECKING:
    from .encoder import Encoder


@dataclass(frozen=True)
class Tokens:
    """The tokens of a text, and where they stand in it.

    Attributes
    ----------
    text : str
    strings : tuple of T str
        As the tokenizer's vocabulary spells them.
    offsets : array of int64, shape (T, 2)
        Token i is ``text[offsets[i, 0]:offsets[i, 1]]``; (0, 0) for a special token.
    words : array of int64, shape (T,)
        Which word of the text a token belongs to; -1 for a special token.
    """

    text: str
    strings: tuple[str, ...]
    offsets: npt.NDArray[np.int64]
    words: npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False, repr=False)
class Trace:
    """What an encoder did with one sequence of T tokens.

    Made by :meth:`Encoder.trace` and :meth:`TextEncoder.explain`. It holds ``(num_layers + 2) T E``
    float32 numbers: 1.6 MB for 128 tokens of a model with 6 layers of 384. Attention weights are
    computed when they are asked for and not kept.

    Attributes
    ----------
    encoder : Encoder
    input_ids : array of int64, shape (T,)
    hidden_states : array, shape (num_layers + 1, T, E)
        What the first layer reads, then the output of each layer; float32.
    output : array, shape (T, E)
        What the encoder returns: the last of `hidden_states`, normalised once more if the model's
        `norm` is "pre".
    tokens : Tokens, optional
        If it was made from a text.
    """

    encoder: Encoder
    input_ids: npt.NDArray[np.int64]
    hidden_states: Array
    output: Array
    tokens: Tokens | None = None

    def attention(
        self, layers: int | Sequence[int] | None = None, heads: int | Sequence[int] | None = None
    ) -> Array:
        """Return attention weights, computed by the kernels that the layers run on.

        In a precision other than float32 queries and keys are projected in it, as the encoder does;
        scores and softmax are float32, where the encoder has them in bfloat16.

        Parameters
        ----------
        layers : int or sequence of int, optional
            Counted from 0, or from the last by negative numbers; all by default.
        heads : int or sequence of int, optional
            Counted so too.

        Returns
        -------
        array, shape (layers, heads, T, T)
            float32; ``[l, h, i]`` is what token i gives to each token, and sums to 1.

        Raises
        ------
        TypeError
            If a layer or head is not an integer.
        ValueError
            If one is out of range.

        Examples
        --------
        >>> import numpy as np, headwise as hw
        >>> trace = hw.Encoder(vocab_size=100, num_layers=2).trace([5, 7, 11])
        >>> weights = trace.attention(layers=-1)
        >>> weights.shape, bool(np.allclose(weights.sum(-1), 1))
        ((1, 8, 3, 3), True)
        """
        chosen = chosen_indices("layers", layers, self.encoder.num_layers)
        wanted = chosen_indices("heads", heads, self.encoder.num_heads)
        count = len(self.input_ids)
        weights = np.empty((len(chosen), len(wanted), count, count), np.float32)
        for place, layer in enumerate(chosen):
            of_layer = self.encoder.layers[layer].attention_weights
            weights[place] = of_layer(self.hidden_states[layer], heads=wanted)[0]
        return weights

    def rollout(self, num_layers: int | None = None) -> Array:
        """Return how much each token's vector holds of each token that went in.

        Attention rollout (Abnar and Zuidema, "Quantifying Attention Flow in Transformers", 2020):
        a layer passes on half of a token's own vector, by its residual connection, and half of
        what its heads attend, in the mean; layer upon layer is a product of matrices.

        Parameters
        ----------
        num_layers : int, optional
            How many layers, from the first; all by default.

        Returns
        -------
        array, shape (T, T)
            float32; row i is what token i is made of, and sums to 1.

        Raises
        ------
        TypeError
            If `num_layers` is not an integer.
        ValueError
            If it is not from 0 to the number of layers.

        Examples
        --------
        >>> import headwise as hw
        >>> trace = hw.Encoder(vocab_size=100, num_layers=2).trace([5, 7, 11])
        >>> trace.rollout(0)
        array([[1., 0., 0.],
               [0., 1., 0.],
               [0., 0., 1.]], dtype=float32)
        >>> trace.rollout().sum(1).round(4)
        array([1., 1., 1.], dtype=float32)
        """
        total = self.encoder.num_layers
        try:
            depth = total if num_layers is None else operator.index(num_layers)
        except TypeError:
            raise TypeError(f"num_layers is {num_layers!r}: it must be an integer") from None
        if not 0 <= depth <= total:
            raise ValueError(f"num_layers is {num_layers}: it must be 0 to {total}")
        made_of: Array = np.eye(len(self.input_ids), dtype=np.float32)
        for layer in range(depth):
            made_of = pass_on(self.attention(layer)[0], made_of)
        return made_of

    def to_html(
        self,
        compare: Trace | None = None,
        *,
        layers: int | Sequence[int] | None = None,
        heads: int | Sequence[int] | None = None,
    ) -> str:
        """Return a page to look at the attention weights in, with a browser and no network.

        Its tokens, heat maps and grid of heads answer to mouse and keyboard. The page is one ASCII
        text: 40 kB, and the weights, which are rounded to thousandths and packed. They grow with
        ``num_layers (num_heads + 2) T^2``: with 6 layers of 12 heads, 64 tokens make 0.2 to 0.4 MB
        and 512 tokens 4 to 9 MB. Making the page takes some 20 bytes for each weight of one layer,
        and a few times the page.

        Parameters
        ----------
        compare : Trace, optional
            Of a second text by the same encoder: both are shown, and how the vectors of the words
            that they share move apart, see :func:`shared_words`.
        layers, heads : int or sequence of int, optional
            Those to show, as :meth:`attention` takes them; all by default.

        Returns
        -------
        str

        Raises
        ------
        TypeError
            If `compare` is not a trace, or a layer or head is not an integer.
        ValueError
            If one is out of range, there is no token or layer to show, a weight is not finite, or
            `compare` is of another encoder or one of the two is not of a text.

        Examples
        --------
        >>> import headwise as hw
        >>> trace = hw.Encoder(vocab_size=100, num_layers=2).trace([5, 7, 11])
        >>> page = trace.to_html(layers=1)
        >>> page[:15], page.isascii(), len(page) < 50_000
        ('<!doctype html>', True, True)
        """
        if compare is not None:
            check_trace("compare", compare)
        from ..view.page import render

        return render(self, compare, layers=layers, heads=heads)

    def _repr_html_(self) -> str:
        """Show the page in a notebook."""
        from ..view.page import embed

        return embed(self)

    def __repr__(self) -> str:
        text = "" if self.tokens is None else f"{self.tokens.text!r}, "
        return (
            f"Trace({text}{len(self.input_ids)} tokens, {self.encoder.num_layers} layers, "
            f"{self.encoder.num_heads} heads)"
        )


def pass_on(weights: Array, made_of: Array) -> Array:
    """Take a layer's step of :meth:`Trace.rollout`; (heads, T, T) and (T, T) to (T, T)."""
    attended = weights.mean(axis=0)
    passed: Array = (attended + np.eye(len(attended), dtype=np.float32)) / 2 @ made_of
    return passed


@dataclass(frozen=True, eq=False)
class SharedWord:
    """A word that stands in two texts, and how alike its vectors are.

    Attributes
    ----------
    word : str
        In small letters.
    first, second : tuple of int
        Its tokens in each text.
    cosines : array of float32, shape (num_layers + 1,)
        Of the word's vectors in the two texts, before the first layer and after each. A word's
        vector is the mean of its tokens'.
    """

    word: str
    first: tuple[int, ...]
    second: tuple[int, ...]
    cosines: Array


def shared_words(first: Trace, second: Trace) -> list[SharedWord]:
    """Find the words that two texts share, and follow their vectors through the layers.

    A word that stands in a text several times is paired with the other's in order.

    Parameters
    ----------
    first, second : Trace
        Of texts, by the same encoder.

    Returns
    -------
    list of SharedWord
        In the order of the first text.

    Raises
    ------
    TypeError
        If one is not a trace.
    ValueError
        If a trace is not of a text, or the two are of different encoders.

    Examples
    --------
    >>> model = headwise.TextEncoder.from_pretrained("all-MiniLM-L6-v2")  # doctest: +SKIP
    >>> texts = "I love Apple phones", "I love apple juice"  # doctest: +SKIP
    >>> for shared in shared_words(*map(model.explain, texts)):  # doctest: +SKIP
    ...     print(shared.word, shared.cosines.round(2))
    """
    check_trace("first", first)
    check_trace("second", second)
    if first.encoder is not second.encoder:
        raise ValueError("first and second are traces of different encoders: they must be of one")
    found = _words("first", first), _words("second", second)
    pairs = [
        (word, *tokens)
        for word in found[0]
        for tokens in zip(found[0][word], found[1].get(word, []), strict=False)
    ]
    pairs.sort(key=operator.itemgetter(1))
    return [SharedWord(word, a, b, _cosines(first, a, second, b)) for word, a, b in pairs]


def check_trace(name: str, given: object) -> None:
    """Raise if it is not a trace."""
    if not isinstance(given, Trace):
        raise TypeError(f"{name} is a {type(given).__name__}: it must be a Trace")


def _words(name: str, trace: Trace) -> dict[str, list[tuple[int, ...]]]:
    """Return the tokens of each word of the text, for each time that it stands there."""
    if trace.tokens is None:
        raise ValueError(f"{name} is a trace of token ids: it must be one of a text")
    members = defaultdict(list)
    for token, word in enumerate(trace.tokens.words.tolist()):
        if word >= 0:
            members[word].append(token)
    found = defaultdict(list)
    for tokens in members.values():
        begin, end = trace.tokens.offsets[tokens[0], 0], trace.tokens.offsets[tokens[-1], 1]
        found[trace.tokens.text[begin:end].strip().casefold()].append(tuple(tokens))
    return found


def _cosines(first: Trace, a: tuple[int, ...], second: Trace, b: tuple[int, ...]) -> Array:
    x, y = first.hidden_states[:, a].mean(1), second.hidden_states[:, b].mean(1)
    lengths = np.linalg.norm(x, axis=-1) * np.linalg.norm(y, axis=-1)
    cosines: Array = (x * y).sum(-1) / lengths
    return cosines
