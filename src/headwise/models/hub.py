"""Finding a model by name: a folder, then the Hugging Face cache of this machine, then the hub."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from .files import require

_REPO_ID = re.compile(r"(?!\.)(?!.*(--|\.\.|\.git$))[\w.-]+(/[\w.-]+)?", re.ASCII)
_FILES = ["*.json", "model*.safetensors", "0_Transformer/model*.safetensors"]


def resolve(name: str | Path, *, local_files_only: bool = False) -> Path:
    """Return the folder of a model, downloading it if it is not on this machine.

    Parameters
    ----------
    name : str or Path
        A folder, or an id of the Hugging Face hub such as
        ``"sentence-transformers/all-MiniLM-L6-v2"``. A folder that exists goes first.
    local_files_only : bool
        Do not download. The environment variable ``HF_HUB_OFFLINE`` does the same.

    Raises
    ------
    FileNotFoundError
        If there is no such folder, or the model is not cached and cannot be downloaded.

    """
    if name and Path(name).is_dir():
        return Path(name)
    if isinstance(name, Path) or not _REPO_ID.fullmatch(name):
        raise FileNotFoundError(f"there is no model folder {name}")
    hub, constants = require("huggingface_hub"), require("huggingface_hub.constants")
    cache = constants.HF_HUB_CACHE
    snapshot = partial(hub.snapshot_download, name, cache_dir=cache, allow_patterns=_FILES)
    offline = local_files_only or constants.HF_HUB_OFFLINE
    try:
        cached = Path(snapshot(local_files_only=True))
    except FileNotFoundError:
        cached = None
    if cached and (offline or _is_complete(cached)):
        return cached
    if offline:
        raise FileNotFoundError(
            f"{name!r} is neither a folder nor in the Hugging Face cache "
            f"({cache}), and it was not downloaded because "
            + ("local_files_only is set" if local_files_only else "HF_HUB_OFFLINE is set")
        )
    try:
        return Path(snapshot())
    except OSError as error:
        raise FileNotFoundError(
            f"{name!r} is neither a folder nor in the Hugging Face cache ({cache}), and it could "
            f"not be downloaded: {error}"
        ) from error


def _is_complete(folder: Path) -> bool:
    # A program that wanted the weights alone may have left a part: without modules.json the
    # pooling would be guessed. Only the hub knows whether the model has one.
    return all(
        any(folder.rglob(pattern))
        for pattern in ("modules.json", "*/config.json", "tokenizer.json", "model*.safetensors")
    )
