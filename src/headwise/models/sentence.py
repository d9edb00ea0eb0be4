"""How a sentence-transformers folder says that texts become vectors."""

from __future__ import annotations

import re
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast, get_args

from ..functional.embedding import Pooling
from .files import Config, read_json, require

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@dataclass(frozen=True)
class SentenceModel:
    """What stands around the transformer, which is itself in `folder`."""

    folder: Path
    tokenizer: Tokenizer
    max_length: int
    pooling: Pooling
    normalize: bool


def read_sentence_model(folder: Path) -> SentenceModel:
    """Read a folder's tokenizer, limit and pooling as sentence-transformers understands them."""
    folder, pooling, normalize = _read_modules(folder)
    settings = Config(folder / "sentence_bert_config.json", missing_ok=True)
    if settings.values.get("processing_kwargs"):
        raise settings.error("processing_kwargs", "is set, which is not supported")
    tokenizer_config = Config(folder / "tokenizer_config.json", missing_ok=True)
    # Version 6 keeps the limit in tokenizer_config.json. What tokenizer.json says of truncation
    # is how it was used when it was saved, not what the model can read.
    limit = tokenizer_config.get("model_max_length", int, sys.maxsize)
    tokenizer = _read_tokenizer(folder / "tokenizer.json")
    if settings.get("do_lower_case", bool, False):
        _lower_case(tokenizer)
    if "truncation_side" in tokenizer_config.values:
        side = tokenizer_config.get("truncation_side", str)
        if side not in ("left", "right"):
            raise tokenizer_config.error(
                "truncation_side", f"is {side!r}: it must be left or right"
            )
        tokenizer.enable_truncation(512, direction=side)
    return SentenceModel(
        folder, tokenizer, settings.get("max_seq_length", int, limit), pooling, normalize
    )


def _read_modules(folder: Path) -> tuple[Path, Pooling, bool]:
    """Return the transformer's folder, the pooling, and whether vectors are normalized."""
    path = folder / "modules.json"
    if not path.is_file():
        warnings.warn(
            f"{folder} has no modules.json to say how hidden states become a vector: "
            "taking their mean",
            stacklevel=4,
        )
        return folder, "mean", False
    try:
        modules = [(str(m["type"]).rpartition(".")[2], Path(m["path"])) for m in read_json(path)]
    except (TypeError, KeyError):
        raise ValueError(f"{path}: it must be a list of objects with a type and a path") from None
    kinds = [kind for kind, _ in modules]
    for _, part in modules:
        if part.is_absolute() or ".." in part.parts:
            raise ValueError(f"{path}: a module is in {part}: it must be in the model's folder")
    if kinds[:2] != ["Transformer", "Pooling"] or kinds[2:] not in ([], ["Normalize"]):
        raise ValueError(
            f"{path}: the modules are {', '.join(kinds)}: they must be Transformer, Pooling and, "
            "optionally, Normalize"
        )
    config = Config(folder / "config_sentence_transformers.json", missing_ok=True)
    for key in ("default_prompt_name", "truncate_dim"):
        if config.values.get(key) is not None:
            raise config.error(key, "is set, which is not supported")
    transformer, pooling = (folder / part for _, part in modules[:2])
    return transformer, _read_pooling(pooling), "Normalize" in kinds


def _read_pooling(folder: Path) -> Pooling:
    config = Config(folder / "config.json")
    modes = config.values.get("pooling_mode")
    if modes is None:  # one flag for each mode, as before version 5: pooling_mode_cls_token, ...
        modes = [
            re.sub("_tokens?$", "", key.removeprefix("pooling_mode_"))
            for key, value in config.values.items()
            if key.startswith("pooling_mode_") and value
        ] or "mean"
    if isinstance(modes, list) and len(modes) == 1:
        modes = modes[0]
    if modes not in get_args(Pooling):
        raise config.error("pooling_mode", f"is {modes!r}: it must be one of {get_args(Pooling)}")
    return cast(Pooling, modes)


def _read_tokenizer(path: Path) -> Tokenizer:
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    tokenizers = require("tokenizers")
    try:
        tokenizer: Tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises nothing narrower
        raise ValueError(f"{path} is not a valid tokenizer: {error}") from error
    return tokenizer


def _lower_case(tokenizer: Tokenizer) -> None:
    normalizers = require("tokenizers").normalizers
    steps = [normalizers.Lowercase()]
    if tokenizer.normalizer is not None:
        steps.append(tokenizer.normalizer)
    tokenizer.normalizer = normalizers.Sequence(steps)
