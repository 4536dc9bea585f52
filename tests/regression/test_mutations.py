"""Changes that a check must catch and name, and changes that are none (tests/mutations.py)."""

from __future__ import annotations

import re

import pytest
from mutations import CAUGHT, MAPPING, PASSED, WEIGHTS, fresh_project, scaled, tried

from detr_viz import explain, heatmaps, load_model
from detr_viz.heatmaps.compare import judge


@pytest.fixture
def fresh():
    with fresh_project():
        yield


@pytest.mark.parametrize("case", CAUGHT, ids=lambda case: case.name)
def test_caught_and_named(fresh, case):
    code, told = tried(case)
    assert code in (1, 2) and re.search(case.says, told), told


@pytest.mark.parametrize("case", PASSED, ids=lambda case: case.name)
def test_passes(fresh, case):
    code, told = tried(case)
    assert code == 0 and told.endswith("1 same"), told


@pytest.mark.parametrize("name", MAPPING)
def test_one_percent_is_caught_by_the_maps_alone(fresh, name):
    """As in pytest, where the hash of the weights is no difference."""

    def now():
        e = explain(load_model(WEIGHTS, device="cpu"), "a.png")
        return heatmaps.of(e, e.by_score()[:5], e.modes)

    before = now()
    scaled(name)()
    assert not judge(before, now()).same
