"""Traces to one self-contained page: HTML, its style, its script and its data."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import zlib
from collections.abc import Iterator, Sequence
from importlib.resources import files
from string import Template
from typing import Any

import numpy as np

from ..functional._arrays import Array, chosen_indices
from ..nn.trace import Trace, pass_on, shared_words
from .pieces import pieces_of, shortened

# In this order they are one script: each uses those before it, and what main.js holds.
_SCRIPTS = ("data.js", "colours.js", "tokens.js", "heatmap.js", "heads.js", "words.js", "main.js")

_EMBEDDED_WEIGHTS = 4_000_000  # 2 MB or so: a notebook keeps every output in its file


def render(
    first: Trace,
    second: Trace | None = None,
    *,
    layers: int | Sequence[int] | None = None,
    heads: int | Sequence[int] | None = None,
) -> str:
    """Return the page of one trace or of two, see :meth:`Trace.to_html`."""
    encoder = first.encoder
    shown_layers = sorted(set(chosen_indices("layers", layers, encoder.num_layers)))
    shown_heads = sorted(set(chosen_indices("heads", heads, encoder.num_heads)))
    if not shown_layers:
        raise ValueError("layers is empty: there must be one to show")
    traces = [first] if second is None else [first, second]
    if any(len(trace.input_ids) == 0 for trace in traces):
        raise ValueError("the trace has no token: there must be one to show")
    data = {
        "model": f"The model has {encoder.num_layers} layers of {encoder.num_heads} heads.",
        "layers": shown_layers,
        "heads": shown_heads,
        "words": None if second is None else _words(first, second),
        "texts": [_text(trace, shown_layers, shown_heads) for trace in traces],
    }
    style, script = _asset("page.css"), "\n".join(map(_asset, _SCRIPTS))
    page = Template(_asset("page.html")).substitute(
        policy=_policy(style, script),
        title=html.escape(" | ".join(_title(trace) for trace in traces)),
        style=style,
        script=script,
        # No text can end the element that it stands in.
        data=json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"),
    )
    return page.encode("ascii", "xmlcharrefreplace").decode("ascii")


def embed(trace: Trace) -> str:
    """Return a frame that holds the page, or a sentence where the page would be too large."""
    encoder = trace.encoder
    weights = encoder.num_layers * (encoder.num_heads + 2) * len(trace.input_ids) ** 2
    summary = html.escape(repr(trace))
    if weights == 0:
        return f"<p>{summary}</p>"
    if weights > _EMBEDDED_WEIGHTS:
        return f"<p>{summary}: to_html(layers=..., heads=...) returns a page of some of them</p>"
    return (
        f'<iframe srcdoc="{html.escape(render(trace))}" title="Attention" '
        'style="width: 100%; height: 46rem; border: 0"></iframe>'
    )


def _asset(name: str) -> str:
    return files(__package__).joinpath("assets", name).read_text("ascii")


def _policy(style: str, script: str) -> str:
    """Let the browser run this style and script alone, and load nothing."""

    def digest(source: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"

    return (
        f"default-src 'none'; style-src {digest(style)}; script-src {digest(script)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _title(trace: Trace) -> str:
    if trace.tokens is None:
        return f"Attention of {len(trace.input_ids)} tokens"
    return shortened(trace.tokens.text.strip()) or "Attention"


def _text(trace: Trace, layers: list[int], heads: list[int]) -> dict[str, Any]:
    pieces, rest = pieces_of(trace)
    tokens = [piece._asdict() for piece in pieces]
    return {"tokens": tokens, "rest": rest, "weights": _pack(trace, layers, heads)}


def _words(first: Trace, second: Trace) -> list[dict[str, Any]]:
    return [
        {
            "word": shortened(shared.word),
            "tokens": [shared.first, shared.second],
            "cosines": np.round(shared.cosines.astype(np.float64), 4).tolist(),
        }
        for shared in shared_words(first, second)
    ]


def _pack(trace: Trace, layers: list[int], heads: list[int]) -> str:
    """Return the weights of each layer's heads, their mean and the rollout: thousandths, deflated.

    Of each layer the low bytes of all weights come first, then the high bytes: nearly all are 0,
    and take next to nothing.
    """
    deflate = zlib.compressobj()
    packed = []
    for layer, maps in enumerate(_maps(trace, heads, layers[-1])):
        if layer in layers:
            packed.append(deflate.compress(maps.astype(np.uint8).tobytes()))
            packed.append(deflate.compress((maps >> 8).astype(np.uint8).tobytes()))
    return base64.b64encode(b"".join([*packed, deflate.flush()])).decode()


def _maps(trace: Trace, heads: list[int], last: int) -> Iterator[Array]:
    """Yield the maps of each layer up to the last, (heads + 2, T, T) uint16 thousandths."""
    made_of: Array = np.eye(len(trace.input_ids), dtype=np.float32)
    for layer in range(last + 1):
        weights = trace.attention(layer)[0]
        made_of = pass_on(weights, made_of)
        if not np.isfinite(made_of).all():
            raise ValueError(f"weights of layer {layer} are not finite: they cannot be shown")
        maps = np.concatenate([weights[heads], weights.mean(axis=0)[None], made_of[None]])
        maps *= 1000
        yield np.rint(maps, out=maps).astype(np.uint16)
