"""Check that the built documentation asks nothing of other servers: no font, script or style.

    python tools/check_site.py FOLDER

A link to another site is no matter: it is the reader who follows it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

# What a browser fetches by itself, and the attributes that say where from.
FETCHED = {"src", "srcset", "data", "poster", "xlink:href"}
FETCHED_AS_LINK = {"link", "image", "use", "base"}
OUTSIDE = re.compile(r"\s*(?:[a-z][a-z0-9+.-]*:)?//", re.IGNORECASE)
IN_STYLE = re.compile(r"""(?:url\(|@import)\s*["']?([^"')\s]+)""", re.IGNORECASE)


class Fetches(HTMLParser):
    """Collects the addresses that a page has its browser fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if name in FETCHED or (name == "href" and tag in FETCHED_AS_LINK):
                self.addresses.append(value or "")
            elif name == "style":
                self.addresses += IN_STYLE.findall(value or "")

    def handle_data(self, data: str) -> None:
        if self.lasttag == "style":
            self.addresses += IN_STYLE.findall(data)


def fetched_from_outside(folder: Path) -> Iterator[str]:
    """Yield each file and what it has fetched from elsewhere."""
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".css":
            addresses = IN_STYLE.findall(path.read_text("utf-8"))
        elif path.suffix in (".html", ".svg"):
            page = Fetches()
            page.feed(path.read_text("utf-8"))
            addresses = page.addresses
        else:
            continue
        for address in filter(OUTSIDE.match, addresses):
            yield f"{path.relative_to(folder)} fetches {address}"


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    if not (folder / "index.html").is_file():
        sys.exit(f"{folder} holds no site: there is no index.html")
    sys.exit("\n".join(fetched_from_outside(folder)) or None)
