"""What a figure's file says of it: Title, Software and Description."""

from __future__ import annotations

import math

import detr_viz
from detr_viz.attention.terms import ALL_TERMS
from detr_viz.figures.page.text import clean
from detr_viz.figures.reading_rule import (
    FigureContents,
    ShownModel,
    each,
    normalisation,
    reading_rule,
)


def _checked(subject: ShownModel) -> str:
    residuals = [subject.explanation.residuals.get(i, math.nan) for i in subject.layers]
    worst = max(residuals, key=lambda r: -1 if math.isnan(r) else r)
    return "self-check " + ("untestable" if math.isnan(worst) else f"residual {worst:.1e}")


def metadata(shown: FigureContents) -> dict[str, str]:
    """Title, Software and Description. No dates: the same figure is the same file."""
    plain = [" ".join(note.replace("$", "").split()) for note in reading_rule(shown)]
    style = shown.style
    drawn = f"style {style.name}"
    if style.name != "cells":
        drawn += f", {style.smoothing} interpolation"
    if style.interpolation is None and style.name == "overlay":
        drawn += " (large cells and views: cell by cell)"
    if style.name not in ("contour", "cells"):
        drawn += f", colour map {'ember' if style.cmap is None else style.cmap}"
    checks = each(shown, [_checked(s) for s in shown.subjects])
    if not shown.of_stages:
        plain.append(f"scale {'layer' if ALL_TERMS in shown.modes else shown.scale}")
    rule = "; ".join([*plain, normalisation(style), drawn, *checks])
    hashes = [weights_of(s) for s in shown.subjects]
    if len(shown.subjects) > 1:
        hashes = [f"{clean(s.name)}: {w}" for s, w in zip(shown.subjects, hashes, strict=True) if w]
    hashes.append(_image(shown))
    return {
        "Title": shown.title,
        "Software": f"detr_viz {detr_viz.__version__}",
        "Description": ". ".join([rule, "; ".join(shown.queries), *filter(None, hashes)]),
    }


def weights_of(subject: ShownModel) -> str:
    meta = subject.explanation.meta
    if not meta.get("weights_sha256"):
        return ""
    name = clean(str(meta.get("weights") or ""))
    return f"weights {name} sha256 {meta['weights_sha256']}".replace("  ", " ")


def image_name(shown: FigureContents) -> str:
    """The photo's file, without its folder; "" where there was none."""
    return clean(str(shown.subjects[0].explanation.meta.get("image") or ""))


def _image(shown: FigureContents) -> str:
    digest = shown.subjects[0].explanation.meta.get("image_sha256")
    return (
        " ".join(["image", image_name(shown), f"sha256 {digest}"]).replace("  ", " ")
        if digest
        else ""
    )
