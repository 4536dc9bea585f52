"""A figure's caption for LaTeX: a file beside the figure with all that a reader must know."""

from __future__ import annotations

import math
import re
from pathlib import Path

import detr_viz
from detr_viz.attention.terms import ALL_TERMS, Mode, is_sum
from detr_viz.common.files import OutputError, reason, replacing
from detr_viz.common.regular import open_regular
from detr_viz.common.words import listed
from detr_viz.figures.file_facts import image_name, weights_of
from detr_viz.figures.latex_text import (
    FORMULA,
    NOT_IN_LATEX,
    escape,
    fitting_one_line,
    included,
    mathematics,
    with_formulas,
)
from detr_viz.figures.level_words import (
    level_words,
    levels_note,
    number_notes,
    points_notes,
)
from detr_viz.figures.page.text import clean
from detr_viz.figures.reading_rule import (
    FigureContents,
    ShownModel,
    each,
    formulas,
    grids_of,
    heads_of,
    layers_of,
    mode_name,
    normalisation,
    reading_rule,
)
from detr_viz.figures.styles import NORMS, Style
from detr_viz.figures.truth_marks import truth_notes
from detr_viz.figures.view_contents import ViewContents

_FIRST_WORDS = "% drawn by detr_viz "  # how the files written here begin
_ONE_COLUMN_IN, _PAGE_IN = 4.0, 8.5  # widths up to which figures fit one column, and a page
_NAMED, _ALL_NAMED = 6, 8  # a caption names 6 queries where there are more than 8


def latex(shown: FigureContents | ViewContents, figure: str | Path) -> str:
    """A figure environment with a caption that states all a reader must know.

    Model, checkpoint (the sha256's first 12 digits; all of it in a comment), layer, mode, scale,
    normalisation. `figure`: the file's name as the document will include it.
    """
    path = Path(figure)
    svg = path.suffix.lower() == ".svg"
    # Inkscape draws the text: LaTeX would set it in its own font and size
    include = r"\includesvg[inkscapelatex=false," if svg else r"\includegraphics["
    needs = "svg}, Inkscape and -shell-escape" if svg else "graphicx}"
    name = NOT_IN_LATEX.sub("-", clean(path.name))
    label = re.sub(r"[^A-Za-z0-9]+", "-", path.stem).strip("-") or "attention"
    environment = "figure" if shown.width_in <= _ONE_COLUMN_IN else "figure*"
    # in its own width, so that its type keeps its size; slides and posters are scaled to fit
    printed = shown.width_in <= _PAGE_IN
    width = (
        f"{math.floor(round(shown.width_in * 100, 3)) / 100:.2f}in" if printed else r"\linewidth"
    )
    hashes = (re.sub(r"\^(?=\^)", "^ ", clean(line)) for line in _hashes(shown))
    comments = [f"needs \\usepackage{{{needs}", *hashes]
    if name != path.name:
        comments.append(f"rename the figure to {name}: LaTeX cannot include a file of its name")
    words_of = _caption if _has_words(shown) else _plain_caption
    caption = fitting_one_line(lambda: words_of(shown))
    if not caption.isascii():
        comments.append(
            "has characters beyond ASCII; where pdflatex lacks them: xelatex or lualatex, with a "
            "font that has them"
        )
    return "\n".join(
        [
            f"{_FIRST_WORDS}{detr_viz.__version__}",
            *(f"% {line}" for line in comments),
            f"\\begin{{{environment}}}[t]",
            r"  \centering",
            f"  {include}width={width}]{{{included(name)}}}",
            f"  \\caption{{{caption}}}",
            f"  \\label{{fig:{label}}}",
            f"\\end{{{environment}}}",
            "",
        ]
    )


def _hashes(shown: FigureContents | ViewContents) -> list[str]:
    """The weights of each model with the whole sha256."""
    if isinstance(shown, ViewContents):
        return [f"weights {clean(shown.weights)} sha256 {shown.sha256}"] if shown.sha256 else []
    return list(filter(None, map(weights_of, shown.subjects)))


