"""One look for all plots, written as SVG that follows the reader's light or dark scheme.

A file has the light colours in place, and a style sheet that turns each into its dark one: it is
right in a page and as an image, and still legible where style sheets are not read.
"""

from __future__ import annotations

import io
import re
from typing import NamedTuple

DARK = {}  # of each colour in use


def _colour(light: str, dark: str) -> str:
    DARK[light] = dark
    return light


BACK = _colour("#ffffff", "#0d1117")
TEXT = _colour("#1f2328", "#f0f6fc")
MUTED = _colour("#59636e", "#9198a1")
GRID = _colour("#d8dee4", "#30363d")


class Look(NamedTuple):
    colour: str
    marker: str


# After Okabe and Ito: told apart whatever colours one sees. In the order of drawing.
_PURPLE = _colour("#b5568c", "#e79fc9")
_SKY = _colour("#48a0cf", "#93d0f5")
LOOKS = {
    "numpy": Look(_colour("#767d85", "#a0a8b0"), "s"),
    "torch": Look(_PURPLE, "^"),
    "sentence-transformers": Look(_PURPLE, "^"),
    "openvino": Look(_colour("#009e73", "#2fc79a"), "v"),
    "onnxruntime": Look(_colour("#0072b2", "#4da3e0"), "D"),
    "onnxruntime-mha": Look(_SKY, "d"),
    "onnxruntime-fused": Look(_SKY, "d"),
    "headwise": Look(_colour("#d55e00", "#ff8f40"), "o"),
}
NAMES = {
    "numpy": "naive NumPy",
    "openvino": "OpenVINO",
    "onnxruntime": "ONNX Runtime",
    "onnxruntime-mha": "ONNX Runtime MHA",
    "onnxruntime-fused": "ONNX Runtime fused",
}
PRECISIONS = ("float32", "bfloat16", "int8")

WIDTH = 8.6  # inches of 72 points: the 830 pixels of a page on a code host
FONTS = "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif"
SETTINGS = {
    "font.family": ["DejaVu Sans"],  # comes with matplotlib and is wider than FONTS: it will fit
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.linewidth": 0.6,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "svg.fonttype": "none",
    "figure.facecolor": BACK,
    "axes.facecolor": BACK,
    "text.color": TEXT,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": TEXT,
    "axes.edgecolor": GRID,
    "grid.color": GRID,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
}


def pyplot():
    """Return matplotlib.pyplot, drawing without a screen."""
    try:
        import matplotlib
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install 'headwise[plot]'") from error
    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    return plt


def label(library: str) -> str:
    return NAMES.get(library, library)


def ordered(libraries) -> list[str]:
    """Return them in the order of keys and tables, headwise first."""
    return [x for x in reversed(LOOKS) if x in libraries]


def key(where, entries: list[tuple[str, str, str]], place="outside upper left", columns=9) -> None:
    """Write (label, colour, marker) in a row above the panels, or within one of them."""
    from matplotlib.lines import Line2D

    where.legend(
        handles=[
            Line2D([], [], color=colour, marker=marker, markersize=5, linestyle="", label=name)
            for name, colour, marker in entries
        ],
        loc=place,
        ncols=min(columns, len(entries)),
        frameon=False,
        labelcolor=[colour for _, colour, _ in entries],
        fontsize=7.5,
        handletextpad=0,
        columnspacing=1,
    )


def svg(figure, name: str, title: str) -> str:
    """Return the figure as an SVG element: the same text each time, with no reference outside."""
    plt = pyplot()
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with plt.rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata=nothing)
    plt.close(figure)
    text = _small(buffer.getvalue())
    head, _, body = text.partition(">")
    head = re.sub(r' (width|height)="([\d.]+)pt"', "", head, count=2)
    return f'{head} role="img" aria-label="{title}">\n{_dark_sheet(body)}{body}'


def _small(text: str) -> str:
    """Return the element alone, without what no reader needs, and with fonts that readers have."""
    text = text[text.index("<svg") :]  # without the declarations, which a page could not hold
    text = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    referred = set(re.findall(r"#([\w-]+)", text))
    text = re.sub(r' id="([^"]+)"', lambda m: m[0] if m[1] in referred else "", text)
    text = re.sub(r' transform="rotate\(-0 [^"]*"', "", text)
    text = re.sub(r"<[^>]+>", lambda tag: re.sub(r"(\.\d\d)\d+", r"\1", tag[0]), text)
    text = re.sub(r"\s*\n\s*", "\n", text)
    text = re.sub(r"\n(?!<)", " ", text)
    return text.replace("'DejaVu Sans'", FONTS)


def _dark_sheet(body: str) -> str:
    rules = "".join(
        f'[style*="{part}: {light}"]{{{part}:{dark}!important}}\n'
        for light, dark in DARK.items()
        for part in ("fill", "stroke")
        if f"{part}: {light}" in body
    )
    return f"<style>\n@media (prefers-color-scheme: dark) {{\n{rules}}}\n</style>\n"
