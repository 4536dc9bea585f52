"""Named tuples of a batch's tensors, as those of one of its images."""

from __future__ import annotations

from typing import NamedTuple, TypeVar

from torch import Tensor

Parts = TypeVar("Parts", bound=NamedTuple)


def image_of(parts: Parts, i: int) -> Parts:
    """As if image i had been alone; a tensor that begins with 1 stands for all images."""
    one = {
        name: part[i : i + 1]
        for name, part in parts._asdict().items()
        if isinstance(part, Tensor) and len(part) > 1
    }
    return parts._replace(**one)


def repeated(parts: Parts, times: int) -> Parts:
    """A single image's memory (1, S, C) and padding (1, S) or None as those of a batch."""
    padding = None if parts.padding is None else parts.padding.expand(times, -1)
    return parts._replace(memory=parts.memory.expand(times, -1, -1), padding=padding)
