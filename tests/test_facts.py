r"""What a figure says of itself: metadata, and captions read by a small TeX reader of our own."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from fake_explanation import MODES, FakeExplanation, fake

import detr_viz
from detr_viz import facts, figures
from detr_viz.facts import Shown, Subject
from detr_viz.files import OutputError
from detr_viz.styles import NORMS, Look
from detr_viz.terms import Mode

ASCII = "".join(map(chr, range(33, 127)))
SIGNS = {
    "textbackslash": "\\",
    "textasciitilde": "~",
    "textasciicircum": "^",
    "textless": "<",
    "textgreater": ">",
    "textbar": "|",
    "textasciigrave": "`",
    "textendash": "\N{EN DASH}",
    "times": "\N{MULTIPLICATION SIGN}",
    "cdot": "\N{MIDDLE DOT}",
}
LAYOUT = {"emph", "texttt", "caption", "label", "centering", "begin", "end"}
TOKEN = re.compile(r"\\([A-Za-z]+) *|\\(.)|(%[^\n]*\n *)|(.)", re.DOTALL)


def typeset(source: str) -> str:
    """The text that TeX makes of a source; AssertionError for what it would not set literally."""
    out, depth, math = [], 0, False
    for command, sign, comment, plain in TOKEN.findall(source):
        if command:
            assert command in SIGNS or command in LAYOUT, command
            out.append(SIGNS.get(command, ""))
        elif sign:
            assert sign in "&%$#_{}", sign
            out.append(sign)
        elif plain == "$":
            math = not math
        elif plain and plain in "{}":
            depth += 1 if plain == "{" else -1
            assert depth >= 0
            out.append("\0")  # no ligature across it
        elif not comment:
            assert plain not in "\\&#~" and (math or plain not in "_^"), plain
            assert plain not in "<>|`", plain  # other signs in TeX's first fonts
            out.append("" if math and plain == " " else plain)
    assert depth == 0 and not math
    text = "".join(out)
    assert "--" not in text
    return text.replace("\0", "")


def included(tex: str) -> str:
    """The name of the file that a caption's figure asks for, as TeX would read it."""
    (argument,) = re.findall(r"^  \\include\w+\[.*?\]\{(.*)\}$", tex, re.MULTILINE)
    name = ""
    for raw, text, command in re.findall(
        r"\\detokenize\{([^{}]*)\}|([A-Za-z0-9._-]+)|\\csname ([\w@]+)\\endcsname|.", argument
    ):
        assert not set(raw) & set("%#")
        name += raw + text + {"": "", "@percentchar": "%", "c_hash_str": "#"}[command]
    return name


def caption(tex: str) -> str:
    """The whole environment but its picture, as text on one line; it must all be sound TeX."""
    kept = [line for line in tex.splitlines() if not line.lstrip().startswith("\\include")]
    return " ".join(typeset("\n".join(kept)).split())


def subject(
    name: str = "DETR", layers: tuple[int, ...] = (5,), example: FakeExplanation | None = None
) -> Subject:
    example = example or fake(layers=layers)
    example.residuals = dict.fromkeys(layers, 2.3e-7)
    return Subject(example, name, layers)


def shown(*subjects: Subject, queries: tuple[str, ...] | None = None, **changes: object) -> Shown:
    models = subjects or (subject(),)
    words = queries or tuple(f"cat, 0.98, query {i}" for i in range(len(models)))
    facts_of = {"modes": ("combine",), "scale": "mode", "look": Look(), **changes}
    return Shown(models, queries=words, **facts_of)


# --- escaping ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        ASCII,
        ASCII[::-1],
        "a -- b --- c",
        "100% of $x_1$ & #2 {~^}",
        r"\input{secret} \\ \end{figure}",
        "<<quoted>> | `so`",
        "16 \N{MULTIPLICATION SIGN} 16 \N{EN DASH} q \N{MIDDLE DOT} k",
        "Käse, 猫",
    ],
)
def test_text_is_shown_as_it_is(text):
    assert typeset(facts.escape(text)) == text


