"""Possible causes of a difference: the metas of two saved files compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from detr_viz.common.files import printable
from detr_viz.heatmaps.schema import Heatmaps

# The most likely cause first.
_INPUTS = {"weights file": "weights_sha256", "image": "image_sha256", "model": "model_type"}
_RECIPE = {
    "layer": "layer",
    "attention": "attention_site",
    "scale": "scale",
    "modes": "modes",
    "precision": "precision",
    "heads": "num_heads",
    "dilation": "dilation",
}
_PLACES = {"number type": "dtype", "device": "device"}
_LONGEST = 24  # characters of a printed value


def reasons(old: Heatmaps, new: Heatmaps) -> Iterator[str]:
    """Everything but the maps that has changed, in words."""
    a, b = old.meta, new.meta
    yield from _changes(_INPUTS, a, b)
    names = [dict(zip(m.labels.tolist(), m.label_names.tolist(), strict=True)) for m in (old, new)]
    for label in names[0].keys() & names[1].keys():
        if names[0][label] != names[1][label]:
            before, after = (_short(known[label]) for known in names)
            yield f"class names changed ({before} to {after})"
            break
    sizes = [maps.image_hw_px.tolist() for maps in (old, new)]
    if sizes[0] != sizes[1]:
        yield "image size changed ({1} x {0} to {3} x {2} px)".format(*sizes[0], *sizes[1])
    recipe = list(_recipe(a, b))
    if recipe:
        yield f"recipe changed ({', '.join(recipe)})"
    yield from _changes(_PLACES, a, b)
    before, after = _part(a, "versions"), _part(b, "versions")
    for name in sorted(before.keys() | after.keys() if before and after else ()):
        if before.get(name) != after.get(name):
            yield f"{_short(name)} {_short(before.get(name))} became {_short(after.get(name))}"


def _changes(names: Mapping[str, str], old: Mapping[str, Any], new: Mapping) -> Iterator[str]:
    for what, key in names.items():
        if old.get(key) != new.get(key):
            yield f"{what} changed ({_short(old.get(key))} to {_short(new.get(key))})"


def _recipe(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """Changed settings: the choice of queries if both files have it, sizes, layer and others."""
    queries = [_part(meta, "remake").get("queries") for meta in (old, new)]
    if None not in queries and queries[0] != queries[1]:
        yield f"queries {_short(queries[0])} to {_short(queries[1])}"
    for what, key in _RECIPE.items():
        if old.get(key) != new.get(key):
            yield f"{what} {_short(old.get(key))} to {_short(new.get(key))}"
    before, after = _part(old, "preprocessing"), _part(new, "preprocessing")
    for key in sorted(before.keys() | after.keys()):
        if key != "input_hw_px" and before.get(key) != after.get(key):  # follows from the image
            yield f"{_short(key)} {_short(before.get(key))} to {_short(after.get(key))}"


def _part(meta: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    part = meta.get(key)
    return part if isinstance(part, dict) else {}


def _short(value: object) -> str:
    text = printable(value)
    if len(text) == 64 and text.isalnum():  # a digest
        return text[:8]
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
