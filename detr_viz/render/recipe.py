"""A recipe: all settings that decide the content of the files of an image.

Its digest stands in every file, so that a later run recognises the files that need no change.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import detr_viz
from detr_viz.attention.terms import ALL_TERMS
from detr_viz.detections.queries import LEAST, needs_truth
from detr_viz.figures.styles import (
    DEFAULT_PAGE_FORMAT,
    DEFAULT_STYLE,
    PageFormat,
    Style,
    usual_style,
)
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
    samples: whether its cross-attention samples points. stages: whether its layers are stages.
    taps: whether its encoder convolves at sampling points.
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
    samples: bool = False
    stages: bool = False
    taps: bool = False


@dataclass(frozen=True)
class Recipe:
    """What is drawn for an image, and how.

    plot      a mode, several ("position,content"), a sum of terms, "all", terms.ALL_TERMS, or
              terms.PROPOSALS and terms.SALIENCE, views of their own
    queries   in the syntax of --queries
    layer     "last", "all", a decoder layer from 0, or several
    scale     one of terms.SCALES
    size, max_size   of the network's input, pixels; None: each model's own
    precision, device   of the network's arithmetic
    biography  whether a figure of several layers marks where a query changed its class
    removed, removed_in  the parts that are taken out (removals.py), and in which decoder layers
    views     names of views.REGISTRY
    points    of the image, in the syntax of --points; none: the middles of the queries' boxes
    free_style  whether no style was asked for: each view has its usual one, see `of_view`
    free_layer  whether no layer was asked for: maps of stages show them all, see `of_view`
    score     least score of a detection, for words of `queries` about errors
    words     of a command that names each model, for pages; None: no page is written
    run_words  more flags of that command
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
    free_style: bool = False
    free_layer: bool = False
    score: float = LEAST
    words: tuple[tuple[str, ...], ...] | None = None
    run_words: tuple[str, ...] = ()

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
        if self.several_layers and not self.biography and not self.free_layer:
            parts.append("layers")
        if self.style.levels != "sum":
            levels = self.style.levels
            parts += ["level", *([levels] if isinstance(levels, str) else map(str, levels))]
        if self.style.name != self._usual_style:
            parts.append(self.style.name)
        return "_".join(parts)

    @property
    def _usual_style(self) -> str:
        """The name of the style where none is asked for, in a recipe of one view."""
        plain = self.views == (CROSS,) and not self.removed and self.plot != ALL_TERMS
        sampled = bool(self.models) and all(model.samples for model in self.models)
        cells = plain and self._staged == len(self.models) > 0
        points = sampled and plain and not self.biography
        if self.views == ("encoder",):
            points = bool(self.models) and all(model.taps for model in self.models)
        return usual_style(self.style, points, cells)

    @property
    def _staged(self) -> int:
        """How many of the models have stages."""
        return sum(model.stages for model in self.models)

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
        shown = self.of_view(CROSS) if CROSS in self.views else self
        style, layer = shown.style, shown.layer
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
            "layer": sorted({*layer}) if isinstance(layer, tuple) else layer,
            "sizes": self.sizes,
        }
        for name in ("size", "max_size", "style", "page_format", "views", "points"):
            del values[name]
        del values["free_style"], values["free_layer"]
        if not needs_truth(self.queries):  # files of other flags keep their digest
            del values["score"]
        del values["words"], values["run_words"]  # of paths, which change no picture
        if style.levels != "sum":  # files of other flags keep their digest
            values["levels"] = style.levels
        if style.truth:
            values["truth"] = True
        for facts, how in zip(values["models"], self.preprocessings, strict=True):
            del facts["samples"], facts["stages"], facts["taps"]
            if facts.pop("preprocessing") is not None:  # files of other models keep their digest
                facts["preprocessing"] = how.as_meta()
        if self.views != (CROSS,):
            values["queries"] += f" {' '.join(self.views)} {' '.join(self.points)}"
        return json.dumps(values, sort_keys=True).encode()

    def of_view(self, name: str) -> Recipe:
        """The recipe of one of its views; the files of that view have the digest of it.

        Of what was not asked for it has the usual: a style, all stages where panels are stages, and
        the mean of the heads where stages are compared with heads.
        """
        one = replace(self, views=(name,), points=() if name == CROSS else self.points)
        if name == CROSS and self._staged and not self.removed:
            if self._staged < len(self.models) and self.style.heads is None:
                one = replace(one, style=replace(one.style, heads="mean"))
            elif self._staged == len(self.models) and self.free_layer:
                one = replace(one, layer="all")
        if not self.free_style:
            return one
        return replace(one, style=replace(one.style, name=one._usual_style), free_style=False)

    def stem(self, name: str, view: str) -> str:
        """The start of the names of the files of the image `name`."""
        words = [name, self.of_view(view).label]
        if view not in (CROSS, self.plot):
            words.append(view)
        return "_".join(words)

    def digest(self, image: LoadedImage | ImageFacts) -> str:
        """sha256 (hex) of the recipe with an image: its bytes, and the name that files mention."""
        stated = image.unplaced if image.annotated is None else image.annotated.digest
        return self.digest_of(image.sha256, image.path, stated)

    @property
    def uses_truth(self) -> bool:
        """Whether the annotated objects of an image decide what its files show."""
        return self.style.truth or needs_truth(self.queries) or self.words is not None

    def digest_of(self, image_sha256: str, path: str | None, annotated: str = "") -> str:
        """`digest` where the file's sha256 and its path are known.

        annotated: the digest of its annotated objects, "" where no file has any
        """
        name = Path(path).name if path else ""
        about = [image_sha256, name]
        if self.uses_truth and annotated:  # other files keep their digest
            about.append(annotated)
            if self.words is not None:  # a page has verdicts, whatever the queries
                about.append(f"{self.score:g}")
        words = "".join(f"\n{one}" for one in about).encode(errors="surrogateescape")
        return hashlib.sha256(self._settings + words).hexdigest()


def plot_label(plot: str) -> str:
    """A plot as part of a file's name, without points, which would begin a suffix."""
    return plot.replace(".", "").replace(",", "_")


@cache
def _versions() -> tuple[str, ...]:
    """Of _SOFTWARE; each look-up reads a file."""
    return tuple(version(name) for name in _SOFTWARE)


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
            samples=bool(info.samples),
            stages=info.stages,
            taps=info.scales,
        )
        for info in (model.info for model in loaded)
    )
    return replace(
        recipe,
        models=facts,
        device=loaded[0].device.type,
        software=(detr_viz.__version__, *_versions()),
    )
