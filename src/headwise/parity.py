"""What a precision costs: a model's embeddings in it, held against those in float32."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .functional.linear import Precision

_ROWS = 512  # rows of the matrix of cosines that are held at once: 40 MB for 10,000 texts


@dataclass(frozen=True)
class Parity:
    """How far embeddings in one precision are from those in float32.

    Attributes
    ----------
    precision : str
    texts : int
        How many texts were embedded.
    neighbours : int
        How many nearest texts of each were compared.
    largest_error : float
        The largest difference of an element, in absolute terms.
    lowest_cosine, mean_cosine : float
        Of the angle between the two vectors of a text; 1 means that they point the same way.
    neighbour_agreement : float
        Of the nearest texts of a text in float32, the fraction that is nearest in the other
        precision too; the mean over all texts.

    Examples
    --------
    >>> import headwise as hw
    >>> print(hw.Parity("int8", 214, 10, 0.0234, 0.9912, 0.99651, 0.9603))
    int8 against float32, 214 texts
      largest error of an element  2.3e-02
      cosine, lowest               0.991200
      cosine, mean                 0.996510
      same 10 nearest texts        96.0 %

    """

    precision: str
    texts: int
    neighbours: int
    largest_error: float
    lowest_cosine: float
    mean_cosine: float
    neighbour_agreement: float

    def __str__(self) -> str:
        nearest = f"same {self.neighbours} nearest texts"
        return (
            f"{self.precision} against float32, {self.texts} texts\n"
            f"  largest error of an element  {self.largest_error:.1e}\n"
            f"  cosine, lowest               {self.lowest_cosine:.6f}\n"
            f"  cosine, mean                 {self.mean_cosine:.6f}\n"
            f"  {nearest:27}  {100 * self.neighbour_agreement:.1f} %"
        )


def parity(
    folder: str | Path,
    precision: Precision,
    texts: Iterable[str] | None = None,
    *,
    neighbours: int = 10,
) -> Parity:
    """Measure how far a model's embeddings in a precision are from those in float32.

    Parameters
    ----------
    folder : str or Path
        A model folder or hub id, as `TextEncoder.from_pretrained` takes it.
    precision : {"float32", "bfloat16", "int8"}
    texts : iterable of str, optional
        More than `neighbours` of them, best of the kind that the model is used for. By default
        some 200 that come with headwise: of one word to a paragraph, on many subjects, with some
        code, numbers and other languages.
    neighbours : int
        How many nearest texts of each, by cosine and without itself, are compared.

    Returns
    -------
    Parity
        Printed, it is a report.

    Raises
    ------
    TypeError
        If `texts` is one str or no iterable, or holds something else than str.
    ValueError
        If there are too few texts, `neighbours` is less than 1 or `precision` is unknown.
    FileNotFoundError
        If the model cannot be found.

    Examples
    --------
    >>> import headwise as hw
    >>> print(hw.parity("models/all-MiniLM-L6-v2", "bfloat16"))  # doctest: +SKIP

    """
    from .text import TextEncoder

    if texts is None:
        texts = default_texts()
    if isinstance(texts, str) or not isinstance(texts, Iterable):
        raise TypeError(f"texts is a {type(texts).__name__}: it must be an iterable of several str")
    texts = list(texts)
    _check_neighbours(neighbours, len(texts))
    vectors, expected = (
        TextEncoder.from_pretrained(folder, kind).encode(texts, on_truncate="ignore")
        for kind in (precision, "float32")
    )
    return compare(vectors, expected, precision, neighbours=neighbours)


def compare(
    vectors: npt.ArrayLike, expected: npt.ArrayLike, precision: str, *, neighbours: int = 10
) -> Parity:
    """Compare vectors of texts with the float32 vectors of the same texts.

    Parameters
    ----------
    vectors, expected : (n, dim) arrays of float
        None of them may be zero.
    precision : str
        What `vectors` were computed in.
    neighbours : int
        Less than n.

    Returns
    -------
    Parity

    Raises
    ------
    ValueError
        If the shapes differ or are not (n, dim), or `neighbours` is not from 1 to n - 1.

    Examples
    --------
    >>> from headwise.parity import compare
    >>> exact = [[1, 0], [0.8, 0.6], [0, 1]]
    >>> close = [[1, 0], [0.6, 0.8], [0, 1]]
    >>> result = compare(close, exact, "int8", neighbours=1)
    >>> round(result.lowest_cosine, 6), round(result.neighbour_agreement, 6)
    (0.96, 0.666667)

    """
    x, y = np.asarray(vectors, np.float64), np.asarray(expected, np.float64)
    if x.ndim != 2 or x.shape != y.shape:
        raise ValueError(
            f"vectors has shape {x.shape} and expected has {y.shape}: both must be (n, dim)"
        )
    _check_neighbours(neighbours, len(x))
    unit_x, unit_y = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (x, y))
    cosines = (unit_x * unit_y).sum(1)
    common = sum(
        len(np.intersect1d(*pair))
        for pair in zip(_nearest(unit_x, neighbours), _nearest(unit_y, neighbours), strict=True)
    )
    return Parity(
        precision=precision,
        texts=len(x),
        neighbours=neighbours,
        largest_error=float(np.abs(x - y).max()),
        lowest_cosine=float(cosines.min()),
        mean_cosine=float(cosines.mean()),
        neighbour_agreement=common / (len(x) * neighbours),
    )


def default_texts() -> list[str]:
    """Return the texts that `parity` embeds when it is given none."""
    from importlib.resources import files

    return files(__package__).joinpath("parity_texts.txt").read_text("utf-8").splitlines()


def _check_neighbours(neighbours: int, num_texts: int) -> None:
    if neighbours < 1:
        raise ValueError(f"neighbours is {neighbours}: it must be at least 1")
    if num_texts <= neighbours:
        raise ValueError(f"texts has {num_texts}: it must have more than neighbours, {neighbours}")


def _nearest(unit: np.ndarray, count: int) -> np.ndarray:
    """Return the rows of the nearest vectors of each, itself left out; (n, count)."""
    nearest = np.empty((len(unit), count), np.int64)
    for start in range(0, len(unit), _ROWS):
        cosines = unit[start : start + _ROWS] @ unit.T
        np.fill_diagonal(cosines[:, start:], -np.inf)
        nearest[start : start + _ROWS] = np.argsort(-cosines, axis=1, kind="stable")[:, :count]
    return nearest
