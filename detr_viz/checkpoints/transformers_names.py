"""Class names of a Hugging Face config.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def class_names(config: Mapping[str, Any]) -> tuple[str, ...] | None:
    """id2label (else label2id) in order of the ids; an id without a name has its number."""
    labels, ids = config.get("id2label"), config.get("label2id")
    if not labels and isinstance(ids, Mapping):
        labels = {i: name for name, i in ids.items()}
    try:
        names = {int(i): str(name) for i, name in (labels or {}).items() if name not in (None, "")}
    except (AttributeError, TypeError, ValueError):
        return None
    if not names or min(names) < 0 or max(names) > 10_000:
        return None
    return tuple(names.get(i, f"class {i}") for i in range(max(names) + 1))
