"""The tokens of a trace as its text has them."""

from __future__ import annotations

from typing import NamedTuple

from ..nn.trace import Trace

_LONGEST = 60  # characters of a token, and between two, that are shown


class Piece(NamedTuple):
    """A token of a text.

    Attributes
    ----------
    gap : str
        What stands between it and the token before.
    text : str
        As it stands in the text; as the vocabulary spells it where that would show nothing.
    name : str
        As the vocabulary spells it.
    special : bool
        Whether it stands nowhere in the text.
    """

    gap: str
    text: str
    name: str
    special: bool


def pieces_of(trace: Trace) -> tuple[list[Piece], str]:
    """Return the tokens, and the end of the text that none of them covers."""
    if trace.tokens is None:
        return [Piece(" ", str(i), str(i), False) for i in trace.input_ids.tolist()], ""
    text, end = trace.tokens.text, 0
    pieces = []
    for name, span in zip(trace.tokens.strings, trace.tokens.offsets.tolist(), strict=True):
        begin, stop = max(span[0], end), span[1]  # several tokens may be bytes of one character
        special = span[0] == span[1]
        within = "" if special else text[begin:stop]
        gap = "" if special else text[end:begin]
        seen = within if within.strip() else name
        pieces.append(Piece(shortened(gap), shortened(seen), name, special))
        end = max(end, stop)
    rest = text[end:]
    return pieces, shortened(rest) if rest.strip() else ""


def shortened(text: str) -> str:
    """Return a text, or its beginning if it is long."""
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "\u2026"
