"""Words of --queries joined by & and +, and words about errors."""

from __future__ import annotations

import pytest
from handmade import annotated, cells_of, handmade
from test_queries import made_up

from detr_viz.detections.queries import (
    NoQueryError,
    QueryError,
    check_for,
    check_syntax,
    holds_ids,
    joined,
    needs_truth,
    select,
)

CAT, DOG, FAR = [10, 10, 40, 40], [50, 10, 80, 40], [60, 50, 70, 60]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("class:cat&score:0.5", [3, 2]),
        ("class:cat & score:0.5", [3, 2]),
        ("score:0.5&class:cat", [3, 2]),
        ("top:1&class:cat", [3]),  # the best of the cats: the best of all is no cat
        ("class:cat&top:2", [3, 2]),
        ("class:cat&top:2+class:remote&top:1", [1, 3, 2]),  # & binds tighter
        ("objects&class:cat", [3, 2]),
        ("objects&class:sports ball", [4]),  # the best of them, where none has a score of .5
        ("top:2&top:1", [1]),
        ("point:7,7&class:cat", [2, 0]),
        ("5,3,0&class:cat", [3, 0]),  # in the order of the ids
        ("class:cat&5,3,0", [3, 0]),
        ("all&class:cat", [0, 2, 3]),
        ("all&score:0.5+top:1", [1, 2, 3, 5]),
        ("0-5&top:3", [1, 3, 5]),
        ("5,3&3,5", [5, 3]),
        ("class:cat,remote&score:0.9", [1, 3]),
    ],
)
def test_and(choice, expected):
    check_syntax(choice)
    assert select(made_up(), choice) == expected


@pytest.mark.parametrize(
    ("choice", "meant"),
    [
        ("class:cat,score:0.5", "class:cat&score:0.5"),
        ("class:cat, score:0.5", "class:cat&score:0.5"),
        ("class:cat score:0.5", "class:cat&score:0.5"),
        ("class:cat;score:0.5", "class:cat&score:0.5"),
        ("class:cat and score:0.5", "class:cat&score:0.5"),
        ("class:cat or score:0.5", "class:cat+score:0.5"),
        ("class:cat&&score:0.5", "class:cat&score:0.5"),
        ("class:cat|score:0.5", "class:cat+score:0.5"),
        ("class:cat||score:0.5", "class:cat+score:0.5"),
        ("class:cat,remote,score:0.5", "class:cat,remote&score:0.5"),
        ("top:3,class:cat", "top:3&class:cat"),
        ("score:0.5,class:cat,remote", "score:0.5&class:cat,remote"),
        ("point:3,4,class:cat", "point:3,4&class:cat"),
        ("3,17,class:cat", "3,17&class:cat"),
        ("class:cat,score:0.5,top:1", "class:cat&score:0.5&top:1"),
        ("missed,class:cat", "missed&class:cat"),
        ("missed class:cat", "missed&class:cat"),
        ("missed,found", "missed+found"),
        ("missed,wrong-class,bad-box", "missed+wrong-class+bad-box"),
        ("missed and top:1", "missed&top:1"),
        ("missed or found", "missed+found"),
        ("objects,class:cat", "objects&class:cat"),
    ],
)
def test_another_separator_is_refused_with_what_is_meant(choice, meant):
    with pytest.raises(QueryError, match="cannot read") as caught:
        check_syntax(choice)
    assert str(caught.value).endswith(f"did you mean {meant}?") and "\n" not in str(caught.value)
    check_syntax(meant)


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ("mised", r"did you mean missed\? Write objects, top:5"),
        ("wrongclass", r"did you mean wrong-class\?"),
        ("class:cat&mised", r"cannot read 'mised'.*did you mean missed\?"),
        ("class:cat&", "cannot read ''"),
        ("&class:cat", "cannot read ''"),
        ("class:cat&+top:1", "cannot read ''"),
        ("class:cat&size:3", "cannot read 'size:3'"),
        ("missed:2", "cannot read 'missed:2'"),
        ("class:", "cannot read 'class:'"),
    ],
)
def test_a_word_that_cannot_be_read(choice, words):
    with pytest.raises(QueryError, match=words) as caught:
        check_syntax(choice)
    assert "\n" not in str(caught.value)


