"""What a reader must know about a figure: the line under it, and all the notes."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from detr_viz.attention.terms import ALL_TERMS, MIXED, Mode, formula_of, is_sum, parse_terms
from detr_viz.common.words import listed
from detr_viz.figures.level_words import (
    grid_of,
    level_words,
    levels_note,
    number_notes,
    numbered,
    points_notes,
)
from detr_viz.figures.one_grid import one_grid_notes
from detr_viz.figures.page.fonts import drawable
from detr_viz.figures.page.profiles import AXES_NOTE
from detr_viz.figures.page.regions import region_rule
from detr_viz.figures.page.text import clean
from detr_viz.figures.references import reference_notes
from detr_viz.figures.stage_words import CHANGED, mixed_notes, stage_foot, stage_notes, stage_title
from detr_viz.figures.styles import ALL_IN_ONE, NORMS, Style
from detr_viz.figures.term_words import terms_rule
from detr_viz.figures.truth_marks import truth_notes, truth_words

if TYPE_CHECKING:
    from detr_viz.explanation.results import ExplanationBase

DASH = "\N{EN DASH}"

# Notes that several kinds of figures have.
LAYER_SCALE = "logits at the layer's own scale"
OWN_OUTPUT = "box, class and score: that layer's own"
SAME_CONTENT = "in layer 0 content is the same for every query"
SORTED_HEADS = "in each row the head of the least entropy first, its number before the colon"


@dataclass(frozen=True, eq=False)
class ShownModel:
    """A model's explanation, its name in the figure, and the decoder layers shown.

    label: the name beside its rows; shorter where the names of all models begin alike.
    """

    explanation: ExplanationBase
    name: str
    layers: tuple[int, ...]
    label: str = ""


@dataclass(frozen=True, eq=False)
class FigureContents:
    """All that a figure of head maps shows.

    queries     a line of words for each
    removed     the removed parts (explanation/removals.py)
    removed_in  the decoder layers that they were removed from
    width_in    of the figure
    grid_hw     of the maps of all models, where their own grids differ; None: of each its own
    """

    subjects: tuple[ShownModel, ...]
    modes: tuple[str | Mode, ...]
    scale: str
    style: Style
    queries: tuple[str, ...]
    removed: tuple[str, ...] = ()
    removed_in: tuple[int, ...] = ()
    biography: bool = False
    width_in: float = 4.6
    grid_hw: tuple[int, int] | None = None

    @property
    def of_stages(self) -> bool:
        """Whether panels are stages, which have words of their own."""
        return all(s.explanation.stages for s in self.subjects) and not self.removed

    @property
    def title(self) -> str:
        """Models and modes in a line."""
        models = listed([clean(s.name) for s in self.subjects])
        if self.of_stages:
            return stage_title(self, models)
        content = f"{listed([mode_name(m) for m in self.modes])} attention"
        heads = heads_of(self.style)
        if all(s.explanation.stages for s in self.subjects):
            heads = "of the last stage"
        if ALL_TERMS in self.modes:
            content = "terms of the logits"
        title = f"{models}: {content} {heads}".rstrip(",")
        title = ", ".join([title, *level_words(self.style)])
        if self.removed:
            title += f", without {listed(self.removed)}"
        return f"{title}, a query's biography" if self.biography else title


def class_name(explanation: ExplanationBase, label: int) -> str:
    """A class's name; its number, with a warning, where no installed font has the characters."""
    name = clean(explanation.class_names[label])
    if name and not drawable(name):
        warnings.warn(
            f"no installed font has all characters of {name!r}: the figure says class {label} "
            "(install a TrueType font that has them, for instance Noto Sans SC)",
            stacklevel=3,
        )
        name = ""
    return name or f"class {label}"


def heads_of(style: Style) -> str:
    """The words after "attention" that name the heads of the maps."""
    if isinstance(style.heads, tuple):
        return f"of {numbered('head', style.heads)}"
    return {
        "mean": "as the mean of all heads",
        "max": "as the largest weight of any head, cell by cell,",
        "sort": "of each head, the most concentrated first,",
        ALL_IN_ONE: "of all heads in one panel,",
    }.get(style.heads or "", "of each head")


