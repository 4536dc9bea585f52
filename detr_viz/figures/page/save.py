"""A figure to a file or a window, with what it shows in the file's metadata."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from detr_viz.common.files import replacing
from detr_viz.figures.page.fonts import SVG_FALLBACKS, drawn_glyphs_only, is_truetype
from detr_viz.figures.page.png import write_png
from detr_viz.figures.page.print_files import pixels_of, save_eps, save_jpeg, save_tiff
from detr_viz.figures.page.text import plain_settings
from detr_viz.figures.styles import SUFFIXES, FigureError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save(fig: Figure, path: str | Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write a figure in the format of the suffix, one of SUFFIXES; an older file is replaced.

    `fig.facts` and `metadata`, which wins, go into the file: Title, Software, Description, and into
    formats of pixels and EPS any other. No dates: the same figure gives the same bytes. Fonts are
    embedded as TrueType (PDF, EPS), text stays text (SVG). Missing folders are made. Raises
    FigureError for another suffix, OutputError for what the disk refuses; nothing half-written is
    left.
    """
    import matplotlib

    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise FigureError(f"cannot write {path}: the name must end in {', '.join(SUFFIXES)}")
    kind = path.suffix.lower()[1:]
    facts = {**getattr(fig, "facts", {}), **(metadata or {})}
    of_pixels = {"png": _save_png, "jpg": save_jpeg, "tif": save_tiff, "eps": save_eps}
    of_pixels |= {"jpeg": save_jpeg, "tiff": save_tiff}
    if kind in of_pixels:
        with replacing(path) as part:
            of_pixels[kind](fig, part, facts)
        return
    if kind == "svg":
        _name_fallbacks(fig)
    if kind == "pdf":
        _warn_of_outlines(fig)
    settings = {
        "pdf.fonttype": 42,
        "pdf.use14corefonts": False,
        "svg.image_inline": True,
        "svg.fonttype": "none",
        "svg.hashsalt": "detr_viz",
        "savefig.bbox": None,
        "savefig.transparent": False,
    }
    with (
        replacing(path) as part,
        plain_settings(),
        matplotlib.rc_context(settings),
        drawn_glyphs_only(),
    ):
        names = _metadata(kind, facts)
        fig.savefig(part, format=kind, dpi="figure", facecolor="white", metadata=names)


def _save_png(fig: Figure, path: Path, facts: Mapping[str, str]) -> None:
    """As RGB: a page needs no transparency; without it saving takes two thirds of the time."""
    pixels, dpi = pixels_of(fig)
    write_png(path, pixels, dpi, facts)


def _warn_of_outlines(fig: Figure) -> None:
    """Warn of fonts with PostScript outlines: matplotlib embeds them as if they were TrueType."""
    from matplotlib.text import Text

    used = {text.get_fontproperties().get_file() for text in fig.findobj(Text)} - {None}
    for path in sorted(path for path in used if not is_truetype(path)):
        warnings.warn(
            f"the PDF embeds {Path(path).name}, which is not a TrueType font: some viewers may not "
            "show it; install one with the same characters that is",
            stacklevel=3,
        )


def _name_fallbacks(fig: Figure) -> None:
    """Name other fonts for a viewer without DejaVu Sans; the drawing itself stays the same."""
    from matplotlib.text import Text

    for text in fig.findobj(Text):
        families = [f for f in text.get_fontfamily() if f not in SVG_FALLBACKS]
        text.set_fontfamily([*families, *SVG_FALLBACKS])


def _metadata(kind: str, facts: Mapping[str, str]) -> dict[str, str | list[str] | None]:
    """The facts under the names that each vector format has for them."""
    names = {"Title": "Title", "Software": "Creator", "Description": "Description"}
    if kind == "pdf":
        names["Description"] = "Subject"
    known: dict[str, str | list[str] | None] = {names[k]: v for k, v in facts.items() if k in names}
    if "Recipe" in facts:  # the digest by which a later run knows its own files again
        words = f"recipe {facts['Recipe']}"
        known["Keywords"] = words if kind == "pdf" else [words]
    known["CreationDate" if kind == "pdf" else "Date"] = None
    return known


def show(fig: Figure) -> None:
    """Open a window and wait until it is closed; FigureError where none can be opened."""
    try:
        import matplotlib.pyplot as plt

        # pyplot opens windows only for figures it has made: its factory hands it this one
        plt.figure(FigureClass=lambda *_, **__: fig)
        if fig.canvas.required_interactive_framework is None:
            plt.close(fig)
            raise FigureError("no display to open a window on: write a file instead")
        plt.show()
    except FigureError:
        raise
    except Exception as error:  # every GUI toolkit has its own
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise FigureError(f"cannot open a window ({reason}): write a file instead") from error
