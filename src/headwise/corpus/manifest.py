"""What a corpus was embedded with, so that no two models or settings ever meet in one file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..runtime import active_isa

if TYPE_CHECKING:
    from ..text import TextEncoder

Settings = dict[str, Any]

# In the metadata of an Arrow schema.
KEY = b"headwise"


@dataclass(frozen=True)
class Manifest:
    """What rows were embedded with, and which they were.

    Attributes
    ----------
    settings : dict
        All that the bits of a vector depend on besides its text, and what the file looks like.
    rows : int
        How many.
    texts : str
        The `TextDigest` of them.
    num_cut : int
        How many texts had more tokens than the model takes.

    Examples
    --------
    >>> from headwise.corpus import Manifest
    >>> manifest = Manifest({"precision": "int8"}, rows=2, texts="b7c0...", num_cut=0)
    >>> Manifest.from_metadata(manifest.to_metadata()) == manifest
    True

    """

    settings: Settings
    rows: int
    texts: str
    num_cut: int

    def to_metadata(self) -> dict[bytes, bytes]:
        """Return what goes into a schema."""
        return {KEY: json.dumps(asdict(self)).encode()}

    @classmethod
    def from_metadata(cls, metadata: Mapping[bytes, bytes] | None) -> Manifest | None:
        """Find what `to_metadata` put in; None if it did not."""
        if metadata is None or KEY not in metadata:
            return None
        return cls(**json.loads(metadata[KEY]))


class TextDigest:
    """The SHA-256 of texts, in UTF-8 and each after its length in bytes (64 bits, little-endian).

    Examples
    --------
    >>> from headwise.corpus.manifest import TextDigest
    >>> one, two = TextDigest(), TextDigest()
    >>> one.update(["ab", "c"])
    >>> two.update(["a", "bc"])
    >>> one.hexdigest() == two.hexdigest()
    False

    """

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def update(self, texts: Iterable[str]) -> None:
        """Go on with more texts."""
        for text in texts:
            data = text.encode()
            self._hash.update(len(data).to_bytes(8, "little"))
            self._hash.update(data)

    def copy(self) -> TextDigest:
        """Return one that goes on by itself."""
        other = TextDigest()
        other._hash = self._hash.copy()
        return other

    def hexdigest(self) -> str:
        """Return the digest of all texts so far."""
        return self._hash.hexdigest()


def model_settings(encoder: TextEncoder) -> Settings:
    """Return what the bits of a vector depend on besides its text.

    Parameters
    ----------
    encoder : TextEncoder
        Made by `TextEncoder.from_pretrained`. What it was loaded by is recorded but never compared,
        as a folder may move: its files are, by their SHA-256.

    """
    folder, source = encoder._folder, encoder._source
    if folder is None or source is None:
        raise ValueError("encoder was not made by TextEncoder.from_pretrained")
    tokenizer = ("tokenizer.json", "tokenizer_config.json", "sentence_bert_config.json")
    return {
        "headwise": __version__,
        "isa": active_isa(),
        "model": source[0],
        "precision": encoder.encoder.precision,
        "pooling": encoder.pooling,
        "normalize": encoder.normalize,
        "max_length": encoder.max_length,
        "config": _sha256([folder / "config.json"]),
        "tokenizer": _sha256(folder / file for file in tokenizer),
        "weights": _sha256(sorted(folder.glob("model*.safetensors"))),
    }


def require_same(what: str, before: Settings, now: Settings, hint: str = "") -> None:
    """Raise a ValueError that names the first setting which is not as it was.

    Where too long a text was an error, none was cut: from there on they may be.

    Examples
    --------
    >>> from headwise.corpus.manifest import require_same
    >>> require_same("a.parquet", {"precision": "int8"}, {"precision": "float32"})
    Traceback (most recent call last):
    ValueError: a.parquet was made with precision 'int8', and this run has 'float32'

    """
    free = {"model"} | ({"on_truncate"} if before.get("on_truncate") == "error" else set())
    for name, value in now.items():
        if name not in free and before.get(name) != value:
            raise ValueError(
                f"{what} was made with {name} {_short(before.get(name))}, "
                f"and this run has {_short(value)}{hint}"
            )


def _short(value: object) -> str:
    """Show a digest by its beginning."""
    if isinstance(value, str) and len(value) == 64:
        return f"{value[:12]}..."
    return repr(value)


def _sha256(paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        if path.is_file():
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
    return digest.hexdigest()
