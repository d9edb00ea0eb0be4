"""Heat maps in a matplotlib figure; only `plot_attention` imports this."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from ..functional._arrays import Array

_NAME = 0.16  # inches that a token's name takes
_WIDEST = 16.0  # inches of maps up to which tokens are named


class _ShownFigure(Figure):
    """A figure that a notebook shows whether or not pyplot was ever imported."""

    def _repr_png_(self) -> bytes:
        image = io.BytesIO()
        self.savefig(image, format="png")
        return image.getvalue()


def heat_maps(
    weights: Array, names: Sequence[str], layers: Sequence[int], heads: Sequence[int]
) -> Figure:
    """Draw weights of shape (layers, heads, T, T), see :func:`plot_attention`."""
    rows, columns, count = weights.shape[:3]
    most = max(rows, columns)
    named = count * _NAME * most <= _WIDEST
    side = max(count * _NAME if named else 0.0, min(4.0, 12.0 / most))
    size = columns * side + 1.5, rows * side + 1.0
    figure = _ShownFigure(figsize=size, layout="compressed")
    grid = figure.subplots(rows, columns, squeeze=False)
    largest = float(weights.max())
    norm = PowerNorm(0.5, vmin=0.0, vmax=largest)
    style = {"fontsize": "x-small", "parse_math": False}  # a dollar sign begins no formula
    for (row, column), axes in np.ndenumerate(grid):
        image = axes.imshow(weights[row, column], cmap="Oranges", norm=norm)
        axes.set(xticks=[], yticks=[])
        if row == 0:
            axes.set_title(f"head {heads[column]}", fontsize="small")
        if column == 0:
            axes.set_ylabel(f"layer {layers[row]}", fontsize="small")
        if named and column == 0:
            axes.set_yticks(range(count), names, **style)
        if named and row == rows - 1:
            axes.set_xticks(range(count), names, rotation=90, **style)
    ticks = largest * np.linspace(0, 1, 5) ** 2  # at equal distances
    figure.colorbar(image, ax=grid, label="weight", aspect=40, ticks=ticks, format="%.3f")
    return figure
