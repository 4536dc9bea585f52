"""What a figure says of itself: the reading rule under it, its metadata, a caption for LaTeX."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import detr_viz
from detr_viz.files import OutputError, reason, replacing
from detr_viz.lettering import clean
from detr_viz.styles import CONTOUR_SHARES, NORMS, Look
from detr_viz.terms import MODES, Mode

if TYPE_CHECKING:
    from detr_viz.explanation import Explanation

_TIMES, _DASH = "\N{MULTIPLICATION SIGN}", "\N{EN DASH}"


@dataclass(frozen=True, eq=False)
class Subject:
    """A model's explanation, what it is called in the figure, and the decoder layers shown."""

    explanation: Explanation
    name: str
    layers: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Shown:
    """All that a figure shows; `queries`: a line of words for each."""

    subjects: tuple[Subject, ...]
    modes: tuple[str | Mode, ...]
    scale: str
    look: Look
    queries: tuple[str, ...]
    wide: bool = True  # made for more than one column

    @property
    def title(self) -> str:
        """Models and modes in a line."""
        models = _listed([clean(s.name) for s in self.subjects])
        return f"{models}: {_listed([mode_name(m) for m in self.modes])} attention of each head"


def mode_name(mode: str | Mode) -> str:
    return mode if isinstance(mode, str) else "own mode"


def formula(mode: str | Mode) -> str:
    return (MODES[mode] if isinstance(mode, str) else mode).formula


def _listed(words: Sequence[object]) -> str:
    """a; a and b; a, b and c."""
    texts = [str(w) for w in words]
    return " and ".join([", ".join(texts[:-1]), texts[-1]] if len(texts) > 1 else texts)


def _each(shown: Shown, facts: Sequence[str]) -> list[str]:
    """A fact of each subject: said once where all share it, else with the subject's name."""
    if len(set(facts)) == 1:
        return [facts[0]]
    return [f"{clean(s.name)}: {f}" for s, f in zip(shown.subjects, facts, strict=True)]


def _layers(subject: Subject) -> str:
    last = subject.explanation.num_layers - 1
    if len(subject.layers) == last + 1 > 1:
        return f"decoder layers 0{_DASH}{last}"
    plural = "s" if len(subject.layers) > 1 else ""
    return f"decoder layer{plural} {_listed(subject.layers)} of 0{_DASH}{last}"


def _grid(subject: Subject) -> str:
    h, w = subject.explanation.grid_hw
    return f"map of {w} {_TIMES} {h} cells"


def reading_rule(shown: Shown) -> list[str]:
    """What a reader must know, once, piece by piece; formulas between dollar signs."""
    subjects = shown.subjects
    notes = [clean(s.name) for s in subjects] if len(subjects) == 1 else []
    notes += _each(shown, [_layers(s) for s in subjects])
    if any(s.layers != (s.explanation.num_layers - 1,) for s in subjects):
        notes.append("box, class and score: that layer's own")
    notes += [f"{mode_name(mode)}  ${formula(mode)}$" for mode in shown.modes]
    if shown.scale == "layer":
        notes.append("logits at the layer's own scale")
    if "content" in shown.modes and any(0 in s.layers for s in subjects):
        notes.append("in layer 0 content is the same for every query")
    if len(subjects) > 1:
        notes.append("queries matched by box IoU")
    return [*notes, *_each(shown, [_grid(s) for s in subjects])]


def normalisation(look: Look) -> str:
    """How colours or lines relate to weights, in words."""
    if look.scaling is None:
        shares = _listed([round(share * 100) for share in CONTOUR_SHARES])
        return f"lines hold {shares} % of each map's mass"
    return f"normalisation {look.scaling} ({NORMS[look.scaling]})"


def _checked(subject: Subject) -> str:
    residuals = [subject.explanation.residuals.get(i, math.nan) for i in subject.layers]
    worst = max(residuals, key=lambda r: -1 if math.isnan(r) else r)
    return "self-check " + ("untestable" if math.isnan(worst) else f"residual {worst:.1e}")


