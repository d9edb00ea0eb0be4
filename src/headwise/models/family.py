"""A model family: a table from its parameter names to ours, and what is really different."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .files import Config
from .weights import read_weights


@dataclass(frozen=True)
class Family:
    """How the checkpoints of one family are read.

    Attributes
    ----------
    names : mapping of str to str
        Our parameter names to the checkpoint's. ``#`` stands for the number of each layer, a last
        ``*`` for ``weight`` and ``bias``.
    options : callable
        From the checked ``config.json`` to the arguments of `headwise.Encoder`.
    prefix : str
        What a name may begin with besides, when the encoder was saved within a larger model.
    ignored : tuple of str
        Beginnings of the names of parameters that an encoder has no use for.
    old_endings : mapping of str to str
        Endings that old checkpoints use, to those in `names`.

    """

    names: Mapping[str, str]
    options: Callable[[Config], dict[str, Any]]
    prefix: str = ""
    ignored: tuple[str, ...] = ()
    old_endings: Mapping[str, str] | None = None

    def weights(self, folder: Path, num_layers: int) -> dict[str, np.ndarray]:
        """Read the folder's weights under our names; none may be missing or left over."""
        found: dict[str, np.ndarray] = {}
        for name, tensor in read_weights(folder, self._skips).items():
            if found.setdefault(self._plain(name), tensor) is not tensor:
                raise ValueError(f"{folder}: the checkpoint holds {self._plain(name)!r} twice")
        weights = {}
        for ours, theirs in self.pairs(num_layers):
            if theirs not in found:
                raise ValueError(f"{folder}: the checkpoint lacks {theirs!r}")
            weights[ours] = found.pop(theirs)
        if found:
            raise ValueError(
                f"{folder}: the checkpoint has {len(found)} parameters that its config.json does "
                f"not account for, among them {min(found)!r}"
            )
        return weights

    def pairs(self, num_layers: int) -> Iterator[tuple[str, str]]:
        """Yield every (our name, checkpoint's name) of a model of `num_layers` layers."""
        for ours, theirs in self.names.items():
            for layer in range(num_layers if "#" in ours else 1):
                for kind in ("weight", "bias") if ours.endswith("*") else ("",):
                    yield _fill(ours, layer, kind), _fill(theirs, layer, kind)

    def _plain(self, name: str) -> str:
        name = name.removeprefix(self.prefix)
        for old, new in (self.old_endings or {}).items():
            if name.endswith(old):
                return name.removesuffix(old) + new
        return name

    def _skips(self, name: str) -> bool:
        return self._plain(name).startswith(self.ignored)


def _fill(name: str, layer: int, kind: str) -> str:
    return name.replace("#", str(layer)).replace("*", kind)
