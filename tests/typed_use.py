"""What a user's code is to a type checker: mypy reads this, and nothing runs it.

python -m mypy          # files and settings stand in pyproject.toml
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import assert_type

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import NDArray

import detr_viz
from detr_viz import (
    Detector,
    Explanation,
    Explorer,
    Faithfulness,
    LogitTerms,
    PageFormat,
    Rollout,
    SharedObject,
    Style,
    compare_maps,
    compare_models,
    draw_map,
    explain,
    explore,
    faithfulness,
    head_grid,
    load_maps,
    load_model,
    rollout,
    save,
    select,
    shared_objects,
)


def use(ax: Axes) -> None:
    model = load_model("weights/cd_detr_demo.pth", precision="float32")
    assert_type(model, Detector)
    e = explain(model, "image/scene_1.jpg", layers="all", sites=["encoder"])
    assert_type(e, Explanation)
    assert_type(e.maps("position", queries=[3]), NDArray[np.float32])
    assert_type(e.boxes_xyxy_px, NDArray[np.float32])
    assert_type(e.logit_terms([3]), LogitTerms)
    assert_type(e.logit_terms([3]).terms, Mapping[str, NDArray[np.float32]])
    queries = select(e, "top:3")
    assert_type(queries, list[int])
    assert_type(rollout(e, queries), Rollout)
    assert_type(faithfulness(e, queries), Faithfulness)
    fig = head_grid(e, queries, "position", style=Style("contour"), page_format=PageFormat.of())
    assert_type(fig, Figure)
    save(fig, "figure.pdf")
    words = head_grid(e, "top:3", "all", heads="mean", style="contour", page_format="column")
    assert_type(words, Figure)
    assert_type(e.plot("position", "top:3", layer="all", zoom=2, gt=True, width="85mm"), Figure)
    assert_type(e.explore(height=500), Explorer)
    assert_type(explore([e, e]).text, str)
    explore(e).save("page.html")
    assert_type(draw_map(ax, e, 3, 4, norm="head"), AxesImage)
    objects = shared_objects([e.boxes_xyxy_px, e.boxes_xyxy_px], [queries, queries])
    assert_type(objects, list[SharedObject])
    compare_models([e, e], objects)
    assert_type(compare_maps(load_maps("a.npz"), load_maps("b.npz")).same, bool)


def misuse(e: Explanation) -> None:
    """Each of these is an error to a checker: else the comment itself is one."""
    e.maps("position", layr=1)  # type: ignore[call-arg]
    select(e, 3)  # type: ignore[arg-type]
    head_grid(e, "top:3", stile="contour")  # type: ignore[call-arg]
    e.plot("position", style=3)  # type: ignore[arg-type]
    detr_viz.head_gird(e, [3])  # type: ignore[attr-defined]
