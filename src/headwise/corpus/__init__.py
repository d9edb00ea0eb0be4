"""Corpora of texts: reading, embedding into a file, searching.

What the commands ``headwise embed`` and ``headwise similar`` do, for Python. Needs pyarrow.
"""

try:
    import pyarrow as _  # noqa: F401
except ImportError as _error:
    raise ImportError("headwise.corpus needs pyarrow: pip install 'headwise[cli]'") from _error

from .embedding import Embedded, embed_corpus, embed_to_stream
from .manifest import Manifest
from .reading import Format, Source, open_source
from .search import Neighbour, similar
from .writing import OutputFormat, read_manifest

__all__ = [
    "Embedded",
    "Format",
    "Manifest",
    "Neighbour",
    "OutputFormat",
    "Source",
    "embed_corpus",
    "embed_to_stream",
    "open_source",
    "read_manifest",
    "similar",
]