def test_names_cannot_break_out_of_a_caption():
    hostile = r"50% } \end{figure} $_^&#~|`--"
    e = fake(names=(hostile, "b\n% c"), scores=(0.9, 0.8))
    e.model_title = hostile
    e.meta = {"weights": "w}%\n\\x.pth", "weights_sha256": "c0ffee" * 11}
    fig = figures.head_grid(e, [0, 1])
    tex = facts.latex(fig.shown, "a.png")
    text = caption(tex)
    assert f"each head of {hostile} (weights c0ffeec0ffee)" in text
    assert f"({hostile}, 0.90, query 0; b % c, 0.80, query 1)" in text
    assert "\n% weights w}% \\x.pth sha256 c0ffee" in tex  # still a comment, on its one line
    assert all(line.isprintable() for line in tex.splitlines())


# --- what a caption says ----------------------------------------------------------------------


def test_a_caption_states_all_a_reader_must_know():
    tex = facts.latex(shown(modes=("combine", "position")), "cat.png")
    assert f"% weights sha256 {'ab' * 32}\n" in tex
    text = caption(tex)
    for words in (
        "cross-attention of each head of DETR (weights abababababab)",
        "decoder layer 5 of 0\N{EN DASH}5:",
        "combine ((c_q+p_q)\N{MIDDLE DOT}(c_k+p_k)) and position (p_q\N{MIDDLE DOT}p_k)",
        "as if attended on their own (scale mode)",
        "cat, 0.98, query 0",
        "Colour shows a cell's weight over the photo: each panel up to its own maximum "
        "(normalisation head)",
        "map of 16 \N{MULTIPLICATION SIGN} 12 cells",
        f"Drawn with detr_viz {detr_viz.__version__}.",
    ):
        assert text.count(words) == 1, words
    assert "layer's own scale (scale layer)" in caption(facts.latex(shown(scale="layer"), "a.png"))


@pytest.mark.parametrize("norm", NORMS)
def test_a_caption_says_how_maps_are_scaled(norm):
    text = caption(facts.latex(shown(look=Look("heat", norm)), "a.png"))
    assert f"cell's weight: {NORMS[norm]} (normalisation {norm})" in text
    assert "photo" not in text


def test_a_caption_of_contours_speaks_of_mass():
    text = caption(facts.latex(shown(look=Look("contour")), "a.png"))
    assert ". Lines hold 50, 80 and 95 % of each map's mass;" in text
    assert "Colour" not in text and "normalisation" not in text


def test_a_caption_says_what_a_row_is():
    def rows(*subjects: Subject, **changes: object) -> str:
        text = caption(facts.latex(shown(*subjects, **changes), "a.png"))
        return re.search(r"\. (A row|Rows) .*?\.(?= Colour)", text)[0][2:]

    one, layers = subject(), subject(layers=(0, 3, 5))
    cat = "cat, 0.98, query 0"
    assert rows(one) == f"A row is one object query ({cat}) with its predicted box."
    assert rows(one, modes=MODES) == (
        f"Rows are ordered by object query ({cat}), then by mode. Boxes are predicted."
    )
    assert rows(layers, modes=MODES) == (
        f"Rows are ordered by object query (at the last layer shown: {cat}), then by layer and "
        "mode. Boxes are predicted by each layer on its own."
    )
    assert rows(one, subject("Other"), queries=(f"DETR: {cat}", "Other: no match")) == (
        f"Rows are ordered by object query (DETR: {cat}; Other: no match), then by model; queries "
        "of different models are matched by box IoU. Boxes are predicted."
    )
    text = caption(facts.latex(shown(layers, subject("Other")), "a.png"))
    assert "DETR: decoder layers 0, 3 and 5 of 0\N{EN DASH}5; Other: decoder layer 5 of" in text


def test_a_caption_of_many_queries_names_the_first_and_counts_the_rest():
    words = tuple(f"cat, 0.98, query {i}" for i in range(20))
    text = caption(facts.latex(shown(queries=words), "a.png"))
    assert f"({'; '.join(words[:6])}; and 14 more)" in text
    assert f"({'; '.join(words[:8])})" in caption(facts.latex(shown(queries=words[:8]), "a.png"))
    pairs = tuple(f"{m}: cat, query {i}" for i in range(10) for m in ("A", "B"))
    text = caption(facts.latex(shown(subject("A"), subject("B"), queries=pairs), "a.png"))
    assert f"({'; '.join(pairs[:6])}; and 7 more objects)" in text
    assert (
        "; ".join(pairs)
        in facts.metadata(shown(subject("A"), subject("B"), queries=pairs))["Description"]
    )