def _has_words(shown: FigureContents | ViewContents) -> bool:
    """Whether `_caption` has sentences for the contents of this figure."""
    return isinstance(shown, FigureContents) and not (
        shown.of_stages
        or ALL_TERMS in shown.modes
        or shown.removed
        or shown.biography
        or shown.style.heads == "max"
    )


def _plain_caption(shown: FigureContents | ViewContents) -> str:
    """Title and reading rule as sentences, for figures that `_caption` has no sentences for."""
    if isinstance(shown, ViewContents):
        models, title, rule = shown.model, f"{shown.model}: {shown.title}", list(shown.rule)
        if rule and clean(rule[0]) == models:
            del rule[0]
        about, image = shown.about, shown.image
        short = f" (weights \\texttt{{{escape(shown.sha256[:12])}}})" if shown.sha256 else ""
    else:
        title, rule = shown.title, reading_rule(shown)
        if ALL_TERMS not in shown.modes:  # their scale is another one, and a note names it
            rule = [*rule, normalisation(shown.style)]
        if len(shown.subjects) == 1:
            del rule[0]  # the model's name
        about, image = "; ".join(shown.queries), image_name(shown)
        short = "".join(map(_short_hash, shown.subjects))
    on = f" on \\texttt{{{escape(image)}}}" if image else ""
    notes = "; ".join(with_formulas(note) for note in rule)
    return (
        f"{escape(title)}{short}{on}. {_sentence(notes)} {_sentence(escape(about))} "
        f"Drawn with detr\\_viz {detr_viz.__version__}."
    )


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _caption(shown: FigureContents) -> str:
    models = listed([escape(clean(s.name)) + _short_hash(s) for s in shown.subjects])
    layers = escape("; ".join(each(shown, [layers_of(s) for s in shown.subjects])))
    image = f" on \\texttt{{{escape(image_name(shown))}}}" if image_name(shown) else ""
    modes = listed([_mode(shown, mode) for mode in shown.modes])
    kinds = {s.explanation.attention_kind for s in shown.subjects}
    scaled = "" if kinds == {"sampled"} else f"; {_scaled(shown)}"
    whole = "sum to 1, less what falls off the image" if "sampled" in kinds else "sum to 1"
    if "joint" in kinds:
        whole = "sum to 1, less what goes to other tokens of the sequence"
    one = "A map's"
    if shown.style.levels != "sum":
        one, whole = "A head's", whole.replace("sum to 1", "sum to 1 over all levels")
    grid = "; ".join(map(escape, grids_of(shown)))
    of = ", ".join([escape(heads_of(shown.style)), *level_words(shown.style)])
    return (
        f"Cross-attention {of} of {models}, {layers}{image}: {modes}{scaled}. "
        f"{_rows(shown)} {_reading(shown)} "
        f"{_levels(shown)}{_numbers(shown.style)} {_truth(shown)}"
        f"{one} weights {whole} ({grid}). Drawn with detr\\_viz {detr_viz.__version__}."
    )


def _truth(shown: FigureContents) -> str:
    """What dashed boxes are; "" where there are none."""
    notes = truth_notes(shown.subjects[0].explanation, shown.style)
    return "".join(f"{_sentence(escape(note))} " for note in notes)


def _scaled(shown: FigureContents) -> str:
    """Which factor the logits have."""
    words = {
        "mode": "each mode's logits have the factor of its own query and key",
        "layer": "all logits have the layer's factor",
    }[shown.scale]
    if shown.scale == "mode" and any(
        isinstance(mode, Mode) or is_sum(mode) for mode in shown.modes
    ):
        words += ", or the layer's where the mode is a combination of parts"
    return f"{words} (scale \\emph{{{shown.scale}}})"


def _mode(shown: FigureContents, mode: str | Mode) -> str:
    """A mode's name with what its logits are, in mathematics."""
    pieces = []
    for text in formulas(shown, mode):
        name, product, _ = text.rsplit("$", 2)  # a name may have that sign too
        known = FORMULA.fullmatch(product) is not None
        pieces.append(escape(name) + (mathematics(product) if known else escape(product)))
    if not isinstance(mode, str):
        return "; ".join(pieces)
    return f"\\emph{{{escape(mode_name(mode))}}} ({'; '.join(pieces)})"


