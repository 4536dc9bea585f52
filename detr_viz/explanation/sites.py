"""From names of layers and attention sites to numbers and pairs."""

from __future__ import annotations

from collections.abc import Sequence
from operator import index

import numpy as np

from detr_viz.attention.base import Where
from detr_viz.attention.terms import SITES
from detr_viz.common.errors import UserError
from detr_viz.explanation.detector import DetectorInfo


def resolve_layers(
    layers: str | int | Sequence[int | str], num_layers: int, word: str = "decoder layer"
) -> tuple[int, ...]:
    """Ascending numbers of "last", "all", a number from 0, or several of these; else UserError.

    word: what a layer is called there.
    """
    if not num_layers:
        raise UserError(f"this model has no {word}s")
    wanted: set[int] = set()
    for item in [layers] if np.ndim(layers) == 0 else layers:
        if item == "all":
            wanted.update(range(num_layers))
        elif item == "last":
            wanted.add(num_layers - 1)
        elif not isinstance(item, str) and 0 <= index(item) < num_layers:
            wanted.add(index(item))
        else:
            raise UserError(f"no {word} {item}: this model has 0..{num_layers - 1} (or write last)")
    if not wanted:
        raise UserError('layers is empty: name one, or write "last" or "all"')
    return tuple(sorted(wanted))


def resolve_sites(sites: Sequence[str | Where], info: DetectorInfo) -> tuple[Where, ...]:
    """Names ("encoder": all its layers) and pairs ("encoder", 0) as pairs; UserError for others."""
    pairs: dict[Where, None] = {}
    for site in [sites] if isinstance(sites, str) else sites:
        pair = (site, "all") if isinstance(site, str) else site
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise UserError(
                f'{site!r} is not an attention site: write "encoder", or ("encoder", 0)'
            )
        kind, which = pair
        if kind not in SITES:
            raise UserError(f"no attention site {kind!r}: there is {', '.join(SITES)}")
        word = "encoder layer" if kind == "encoder" else info.layer_word
        count = info.num_encoder_layers if kind == "encoder" else info.num_layers
        pairs |= dict.fromkeys((kind, n) for n in resolve_layers(which, count, word))
    return tuple(pairs)
