"""A figure as JPEG, TIFF or EPS, with the facts that PNG, PDF and SVG hold too.

EPS has no transparency: what lies under the text is drawn to pixels first, on white, and only the
text stays text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from detr_viz.figures.page.canvas import figure_of
from detr_viz.figures.page.fonts import drawn_glyphs_only
from detr_viz.figures.page.stamps import remember_text
from detr_viz.figures.page.text import plain_settings

if TYPE_CHECKING:
    from fontTools.ttLib import TTFont
    from matplotlib.figure import Figure
    from matplotlib.text import Text

_JPEG_QUALITY = 95
_TITLE, _SOFTWARE = 0x010E, 0x0131  # tags of Exif and TIFF: ImageDescription, Software
_ASCII = 2  # a type of TIFF's tags
_MOST_COMMENT_BYTES = 65_000  # of a JPEG
_LINE = 200  # characters of a comment in EPS, which may have 255


def pixels_of(fig: Figure) -> tuple[np.ndarray, float]:
    """(the figure as uint8 (height, width, 3) on white, pixels an inch)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    shown_on, dpi = fig.canvas, fig.dpi
    try:
        canvas = FigureCanvasAgg(fig)
        fig.dpi = dpi / shown_on.device_pixel_ratio  # a window on a fine screen multiplies it
        with plain_settings():
            remember_text(canvas.get_renderer())
            canvas.draw()
        dots = fig.dpi
    finally:
        fig.set_canvas(shown_on)
        fig.dpi = dpi
    return np.asarray(canvas.buffer_rgba())[..., :3], dots


def as_text(facts: Mapping[str, str]) -> str:
    """All facts as lines, for formats without named texts."""
    return "\n".join(f"{name}: {text}" for name, text in facts.items())


def save_jpeg(fig: Figure, path: Path, facts: Mapping[str, str]) -> None:
    """Of high quality, with colours at full resolution; the facts as a comment and in Exif."""
    from PIL import Image

    pixels, dpi = pixels_of(fig)
    page, exif = Image.fromarray(pixels), Image.Exif()
    exif[_TITLE] = facts.get("Title", "").encode()  # bytes: Pillow would write ? for other letters
    exif[_SOFTWARE] = facts.get("Software", "").encode()
    page.save(
        path,
        "jpeg",
        quality=_JPEG_QUALITY,
        subsampling=0,
        dpi=(dpi, dpi),
        exif=exif,
        comment=as_text(facts).encode()[:_MOST_COMMENT_BYTES],
    )


def save_tiff(fig: Figure, path: Path, facts: Mapping[str, str]) -> None:
    """Compressed without loss (LZW); the facts are its ImageDescription."""
    from PIL import Image
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    pixels, dpi = pixels_of(fig)
    tags = ImageFileDirectory_v2()
    for tag, text in ((_TITLE, as_text(facts)), (_SOFTWARE, facts.get("Software", ""))):
        tags[tag] = text.encode()  # bytes: Pillow would write ? for letters beyond ASCII
        tags.tagtype[tag] = _ASCII
    page = Image.fromarray(pixels)
    page.save(path, "tiff", compression="tiff_lzw", dpi=(dpi, dpi), tiffinfo=tags)


def save_eps(fig: Figure, path: Path, facts: Mapping[str, str]) -> None:
    """Pixels under real text; the facts as comments. No date: the same figure, the same bytes."""
    import matplotlib
    from matplotlib.text import Text

    texts = [text for text in fig.findobj(Text) if text.get_visible() and text.get_text().strip()]
    boxes = [text.get_transform().transform(text.get_position()) for text in texts]
    with _hidden(texts):
        pixels, dpi = pixels_of(fig)
    opaque = np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)])
    page, ax = figure_of(opaque, dpi)
    ratio = dpi / fig.dpi
    for text, (x, y) in zip(texts, boxes, strict=True):
        copy = ax.text(x * ratio, len(pixels) - y * ratio, text.get_text(), parse_math=False)
        copy.update_from(text)
        copy.set_transform(ax.transData)
        copy.set_color(_opaque(text))
        copy.set_alpha(None)
    settings = {"ps.fonttype": 42, "ps.useafm": False, "text.usetex": False}
    with plain_settings(), matplotlib.rc_context(settings), drawn_glyphs_only(), _bounds_as_read():
        page.savefig(path, format="eps", dpi=dpi, facecolor="white")
    path.write_bytes(_with_facts(path.read_bytes(), facts))


@contextmanager
def _bounds_as_read() -> Iterator[None]:
    """The bounds of a font for an EPS are what its file says.

    matplotlib draws all of its thousands of glyphs to measure them: five sixths of the time of an
    EPS. Where a matplotlib has no such function, it stays as it is.
    """
    from matplotlib.backends import backend_ps

    if not hasattr(backend_ps, "_bounds"):
        yield
        return
    drawn, backend_ps._bounds = backend_ps._bounds, _bounds
    try:
        yield
    finally:
        backend_ps._bounds = drawn


def _bounds(font: TTFont) -> tuple[int, int, int, int]:
    head = font["head"]
    return head.xMin, head.yMin, head.xMax, head.yMax


@contextmanager
def _hidden(texts: list[Text]) -> Iterator[None]:
    for text in texts:
        text.set_visible(False)
    try:
        yield
    finally:
        for text in texts:
            text.set_visible(True)


def _opaque(text: Text) -> tuple[float, ...]:
    """The colour of a text as it is seen on white."""
    from matplotlib.colors import to_rgba

    *colour, alpha = to_rgba(text.get_color(), text.get_alpha())
    return tuple(alpha * part + 1 - alpha for part in colour)


def _with_facts(eps: bytes, facts: Mapping[str, str]) -> bytes:
    """The file with the facts as comments after its first line, in ASCII, and without its date."""
    first, *rest = eps.split(b"\n")
    kept = [
        line for line in rest if not line.startswith((b"%%CreationDate", b"%%Title", b"%%Creator"))
    ]
    named = {"Title": "%%Title", "Software": "%%Creator"}
    comments = []
    for name, text in facts.items():
        words = " ".join(text.split()).encode("ascii", "backslashreplace").decode()
        start = named.get(name, f"% {name}")
        comments.append(f"{start}: {words[:_LINE]}")
        more = range(_LINE, len(words), _LINE)
        comments += [f"% {words[i : i + _LINE]}" for i in more]
    # comments of the structure first: a plain one ends the header
    comments.sort(key=lambda line: not line.startswith("%%"))
    end = next(i for i, line in enumerate(kept) if line.startswith(b"%%EndComments"))
    structured = [line.encode() for line in comments if line.startswith("%%")]
    plain = [line.encode() for line in comments if not line.startswith("%%")]
    return b"\n".join([first, *structured, *kept[: end + 1], *plain, *kept[end + 1 :]])
