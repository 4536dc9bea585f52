"""One list syntax for all flags: commas, spaces or both, and ranges."""

from __future__ import annotations

import pytest

from detr_viz import cli
from detr_viz.attention.terms import modes_of_plot
from detr_viz.cli import atlas, record, render
from detr_viz.common.lists import items, numbers
from detr_viz.detections.queries import QueryError, joined, select
from detr_viz.render.recipe import plot_label


def value(flag: str, *words: str, module=render):
    more = ["--out", "x"] if module is record else []
    parsed = cli.build_parser(module).parse_args([flag, *words, *more])
    return vars(parsed)[flag[2:].replace("-", "_")]


@pytest.mark.parametrize(
    ("flag", "first", "second", "meant"),
    [
        ("--type", "detr", "cd_detr", ["detr", "cd_detr"]),
        ("--type", "DETR", "Conditional-DETR", ["detr", "cd_detr"]),
        ("--plot", "position", "content", "position,content"),
        ("--plot", "content", "position", "position,content"),
        ("--attention", "cross", "encoder", ["cross", "encoder"]),
        ("--heads", "0", "3", (0, 3)),
        ("--layer", "0", "2", [0, 2]),
        ("--ablate-in", "0", "2", [0, 2]),
        ("--format", "npz", "png", (".png", ".npz")),
        ("--contours", "50", "80", (0.5, 0.8)),
        ("--ablate", "content", "head:3", ["content", "head:3"]),
        ("--queries", "3", "17", "3,17"),
        ("--weights", "detr_resnet50", "hf:a/b", ["detr_resnet50", "hf:a/b"]),
        ("--image", "a.png", "b.png", ["a.png", "b.png"]),
    ],
)
def test_commas_and_spaces_are_the_same(flag, first, second, meant, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b.png"):
        (tmp_path / name).touch()
    forms = ((first, second), (f"{first},{second}",), (f"{first},", second))
    for words in forms if flag != "--queries" else (*forms, (f"{first} {second}",)):
        assert value(flag, *words) == meant, words


@pytest.mark.parametrize(
    ("flag", "text", "meant"),
    [
        ("--heads", "0-3", (0, 1, 2, 3)),
        ("--layer", "0-2", [0, 1, 2]),
        ("--layer", "2-2", 2),
        ("--layer", "0-1,5", [0, 1, 5]),
        ("--ablate-in", "1-2", [1, 2]),
        ("--ablate", "head:0-2,content", ["head:0", "head:1", "head:2", "content"]),
        ("--plot", "content,combine,position", "all"),
        ("--type", "Conditional DETR", ["cd_detr"]),
        ("--points", "3,4 grid:2x2", ["3,4", "grid:2x2"]),
        ("--ablate", "term:cq.pk, box:inside", ["term:cq.pk", "box:inside"]),
        ("--queries", "0-3", "0-3"),
        ("--heads", "all", None),
    ],
)
def test_ranges_and_words_of_several_words(flag, text, meant):
    assert value(flag, text) == meant


@pytest.mark.parametrize("words", [["cq.pk+pq.pk"], ["cq.pk", "pq.pk"], ["cq.pk", "+", "pq.pk"]])
def test_sums_of_terms(words):
    argv = ["--terms", *words]
    assert cli.build_parser(render).parse_args(argv).plot == "cq.pk+pq.pk"


@pytest.mark.parametrize("module", [record, atlas])
def test_other_commands_have_the_same_syntax(module):
    assert value("--plot", "position", "content", module=module) == "position,content"
    assert value("--layer", "0", "2", module=module) == [0, 2]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--plot", "all", "content"], "all stands alone"),
        (["--plot", "terms,combine"], "terms stands alone"),
        (["--plot", "postion"], "did you mean position?"),
        (["--style", "contuor"], "did you mean contour?"),
        (["--norm", "haed"], "did you mean head?"),
        (["--format", "pgn"], "did you mean png?"),
        (["--heads", "maen"], "did you mean mean?"),
        (["--heads", "3-0"], "are not heads"),
        (["--heads", "0-3,2"], "are not heads"),
        (["--attention", "encodr"], "did you mean encoder?"),
        (["--precision", "float23"], "did you mean float32?"),
        (["--interpolation", "cubci"], "did you mean cubic?"),
        (["--type", "dn-detr"], "DN-DETR is another network"),
        (["--type", "conditional-dter"], "did you mean cd_detr? Choose"),
        (["--layer", "0-99999999"], "is not last, all"),
        (["--image"], "expected at least one argument"),
        (["--plot=contnet"], "did you mean content?"),
    ],
)
def test_refusals_name_the_flag_and_what_was_meant(argv, words, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.build_parser(render).parse_args(argv)
    err = capsys.readouterr().err
    assert stop.value.code == 2 and words in err and err.count("\n") == 1
    assert argv[0].split("=")[0] in err


def test_paths_with_commas_stay_whole(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b.png", "a.png,b.png"):
        (tmp_path / name).touch()
    assert value("--image", "a.png,b.png") == ["a.png,b.png"]
    assert value("--image", "a.png,c.png") == ["a.png,c.png"]  # there is no c.png


@pytest.mark.parametrize(
    ("words", "choice"),
    [
        (["top:3"], "top:3"),
        (["0 , 5 + 5"], "0 , 5 + 5"),
        (["class:cat,remote"], "class:cat,remote"),
        (["top:3", "17", "2"], "top:3+17,2"),
        (["3,17", "class:cat"], "3,17+class:cat"),
        (["class:traffic", "light"], "class:traffic light"),
        (["class:cat", "+", "top:2"], "class:cat+top:2"),
        (["point:3,", "4"], "point:3,4"),
        (["point:3", ",4"], "point:3,4"),
        (["objects", "all"], "objects+all"),
        ([""], ""),
    ],
)
def test_words_of_queries(words, choice):
    assert joined(words) == choice


def test_numbers_and_items():
    assert items(" a ,b  c") == ["a", "b", "c"] and items("0,,1") == ["0", "", "1"]
    assert numbers("0-2 7,7") == [0, 1, 2, 7, 7]
    for text in (
        "",
        "a",
        "1-",
        "-1",
        "1-2-3",
        "2-1",
        "0,",
        "\N{SUPERSCRIPT TWO}",
        "0-10000",
        "1.5",
    ):
        assert numbers(text) is None, text


def test_modes_of_several():
    assert modes_of_plot("position,content", ["combine"]) == ["position", "content"]
    assert plot_label("position,content") == "position_content"
    assert plot_label("cq.pk+pq.pk") == "cqpk+pqpk"


class _Queries:
    num_queries, class_names = 8, ("cat", "traffic light", "light")

    def __init__(self, scores):
        import numpy as np

        self.scores = np.array(scores, np.float32)

    def by_score(self):
        return sorted(range(len(self.scores)), key=lambda q: -self.scores[q])

    def label_name(self, query):
        return self.class_names[query % 3]


@pytest.mark.parametrize(
    ("scores", "ids"),
    [
        ([0.1, 0.9, 0.5, 0.49, 0, 0, 0, 0], [1, 2]),
        ([0.6, 0.7, 0.8, 0.9, 0.91, 0.92, 0.5, 0], [5, 4, 3, 2, 1]),  # at most five
        ([0.1, 0.3, 0.2, 0, 0, 0, 0, 0], [1]),  # the best one where there is none
    ],
)
def test_the_default_shows_objects(scores, ids):
    assert select(_Queries(scores)) == select(_Queries(scores), "objects") == ids


def test_ranges_and_classes_of_several_words():
    queries = _Queries([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2])
    assert select(queries, "5-7+0") == [5, 6, 7, 0]
    assert select(queries, "class:Traffic light") == [1, 4, 7]
    assert select(queries, "class:traffic light cat") == [0, 1, 3, 4, 6, 7]
    with pytest.raises(QueryError, match=r"no query 8: this model has 8"):
        select(queries, "6-9")
    with pytest.raises(QueryError, match=r"'trafic lihgt': did you mean traffic light"):
        select(queries, "class:trafic lihgt")
    with pytest.raises(QueryError, match=r"cannot read 'tpo:3'.*did you mean top\?"):
        select(queries, "tpo:3")
