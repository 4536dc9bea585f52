r"""Names from anywhere in a caption: TeX sets them as they are, and reads no command in them.

TeX turns ^^7d into } while it reads a line, before \detokenize or any escape is seen.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import fields

import numpy as np
import pytest
from fake_explanation import fake
from PIL import Image
from test_captions import caption, included
from test_facts import shown, subject

from detr_viz.figures import latex_caption
from detr_viz.figures.latex_text import escape, with_formulas
from detr_viz.figures.view_contents import ViewContents

NAMES = {  # name -> text of a file, a class, a model
    "hat hat brace": "a^^7d^^5cinput{secret}^^7b",
    "hat hat letter": "a^^Mb^^Ic^^?d^^@e",
    "four hats": "a^^^^005cinput b",
    "six hats": "a^^^^^^00005cinput b",
    "hats": "^^^^^^^^",
    "end": r"\end{figure}\input{secret}",
    "write": r"\immediate\write18{touch owned}",
    "csname": r"\csname input\endcsname secret",
    "mathematics": r"$\input{secret}$",
    "two formulas": "a$x$b$y$c",
    "display": "$$x$$",
    "odd dollar": "a$b",
    "comment": "a%b",
    "parameter": "a#1##2b",
    "alignment": "a&b\\\\c",
    "tie": "a~b",
    "braces": "}{",
    "open brace": "a{b",
    "subscripts": "a_b_c^d",
    "ligatures": "a--b---c''d``e,,f<<g>>h?`i!`j",
    "quotes": "a\"b'c`d",
    "active": 'babel "a "= :;!?',
    "verb": r"\verb|x|",
    "line": "a\n\n\\input{secret}",
    "return": "a\r\\input{secret}",
    "form feed": "a\x0cb",
    "separator": "a\u2028b\u2029c\x85d",
    "turned": "a\u202e}{b",
    "null": "a\0b",
    "par": r"a\par b",
    "long": "x" * 3000,
    "long and wide": "W" * 3000,
    "long, of words": "a b " * 900,
    "long, of signs": "^\\" * 900,
}
_ALONE = (
    "\\documentclass{article}%s\\usepackage{graphicx}\n\\begin{document}\n%s\n\\end{document}\n"
)
_FONT = "\\usepackage[T1]{fontenc}\\usepackage{lmodern}"  # with a sign for each of ASCII
ENGINES = {  # title -> (program, packages)
    "pdflatex": ("pdflatex", ""),
    "pdflatex, T1": ("pdflatex", _FONT),
    "xelatex": ("xelatex", ""),
    "lualatex": ("lualatex", ""),
}


def cleaned(text: str) -> str:
    """The name as it can be read: one line, only characters that have a shape."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def captions(name: str) -> list[str]:
    """All kinds of captions, with the name wherever one can come from."""
    meta = {"weights": name, "weights_sha256": name, "image": name}
    example = fake(meta={**fake().meta, **meta})
    words = {f.name: name for f in fields(ViewContents) if f.type == "str"}
    view = ViewContents(**words, rule=(name, name), width_in=3.0)
    return [
        latex_caption.latex(shown(subject(name, example=example), queries=(name,)), "a.png"),
        latex_caption.latex(view, "a.png"),
    ]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_text(name):
    text = NAMES[name]
    for tex in captions(text):
        assert "^^" not in tex.replace(r"\textasciicircum{}", "")
        assert "\r" not in tex and "\x0c" not in tex and "\0" not in tex
        body = "\n".join(line for line in tex.splitlines() if not line.startswith("%"))
        assert not re.search(r"\\(input|write|immediate|csname|par|verb)\b", body)
        read = caption(body)  # fails for a command that it does not know
        short = cleaned(text)[: 9 if len(text) > 200 else 40].replace("$", "")
        assert short in read.replace("$", "")


@pytest.mark.parametrize("name", NAMES)
def test_the_figures_path(name):
    file = NAMES[name].replace("/", "").replace("\0", "")[:200] + ".png"
    tex = latex_caption.latex(shown(), file)
    (line,) = [one for one in tex.splitlines() if one.lstrip().startswith("\\includegraphics")]
    assert "^^" not in line and line.count("{") == line.count("}")
    wanted = re.sub(r'["`{}\\]', "-", " ".join(c for c in file.split()))
    wanted = "".join(c for c in wanted if c.isprintable())
    assert included(tex) == wanted


@pytest.mark.parametrize("name", NAMES)
def test_escaped_text_has_no_reader_sign(name):
    out = escape(NAMES[name])
    plain = re.sub(
        r"\\[&%$#_{}]|\\text\w+\{\}|\\mbox\{\}|\\texttt\{\\char34\}|\$\\(times|cdot)\$|\{\}",
        "\0",
        out,
    )
    assert not set(plain) & set("\\{}$&#^_~%<>|`") and "--" not in plain
    assert with_formulas("$q_c · k_c$") == r"$q_c \cdot  k_c$".replace("  ", " ")
    assert "\\input" not in with_formulas(f"of {NAMES[name]} and $p_q$")


def compiled(engine, tex, folder):
    """What an engine said of a document, and the text of its PDF without spaces."""
    from pypdf import PdfReader

    program, packages = ENGINES[engine]
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    (folder / "caption.tex").write_text(_ALONE % (packages, tex), encoding="utf-8")
    words = ["-shell-escape", "-interaction=nonstopmode", "-halt-on-error", "caption.tex"]
    done = subprocess.run([program, *words], cwd=folder, capture_output=True, timeout=120)
    assert done.returncode == 0, (tex, done.stdout[-2000:])
    assert not (folder / "owned").exists()
    assert b"secret.tex" not in done.stdout
    pages = PdfReader(folder / "caption.pdf").pages
    return "".join("".join(page.extract_text() for page in pages).split())


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_engines_set_all_names(tmp_path, engine):
    """The text of the PDF is the name, to the sign; an apostrophe is set as one."""
    names = {name: text for name, text in NAMES.items() if text.isascii()}
    lines = (f"\\noindent\\hbox{{Q{escape(cleaned(text)[:200])}Q}}\n" for text in names.values())
    (tmp_path / "secret.tex").write_text("LEAKED")
    read = compiled(engine, "\n".join(lines), tmp_path).replace("\u2019", "'")
    assert "LEAKED" not in read
    for name, text in names.items():
        wanted = "".join(cleaned(text)[:200].split())
        if engine == "pdflatex":  # the first font of TeX draws _ as a rule, and has other ^ and ~
            wanted = wanted.replace("_", "").replace("^", "\u02c6").replace("~", "\u02dc")
        assert f"Q{wanted}Q" in read, (name, wanted)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_engines_set_all_captions(tmp_path, engine):
    (tmp_path / "secret.tex").write_text("LEAKED")
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "a.png")
    texts = [text for text in NAMES.values() if text.isascii()]
    for i in (0, 1):  # each kind of caption; a page for each name
        whole = "\n\\clearpage\n".join(
            captions(text)[i].replace("figure*", "figure") for text in texts
        )
        assert "LEAKED" not in compiled(engine, whole, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_engines_find_figures_of_all_names(tmp_path, engine):
    """The figure itself lies under its hostile name; TeX includes it and no other."""
    parts = []
    for text in NAMES.values():
        file = re.sub("[/\0]", "", text)[:100] + ".png"
        if file.isascii() and file.isprintable() and not re.search(r'["`{}\\]', file):
            Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / file)
            parts.append(latex_caption.latex(shown(), file).replace("figure*", "figure"))
    assert len(parts) > 9
    compiled(engine, "\n\\clearpage\n".join(parts), tmp_path)