def test_a_mode_of_ones_own():
    text = caption(facts.latex(shown(modes=(Mode("cpb", "p", "(c_q + p_q) · p_k"),)), "a.png"))
    assert "own mode ((c_q+p_q)\N{MIDDLE DOT}p_k)" in text


# --- the environment and its file -------------------------------------------------------------


@pytest.mark.parametrize(("wide", "name"), [(True, "figure*"), (False, "figure")])
def test_wide_figures_take_both_columns(wide, name):
    tex = facts.latex(shown(wide=wide), "out/cat_detr_all.pdf")
    assert f"\\begin{{{name}}}[t]\n" in tex and tex.endswith(f"\\end{{{name}}}\n")
    assert "% needs \\usepackage{graphicx}\n" in tex
    assert "  \\includegraphics[width=\\linewidth]{cat_detr_all.pdf}\n" in tex
    assert "  \\label{fig:cat-detr-all}\n" in tex


def test_svg_needs_another_package():
    tex = facts.latex(shown(), "fig.v2.svg")
    assert "% needs \\usepackage{svg}, Inkscape and -shell-escape\n" in tex
    assert "  \\includesvg[inkscapelatex=false,width=\\linewidth]{fig.v2.svg}\n" in tex


@pytest.mark.parametrize(
    "name",
    ["a b%c_ü.png", "a#b.pdf", "%.png", "##.png", "x~y^z&$.svg", "猫.png", "a,b=[c].png", "-.png"],
)
def test_file_names_that_latex_can_be_brought_to_read(name):
    tex = facts.latex(shown(), name)
    assert included(tex) == name
    assert "rename" not in tex
    assert "fig:" in caption(tex)


@pytest.mark.parametrize("name", ['q"r.png', "a{b.png", "a}b.png", "a\\b.png", "a  b.png", "`.png"])
def test_file_names_that_it_cannot(name):
    tex = facts.latex(shown(), name)
    (other,) = re.findall(r"^% rename the figure to (.*?): LaTeX cannot", tex, re.MULTILINE)
    assert included(tex) == other != name
    assert not set(other) & set('"{}\\`') and "  " not in other
    caption(tex)


def test_labels_are_plain_and_never_empty():
    for name, label in (("a b%c_ü.png", "a-b-c"), ("猫.png", "attention"), ("x.y.png", "x-y")):
        assert f"\\label{{fig:{label}}}" in facts.latex(shown(), name)


def test_characters_beyond_ascii_are_pointed_out():
    assert "beyond ASCII" in facts.latex(shown(queries=("Käse, 0.98, query 0",)), "a.png")
    assert "beyond ASCII" not in facts.latex(shown(), "a.png")


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="no LaTeX here")
def test_latex_itself_takes_it(tmp_path):
    e = fake(names=(ASCII[:48], ASCII[48:], "Käse -- <<x>>"))
    fig = figures.head_grid(e, [0, 1, 2], MODES)
    figures.save(fig, tmp_path / "a b%c_ü.png")
    facts.save_caption(fig.shown, tmp_path / "a b%c_ü.png").rename(tmp_path / "fig.tex")
    (tmp_path / "main.tex").write_text(
        "\\documentclass[twocolumn]{article}\\usepackage{graphicx}\\begin{document}\n"
        "\\input{fig}\\end{document}\n"
    )
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "main"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Output written" in done.stdout and "not found" not in done.stdout


# --- the file beside the figure ---------------------------------------------------------------


def test_a_caption_is_written_beside_and_the_same_each_time(tmp_path):
    figure = tmp_path / "new" / "fig.v2.png"
    path = facts.save_caption(shown(queries=("Käse, 0.98, query 0",)), figure)
    assert path == tmp_path / "new" / "fig.v2.tex"
    first = path.read_bytes()
    assert "Käse" in first.decode("utf-8")
    facts.save_caption(shown(queries=("Käse, 0.98, query 0",)), figure)  # in place of our own
    assert path.read_bytes() == first
    assert [p.name for p in path.parent.iterdir()] == ["fig.v2.tex"]