def test_a_class_that_is_a_word_of_the_grammar():
    with pytest.raises(QueryError, match=r"no class is named 'missed': did you mean class:cat&mis"):
        select(made_up(), "class:cat,missed")
    with pytest.raises(QueryError, match=r"did you mean class:cat&missed\?"):
        select(made_up(), "class:cat and missed")
    some = made_up()
    some.class_names = ("cat", "lost and found", "salt & pepper")
    some.label_name = lambda q: some.class_names[some.labels[q]]
    assert select(some, "class:lost and found") == [1, 5]
    assert select(some, "class:salt & pepper") == [4]
    assert select(some, "class:salt & pepper, cat&score:0.5") == [3, 2]


@pytest.mark.parametrize(
    ("words", "choice"),
    [
        (["class:cat", "and", "score:0.5"], "class:cat&score:0.5"),
        (["class:cat", "or", "score:0.5"], "class:cat+score:0.5"),
        (["class:cat", "&", "score:0.5"], "class:cat&score:0.5"),
        (["class:cat&", "score:0.5"], "class:cat&score:0.5"),
        (["class:cat", "&score:0.5"], "class:cat&score:0.5"),
        (["missed", "and", "class:traffic", "light"], "missed&class:traffic light"),
        (["missed", "found"], "missed+found"),
        (["class:salt", "and", "pepper"], "class:salt and pepper"),
        (["3", "17", "and", "class:cat"], "3,17&class:cat"),
        (["class:cat", "and", "3", "17"], "class:cat&3,17"),
    ],
)
def test_words_of_the_shell(words, choice):
    assert joined(words) == choice


def test_what_a_choice_needs():
    assert holds_ids("class:cat&3") and holds_ids("top:1+anchor:3")
    assert not holds_ids("class:cat&all+missed")
    assert needs_truth("class:cat&missed") and needs_truth("top:1+both")
    assert not needs_truth("class:missed") and not needs_truth("objects+all")
    check_for("missed&class:cat", ["cat"])
    with pytest.raises(QueryError, match="no class is named 'dgo'"):
        check_for("missed&class:dgo", ["cat"])
    with pytest.raises(QueryError, match=r"no query 7"):
        check_for("top:1&7", ["cat"], 7)


TRUTH = annotated((CAT, "cat"), (DOG, "dog"), (FAR, "traffic light"))
QUERIES = (
    (CAT, "cat", 0.9, cells_of(CAT)),  # found
    (CAT, "cat", 0.6, cells_of(CAT)),  # duplicate
    (DOG, "cat", 0.7, cells_of(CAT)),  # wrong-class
    ([50, 25, 80, 50], "dog", 0.8, cells_of(CAT)),  # bad-box
    ([0, 50, 10, 60], "dog", 0.55, cells_of(CAT)),  # background
    ([50, 10, 80, 24], "cat", 0.52, cells_of(FAR)),  # both: another class, IoU below .5
    ([0, 0, 5, 5], "traffic light", 0.1, cells_of(DOG)),  # looks at the dog
)


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("found", [0]),
        ("duplicate", [1]),
        ("wrong-class", [2]),
        ("bad-box", [3]),
        ("background", [4]),
        ("both", [5]),
        # the dog: its box is query 2, query 6 looks there; the light: no box, query 5 looks there
        ("missed", [2, 5, 6]),
        ("missed&class:dog", [2, 6]),  # the class of the object, not what the queries call it
        ("missed&class:traffic light", [5]),
        ("missed&point:55,15", [2, 6]),
        ("missed&top:1", [2]),
        ("missed&score:0.5", [2, 5]),
        ("class:dog&missed+found", [0, 2, 6]),
        ("wrong-class&class:cat", [2]),
        ("wrong-class+bad-box", [3, 2]),
    ],
)
def test_words_about_errors(choice, expected):
    check_syntax(choice)
    assert select(handmade(TRUTH, *QUERIES), choice) == expected


def test_the_threshold_of_words_about_errors():
    e = handmade(TRUTH, *QUERIES)
    assert select(e, "found", 0.9) == [0]
    with pytest.raises(NoQueryError, match=r"0 of 3 annotated objects found at score 0\.95"):
        select(e, "found", 0.95)
    with pytest.raises(NoQueryError, match=r"'duplicate': 1 of 3 .* score 0\.9; there are 7"):
        select(e, "duplicate", 0.9)


def test_words_about_errors_need_annotated_objects():
    e = handmade(None, *QUERIES)
    with pytest.raises(QueryError, match=r"give images with annotations, --image instances\.json"):
        select(e, "missed")
    with pytest.raises(QueryError, match="annotated objects are needed") as caught:
        select(e, "found+top:1")
    assert not isinstance(caught.value, NoQueryError)
    with pytest.raises(QueryError, match="no class is named 'horse'"):
        select(handmade(annotated(), *QUERIES), "missed&class:horse")