def metadata(shown: Shown) -> dict[str, str]:
    """Title, Software and Description. No dates: the same figure is the same file."""
    plain = [" ".join(note.replace("$", "").split()) for note in reading_rule(shown)]
    look = shown.look
    drawn = f"style {look.style}, {look.smoothing} interpolation"
    if look.style != "contour":
        drawn += f", colour map {'inferno' if look.cmap is None else look.cmap}"
    checks = _each(shown, [_checked(s) for s in shown.subjects])
    rule = "; ".join([*plain, f"scale {shown.scale}", normalisation(look), drawn, *checks])
    hashes = _each(shown, [_weights(s) for s in shown.subjects if _weights(s)] or [""])
    image = shown.subjects[0].explanation.meta.get("image_sha256")
    hashes += [f"image sha256 {image}"] if image else []
    return {
        "Title": shown.title,
        "Software": f"detr_viz {detr_viz.__version__}",
        "Description": ". ".join([rule, "; ".join(shown.queries), *filter(None, hashes)]),
    }


def _weights(subject: Subject) -> str:
    meta = subject.explanation.meta
    if not meta.get("weights_sha256"):
        return ""
    name = clean(str(meta.get("weights") or ""))
    return f"weights {name} sha256 {meta['weights_sha256']}".replace("  ", " ")


# --- LaTeX ------------------------------------------------------------------------------------

_OURS = "% drawn by detr_viz "  # how our files begin
_NOT_IN_LATEX = re.compile(r'["`{}\\]')  # no engine finds a file of such a name
_FILE_SIGNS = {"%": r"\csname @percentchar\endcsname", "#": r"\csname c_hash_str\endcsname"}
_NAMED, _ALL_NAMED = 6, 8  # of more than 8 queries a caption names 6
_ESCAPES = {c: f"\\{c}" for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "`": r"\textasciigrave{}",
    _TIMES: r"$\times$",
    "·": r"$\cdot$",
    _DASH: r"\textendash{}",
}


def escape(text: str) -> str:
    """Text as LaTeX shows it literally."""
    return re.sub("-(?=-)", "-{}", "".join(_ESCAPES.get(c, c) for c in text))


def _math(text: str) -> str:
    return "$" + text.replace("·", r"\cdot") + "$"


def latex(shown: Shown, figure: str | Path) -> str:
    """A figure environment with a caption that states all a reader must know.

    Model, checkpoint (the sha256's first 12 digits; all of it in a comment), layer, mode, scale,
    normalisation. `figure`: the file's name as the document will include it.
    """
    path = Path(figure)
    svg = path.suffix.lower() == ".svg"
    # Inkscape draws the text: LaTeX would set it in its own font and size
    include = r"\includesvg[inkscapelatex=false," if svg else r"\includegraphics["
    needs = "svg}, Inkscape and -shell-escape" if svg else "graphicx}"
    name = _NOT_IN_LATEX.sub("-", clean(path.name))
    label = re.sub(r"[^A-Za-z0-9]+", "-", path.stem).strip("-") or "attention"
    environment = "figure*" if shown.wide else "figure"
    comments = [f"needs \\usepackage{{{needs}", *filter(None, map(_weights, shown.subjects))]
    if name != path.name:
        comments.append(f"rename the figure to {name}: LaTeX cannot include a file of its name")
    caption = _caption(shown)
    if not caption.isascii():
        comments.append(
            "has characters beyond ASCII; where pdflatex lacks them: xelatex or lualatex, with a "
            "font that has them"
        )
    return "\n".join(
        [
            f"{_OURS}{detr_viz.__version__}",
            *(f"% {line}" for line in comments),
            f"\\begin{{{environment}}}[t]",
            r"  \centering",
            f"  {include}width=\\linewidth]{{{_included(name)}}}",
            f"  \\caption{{{caption}}}",
            f"  \\label{{fig:{label}}}",
            f"\\end{{{environment}}}",
            "",
        ]
    )


