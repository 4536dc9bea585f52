"""The registry: one entry a model; its module is imported when used (--help needs no torch).

Known names, types of Hugging Face folders, the choices of --type and the tests that hold for every
model are put together from these entries and from each module's SPEC.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from detr_viz.common.errors import UserError

if TYPE_CHECKING:
    from detr_viz.models.spec import ModelSpec


@dataclass(frozen=True)
class Release:
    """A checkpoint that the authors have published.

    sha256_prefix: None where they published no hash. dilation: DC5, which leaves no trace in it.
    """

    name: str
    url: str
    title: str
    sha256_prefix: str | None = None
    dilation: bool = False

    @property
    def filename(self) -> str:
        return self.url.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class ModelEntry:
    """A model that can be loaded.

    module             has SPEC, a ModelSpec
    title              as papers write it
    transformers_types  model_type of its Hugging Face folders: one or several words, or none
    aliases            more words for it at --type; title and transformers_types are words already
    releases           known names of --weights
    hub                its checkpoints on the Hugging Face hub, owner/name
    proposals          what its checkpoints are called whose queries are tokens; "": it has none
    demo               whether a demo checkpoint ships, weights/<name>_demo.pth
    """

    module: str
    title: str
    transformers_types: tuple[str, ...] = ()
    releases: tuple[Release, ...] = ()
    hub: tuple[str, ...] = ()
    demo: bool = True
    aliases: tuple[str, ...] = ()
    proposals: str = ""

    @property
    def words(self) -> tuple[str, ...]:
        """Words that stand for it at --type, beside its name."""
        return tuple(w for w in (self.title, *self.transformers_types, *self.aliases) if w)


def _detr(name: str, file: str, title: str) -> Release:
    """The file's name bears the start of its sha256."""
    prefix = file.removesuffix(".pth").rsplit("-", 1)[-1]
    url = f"https://dl.fbaipublicfiles.com/detr/{file}"
    return Release(name, url, title, prefix, name.endswith("_dc5"))


def _conditional(name: str, file: str, title: str) -> Release:
    url = f"https://github.com/DeppMeng/ConditionalDETR/releases/download/v1.0/{file}"
    return Release(name, url, title, None, name.endswith("_dc5"))


REGISTRY: dict[str, ModelEntry] = {  # word of --type -> entry
    "detr": ModelEntry(
        "detr_viz.models.detr",
        "DETR",
        ("detr", "table-transformer"),
        (
            _detr("detr_resnet50", "detr-r50-e632da11.pth", "DETR R50"),
            _detr("detr_resnet50_dc5", "detr-r50-dc5-f0fb7ef5.pth", "DETR R50-DC5"),
            _detr("detr_resnet101", "detr-r101-2c7b67e5.pth", "DETR R101"),
            _detr("detr_resnet101_dc5", "detr-r101-dc5-a2e86def.pth", "DETR R101-DC5"),
        ),
    ),
    "cd_detr": ModelEntry(
        "detr_viz.models.conditional_detr",
        "Conditional DETR",
        ("conditional_detr",),
        tuple(
            _conditional(f"conditional_detr_{name}", file, f"Conditional DETR {title}")
            for name, file, title in (
                ("resnet50", "ConditionalDETR_r50_epoch50.pth", "R50"),
                ("resnet50_dc5", "ConditionalDETR_r50dc5_epoch50.pth", "R50-DC5"),
                ("resnet101", "ConditionalDETR_r101_epoch50.pth", "R101"),
                ("resnet101_dc5", "ConditionalDETR_r101dc5_epoch50.pth", "R101-DC5"),
            )
        ),
        aliases=("cond_detr", "cdetr"),
    ),
    "deformable_detr": ModelEntry(
        "detr_viz.models.deformable_detr",
        "Deformable DETR",
        ("deformable_detr",),
        hub=(  # the authors' own files lie where only a browser gets them
            "SenseTime/deformable-detr",
            "SenseTime/deformable-detr-with-box-refine",
            "SenseTime/deformable-detr-with-box-refine-two-stage",
        ),
        proposals="two-stage Deformable DETR",
    ),
    "efficient_detr": ModelEntry(
        "detr_viz.models.efficient_detr", "Efficient DETR", proposals="Efficient DETR"
    ),
    "anchor_detr": ModelEntry(
        "detr_viz.models.anchor_detr",
        "Anchor DETR",  # the authors' files lie where only a browser gets them
    ),
    "salience_detr": ModelEntry(
        "detr_viz.models.salience_detr",
        "Salience DETR",
        aliases=("salience",),
        proposals="Salience DETR",
    ),
    "sparse_rcnn": ModelEntry(
        "detr_viz.models.sparse_rcnn",
        "Sparse R-CNN",  # the authors' files lie where only a browser gets them
        aliases=("sparse_r_cnn", "sparsercnn"),
    ),
    "dynamic_detr": ModelEntry("detr_viz.models.dynamic_detr", "Dynamic DETR"),
    "notebook_detr": ModelEntry("detr_viz.models.notebook_detr", "Notebook DETR", demo=False),
}


def names() -> tuple[str, ...]:
    """Words of --type, the default first."""
    return tuple(REGISTRY)


def demos() -> tuple[str, ...]:
    """Those words of --type for which a demo checkpoint ships."""
    return tuple(name for name, entry in REGISTRY.items() if entry.demo)


def with_proposals() -> tuple[str, ...]:
    """What models are called whose queries are tokens of the image."""
    return tuple(entry.proposals for entry in REGISTRY.values() if entry.proposals)


def get(name: str) -> ModelSpec:
    """The ModelSpec of a --type word; UserError on an unknown one."""
    if name not in REGISTRY:
        raise UserError(f"unknown model type {name!r}: choose from {', '.join(REGISTRY)}")
    return import_module(REGISTRY[name].module).SPEC