def mode_name(mode: str | Mode) -> str:
    return mode if isinstance(mode, str) else mode.formula.replace("$", "")


def formulas(shown: FigureContents, mode: str | Mode) -> list[str]:
    """The formula of the mode's logits: once for all models, or one with the name of each."""
    texts = []
    for subject in shown.subjects:
        e = subject.explanation
        of_layers: dict[str, list[int]] = {}
        for layer in subject.layers:
            of_layers.setdefault(e.formula(mode, layer).replace("$", ""), []).append(layer)
        if len(of_layers) > 1 and len(shown.subjects) == 1:
            most, *rare = sorted(of_layers, key=lambda f: -len(of_layers[f]))
            return [f"${most}$", *(f"in layer {listed(of_layers[f])} ${f}$" for f in rare)]
        general = formula_of(mode) if isinstance(mode, str) else mode_name(mode)
        texts.append(next(iter(of_layers)) if len(of_layers) == 1 else general)
    if len(set(texts)) == 1:
        return [f"${texts[0]}$"]
    return [f"{clean(s.name)} ${f}$" for s, f in zip(shown.subjects, texts, strict=True)]


def each(shown: FigureContents, facts: Sequence[str]) -> list[str]:
    """A fact of each model: once where all models share it, else with the name of each."""
    if len(set(facts)) == 1:
        return [facts[0]]
    return [f"{clean(s.name)}: {f}" for s, f in zip(shown.subjects, facts, strict=True)]


def layers_of(subject: ShownModel) -> str:
    word, last = subject.explanation.layer_word, subject.explanation.num_layers - 1
    if len(subject.layers) == last + 1 > 1:
        return f"{word}s 0{DASH}{last}"
    return f"{numbered(word, subject.layers)} of 0{DASH}{last}"


def grids_of(shown: FigureContents) -> list[str]:
    """The grid of each model, or the one of all; a line each."""
    if shown.grid_hw is not None:
        return one_grid_notes(shown.subjects, shown.grid_hw)
    return each(shown, [grid_of(s, shown.style) for s in shown.subjects])


def foot_words(shown: FigureContents) -> list[str]:
    """The line under a figure: models, layers, modes, and what the numbers are."""
    subjects = shown.subjects
    words = [clean(s.name) for s in subjects] if len(subjects) == 1 else []
    truth = truth_words(subjects[0].explanation, shown.style)
    if shown.of_stages:
        return [*words, *stage_foot(shown), *truth]
    words += _layer_words(subjects)
    if ALL_TERMS in shown.modes:
        words.append("logits by term, centred; bars: share of the logits")
    elif len(shown.modes) == 1 and (not merged_words(shown.style) or level_words(shown.style)):
        words.append(mode_name(shown.modes[0]))  # else it stands over the panel
    words += [*merged_words(shown.style), *level_words(shown.style)]
    if shown.style.scaling in ("head", "query", "figure") and ALL_TERMS not in shown.modes:
        words.append("% in box, largest weight")
    if shown.removed:
        words.append("bars: the score left")
    if shown.style.name == "contour" and ALL_TERMS not in shown.modes:
        words.append("%: of the image, in the line")
    return [*words, *truth]


def merged_words(style: Style) -> list[str]:
    """Which heads the one panel of a row shows, where there is no more than one."""
    if isinstance(style.heads, tuple):
        return [f"head {style.heads[0]}"] if len(style.heads) == 1 else []
    if style.heads == ALL_IN_ONE:
        return ["all heads"]
    return [f"{style.heads} of heads"] if style.heads in ("mean", "max") else []


