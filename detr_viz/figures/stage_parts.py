"""What panels of stages show: the box that enters each, its cells, and what is written under them.

A stage reads the cells of one box, by no heads: a row of panels has the stages in place of heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from detr_viz.figures.page.elements import MapRow
from detr_viz.figures.page.shown import BoxCells
from detr_viz.figures.styles import FigureError, Style

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from detr_viz.figures.reading_rule import ShownModel

MINUS = "\N{MINUS SIGN}"


def no_cells(name: str) -> FigureError:
    """The refusal of style cells for a model that reads no cells."""
    return FigureError(
        f"style cells shows the cells of a box, and the attention of {name} reads none: take "
        "overlay, heat or contour"
    )


def check_stages(subjects: Sequence[ShownModel], style: Style) -> None:
    """FigureError where a style asks for what stages lack, or panels are heads and stages."""
    staged = [s for s in subjects if s.explanation.stages]
    if not staged:
        return
    name, together = staged[0].name, len(staged) == len(subjects)
    if together and style.heads is not None:
        raise FigureError(no_heads(name, staged[0].explanation.num_layers))
    if not together and style.heads not in ("mean", "max"):
        raise FigureError(mixed(name))
    if style.name == "cells" and style.levels != "sum":
        raise FigureError(
            "cells are those of a box, which is read on one level: leave levels out, or take "
            "style overlay"
        )


def no_heads(name: str, stages: int) -> str:
    """Why there are no heads to choose."""
    return (
        f"{name} has no heads that look at the image: its panels are its {stages} stages, leave "
        "heads out (--layer chooses stages)"
    )


def mixed(name: str) -> str:
    """Why stages and heads are not compared panel by panel."""
    return (
        f"the panels of {name} are stages, those of the others heads: compare them with heads mean "
        "or max, a panel each"
    )


def stage_parts(
    subject: ShownModel, queries: Sequence[int], layer: int, style: Style
) -> list[dict[str, Any]]:
    """Of each query at one stage the arguments of MapRow beside its map."""
    e = subject.explanation
    shares, boxes, biases = e.cells(queries, layer)
    parts: list[dict[str, Any]] = []
    for i in range(len(queries)):
        own: dict[str, Any] = {"boxes_xyxy_px": boxes[[i]], "noun": "stage"}
        if style.name == "cells":
            bias, whole = float(biases[i]), float(shares[i].sum(dtype=np.float64))
            own |= {
                "cells": BoxCells(shares[i], boxes[[i]]),
                "captions": (_sum_text(whole, bias, "bias "),),
                "short_captions": (_sum_text(whole, bias, ""),),
            }
        parts.append(own)
    if style.name != "cells" and queries:
        off = e.outside("combine", queries, layer)[:, 0]
        for own, share, part in zip(parts, shares, off, strict=True):
            own["off"] = (float(part) if (share > 0).any() else 0.0,)  # else there is no map
    return parts


def _sum_text(whole: float, bias: float, word: str) -> str:
    """The shares of cells and of the bias as the sum that is 1: .88 + bias .12."""
    text = signed(bias)
    sign = MINUS if text.startswith(MINUS) else "+"
    return f"{signed(whole)} {sign} {word}{text.removeprefix(MINUS)}"


def signed(value: float) -> str:
    """A share with its sign in few characters: .88, \N{MINUS SIGN}.04, 1.13, 0; - for no number."""
    if not np.isfinite(value):
        return "-"
    text = f"{abs(value):.2f}".removeprefix("0")
    text = "0" if text == ".00" else text
    return f"{MINUS if value < 0 and text != '0' else ''}{text}"


def side_by_side(rows: Sequence[MapRow]) -> MapRow:
    """Rows of one panel as one row: the stages of a query."""
    first = rows[0]
    cells = None
    if first.cells is not None:
        cells = replace(
            first.cells,
            shares=_joined([row.cells.shares for row in rows]),
            boxes_xyxy_px=_joined([row.cells.boxes_xyxy_px for row in rows]),
        )
    return replace(
        first,
        maps=_joined([row.maps for row in rows]),
        boxes_xyxy_px=_joined([row.boxes_xyxy_px for row in rows]),
        captions=None if first.captions is None else sum((row.captions for row in rows), ()),
        short_captions=sum((row.short_captions for row in rows), ()),
        off=sum((row.off for row in rows), ()),
        cells=cells,
    )


def _joined(arrays: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    return np.concatenate(list(arrays))
