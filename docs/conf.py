"""Sphinx: Markdown pages, and the API from its docstrings. ``make docs`` builds the site."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from docutils import nodes

import headwise

sys.path.insert(0, str(Path(__file__).parent))

import figures

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "headwise"
version = release = headwise.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors = 3
smartquotes = False  # what stands in quotes is to be typed

html_theme = "furo"
html_title = f"headwise {release}"
html_copy_source = False
html_show_copyright = html_show_sphinx = False

# The docstrings give types in words, with shapes; annotations would say it twice.
autodoc_typehints = "none"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
toc_object_entries_show_parents = "hide"
napoleon_google_docstring = False
# In fields of their own, each word of a type would be looked up as a class.
napoleon_use_param = napoleon_use_rtype = False
napoleon_custom_sections = [("Attributes", "params_style")]


def setup(app: Sphinx) -> None:
    """Draw the figures before the pages that show them are read."""
    app.connect("builder-inited", lambda app: figures.draw(Path(app.srcdir) / "_figures"))
    app.connect("doctree-read", trim_blocks)


def trim_blocks(app: Sphinx, doctree: nodes.document) -> None:
    """Leave out the empty line that ends a doctest before the end of its block of Markdown."""
    for block in doctree.findall(nodes.literal_block):
        block.rawsource = block.astext().rstrip()
        block[:] = [nodes.Text(block.rawsource)]
