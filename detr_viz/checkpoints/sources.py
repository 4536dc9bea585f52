"""Several models in one run: which weights are of which type, and loading them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from detr_viz import adapters, models
from detr_viz.adapters import script
from detr_viz.checkpoints.locate import check_weights
from detr_viz.checkpoints.other_networks import check_words
from detr_viz.common.errors import UserError

if TYPE_CHECKING:
    from detr_viz.explanation.detector import Detector


@dataclass(frozen=True)
class ModelSource:
    """Where a model comes from and how it runs, as load_model takes it.

    precision: that it is to run in; `load` gives it in float32 first, to compare with.
    script: a file of the user's and its function that builds the model, in place of weights.
    """

    weights: str | None = None
    type: str | None = None
    classes: str | None = None
    nheads: int | None = None
    dilation: bool | None = None
    cache: str | None = None
    device: str = "auto"
    precision: str = "float32"
    network: str = "own"
    prompt: str | None = None
    script: str | None = None


def pair(
    types: Sequence[str] | None, weights: Sequence[str] | None
) -> list[tuple[str | None, str | None]]:
    """(type, weights) of each model: by position; one type is that of all weights."""
    if not types or not weights:
        return [(t, None) for t in types or ()] or [(None, w) for w in weights or (None,)]
    kinds = list(types) * len(weights) if len(types) == 1 else list(types)
    if len(kinds) != len(weights):
        raise UserError(
            f"--type has {len(types)} and --weights {len(weights)}: they pair by position, "
            "so give as many of each (or one type for all)"
        )
    return list(zip(kinds, weights, strict=True))


def check_sources(sources: Sequence[ModelSource]) -> None:
    """UserError for weights that are not there, or are something else; before torch is imported."""
    for source in sources:
        if source.script is not None:
            script.parsed(source.script)
            continue
        check_words(source.weights, source.type)
        entry = adapters.REGISTRY.get(source.type or "")
        if source.type in models.REGISTRY or entry is None or entry.of_transformers:
            with named(_title(source), len(sources)):
                check_weights(source.weights, source.type)


def _title(source: ModelSource) -> str:
    if source.script is not None:
        return source.script
    demo = f"the demo checkpoint of {source.type or 'detr'}"
    return demo if source.weights is None else source.weights


def load(sources: Sequence[ModelSource], progress: bool = True) -> list[Detector]:
    """The models of these sources, in float32. progress: of downloads, on stderr."""
    # torch, only once the arguments are known to be sound
    from detr_viz.checkpoints.load_model import load_model

    loaded = []
    for source in sources:
        with named(_title(source), len(sources)):
            if source.script is not None:
                loaded.append(script.build(source.script))
                continue
            model = load_model(
                source.weights,
                source.type,
                classes=source.classes,
                nheads=source.nheads,
                dilation=source.dilation,
                cache=source.cache,
                device=source.device,
                progress=progress,
                network=source.network,
                prompt=source.prompt,
            )
        loaded.append(model)
    return loaded


def precise(
    loaded: Sequence[Detector], precision: str
) -> tuple[list[Detector] | None, list[Detector]]:
    """(the models in float32 where another precision is asked for, the models to use)."""
    if precision == "float32":
        return None, list(loaded)
    from detr_viz.checkpoints.load_model import in_precision

    return list(loaded), [in_precision(model, precision) for model in loaded]


@contextmanager
def named(weights: str, models: int) -> Iterator[None]:
    """A mistake that concerns one of several models says which."""
    try:
        yield
    except UserError as error:
        if models == 1 or Path(weights).name in str(error):
            raise
        raise UserError(f"{weights}: {error}") from error
