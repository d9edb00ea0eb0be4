"""What is there already: a finished output, or parts of one."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from .columns import texts_of
from .manifest import Manifest, Settings, TextDigest, require_same
from .parts import PartsFolder
from .reading import Source
from .run import PART_BYTES, Run
from .writing import read_manifest

_HINT = " (with --overwrite, or overwrite=True, it is made anew)"


def check_finished(path: Path, rows: Source, column: str, settings: Settings) -> Manifest:
    """Check that a finished output is what a run would make, and return its manifest.

    Raises
    ------
    FileExistsError
        If it is something else.
    ValueError
        If a setting or the texts have changed.

    """
    finished = read_manifest(path)
    if finished is None:
        raise FileExistsError(f"{path} exists, and is no corpus that headwise embedded{_HINT}")
    require_same(str(path), finished.settings, settings, _HINT)
    digest, num_rows = TextDigest(), 0
    while (table := rows.take(8192, PART_BYTES)).num_rows:
        digest.update(texts_of(table, column, num_rows))
        num_rows += table.num_rows
    if digest.hexdigest() != finished.texts:
        change = (
            "other texts" if num_rows == finished.rows else f"{num_rows} rows, not {finished.rows}"
        )
        raise ValueError(
            f"{rows.name} has changed since {path} was made of it: it has {change}{_HINT}"
        )
    return finished


def begin(folder: PartsFolder, settings: Settings, overwrite: bool) -> None:
    """Record the settings, or check that the parts that are there were made with the same."""
    if folder.settings is not None:
        try:
            require_same(str(folder.path), folder.settings, settings, _HINT)
        except ValueError:
            if not overwrite:
                raise
            folder.clear()
    folder.begin(settings)


def skip_parts(folder: PartsFolder, rows: Source, run: Run, overwrite: bool) -> pa.Table | None:
    """Read the rows of finished parts, and check that their texts are what they were.

    Returns
    -------
    pyarrow.Table or None
        If texts have changed: the rows of the first part in which they have. It and those after
        it were dropped.

    Raises
    ------
    ValueError
        If texts have changed, and nothing is to be overwritten.

    """
    for number, part in enumerate(folder.parts()):
        table = rows.take(part.rows - run.rows)
        digest = run.digest.copy()
        digest.update(texts_of(table, run.column, run.rows))
        if digest.hexdigest() != part.texts:
            if not overwrite:
                raise ValueError(
                    f"{rows.name} has changed: its rows {run.rows} to {part.rows - 1} are not "
                    f"those that were embedded into {folder.path}{_HINT}"
                )
            folder.drop(number)
            return table
        run.rows, run.num_cut, run.digest = part.rows, part.num_cut, digest
    return None
