"""What a view is: what it needs of a run, what it measures, what it draws.

needs and measure run beside the network. What measure gives back is sent to the process that
draws: plain data, which torch is not needed for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from detr_viz.detections.matching import SharedObject
    from detr_viz.explanation.captured import Explanation
    from detr_viz.explanation.stored import StoredExplanation
    from detr_viz.render.numbers import Numbers
    from detr_viz.render.recipe import Recipe

Layers = str | int | tuple[int | str, ...]
Watch = Callable[[Sequence[Any]], Iterable[Any]]


@dataclass(frozen=True)
class Needs:
    """What must be captured while a detector runs.

    layers    decoder layers whose cross-attention and output are read, as explain takes them
    sites     further attention: pairs ("encoder" | "decoder", layer), layer as explain takes it
    redecode  whether the decoder must run again with parts taken out
    """

    layers: Layers = "last"
    sites: tuple[tuple[str, int | str], ...] = ()
    redecode: bool = False

    @property
    def layer_list(self) -> tuple[int | str, ...]:
        return self.layers if isinstance(self.layers, tuple) else (self.layers,)

    def __or__(self, other: Needs) -> Needs:
        layers = tuple(dict.fromkeys(self.layer_list + other.layer_list))
        return Needs(
            layers[0] if len(layers) == 1 else layers,
            tuple(dict.fromkeys(self.sites + other.sites)),
            self.redecode or other.redecode,
        )


class Result(Protocol):
    """What a view has measured: a frozen dataclass of plain data.

    shown: what each model has found, without the pixels where these are kept elsewhere. Before it
    is drawn, the pixels are put back.
    """

    shown: tuple[StoredExplanation, ...]


@dataclass(frozen=True, eq=False)
class Drawn:
    """What a view makes of its result; figures and numbers are made when they are wanted.

    figures  what follows the stem of a figure's file ("" for the first) -> what makes the figure
    numbers  what follows the stem of a file of numbers -> what makes them
    notes    what a reader must know of how this was made, a line each
    lines    tables, to be printed where one image is drawn
    """

    figures: Mapping[str, Callable[[], Figure]]
    numbers: Mapping[str, Callable[[], Numbers]] = field(default_factory=dict)
    notes: Sequence[str] = ()
    lines: Sequence[str] = ()


class View(Protocol):
    """name: as in the registry. what: the weights that another precision moves."""

    name: str
    what: str = "attention weights"

    def needs(self, recipe: Recipe) -> Needs:
        """What must be captured."""

    def measure(
        self,
        found: Sequence[Explanation],
        objects: Sequence[SharedObject],
        recipe: Recipe,
        watch: Watch = iter,
    ) -> Result:
        """All that takes torch, or the network.

        found: of each model. objects: what the recipe's queries choose. watch: gives the items of a
        long loop back one by one, and so sees how far it is. UserError for what cannot be drawn.
        """

    def deviation(self, result: Result, exact: Sequence[Explanation], recipe: Recipe) -> float:
        """How far the weights that are shown lie from those of the same models in float32."""

    def draw(self, result: Result, recipe: Recipe) -> Drawn:
        """Figures, numbers and lines; without torch. FigureError for what cannot be drawn."""


def layers_of(recipe: Recipe) -> tuple[int | str, ...]:
    """The recipe's layers, in its order."""
    return recipe.layer if isinstance(recipe.layer, tuple) else (recipe.layer,)


def resolved(recipe: Recipe, count: int, stack: str = "decoder") -> tuple[int, ...]:
    """The recipe's layers of a stack of so many, in its order, each once. UserError for others."""
    from detr_viz.explanation.sites import resolve_layers

    numbers = [n for layer in layers_of(recipe) for n in resolve_layers(layer, count, stack)]
    return tuple(dict.fromkeys(numbers))
