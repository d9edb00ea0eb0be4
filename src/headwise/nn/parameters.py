"""An encoder's weights by name: drawn at random, or checked."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..functional._arrays import Array, describe


def random_weights(shapes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, Array]:
    """Draw weights of these shapes: Glorot and Bengio (2010), biases 0, norms 1."""
    rng = np.random.default_rng(seed)

    def draw(name: str, shape: tuple[int, ...]) -> Array:
        if name.startswith("embeddings.") and len(shape) == 2:
            return rng.standard_normal(shape, np.float32)
        if len(shape) == 2:
            bound = (6 / sum(shape)) ** 0.5
            return rng.uniform(-bound, bound, shape).astype(np.float32)
        fill = 1.0 if name.endswith("norm.weight") else 0.0
        return np.full(shape, fill, np.float32)

    return {name: draw(name, shape) for name, shape in shapes.items()}


def checked_weights(
    weights: Mapping[str, Array], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, Array]:
    """Return the weights as arrays if they are of exactly these names and shapes, in float32."""
    for title, names in (
        ("weights lacks", shapes.keys() - weights.keys()),
        ("weights has what the model does not:", weights.keys() - shapes.keys()),
    ):
        if names:
            some = sorted(names)[:3]
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise ValueError(f"{title} {', '.join(some)}{more}")
    checked = {}
    for name, shape in shapes.items():
        w = np.asarray(weights[name])
        if w.dtype != np.float32:
            raise TypeError(f"weights[{name!r}] has dtype {w.dtype}: it must be float32")
        if w.shape != shape:
            raise ValueError(
                f"weights[{name!r}] has shape {describe(w.shape)}: it must be {describe(shape)}"
            )
        checked[name] = w
    return checked
