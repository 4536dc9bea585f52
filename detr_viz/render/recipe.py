"""A recipe: all settings that decide the content of the files of an image.

Its digest stands in every file, so that a later run recognises the files that need no change.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import detr_viz
from detr_viz.figures.styles import DEFAULT_PAGE_FORMAT, DEFAULT_STYLE, PageFormat, Style
from detr_viz.render.views import CROSS

if TYPE_CHECKING:
    from detr_viz.explanation.detector import Detector
    from detr_viz.images.loaded_image import ImageFacts, LoadedImage
    from detr_viz.images.preprocessing import Preprocessing

_MOST_PARTS = 4  # that a file's name lists
_SOFTWARE = ("torch", "numpy", "pillow", "matplotlib")  # their versions can change a file's bytes


@dataclass(frozen=True)
class ModelFacts:
    """What tells one model from another: the weights, and the settings given with them.

    preprocessing: how its images are resized, if the checkpoint says more than size and max_size.
    """

    type: str
    weights: str
    sha256: str
    nheads: int
    dilation: bool
    class_names: tuple[str, ...]
    size: int | None
    max_size: int | None
    preprocessing: Preprocessing | None = None


@dataclass(frozen=True)
class Recipe:
    """What is drawn for an image, and how.

    plot      a mode, several ("position,content"), a sum of terms, "all", terms.ALL_TERMS or
              terms.SALIENCE, a view of its own
    queries   in the syntax of --queries
    layer     "last", "all", a decoder layer from 0, or several
    scale     one of terms.SCALES
    size, max_size   of the network's input, pixels; None: each model's own
    precision, device   of the network's arithmetic
    biography  whether a figure of several layers marks where a query changed its class
    removed, removed_in  the parts that are taken out (removals.py), and in which decoder layers
    views     names of views.REGISTRY
    points    of the image, in the syntax of --points; none: the middles of the queries' boxes
    """

    models: tuple[ModelFacts, ...]
    plot: str = "combine"
    queries: str = "top:5"
    layer: str | int | tuple[int, ...] = "last"
    scale: str = "mode"
    style: Style = DEFAULT_STYLE
    page_format: PageFormat = DEFAULT_PAGE_FORMAT
    size: int | None = None
    max_size: int | None = None
    precision: str = "float32"
    device: str = "cpu"
    software: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    removed_in: str | int | tuple[int, ...] = "all"
    biography: bool = False
    views: tuple[str, ...] = (CROSS,)
    points: tuple[str, ...] = ()

    @property
    def several_layers(self) -> bool:
        return self.layer == "all" or isinstance(self.layer, tuple)

    @property
    def label(self) -> str:
        """The part of a file's name after the name of the image."""
        parts = ["_vs_".join(model.type for model in self.models), plot_label(self.plot)]
        if self.biography:
            parts.append(f"biography_{self.queries}")
        parts += self._removed_label
        heads = self.style.heads
        if heads is not None:
            parts += ["heads", *([heads] if isinstance(heads, str) else map(str, heads))]
        if self.several_layers and not self.biography:
            parts.append("layers")
        if self.style.name != "overlay":
            parts.append(self.style.name)
        return "_".join(parts)

    @property
    def _removed_label(self) -> list[str]:
        """The parts that are taken out, if they are few, and the layers."""
        few = self.removed[:_MOST_PARTS] == self.removed
        parts = [plot_label(name).replace(":", "") for name in self.removed] if few else []
        layers = self.removed_in if isinstance(self.removed_in, tuple) else (self.removed_in,)
        where = [] if layers == ("all",) else ["in", *map(str, layers)]
        return ["ablated", *parts, *where] if self.removed else []

    @property
    def title(self) -> str:
        """Models, plot and queries in one line, for a page of many figures."""
        names = " and ".join(dict.fromkeys(m.weights for m in self.models))
        return f"{names}: {self.plot}, queries {self.queries}"

    @property
    def preprocessings(self) -> tuple[Preprocessing, ...]:
        """How images become the input of each model."""
        from detr_viz.images.preprocessing import Preprocessing

        return tuple(
            (m.preprocessing or Preprocessing(m.size, m.max_size)).at(self.size, self.max_size)
            for m in self.models
        )

    @property
    def sizes(self) -> tuple[tuple[int | None, int | None], ...]:
        """(shorter side, bound on the longer one) of each model's input, pixels.

        Both are None where the sizes are of another form.
        """
        return tuple((how.size, how.max_size) for how in self.preprocessings)

    @cached_property
    def _settings(self) -> bytes:
        style = self.style
        # a default and the same value given by a flag are the same; the names are those in files
        # that are already written
        values = asdict(self) | {
            "page": asdict(self.page_format),
            "look": [
                style.name,
                style.scaling,
                style.cmap,
                # without one, cells that are large or in a view are drawn as they are
                style.interpolation or ("nearest" if style.name == "heat" else "by size"),
                style.heads,
                style.zoom if isinstance(style.zoom, str) else float(style.zoom),
                style.contours if style.name == "contour" else None,
            ],
            "layer": sorted({*self.layer}) if isinstance(self.layer, tuple) else self.layer,
            "sizes": self.sizes,
        }
        for name in ("size", "max_size", "style", "page_format", "views", "points"):
            del values[name]
        for facts, how in zip(values["models"], self.preprocessings, strict=True):
            if facts.pop("preprocessing") is not None:  # files of other models keep their digest
                facts["preprocessing"] = how.as_meta()
        if self.views != (CROSS,):
            values["queries"] += f" {' '.join(self.views)} {' '.join(self.points)}"
        return json.dumps(values, sort_keys=True).encode()

    def of_view(self, name: str) -> Recipe:
        """The recipe of one of its views; the files of that view have the digest of it."""
        return replace(self, views=(name,), points=() if name == CROSS else self.points)

    def stem(self, name: str, view: str) -> str:
        """The start of the names of the files of the image `name`."""
        words = [name, self.label]
        if view not in (CROSS, self.plot):
            words.append(view)
        return "_".join(words)

    def digest(self, image: LoadedImage | ImageFacts) -> str:
        """sha256 (hex) of the recipe with an image: its bytes, and the name that files mention."""
        return self.digest_of(image.sha256, image.path)

    def digest_of(self, image_sha256: str, path: str | None) -> str:
        """`digest` where only the file's sha256 and its path are known."""
        name = Path(path).name if path else ""
        about = f"\n{image_sha256}\n{name}".encode(errors="surrogateescape")
        return hashlib.sha256(self._settings + about).hexdigest()


