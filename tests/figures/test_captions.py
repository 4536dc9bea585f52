"""Captions for LaTeX, read by a small TeX reader of our own; and by LaTeX, where it is here."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from fake_explanation import MODES, fake
from test_facts import shown, subject

import detr_viz
from detr_viz import figures
from detr_viz.attention.terms import SEPARATE_COMBINE, Mode
from detr_viz.common.files import OutputError
from detr_viz.figures import file_facts, latex_caption
from detr_viz.figures.reading_rule import ShownModel
from detr_viz.figures.styles import NORMS, PageFormat, Style

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
LAYOUT = {"emph", "mbox", "texttt", "caption", "label", "centering", "begin", "end"}
TOKEN = re.compile(r"\\([A-Za-z]+) *|\\(.)|(%[^\n]*\n *)|(.)", re.DOTALL)


def typeset(source: str) -> str:
    """The text that TeX makes of a source; AssertionError for what it would not set literally."""
    out, depth, math = [], 0, False
    source = source.replace(r"\texttt{\char34}", '{"}')
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
    assert typeset(latex_caption.escape(text)) == text


def test_names_cannot_break_out_of_a_caption():
    hostile = r"50% } \end{figure} $_^&#~|`--"
    e = fake(names=(hostile, "b\n% c"), scores=(0.9, 0.8))
    e.model_title = hostile
    e.meta = {"weights": "w}%\n\\x.pth", "weights_sha256": "c0ffee" * 11}
    e.meta["image"] = "p%}\n\\y_$.png"
    fig = figures.head_grid(e, [0, 1])
    tex = latex_caption.latex(fig.shown, "a.png")
    text = caption(tex)
    name = hostile.replace("$", "")  # it parts formulas from text in a figure
    assert f"each head of {name} (weights c0ffeec0ffee)" in text
    assert " on p%} \\y_$.png: " in text
    assert f"({hostile}, 0.90, query 0; b % c, 0.80, query 1)" in text
    assert "\n% weights w}% \\x.pth sha256 c0ffee" in tex  # still a comment, on its one line
    assert all(line.isprintable() for line in tex.splitlines())


# --- what a caption says ----------------------------------------------------------------------


def test_a_caption_states_all_a_reader_must_know():
    tex = latex_caption.latex(shown(modes=("combine", "position")), "cat.png")
    assert f"% weights sha256 {'ab' * 32}\n" in tex
    text = caption(tex)
    for words in (
        "Cross-attention of each head of DETR (weights abababababab), ",
        "decoder layer 5 of 0\N{EN DASH}5:",
        "combine ((c_q+p_q)\N{MIDDLE DOT}(c_k+p_k)) and position (p_q\N{MIDDLE DOT}p_k)",
        "position (p_q\N{MIDDLE DOT}p_k); each mode's logits have the factor of its own query and "
        "key (scale mode).",
        "cat, 0.98, query 0",
        "Darker colour over the photo is more attention, relative to an even spread, on one "
        "logarithmic scale for all panels of all figures (normalisation even).",
        "Under each panel: per cent of a map's weight in the box; flat: no cell has twice the "
        "weight of an even map.",
        "A map's weights sum to 1 (map of 16 \N{MULTIPLICATION SIGN} 12 cells, .005 each if even)",
        f"Drawn with detr_viz {detr_viz.__version__}.",
    ):
        assert text.count(words) == 1, words
    text = caption(latex_caption.latex(shown(scale="layer"), "a.png"))
    assert "; all logits have the layer's factor (scale layer)." in text
    assert "its own query" not in text


def test_a_caption_names_the_image():
    named = fake(meta={"image": "my_cat 50%.jpg", "image_sha256": "ef" * 32})
    tex = latex_caption.latex(shown(subject("A", (5,), named), subject("B")), "a.png")
    assert "0\N{EN DASH}5 on my_cat 50%.jpg: combine" in caption(tex)
    assert r" on \texttt{my\_cat 50\%.jpg}: " in tex
    for none in ({}, {"image": None}, {"image": ""}):  # an array has no name
        text = caption(latex_caption.latex(shown(subject(example=fake(meta=none))), "a.png"))
        assert "0\N{EN DASH}5: combine" in text and "None" not in text


@pytest.mark.parametrize("norm", NORMS)
def test_a_caption_says_how_maps_are_scaled(norm):
    text = caption(latex_caption.latex(shown(style=Style("heat", norm)), "a.png"))
    assert f". Darker colour is more attention, {NORMS[norm]} (normalisation {norm})." in text
    assert "photo" not in text
    assert ("; flat: no cell has" in text) is (norm == "even")
    assert ("; after it each map's largest weight." in text) is (norm != "even")


def test_a_caption_says_darker_only_of_the_map_it_knows():
    for style, where in (("heat", ""), ("overlay", " over the photo")):
        text = caption(latex_caption.latex(shown(style=Style(style, cmap="gray_r")), "a.png"))
        assert f". Colour{where} is attention, {NORMS['even']} (" in text and "arker" not in text


def test_a_caption_of_contours_speaks_of_mass():
    style = Style("contour", contours=(0.5, 0.8, 0.95))
    text = caption(latex_caption.latex(shown(style=style), "a.png"))
    said = (
        "Inside the lines lie 50, 80 and 95 % of each map's mass (cells in the order of the map "
        "under a Gaussian of 0.8 cells; the least islands left out, which hold up to 6 % of it); "
        "maps whose first line would hold more than a third of the image are coloured instead. "
        "Under each panel: per cent of the image, in the first line."
    )
    assert f" box. {said} A map's" in text
    assert "olour " not in text and "normalisation" not in text
    plain = Style("contour", interpolation="linear")
    text = caption(latex_caption.latex(shown(style=plain), "a.png"))
    assert "mass (the cells of the largest weights); maps" in text
    assert "50 % of each map's mass" in text and "80" not in text


def test_a_caption_says_what_a_row_is():
    def rows(*subjects: ShownModel, **changes: object) -> str:
        text = caption(latex_caption.latex(shown(*subjects, **changes), "a.png"))
        return re.search(r"\. (A row|Rows) .*?\.(?= Darker colour)", text)[0][2:]

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
    text = caption(latex_caption.latex(shown(layers, subject("Other")), "a.png"))
    assert "DETR: decoder layers 0, 3 and 5 of 0\N{EN DASH}5; Other: decoder layer 5 of" in text


def test_a_caption_of_many_queries_names_the_first_and_counts_the_rest():
    words = tuple(f"cat, 0.98, query {i}" for i in range(20))
    text = caption(latex_caption.latex(shown(queries=words), "a.png"))
    assert f"({'; '.join(words[:6])}; and 14 more)" in text
    assert f"({'; '.join(words[:8])})" in caption(
        latex_caption.latex(shown(queries=words[:8]), "a.png")
    )
    pairs = tuple(f"{m}: cat, query {i}" for i in range(10) for m in ("A", "B"))
    text = caption(latex_caption.latex(shown(subject("A"), subject("B"), queries=pairs), "a.png"))
    assert f"({'; '.join(pairs[:6])}; and 7 more objects)" in text
    assert (
        "; ".join(pairs)
        in file_facts.metadata(shown(subject("A"), subject("B"), queries=pairs))["Description"]
    )


def test_a_mode_of_ones_own():
    """Its formula is its name, once."""
    own = Mode("cpb", "p", "(c_q + p_q)·p_k")
    text = caption(latex_caption.latex(shown(modes=(own,)), "a.png"))
    assert "5: (c_q+p_q)\N{MIDDLE DOT}p_k; each mode's logits" in text
    assert "query and key, or the layer's where the mode is a combination of parts (scale" in text
    text = caption(latex_caption.latex(shown(modes=(own,), scale="layer"), "a.png"))
    assert "; all logits have the layer's factor (scale layer)." in text
    assert "or the layer's" not in caption(latex_caption.latex(shown(), "a.png"))


def test_models_whose_combine_is_not_the_same():
    """Each by its name, which may have any sign; what is the same is said once."""
    other = fake()
    other.formula = lambda mode, layer=None: SEPARATE_COMBINE if mode == "combine" else "p_q · p_k"
    two = subject(), subject("a$b_$c", example=other)
    text = caption(latex_caption.latex(shown(*two, modes=("combine", "position")), "a.png"))
    whole, halves = "(c_q+p_q)·(c_k+p_k)", "c_q·c_k+p_q·p_k"
    assert f": combine (DETR {whole}; a$b_$c {halves}) and position (p_q·p_k); each" in text
    assert f": combine ({halves}); each" in caption(latex_caption.latex(shown(two[1]), "a.png"))


# --- the environment and its file -------------------------------------------------------------


@pytest.mark.parametrize(
    ("width_in", "environment", "width"),
    [
        (3.25, "figure", "3.25in"),
        (85 / 25.4, "figure", "3.34in"),  # never wider than it is
        (4.0, "figure", "4.00in"),
        (4.001, "figure*", "4.00in"),
        (4.6, "figure*", "4.60in"),
        (6.8749, "figure*", "6.87in"),
        (8.5, "figure*", "8.50in"),
        (8.501, "figure*", "\\linewidth"),
        (23.4, "figure*", "\\linewidth"),
    ],
)
def test_a_figure_is_included_as_wide_as_it_was_made(width_in, environment, width):
    """So its type is as large; slides and posters are cut to the page. Wide ones: both columns."""
    tex = latex_caption.latex(shown(width_in=width_in), "out/cat_detr_all.pdf")
    assert f"\\begin{{{environment}}}[t]\n" in tex
    assert tex.endswith(f"\\end{{{environment}}}\n")
    assert "% needs \\usepackage{graphicx}\n" in tex
    assert f"  \\includegraphics[width={width}]{{cat_detr_all.pdf}}\n" in tex
    assert "  \\label{fig:cat-detr-all}\n" in tex


@pytest.mark.parametrize(("preset", "environment"), [("column", "figure"), ("slide", "figure*")])
def test_the_width_is_that_of_the_figure(preset, environment):
    fig = figures.head_grid(fake(), [0], page_format=PageFormat.of(preset))
    assert fig.shown.width_in == fig.get_figwidth()
    tex = latex_caption.latex(fig.shown, "a.pdf")
    assert f"\\begin{{{environment}}}" in tex
    (width,) = re.findall(r"width=(.*?)\]", tex)
    if preset == "slide":
        assert width == "\\linewidth"
    else:
        assert 0 <= fig.get_figwidth() - float(width.removesuffix("in")) < 0.01


def test_svg_needs_another_package():
    tex = latex_caption.latex(shown(), "fig.v2.svg")
    assert "% needs \\usepackage{svg}, Inkscape and -shell-escape\n" in tex
    assert "  \\includesvg[inkscapelatex=false,width=4.60in]{fig.v2.svg}\n" in tex


@pytest.mark.parametrize(
    "name",
    ["a b%c_ü.png", "a#b.pdf", "%.png", "##.png", "x~y^z&$.svg", "猫.png", "a,b=[c].png", "-.png"],
)
def test_file_names_that_latex_can_be_brought_to_read(name):
    tex = latex_caption.latex(shown(), name)
    assert included(tex) == name
    assert "rename" not in tex
    assert "fig:" in caption(tex)


@pytest.mark.parametrize("name", ['q"r.png', "a{b.png", "a}b.png", "a\\b.png", "a  b.png", "`.png"])
def test_file_names_that_it_cannot(name):
    tex = latex_caption.latex(shown(), name)
    (other,) = re.findall(r"^% rename the figure to (.*?): LaTeX cannot", tex, re.MULTILINE)
    assert included(tex) == other != name
    assert not set(other) & set('"{}\\`') and "  " not in other
    caption(tex)


def test_labels_are_plain_and_never_empty():
    for name, label in (("a b%c_ü.png", "a-b-c"), ("猫.png", "attention"), ("x.y.png", "x-y")):
        assert f"\\label{{fig:{label}}}" in latex_caption.latex(shown(), name)


def test_characters_beyond_ascii_are_pointed_out():
    assert "beyond ASCII" in latex_caption.latex(shown(queries=("Käse, 0.98, query 0",)), "a.png")
    assert "beyond ASCII" not in latex_caption.latex(shown(), "a.png")


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="no LaTeX here")
def test_latex_itself_takes_it(tmp_path):
    e = fake(names=(ASCII[:48], ASCII[48:], "Käse -- <<x>>"))
    e.meta["image"] = ASCII
    fig = figures.head_grid(e, [0, 1, 2], MODES)
    figures.save(fig, tmp_path / "a b%c_ü.png")
    latex_caption.save_caption(fig.shown, tmp_path / "a b%c_ü.png").rename(tmp_path / "fig.tex")
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
    path = latex_caption.save_caption(shown(queries=("Käse, 0.98, query 0",)), figure)
    assert path == tmp_path / "new" / "fig.v2.tex"
    first = path.read_bytes()
    assert "Käse" in first.decode("utf-8")
    latex_caption.save_caption(
        shown(queries=("Käse, 0.98, query 0",)), figure
    )  # in place of our own
    assert path.read_bytes() == first
    assert [p.name for p in path.parent.iterdir()] == ["fig.v2.tex"]


def test_an_empty_file_is_replaced(tmp_path):
    (tmp_path / "fig.tex").touch()
    latex_caption.save_caption(shown(), tmp_path / "fig.png")
    assert "\\caption" in (tmp_path / "fig.tex").read_text()


@pytest.mark.parametrize("content", ["\\documentclass{article}\n", "% my thesis\n"])
def test_a_manuscript_of_that_name_is_kept(tmp_path, content):
    (tmp_path / "paper.tex").write_text(content)
    with pytest.raises(OutputError, match=r"paper\.tex was not written by --caption: move it"):
        latex_caption.save_caption(shown(), tmp_path / "paper.pdf")
    assert (tmp_path / "paper.tex").read_text() == content


def test_a_folder_of_that_name(tmp_path):
    (tmp_path / "fig.tex").mkdir()
    with pytest.raises(OutputError, match=r"cannot write .*fig\.tex: Is a directory") as caught:
        latex_caption.save_caption(shown(), tmp_path / "fig.png")
    assert "\n" not in str(caught.value)
