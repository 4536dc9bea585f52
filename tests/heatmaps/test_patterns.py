"""What a change of maps looks like: changes that are known, each told by its name."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from detr_viz.heatmaps.patterns import likeness

QUERIES, HEADS = 3, 6


def logits(height: int = 5, width: int = 8, spread: float = 2.0) -> torch.Tensor:
    drawn = torch.Generator().manual_seed(3)
    return spread * torch.randn(QUERIES, HEADS, height, width, generator=drawn)


def softmax(x: torch.Tensor) -> np.ndarray:
    return x.flatten(-2).softmax(-1).view(x.shape).numpy()


def test_nothing_has_changed():
    assert likeness(softmax(logits()), softmax(logits())) == ""


def test_two_heads():
    order = [0, 4, 2, 3, 1, 5]
    assert likeness(softmax(logits()), softmax(logits())[:, order]) == (
        "heads 1 and 4 have changed places"
    )


def test_an_order_says_where_each_head_went():
    """Torch's own roll: head 0 becomes head 1, the last one the first."""
    said = likeness(softmax(logits()), softmax(logits().roll(1, dims=1)))
    assert said == (
        "heads are in another order "
        "(0 is now 1, 1 is now 2, 2 is now 3, 3 is now 4, 4 is now 5, 5 is now 0)"
    )


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda x: x.flip(-1), "maps are mirrored left to right"),
        (lambda x: x.flip(-2), "maps are upside down"),
        (lambda x: x.rot90(2, (-2, -1)), "maps are turned by 180 degrees"),
        (lambda x: x.mT, "maps are transposed, rows for columns"),
    ],
)
def test_mirrors(change, says):
    square = logits(7, 7)
    assert likeness(softmax(square), softmax(change(square))) == says


@pytest.mark.parametrize(("factor", "said"), [(2**0.5, "1.41"), (2**-0.5, "0.707"), (1.01, "1.01")])
def test_the_scale_of_the_logits(factor, said):
    old, new = softmax(logits()), softmax(logits() * factor)
    assert likeness(old, new) == f"as if the logits were scaled by {said}"


def test_a_softmax_over_the_queries():
    x = logits()
    assert "the softmax were not over the keys" in likeness(softmax(x), x.softmax(0).numpy())


@pytest.mark.parametrize("seed", range(100, 120))
def test_other_changes_look_like_none_of_these(seed):
    """Other weights; and a swap of heads in one of three queries, which no refactoring does."""
    noise = torch.randn(QUERIES, HEADS, 5, 8, generator=torch.Generator().manual_seed(seed))
    assert likeness(softmax(logits()), softmax(logits() + noise)) == ""
    assert likeness(softmax(logits()), softmax(noise)) == ""
    one = softmax(logits())
    one[0] = one[0, ::-1]
    assert likeness(softmax(logits()), one) == ""


@pytest.mark.parametrize("maps", [np.zeros((2, 3, 4, 5)), np.full((2, 3, 4, 5), 1 / 20)])
def test_maps_that_say_nothing(maps):
    """Empty and uniform ones: no division by nothing, no logarithm of it."""
    new = maps.copy()
    new[0, 0, 0, 0] += 1e-3
    with np.errstate(all="raise"):
        assert likeness(maps, new) == ""