def plot_label(plot: str) -> str:
    """A plot as part of a file's name, without points, which would begin a suffix."""
    return plot.replace(".", "").replace(",", "_")


def of_models(loaded: Sequence[Detector], recipe: Recipe) -> Recipe:
    """The recipe with the facts of these models, their device and the software."""
    facts = tuple(
        ModelFacts(
            type=info.type,
            weights=info.weights,
            sha256=info.sha256,
            nheads=info.num_heads,
            dilation=bool(dict(info.options).get("dilation", False)),
            class_names=info.class_names,
            size=info.size,
            max_size=info.max_size,
            preprocessing=info.preprocessing,
        )
        for info in (model.info for model in loaded)
    )
    return replace(
        recipe,
        models=facts,
        device=loaded[0].device.type,
        software=(detr_viz.__version__, *(version(name) for name in _SOFTWARE)),
    )


# ---- digests in files ---------------------------------------------------------------------------

_ENDS = {
    ".png": b"IEND\xaeB`\x82",
    ".pdf": b"%%EOF",
    ".svg": b"</svg>",
    ".jpg": b"\xff\xd9",
    ".jpeg": b"\xff\xd9",
    ".eps": b"showpage",
    ".tex": b"\\end{figure",
}
_NEAR = 1 << 16  # bytes at either end of a file in which its digest stands
_MARK = re.compile(rb"recipe[^0-9a-f]{1,3}([0-9a-f]{64})", re.IGNORECASE)


def carries(path: Path, digest: str) -> bool:
    """Whether a file has this digest of recipe and image, and is complete."""
    try:
        return digest_in(path) == digest and _is_whole(path)
    except Exception:  # missing, cut or of another program: it is written again
        return False


def digest_in(path: Path) -> str | None:
    """The digest of recipe and image that a file has; None where it has none.

    OSError or ValueError for what cannot be read.
    """
    if path.suffix == ".npz":
        return _archive_digest(path)
    start, end = _ends_of(path)
    if path.suffix == ".csv":  # the digest ends every line
        last = re.search(rb",([0-9a-f]{64})\n\Z", end)
        return last[1].decode() if last else None
    marked = _MARK.search(start + end)
    return marked[1].decode() if marked else None


def _ends_of(path: Path) -> tuple[bytes, bytes]:
    with path.open("rb") as file:
        start = file.read(_NEAR)
        file.seek(max(path.stat().st_size - _NEAR, 0))
        return start, file.read()


def _is_whole(path: Path) -> bool:
    suffix = path.suffix.lower()
    if suffix in (".npz", ".csv"):  # read to the end for its digest
        return True
    if suffix in (".tif", ".tiff"):  # no mark ends it
        from PIL import Image

        with Image.open(path) as image:
            image.load()
        return True
    return _ENDS[suffix] in _ends_of(path)[1][-64:]


def replaced_by(digest: str, files: Iterable[Path]) -> tuple[Path, ...]:
    """Of these files those that are there, and that another recipe or another program wrote."""
    replaced = []
    for path in files:
        try:
            if path.exists() and digest_in(path) != digest:
                replaced.append(path)
        except Exception:  # damaged, or of another program
            replaced.append(path)
    return tuple(replaced)


def _archive_digest(path: Path) -> str | None:
    import numpy as np

    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        return json.loads(str(archive["meta"])).get("recipe_sha256")
