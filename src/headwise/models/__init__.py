"""Model folders, as transformers saves them, to `headwise.Encoder`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

from ..functional.linear import Precision
from ..nn import Encoder
from .bert import BERT
from .files import Config

FAMILIES = {"bert": BERT}
PRECISIONS = get_args(Precision)


def load(folder: str | Path, precision: Precision = "float32") -> Encoder:
    """Load an encoder from a folder with ``config.json`` and ``model.safetensors``.

    Parameters
    ----------
    folder : str or Path
        A local model folder.
    precision : {"float32", "bfloat16", "int8"}
        What the weights are held and multiplied in.

    Returns
    -------
    Encoder

    Raises
    ------
    FileNotFoundError
        If the folder or one of its files is missing.
    ValueError
        If a file is damaged, the model is of a kind that is not supported, or the weights do not
        fit the configuration. The message names the file and the key or parameter.

    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision is {precision!r}: it must be one of {PRECISIONS}")
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    config = Config(folder / "config.json")
    model_type = config.get("model_type", str)
    if model_type not in FAMILIES:
        raise config.error("model_type", f"is {model_type!r}: it must be one of {tuple(FAMILIES)}")
    family = FAMILIES[model_type]
    options = family.options(config)
    weights = family.weights(folder, options["num_layers"])
    try:
        return Encoder(**options, weights=weights, precision=precision)
    except ValueError as error:
        names = dict(family.pairs(options["num_layers"]))
        message = re.sub(r"weights\['(.+?)'\]", lambda found: repr(names[found[1]]), str(error))
        raise ValueError(f"{folder}: {message}") from error
