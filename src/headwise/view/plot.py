"""Attention weights as a matplotlib figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..functional._arrays import chosen_indices
from ..nn.trace import Trace, check_trace
from .pieces import pieces_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_attention(
    trace: Trace,
    layers: int | Sequence[int] | None = None,
    heads: int | Sequence[int] | None = None,
) -> Figure:
    """Draw attention weights as heat maps: a row of them for each layer, one for each head.

    Rows of a map look, its columns are looked at. All maps have one scale of colours, which
    follows the square root of a weight, so that small ones are seen. Tokens are named where there
    is room.

    Parameters
    ----------
    trace : Trace
        Made by :meth:`TextEncoder.explain` or :meth:`Encoder.trace`.
    layers, heads : int or sequence of int, optional
        Those to draw, as :meth:`Trace.attention` takes them; all by default.

    Returns
    -------
    matplotlib.figure.Figure
        Not known to pyplot: it takes no memory once it is dropped. In a notebook it shows itself.

    Raises
    ------
    ImportError
        If matplotlib is not installed: ``pip install 'headwise[plot]'``.
    TypeError
        If `trace` is not a trace, or a layer or head is not an integer.
    ValueError
        If one is out of range, or there is no layer, head or token to draw.

    Examples
    --------
    >>> import headwise as hw
    >>> trace = hw.Encoder(vocab_size=100, num_layers=2).trace([5, 7, 11])
    >>> figure = hw.plot_attention(trace, heads=[0, 3])
    >>> [axes.get_title() for axes in figure.axes[:2]]
    ['head 0', 'head 3']
    >>> figure.savefig("attention.png")  # doctest: +SKIP
    """
    check_trace("trace", trace)
    try:
        from .figure import heat_maps
    except ImportError as error:
        raise ImportError(
            f"plot_attention needs matplotlib: pip install 'headwise[plot]' ({error})"
        ) from error
    chosen = chosen_indices("layers", layers, trace.encoder.num_layers)
    wanted = chosen_indices("heads", heads, trace.encoder.num_heads)
    weights = trace.attention(chosen, wanted)
    if weights.size == 0:
        raise ValueError(
            f"weights have shape {weights.shape}: there must be a layer, a head and a token to draw"
        )
    names = [piece.text for piece in pieces_of(trace)[0]]
    return heat_maps(weights, names, chosen, wanted)