def test_an_empty_file_is_replaced(tmp_path):
    (tmp_path / "fig.tex").touch()
    facts.save_caption(shown(), tmp_path / "fig.png")
    assert "\\caption" in (tmp_path / "fig.tex").read_text()


@pytest.mark.parametrize("content", ["\\documentclass{article}\n", "% my thesis\n"])
def test_a_manuscript_of_that_name_is_kept(tmp_path, content):
    (tmp_path / "paper.tex").write_text(content)
    with pytest.raises(OutputError, match=r"paper\.tex was not written by --caption: move it"):
        facts.save_caption(shown(), tmp_path / "paper.pdf")
    assert (tmp_path / "paper.tex").read_text() == content


def test_a_folder_of_that_name(tmp_path):
    (tmp_path / "fig.tex").mkdir()
    with pytest.raises(OutputError, match=r"cannot write .*fig\.tex: Is a directory") as caught:
        facts.save_caption(shown(), tmp_path / "fig.png")
    assert "\n" not in str(caught.value)


# --- metadata ---------------------------------------------------------------------------------


LOOKS = [("contour", None), *((s, n) for s in ("overlay", "heat") for n in (None, *NORMS))]


@pytest.mark.parametrize(("style", "norm"), LOOKS)
def test_metadata_says_how_it_is_drawn(style, norm):
    said = facts.metadata(shown(look=Look(style, norm, "cividis", "linear")))["Description"]
    assert f"; style {style}, linear interpolation" in said
    assert "; scale mode; " in said
    if style == "contour":
        assert "lines hold 50, 80 and 95 % of each map's mass" in said
        assert "normalisation" not in said and "cividis" not in said
    else:
        assert f"normalisation {norm or 'head'} ({NORMS[norm or 'head']})" in said
        assert ", colour map cividis" in said


def test_metadata_names_what_was_left_to_default():
    said = facts.metadata(shown(look=Look("heat")))["Description"]
    assert "style heat, nearest interpolation, colour map inferno" in said


def test_metadata_of_several_models_says_whose_is_what():
    early = subject("A", (0, 1), fake(layers=(0, 1), num_layers=3))
    late = subject("B", (5,), fake(input_hw=(48, 64), meta={"weights_sha256": "cd" * 32}))
    late.explanation.residuals = {5: float("nan")}
    found = facts.metadata(shown(early, late, modes=("content",)))
    assert found["Title"] == "A and B: content attention of each head"
    for words in (
        "A: decoder layers 0 and 1 of 0\N{EN DASH}2; B: decoder layer 5 of 0\N{EN DASH}5",
        "box, class and score: that layer's own",
        "content c_q \N{MIDDLE DOT} c_k",
        "in layer 0 content is the same for every query",
        "queries matched by box IoU",
        "A: map of 16 \N{MULTIPLICATION SIGN} 12 cells; B: map of 8 \N{MULTIPLICATION SIGN} 6",
        "A: self-check residual 2.3e-07; B: self-check untestable",
        f"A: weights sha256 {'ab' * 32}",
        f"B: weights sha256 {'cd' * 32}",
    ):
        assert found["Description"].count(words) == 1, words


def test_metadata_is_one_line_each_whatever_names_there_are():
    e = fake(names=("a\nb\x00c", "\u2028", "\t"), scores=(0.9, 0.8, 0.7))
    e.model_title, e.meta = "x\r\ny", {"weights": "w\n.pth", "weights_sha256": "ab" * 32}
    e.meta["image_sha256"] = "ef" * 32
    found = figures.head_grid(e, [0, 1, 2]).facts
    assert set(found) == {"Title", "Software", "Description"}
    for value in found.values():
        assert value.isprintable()
    assert "a bc, 0.90, query 0; class 1, 0.80" in found["Description"]
    assert found["Description"].endswith(f"image sha256 {'ef' * 32}")
    assert found["Title"].startswith("x y: ")