def _layer_words(subjects: Sequence[ShownModel]) -> list[str]:
    """The layers, where they are the same of all models; how many there are may differ."""
    words = dict.fromkeys(s.explanation.layer_word for s in subjects)
    if all(s.layers == (s.explanation.num_layers - 1,) for s in subjects):
        return [f"last {' or '.join(words)}"]
    if len({layers_of(s) for s in subjects}) == 1:
        return [layers_of(subjects[0])]
    same = len({s.layers for s in subjects}) == 1
    return [numbered(" or ".join(words), subjects[0].layers)] if same else []


def formula_note(mode: str, formula: str) -> str:
    """The formula of a mode's logits; a sum of terms needs no name before it."""
    return f"${formula}$" if is_sum(mode) else f"{mode}  ${formula}$"


def reading_rule(shown: FigureContents) -> list[str]:
    """What a reader must know, as notes; formulas stand between dollar signs."""
    subjects = shown.subjects
    notes = [clean(s.name) for s in subjects] if len(subjects) == 1 else []
    notes += each(shown, [layers_of(s) for s in subjects])
    truth = truth_notes(subjects[0].explanation, shown.style)
    if shown.of_stages:
        return [*notes, *stage_notes(shown), *truth]
    if any(s.layers != (s.explanation.num_layers - 1,) for s in subjects):
        notes.append(OWN_OUTPUT)
    notes += filter(None, each(shown, [levels_note(s, shown.style) for s in subjects]))
    for mode in shown.modes:
        first, *others = formulas(shown, mode)
        named = isinstance(mode, str) and not is_sum(mode)
        notes += [f"{mode}  {first}" if named else first, *others]
        if is_sum(mode) and set(parse_terms(str(mode))) <= MIXED:
            zero = [f"layer {n}" for s in subjects for n in s.layers if n in s.explanation.separate]
            if zero:
                notes.append(f"exactly 0 in {listed(dict.fromkeys(zero))}: even maps")
    if shown.style.heads == "sort":
        notes.append(SORTED_HEADS)
    elif shown.style.heads == "max":
        notes.append("the largest weight of any head, cell by cell")
    if shown.biography:
        notes.append(CHANGED)
        notes += reference_notes([s.explanation for s in shown.subjects])
    if shown.removed:
        layers = numbered(subjects[0].explanation.layer_noun, shown.removed_in)
        notes.append(
            f"rows below the first: without that part in {layers}; blue: the box that is left, "
            "white: the box as it was"
        )
        notes.append("bars: the score that the class is left")
        if any(name.startswith("box:") for name in shown.removed):
            kinds = {s.explanation.attention_kind for s in subjects}
            what = "samples" if kinds == {"sampled"} else "cells"
            notes.append(f"hidden: the {what} inside or outside each query's own box")
    if ALL_TERMS in shown.modes:
        notes += terms_rule(shown)
    elif shown.scale == "layer":
        notes.append(LAYER_SCALE)
    if "content" in shown.modes and any(0 in s.layers for s in subjects):
        notes.append(SAME_CONTENT)
    if len(subjects) > 1:
        early = any(s.layers[-1] < s.explanation.num_layers - 1 for s in subjects)
        where = " at the last layer" if early else ""
        notes.append(f"queries matched by box IoU{where}")
        notes += mixed_notes(shown)
    if ALL_TERMS not in shown.modes:
        notes += number_notes(shown.style)
        if any(s.explanation.has_axes for s in subjects):
            notes.append(AXES_NOTE)
    notes += points_notes(shown)
    return [*notes, *truth, *grids_of(shown)]


def normalisation(style: Style) -> str:
    """What colours or lines say about weights, in words."""
    if style.name == "points":
        return "a circle is a sampling point, its area the weight, its colour the level"
    if style.name == "cells":
        return "cells of the box: orange adds, blue takes away, all on one scale"
    if style.scaling is None:
        shares = listed([round(share * 100) for share in style.contours])
        return (
            f"inside the lines lie {shares} % of each map's mass ({region_rule(style.smoothing)}); "
            "maps whose first line would hold more than a third of the image are coloured instead"
        )
    return f"normalisation {style.scaling} ({NORMS[style.scaling]})"
