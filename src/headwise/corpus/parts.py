"""A file in the making: parts that are whole or not there, beside where it will be.

``OUT.parts/`` holds ``manifest.json``, a lock, and ``part-000000.arrow`` and so on. Whatever is
written gets another name first, reaches the disk, and is renamed.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

import pyarrow as pa

from .manifest import Manifest, Settings


class PartsFolder:
    """The folder of one output; a context manager, inside which no other process can have it.

    Parameters
    ----------
    output : Path
        The file that is to be.

    Raises
    ------
    BlockingIOError
        On entering, if another process has it.

    """

    def __init__(self, output: Path):
        self.path = output.with_name(output.name + ".parts")
        self._manifest = self.path / "manifest.json"
        self._lock = -1
        self._count = 0

    def __enter__(self) -> PartsFolder:
        if not self.path.parent.is_dir():
            raise FileNotFoundError(f"there is no folder {self.path.parent} to write to")
        while not self._try_lock():
            pass
        for leftover in self.path.glob("*.tmp"):
            leftover.unlink()
        while self._part(self._count).exists():
            self._count += 1
        self.drop(self._count)  # what comes after a part that somebody removed
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if not self._manifest.exists():
                self.clear()
                (self.path / "lock").unlink()
                with suppress(OSError):  # what others put there stays
                    self.path.rmdir()
        finally:
            os.close(self._lock)

    def _try_lock(self) -> bool:
        """Lock, or raise; False if the folder was removed meanwhile, as its work was done."""
        self.path.mkdir(exist_ok=True)
        try:
            lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(lock), os.stat(self.path / "lock")):
                self._lock = lock
                return True
        except BlockingIOError:
            os.close(lock)
            raise BlockingIOError(f"another process is working in {self.path}") from None
        except FileNotFoundError:
            pass
        os.close(lock)
        return False

    @property
    def settings(self) -> Settings | None:
        """What the parts are made with; None before they are begun."""
        try:
            settings: Settings = json.loads(self._manifest.read_text("utf-8"))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise ValueError(f"{self._manifest} is not valid JSON: {error}") from error
        return settings

    def begin(self, settings: Settings) -> None:
        """Record what the parts are made with; those of no recorded run go."""
        if not self._manifest.exists():
            self.clear()
        with replacing(self._manifest) as path:
            path.write_text(json.dumps(settings, indent=2) + "\n", "utf-8")

    def parts(self) -> list[Manifest]:
        """Return for each part what it and all before it hold."""
        return [self._read_manifest(path) for path in map(self._part, range(self._count))]

    def write(self, rows: pa.Table, manifest: Manifest) -> None:
        """Write the next part, whole or not at all."""
        rows = rows.replace_schema_metadata(manifest.to_metadata())
        with (
            replacing(self._part(self._count)) as path,
            pa.OSFile(str(path), "wb") as file,
            pa.ipc.new_file(file, rows.schema) as writer,
        ):
            writer.write_table(rows)
        self._count += 1

    def tables(self) -> Iterator[pa.Table]:
        """Yield the rows of each part, mapped."""
        for path in map(self._part, range(self._count)):
            with pa.memory_map(str(path)) as file:
                yield pa.ipc.open_file(file).read_all()

    def drop(self, first: int) -> None:
        """Remove the parts from a number on."""
        kept = set(map(self._part, range(first)))
        for path in sorted(set(self.path.glob("part-*.arrow")) - kept, reverse=True):
            path.unlink()  # the last one first: whenever this ends, there is no gap
        self._count = first

    def clear(self) -> None:
        """Remove the parts and what they were made with."""
        self._manifest.unlink(missing_ok=True)
        self.drop(0)

    def _read_manifest(self, path: Path) -> Manifest:
        try:
            with pa.memory_map(str(path)) as file:
                manifest = Manifest.from_metadata(pa.ipc.open_file(file).schema.metadata)
        except (pa.ArrowException, OSError):
            manifest = None
        if manifest is None:
            raise ValueError(f"{path} is damaged: without it the run goes on from there")
        return manifest

    def _part(self, number: int) -> Path:
        return self.path / f"part-{number:06d}.arrow"


@contextmanager
def replacing(path: Path, folder: Path | None = None) -> Iterator[Path]:
    """Give a name, in `folder`, to write to; afterwards it becomes `path`, at once and for good.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from headwise.corpus.parts import replacing
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with replacing(Path(folder) / "a.txt") as path:
    ...         n = path.write_text("whole")
    ...     (Path(folder) / "a.txt").read_text()
    'whole'

    """
    temporary = (folder or path.parent) / (path.name + ".tmp")
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
