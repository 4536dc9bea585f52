"""The whole page: template, style, scripts and data in one text that needs nothing else.

Its policy forbids all that is not in the file: scripts and style by their sha256, pictures only as
data. Names of files and classes stand in JSON, and scripts write them as text alone.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np

import detr_viz
from detr_viz.common.files import printable
from detr_viz.figures.page.scale import colors, opacity, signed_lut
from detr_viz.figures.styles import RAMPS, Style
from detr_viz.html.entry import Entry, measure
from detr_viz.html.photo import photo_url, thumbnail_url

if TYPE_CHECKING:
    from detr_viz.explanation.results import ExplanationBase
    from detr_viz.images.loaded_image import LoadedImage

# Concatenated in this order into one script: each uses only what stands above it.
SCRIPTS = (
    "data.js",
    "state.js",
    "values.js",
    "paint.js",
    "stage.js",
    "command.js",
    "panel.js",
    "export.js",
    "pointer.js",
    "keys.js",
    "page.js",
)
_PROGRAM = ("python", "attention_scripts.py")
_CLOSING = "</script>"


def page(
    explanations: ExplanationBase | Sequence[ExplanationBase],
    queries: Sequence[int] = (),
    mode: str = "combine",
    *,
    layers: Sequence[int] | None = None,
    scale: str = "mode",
    program: Sequence[str] = _PROGRAM,
) -> str:
    """A page of explanations that have their photos: a document of HTML, to be saved or shown.

    queries: kept whatever their score, the first one shown at the start. mode: shown at the start.
    layers: of those captured; None: all. scale: as of `maps`. program: of the command to copy.
    ValueError for an explanation without pixels.
    """
    several = explanations if isinstance(explanations, Sequence) else [explanations]
    pairs = []
    for e in several:
        if not hasattr(e.image, "rgb"):
            raise ValueError("the explanation has no photo: replace its image by load_image(path)")
        known = [q for q in queries if 0 <= q < e.num_queries]
        entry = measure(e, known, mode=mode, layers=layers, scale=scale)
        pairs.append((entry, e.image))
    return document(pairs, program=program)


def document(
    pairs: Sequence[tuple[Entry, LoadedImage]],
    digest: str = "",
    program: Sequence[str] = _PROGRAM,
) -> str:
    """The page of these entries with their photos. digest: of recipe and image."""
    return assembled([image_json(*pair) for pair in pairs], digest, program)


def image_json(entry: Entry, picture: LoadedImage) -> str:
    """An entry with its photo as JSON; what a page of many images keeps of each."""
    values = entry.as_json()
    values["photo"] = photo_url(picture.rgb)
    values["thumbnail"] = thumbnail_url(picture.rgb)
    return inert_json(values)


def inert_json(values: object) -> str:
    """JSON in ASCII without "<", which alone could end the element that it stands in."""
    text = json.dumps(values, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028")


def assembled(images: Sequence[str], digest: str, program: Sequence[str] = _PROGRAM) -> str:
    """The page of the JSON texts of its images."""
    style, script = _text("page.css"), _script()
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src '{source_hash(script)}'",
            f"style-src '{source_hash(style)}'",
            "img-src data: blob:",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    names = [json.loads(text)["image"]["name"] for text in images]
    title = printable(names[0]) if len(set(names)) == 1 else f"{len(set(names))} images"
    parts = {
        "policy": policy,
        "recipe": f'<meta name="detr-viz" content="recipe {digest}">' if digest else "",
        "version": escape(detr_viz.__version__),
        "title": escape(f"{title}: where queries look"),
        "style": style,
        "script": script,
        "data": "\n".join(_data(images, program)),
    }
    text = _text("page.html")
    pieces = text.split("{{")
    out = [pieces[0]]
    for piece in pieces[1:]:  # one pass, so that no data is read as a template
        name, _, rest = piece.partition("}}")
        out += [parts[name.strip()], rest]
    return "".join(out)


def _data(images: Sequence[str], program: Sequence[str]) -> Iterator[str]:
    common = {
        "version": detr_viz.__version__,
        "program": list(program),
        "ramps": {**{name: _ramp(name) for name in RAMPS}, "signed": _signed()},
        "images": [_index_row(text) for text in images],
    }
    yield f'<script type="application/json" id="common">{inert_json(common)}{_CLOSING}'
    for i, text in enumerate(images):
        yield f'<script type="application/json" id="image-{i}">{text}{_CLOSING}'


def _index_row(text: str) -> dict[str, Any]:
    """What the index shows of an image."""
    values = json.loads(text)
    return {
        "name": values["image"]["name"],
        "model": values["model"]["title"],
        "weights": values["model"]["weights"],
        "thumbnail": values["thumbnail"],
        "missed": len(values["truth"]["missed"]) if values["truth"] else None,
    }


def _ramp(name: str) -> str:
    """256 colours with their opacity, RGBA, as base64."""
    return _rgba(colors(Style(cmap=name)), np.arange(256) / 255)


def _signed() -> str:
    """The same for values of both signs: 127.5 is zero."""
    return _rgba(signed_lut(), np.abs(np.arange(256) / 127.5 - 1))


def _rgba(rgb: np.ndarray, tone: np.ndarray) -> str:
    rgba = np.concatenate([rgb, opacity(tone)[:, None] * 255], 1)
    return base64.b64encode(np.rint(rgba).astype(np.uint8).tobytes()).decode("ascii")


def source_hash(text: str) -> str:
    """The name of an inline script or style in a policy: sha256, as CSP Level 2 has it."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}"


@lru_cache(maxsize=1)
def _script() -> str:
    """All scripts as one function, so that no name of theirs is global."""
    return "(() => {\n'use strict';\n" + "\n".join(map(_text, SCRIPTS)) + "})();\n"


@lru_cache(maxsize=32)
def _text(name: str) -> str:
    return (files("detr_viz.html") / "web" / name).read_text(encoding="utf-8")
