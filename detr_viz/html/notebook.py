"""The page in a cell of a notebook: a frame that holds the whole page as its text.

e.explore()                           # as the last line of a cell
e.explore().save("page.html")         # the same page as a file
detr_viz.explore([a, b])              # several explanations on one page

The page is in the notebook's file, so that it is there when the notebook is opened again, if the
notebook is trusted. The frame is a place of its own: scripts of the page do not reach the notebook,
nor styles of the notebook the page. No server, no network and no extension is needed; so it works
in JupyterLab, Notebook, VS Code and Colab alike.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from detr_viz.common.errors import UserError
from detr_viz.common.files import replacing
from detr_viz.common.short_repr import folded, one_line

if TYPE_CHECKING:
    from detr_viz.explanation.results import ExplanationBase

# Scripts run, in an origin of their own; the page may save a picture and copy a command.
_FRAME = 'sandbox="allow-scripts allow-downloads" allow="clipboard-write"'
_LEAST_PX, _MOST_PX = 100, 10_000


@dataclass(frozen=True, eq=False, repr=False)
class Explorer:
    """A page to explore explanations by pointing: a notebook shows it, `save` writes it.

    text    the page, a whole document of HTML that needs nothing else
    title   what it is of, in words
    height  of the frame in a cell, pixels of the browser
    """

    text: str
    title: str
    height: int = 720

    def save(self, path: str | Path) -> None:
        """Write the page; an older file is replaced. OutputError for what the disk refuses."""
        with replacing(Path(path)) as part:
            part.write_text(self.text, encoding="utf-8")

    def __repr__(self) -> str:
        size = len(self.text.encode())
        return folded(
            f"Explorer of {one_line(self.title, 150)}: a page of {size / 1000:,.0f} kB; the last "
            "line of a cell shows it, .save(path) writes it"
        )

    def _repr_html_(self) -> str:
        title = html.escape(one_line(f"Explorer of {self.title}"), quote=True)
        return (
            f'<iframe title="{title}" {_FRAME} width="100%" height="{self.height}" '
            f'style="border:0;width:100%;height:{self.height}px" '
            f'srcdoc="{html.escape(self.text, quote=True)}"></iframe>'
        )


def explore(
    explanations: ExplanationBase | Sequence[ExplanationBase], height: int = 720
) -> Explorer:
    """A page to explore one explanation or several by pointing, for a cell of a notebook or a file.

    height: of the frame in the cell, pixels of the browser. UserError where there is nothing to
    show, as of an explanation without its pixels.
    """
    from detr_viz.html import page

    if not _LEAST_PX <= height <= _MOST_PX:
        raise UserError(f"a frame cannot be {height} pixels high: from {_LEAST_PX} to {_MOST_PX}")
    several = [*explanations] if isinstance(explanations, Sequence) else [explanations]
    if not several:
        raise UserError("nothing to explore: give at least one explanation")
    first = several[0]
    more = f" and {len(several) - 1} more" if len(several) > 1 else ""
    title = f"{first.image.path or 'an image'} by {first.model_title}{more}"
    return Explorer(page(explanations), title, height)
