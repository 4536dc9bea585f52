"""Our non-maximum suppression against torchvision's."""

from __future__ import annotations

import pytest
import torch

from detr_viz.models.layers.salience_proposals import choose
from detr_viz.models.layers.suppression import suppressed

torchvision = pytest.importorskip("torchvision")


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.7])
@pytest.mark.parametrize("count", [0, 1, 300, 1500])
def test_as_torchvision(count, threshold):
    torch.manual_seed(count)
    corner = torch.rand(count, 2) * 20
    boxes = torch.cat([corner, corner + 0.5 + 4 * torch.rand(count, 2)], 1)
    scores = torch.randint(0, 200, (count,)).float()  # with many equal ones
    groups = torch.randint(0, 3, (count,))
    for same in (torch.zeros_like(groups), groups):
        got = suppressed(boxes, scores, threshold, same)
        want = torch.cat(
            [
                (same == g).nonzero()[:, 0][
                    torchvision.ops.nms(boxes[same == g], scores[same == g], threshold)
                ]
                for g in range(3)
            ]
        )
        assert sorted(got.tolist()) == sorted(want.tolist())
        assert (scores[got].diff() <= 0).all()
        batched = torchvision.ops.batched_nms(boxes, scores, same, threshold)
        assert sorted(batched.tolist()) == sorted(got.tolist())


def test_a_long_chain():
    """Each box hides the next one: every second stays."""
    x = torch.arange(500.0)
    boxes = torch.stack([x - 1, x * 0 - 1, x + 1, x * 0 + 1], 1)
    kept = suppressed(boxes, -x, 0.3, torch.zeros(500, dtype=torch.long))
    assert kept.tolist() == list(range(0, 500, 2))


def test_chosen_tokens_are_no_neighbours_on_their_level():
    torch.manual_seed(0)
    scores = torch.randn(2, 8 * 9 + 4 * 5)
    for tokens in choose(scores, [(8, 9), (4, 5)], 12).tolist():
        fine = [divmod(t, 9) for t in tokens if t < 72]
        for a in fine:
            assert sum(abs(a[0] - b[0]) + abs(a[1] - b[1]) == 1 for b in fine) == 0
    assert scores[0].argmax() == choose(scores, [(8, 9), (4, 5)], 12)[0, 0]


def test_where_too_few_stay_the_best_of_the_others_follow():
    """9 tokens on a line, falling: 0, 2, 4, 6 and 8 stay, then 1, 3."""
    scores = -torch.arange(9.0)[None]
    assert choose(scores, [(1, 9)], 7).tolist() == [[0, 2, 4, 6, 8, 1, 3]]
