"""The documentation: nothing public is left out, its figures can be drawn, links lead somewhere.

Its code blocks are doctests of their own, under docs/; ``make docs`` builds the site.
"""

from __future__ import annotations

import functools
import importlib.util
import re
from inspect import ismodule
from pathlib import Path
from xml.etree import ElementTree

import pytest

import headwise as hw
import headwise.onnx

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def module_at(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def public_objects():
    """Every function and class that is meant to be used, by each of its names."""
    for module in (hw, hw.functional, hw.nn):
        for name in module.__all__:
            if not ismodule(found := getattr(module, name)):
                yield f"{module.__name__}.{name}", found
    for name, found in vars(headwise.onnx).items():
        if not name.startswith("_") and getattr(found, "__module__", "") == "headwise.onnx":
            yield f"headwise.onnx.{name}", found


def documented_names():
    for page in DOCS.glob("api/*.md"):
        yield from re.findall(r"^\.\. auto\w+:: (headwise\.\S+)", page.read_text("utf-8"), re.M)


def test_api_pages_are_complete():
    names = list(documented_names())
    assert len(names) == len(set(names))
    documented = [functools.reduce(getattr, name.split(".")[1:], hw) for name in names]
    missing = [
        name for name, found in public_objects() if not any(found is one for one in documented)
    ]
    assert not missing, f"no page of docs/api has {', '.join(missing)}"


@pytest.mark.parametrize("source", ["README.md", "csrc/README.md"])
def test_links_lead_somewhere(source):
    path = ROOT / source
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text("utf-8"))
    assert links
    for link in links:
        assert (path.parent / link).exists(), link


def test_figures(tmp_path):
    figures = module_at(DOCS / "figures.py")
    figures.draw(tmp_path)
    page = (DOCS / "attention.md").read_text("utf-8")
    shown = re.findall(r"{image} _figures/(\S+)", page)
    assert sorted(shown) == sorted(path.name for path in tmp_path.iterdir())
    for path in tmp_path.iterdir():
        words = " ".join(ElementTree.parse(path).getroot().itertext())
        assert "apple" in words or "cat" in words


def test_figures_show_what_the_page_says(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(">>> x.round(1)\narray([0.5, 2. ], dtype=float32)\n>>> show()\na 0.10\nb 0.2\n")
    page = module_at(DOCS / "figures.py").Page(page)
    assert page.array("x.round(1)").tolist() == [0.5, 2]
    assert page.table("show()") == [("a", 0.1), ("b", 0.2)]


OUTSIDE = {
    "a.html": '<script src="https://cdn.example/x.js"></script>',
    "b.html": '<link rel="stylesheet" href="//fonts.example/css">',
    "c.html": "<style>body { background: url('http://a.example/b.png') }</style>",
    "d.html": '<p style="background: url(https://a.example/b.png)">',
    "e.css": '@import "https://fonts.example/css";',
    "f.css": "@font-face { src: url(HTTPS://fonts.example/a.woff2) }",
    "g.svg": '<svg><image xlink:href="https://a.example/b.png"/></svg>',
}
WITHIN = {
    "a.html": '<a href="https://example.com">a link</a><script src="_static/x.js"></script>',
    "b.css": "@import 'basic.css'; p { background: url(data:image/png;base64,AAAA//AA) }",
    "c.svg": '<svg xmlns="http://www.w3.org/2000/svg"><use xlink:href="#a"/></svg>',
}


def test_a_site_that_fetches_from_elsewhere_is_found(tmp_path):
    check = module_at(ROOT / "tools" / "check_site.py").fetched_from_outside
    for name, text in WITHIN.items():
        (tmp_path / name).write_text(text)
    assert list(check(tmp_path)) == []
    for name, text in OUTSIDE.items():
        (tmp_path / name).write_text(text)
    found = list(check(tmp_path))
    assert [line.split()[0] for line in found] == sorted(OUTSIDE)