def _reading(shown: FigureContents) -> str:
    """What colour or lines mean."""
    style = shown.style
    if style.scaling is None:
        return _sentence(escape(normalisation(style)))
    where = " over the photo" if style.name == "overlay" else ""
    scaled = f"{NORMS[style.scaling]} (normalisation \\emph{{{style.scaling}}})"
    known = f"Darker colour{where} is more attention"  # of the default map
    return f"{known if style.cmap is None else f'Colour{where} is attention'}, {scaled}."


def _levels(shown: FigureContents) -> str:
    """Which levels are drawn, and what marks references; "" for dense maps."""
    notes = filter(None, each(shown, [levels_note(s, shown.style) for s in shown.subjects]))
    return "".join(f"{_sentence(escape(note))} " for note in [*notes, *points_notes(shown)])


def _numbers(style: Style) -> str:
    """What stands under the panels."""
    words = "; ".join(number_notes(style)).replace("%: ", "per cent ", 1)
    return _sentence(f"under each panel: {escape(words)}")


def _rows(shown: FigureContents) -> str:
    """What a row is, and which queries are shown."""
    compared = len(shown.subjects) > 1
    layered = any(len(s.layers) > 1 for s in shown.subjects)
    inner = ["model"] if compared else []
    if layered:
        inner.append("layer")
    if len(shown.modes) > 1:
        inner.append("mode")
    queries = escape(_queries(shown))
    if not inner:
        return f"A row is one object query ({queries}) with its predicted box."
    if layered:
        queries = f"at the last layer shown: {queries}"
    order = f"Rows are ordered by object query ({queries}), then by {listed(inner)}"
    if compared:
        order += "; queries of different models are matched by box IoU"
    return f"{order}. Boxes are predicted{' by each layer on its own' if layered else ''}."


def _queries(shown: FigureContents) -> str:
    """The queries in words: all of a few; of many the first ones and the number of the others."""
    lines, each = shown.queries, len(shown.subjects)
    count, named = len(lines) // each, max(_NAMED // each, 1)
    if len(lines) <= _ALL_NAMED or count <= named:
        return "; ".join(lines)
    more = f"and {count - named} more{' objects' if each > 1 else ''}"
    return "; ".join([*lines[: named * each], more])


def _short_hash(subject: ShownModel) -> str:
    digest = subject.explanation.meta.get("weights_sha256")
    return f" (weights \\texttt{{{escape(str(digest)[:12])}}})" if digest else ""


def caption_path(figure: str | Path) -> Path:
    """<figure's stem>.tex. OutputError where it is a folder, or a file that we did not write."""
    path = Path(figure).with_suffix(".tex")
    if path.is_symlink() and not path.exists():
        raise OutputError(f"cannot write {path}: it is a link to nothing; choose another --out")
    try:
        with open_regular(path) as file:
            begins = file.read(len(_FIRST_WORDS))
    except FileNotFoundError:
        return path
    except OSError as error:
        raise OutputError(f"cannot write {path}: {reason(error)}; choose another --out") from error
    if begins not in (b"", _FIRST_WORDS.encode()):
        raise OutputError(f"{path} was not written by --caption: move it, or choose another --out")
    return path


def save_caption(
    shown: FigureContents | ViewContents, figure: str | Path, recipe: str = ""
) -> Path:
    """Write <figure's stem>.tex beside a figure; an older one is replaced. Raises OutputError.

    recipe: the digest of the run's recipe (render/recipe.py); "" for none.
    """
    path = caption_path(figure)
    first, rest = latex(shown, figure).split("\n", 1)
    lines = [first, f"% recipe {recipe}", rest] if recipe else [first, rest]
    with replacing(path) as part:
        part.write_text("\n".join(lines), encoding="utf-8")
    return path