def _included(name: str) -> str:
    r"""A file's name for \includegraphics: \detokenize keeps every sign but % and #."""
    pieces = [piece for piece in re.split("([%#])", name) if piece]
    if re.fullmatch(r"[A-Za-z0-9._-]+", name):
        return name
    return "".join(_FILE_SIGNS.get(piece) or f"\\detokenize{{{piece}}}" for piece in pieces)


def _caption(shown: Shown) -> str:
    models = _listed([escape(clean(s.name)) + _short_hash(s) for s in shown.subjects])
    modes = _listed(
        [f"\\emph{{{escape(mode_name(m))}}} ({_math(formula(m))})" for m in shown.modes]
    )
    layers = _each(shown, [_layers(s) for s in shown.subjects])
    look = shown.look
    if look.style == "contour":
        reading = f"L{escape(normalisation(look))[1:]}"
    else:
        drawn = "Colour shows a cell's weight" + ("" if look.style == "heat" else " over the photo")
        reading = (
            f"{drawn}: {NORMS[look.scaling or 'head']} (normalisation \\emph{{{look.scaling}}})"
        )
    scaled = {
        "mode": "queries and keys of each mode are scaled as if attended on their own",
        "layer": "logits keep the layer's own scale",
    }[shown.scale]
    grid = "; ".join(escape(text) for text in _each(shown, [_grid(s) for s in shown.subjects]))
    return (
        f"Decoder cross-attention of each head of {models}, {escape('; '.join(layers))}: {modes}; "
        f"{scaled} (scale \\emph{{{shown.scale}}}). {_rows(shown)} {reading}; {grid}. "
        f"Drawn with detr\\_viz {detr_viz.__version__}."
    )


def _rows(shown: Shown) -> str:
    """What a row is, and which queries there are."""
    compared = len(shown.subjects) > 1
    layered = any(len(s.layers) > 1 for s in shown.subjects)
    inner = ["model"] * compared + ["layer"] * layered + ["mode"] * (len(shown.modes) > 1)
    queries = escape(_queries(shown))
    if not inner:
        return f"A row is one object query ({queries}) with its predicted box."
    said = f"Rows are ordered by object query ({'at the last layer shown: ' * layered}{queries}), "
    said += f"then by {_listed(inner)}"
    said += "; queries of different models are matched by box IoU" * compared
    return f"{said}. Boxes are predicted{' by each layer on its own' * layered}."


def _queries(shown: Shown) -> str:
    """The queries in words: all of a few, of many the first and how many more there are."""
    lines, each = shown.queries, len(shown.subjects)
    count, named = len(lines) // each, max(_NAMED // each, 1)
    if len(lines) <= _ALL_NAMED or count <= named:
        return "; ".join(lines)
    more = f"and {count - named} more" + " objects" * (each > 1)
    return "; ".join([*lines[: named * each], more])


def _short_hash(subject: Subject) -> str:
    digest = subject.explanation.meta.get("weights_sha256")
    return f" (weights \\texttt{{{str(digest)[:12]}}})" if digest else ""


def caption_path(figure: str | Path) -> Path:
    """<figure's stem>.tex. OutputError where that is a folder, or not ours: a manuscript, say."""
    path = Path(figure).with_suffix(".tex")
    try:
        with path.open("rb") as file:
            begins = file.read(len(_OURS))
    except FileNotFoundError:
        return path
    except OSError as error:
        raise OutputError(f"cannot write {path}: {reason(error)}; choose another --out") from error
    if begins not in (b"", _OURS.encode()):
        raise OutputError(f"{path} was not written by --caption: move it, or choose another --out")
    return path


def save_caption(shown: Shown, figure: str | Path) -> Path:
    """Write <figure's stem>.tex beside a figure; an older one is replaced. Raises OutputError."""
    path = caption_path(figure)
    with replacing(path) as part:
        part.write_text(latex(shown, figure), encoding="utf-8")
    return path
