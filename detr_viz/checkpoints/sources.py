"""Several models in one run: which weights are of which type, and loading them."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from detr_viz.common.errors import UserError

if TYPE_CHECKING:
    from detr_viz.models.detector import LoadedModel


def pair(
    types: Sequence[str] | None, weights: Sequence[str] | None
) -> list[tuple[str | None, str | None]]:
    """(type, weights) of each model: by position; one type is that of all weights."""
    if not types or not weights:
        return [(t, None) for t in types or ()] or [(None, w) for w in weights or (None,)]
    kinds = list(types) * len(weights) if len(types) == 1 else list(types)
    if len(kinds) != len(weights):
        raise UserError(
            f"--type has {len(types)} and --weights {len(weights)}: they pair by position, "
            "so give as many of each (or one type for all)"
        )
    return list(zip(kinds, weights, strict=True))


def load(
    args: argparse.Namespace, pairs: Sequence[tuple[str | None, str | None]]
) -> list[LoadedModel]:
    """The models of these types and weights, with the flags that concern loading."""
    from detr_viz.checkpoints.load_model import (
        load_model,  # torch, only once the arguments are known to be sound
    )

    loaded = []
    for kind, weights in pairs:
        demo = f"the demo checkpoint of {kind or 'detr'}"
        with named(demo if weights is None else weights, len(pairs)):
            model = load_model(
                weights,
                kind,
                classes=args.classes,
                nheads=args.nheads,
                dilation=args.dilation,
                cache=args.cache,
                device=args.device,
                progress=not args.quiet,
            )
        loaded.append(model)
    return loaded


@contextmanager
def named(weights: str, models: int) -> Iterator[None]:
    """A mistake that concerns one of several models says which."""
    try:
        yield
    except UserError as error:
        if models == 1 or Path(weights).name in str(error):
            raise
        raise UserError(f"{weights}: {error}") from error
