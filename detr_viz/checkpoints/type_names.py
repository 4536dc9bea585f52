"""Words of --type: names of the registries and their aliases. Imports no torch.

type_name("Conditional-DETR")          # "cd_detr"
"""

from __future__ import annotations

from collections.abc import Sequence

from detr_viz import adapters, models
from detr_viz.checkpoints import hub
from detr_viz.common.errors import UserError
from detr_viz.common.words import nearest, plain, resolve

# Words of other networks, none of which is meant by the name that looks like it most.
_OTHERS = (
    ("dndetr", "DN-DETR"),
    ("smcadetr", "SMCA-DETR"),
    ("updetr", "UP-DETR"),
    ("codetr", "Co-DETR"),
    ("dino", "DINO"),
    ("yolo", "YOLO"),
)


def type_names() -> tuple[str, ...]:
    """Names of all types but those of transformers, which tell themselves; the default first."""
    others = (name for name, entry in adapters.REGISTRY.items() if not entry.of_transformers)
    return tuple(dict.fromkeys((*models.names(), *others)))


def aliases() -> dict[str, tuple[str, ...]]:
    """Name of a type -> other words for it; a model of our own comes before an adapter."""
    own = {name: entry.words for name, entry in models.REGISTRY.items()}
    return own | {name: entry.words for name, entry in adapters.REGISTRY.items() if name not in own}


def type_name(word: str) -> str:
    """The name that a word of --type stands for; UserError where there is none.

    Case, dashes, underscores and spaces do not matter.
    """
    names = aliases()
    name = resolve(word, names)
    if name is None and adapters.discover():
        names = aliases()
        name = resolve(word, names)
    choices = ", ".join(type_names())
    if name is None and (title := next((t for s, t in _OTHERS if s in plain(word)), None)):
        raise UserError(
            f"unknown model type {word[:40]!r}: {title} is another network, not loaded here: "
            f"choose from {choices}"
        )
    if name is None:
        by_word = {w: n for n, more in names.items() for w in (*more, n)}
        near = [by_word[w] for w in nearest(word, by_word)]
        hint = f"did you mean {near[0]}? C" if near else "c"
        raise UserError(f"unknown model type {word[:40]!r}: {hint}hoose from {choices}")
    return name


def real_weights(type_name: str | None) -> str:
    """What to give --weights instead of the demo of a type; DETR without one."""
    entry = models.REGISTRY.get(type_name or models.names()[0])
    if entry is None:  # a model of somebody else's, by an adapter
        return "--weights with a file of yours"
    names = [release.name for release in entry.releases] or [hub.PREFIX + n for n in entry.hub]
    if not names:
        return f"--weights with a file of {entry.title} of yours"
    return f"--weights {names[0]} (see --list-models) or a file of yours"


def other_weights(types: Sequence[str]) -> str:
    """What to take for photos, instead of demo checkpoints of these types."""
    if len({*types}) == 1:
        return f"for photos take {real_weights(types[0])}"
    return "for photos take other --weights (see --list-models)"
