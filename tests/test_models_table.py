"""docs/models.md against the code: each view is tried with a small network of each type."""

from __future__ import annotations

import re

import pytest
from conftest import ROOT
from models_table import PAGE, VIEWS, kinds, page, reason, weights_of
from PIL import Image

from detr_viz import models
from detr_viz.models.registry import REGISTRY


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|\n").split("|")]


@pytest.fixture(scope="module")
def tables() -> tuple[list[list[str]], list[list[str]], dict[int, str]]:
    """Rows of the first table and of the second, without their heads; the reasons."""
    text = PAGE.read_text(encoding="utf-8")
    first, second = re.findall(r"(?:^\|.*\n)+", text, re.M)
    reasons = {int(n): why for n, why in re.findall(r"^(\d+)\. (.*)$", text, re.M)}
    rows = [[cells(line) for line in part.splitlines()] for part in (first, second)]
    return rows[0][2:], [rows[1][0], *rows[1][2:]], reasons


def test_the_page_has_every_type_with_its_own_modes(tables):
    rows, (head, *_), _ = tables
    assert [row[0].strip("`") for row in rows] == list(REGISTRY) == [n.strip("`") for n in head[1:]]
    for name, title, _, modes in rows:
        assert title == REGISTRY[name.strip("`")].title
        assert modes == ", ".join(models.get(name.strip("`")).modes)


def test_every_no_has_a_reason_and_every_reason_a_no(tables):
    _, (_, *rows), reasons = tables
    used = set()
    for row in rows:
        for mark in row[1:]:
            found = re.fullmatch(r"yes|\[(\d+)\]", mark)
            assert found, mark
            used |= {int(found[1])} if found[1] else set()
    assert used == {*reasons}


@pytest.mark.parametrize("name", REGISTRY)
def test_what_the_page_says_of_a_type_is_what_the_command_does(name, tables, tmp_path):
    _, (head, *rows), reasons = tables
    column = [n.strip("`") for n in head].index(name)
    Image.open(ROOT / "image/photo_cat.jpg").resize((96, 72)).save(tmp_path / "cat.png")
    weights = weights_of(name, tmp_path)
    by_view = {row[0].split("`")[1]: row[column] for row in rows}
    assert list(by_view) == list(VIEWS)
    for words, mark in by_view.items():
        why = "" if mark == "yes" else reasons[int(mark.strip("[]"))]
        assert reason(name, weights, words, tmp_path) == why, f"{name} {words}"


def test_kinds_of_maps_are_those_of_the_networks(tables):
    text = {name: (title, kind, modes) for name, (title, kind, modes) in kinds().items()}
    tried = {name: dict.fromkeys(VIEWS, "") for name in text}
    first = re.findall(r"(?:^\|.*\n)+", page(text, tried), re.M)[0]
    assert first in PAGE.read_text(encoding="utf-8")
