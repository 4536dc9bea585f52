"""Head maps as a matplotlib Figure: a row a query, its photo and box, then a panel a head.

    fig = figures.head_grid(e, [17, 3], "position")
    figures.save(fig, "cat.png")                       # or .pdf, .svg

All panels are one image, composed at the size they are shown (compose.py); text and boxes are vector
artists on top. No pyplot, no rcParams: the figure looks the same whatever a user has configured, and
matplotlib is imported when a figure is drawn, not before. Layers and heads count from 0.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from detr_viz import compose
from detr_viz.errors import UserError
from detr_viz.terms import MODES

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from detr_viz.explanation import Explanation

SUFFIXES = (".png", ".pdf", ".svg")
WIDTH_IN, DPI = 7.0, 220  # a paper's page width; 1540 pixels
CMAP = "inferno"

# Points. At a page's width nothing is smaller than 6.
CLASS_PT, TEXT_PT, NOTE_PT = 7.0, 6.5, 6.0
...
