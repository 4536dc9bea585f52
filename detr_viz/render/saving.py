"""A figure or a page becomes its files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from detr_viz.common.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from detr_viz.render.paths import OutputPaths


def save_figure(figure: Figure, target: OutputPaths, digest: str) -> Iterator[Path]:
    """Write a figure in all its formats, with its LaTeX file; yields each path when it is there.

    OutputError where the disk refuses.
    """
    from detr_viz import figures
    from detr_viz.figures import latex_caption

    for path in target.figures:
        figures.save(figure, path, {"Recipe": digest})
        yield path
    if target.caption:
        yield latex_caption.save_caption(figure.shown, target.caption_figure, digest)


def save_page(text: str, path: Path) -> Path:
    """Write a page. OutputError where the disk refuses."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
    return path
