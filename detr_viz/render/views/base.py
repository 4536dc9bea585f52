"""The protocol of a view: what it needs from a run, what it measures, what it draws.

needs and measure run in the process of the network. The result of measure is plain data, without
torch: it is sent to the process that draws.
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
    from detr_viz.images.loaded_image import LoadedImage
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
    proposals whether queries must be tokens of the image
    salience  whether the encoder must choose tokens by their salience
    scales    whether the encoder must have scale attention
    """

    layers: Layers = "last"
    sites: tuple[tuple[str, int | str], ...] = ()
    redecode: bool = False
    proposals: bool = False
    salience: bool = False
    scales: bool = False

    @property
    def layer_list(self) -> tuple[int | str, ...]:
        return self.layers if isinstance(self.layers, tuple) else (self.layers,)

    def __or__(self, other: Needs) -> Needs:
        layers = tuple(dict.fromkeys(self.layer_list + other.layer_list))
        return Needs(
            layers[0] if len(layers) == 1 else layers,
            tuple(dict.fromkeys(self.sites + other.sites)),
            self.redecode or other.redecode,
            self.proposals or other.proposals,
            self.salience or other.salience,
            self.scales or other.scales,
        )


class Result(Protocol):
    """The measured values of a view: a frozen dataclass of plain data.

    shown: the explanation of each model; its pixels may be left out, and are put back before it is
    drawn.
    """

    shown: tuple[StoredExplanation, ...]


@dataclass(frozen=True, eq=False)
class Drawn:
    """The figures and numbers of a view; each is made when its function is called.

    figures  end of the file name after the stem ("" for the first) -> function that draws it
    numbers  end of the file name after the stem -> function that returns the numbers
    notes    lines that a reader of the figures must know
    lines    tables to print, where one image is drawn
    page     makes the view's page of the photo and the digest; None: the view has none
    """

    figures: Mapping[str, Callable[[], Figure]]
    numbers: Mapping[str, Callable[[], Numbers]] = field(default_factory=dict)
    notes: Sequence[str] = ()
    lines: Sequence[str] = ()
    page: Callable[[LoadedImage, str], str] | None = None


class View(Protocol):
    """name: as in the registry. what: name of the weights that `deviation` compares."""

    name: str
    what: str = "attention weights"

    def needs(self, recipe: Recipe) -> Needs:
        """What must be captured."""

    def measure(
        self,
        explanations: Sequence[Explanation],
        objects: Sequence[SharedObject],
        recipe: Recipe,
        watch: Watch = iter,
    ) -> Result:
        """All that needs torch, or the network.

        explanations: one of each model. objects: the objects that the recipe's queries choose.
        watch: wraps the items of a long loop, to show its progress. UserError for what cannot be
        drawn.
        """

    def deviation(self, result: Result, exact: Sequence[Explanation], recipe: Recipe) -> float:
        """The distance of the shown weights from those of the same models in float32."""

    def draw(self, result: Result, recipe: Recipe) -> Drawn:
        """Figures, numbers and lines; without torch. FigureError for what cannot be drawn."""


def layers_of(recipe: Recipe) -> tuple[int | str, ...]:
    """The recipe's layers, in its order."""
    return recipe.layer if isinstance(recipe.layer, tuple) else (recipe.layer,)


def resolved(recipe: Recipe, count: int, word: str = "decoder layer") -> tuple[int, ...]:
    """The recipe's layers of a stack of so many, in its order, each once. UserError for others.

    word: what a layer of the stack is called.
    """
    from detr_viz.explanation.sites import resolve_layers

    numbers = [n for layer in layers_of(recipe) for n in resolve_layers(layer, count, word)]
    return tuple(dict.fromkeys(numbers))
