"""Sampled attention against grid_sample, and its parts against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from detr_viz.attention.base import HasSamples, HasTerms, Removable
from detr_viz.attention.bilinear import in_boxes, mixed_corners, places_of, splat
from detr_viz.attention.grids import Grid
from detr_viz.attention.sampled import SampledAttention
from detr_viz.attention.sampling import Cells, sampled
from detr_viz.explanation.removals import NOTHING, parse

SHAPES = ((5, 7), (3, 4))
M, Q, P, D = 2, 4, 3, 6
CELLS = 5 * 7 + 3 * 4


def by_grid_sample(value, xy, weight):
    """The usual core: grid_sample of each level, then the weighted sum. Returns (B, Q, M, D)."""
    total = 0
    for level, part in enumerate(value.split([h * w for h, w in SHAPES], 1)):
        h, w = SHAPES[level]
        image = part.permute(0, 2, 3, 1).reshape(-1, part.shape[-1], h, w)  # (B * M, D, h, w)
        places = 2 * xy[:, :, :, level].transpose(1, 2).flatten(0, 1) - 1
        read = F.grid_sample(image, places, "bilinear", "zeros", align_corners=False)
        each = weight[:, :, :, level].transpose(1, 2).flatten(0, 1)[:, None]
        total = total + (read * each).sum(-1)
    return total.unflatten(0, (len(value), -1)).permute(0, 3, 1, 2)


def random_samples(batch=2, reach=1.5):
    g = torch.Generator().manual_seed(3)
    value = torch.randn(batch, CELLS, M, D, generator=g, dtype=torch.float64)
    xy = (
        torch.rand(batch, Q, M, 2, P, 2, generator=g, dtype=torch.float64) * reach - (reach - 1) / 2
    )
    weight = torch.rand(batch, Q, M, 2, P, generator=g, dtype=torch.float64)
    return value, xy, weight


def test_the_weighted_sum_is_grid_sample():
    value, xy, weight = random_samples()
    expected = by_grid_sample(value, xy, weight)
    torch.testing.assert_close(sampled(value, xy, weight, SHAPES), expected, atol=1e-13, rtol=0)


@pytest.mark.parametrize("hw", [(1, 1), (1, 2), (3, 1), (2, 2), (4, 5)])
@pytest.mark.parametrize("reach", [1.0, 3.0, 20.0])
def test_small_grids_and_samples_far_outside(hw, reach):
    """Also on a grid of one cell, and beyond the cell after it."""
    g = torch.Generator().manual_seed(1)
    value = torch.randn(1, hw[0] * hw[1], 1, D, generator=g, dtype=torch.float64)
    xy = torch.rand(1, 500, 1, 1, 1, 2, generator=g, dtype=torch.float64) * reach - (reach - 1) / 2
    weight = torch.rand(1, 500, 1, 1, 1, generator=g, dtype=torch.float64)
    image = value[0, :, 0].T.view(1, D, *hw)
    read = F.grid_sample(image, 2 * xy[0, None, None, :, 0, 0, 0] - 1, align_corners=False)
    expected = (read[0, :, 0] * weight.flatten()).T
    torch.testing.assert_close(sampled(value, xy, weight, [hw])[0, :, 0], expected)
    torch.testing.assert_close(splat(xy, weight, [hw])[0, :, 0] @ value[0, :, 0], expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_cells_of_narrow_types_are_counted_exactly(dtype):
    """Rows of the table beyond 2^11, where float16 knows no odd numbers."""
    hw, middle = (60, 80), torch.tensor([79.5 / 80, 59.5 / 60])
    value = torch.zeros(1, 60 * 80, 8, 2, dtype=dtype)
    value[:, -1] = 1  # the last cell alone
    cells = Cells.of(value, [hw])
    pixel = (middle * torch.tensor([80, 60]) - 0.5).to(dtype).expand(1, 1, 8, 1, 2)
    read = cells.read(pixel, torch.ones(1, 1, 8, 1, dtype=dtype))
    assert torch.equal(read, torch.ones(1, 1, 8, 2, dtype=dtype))


def test_one_value_stands_for_all_images():
    value, xy, weight = random_samples()
    expected = by_grid_sample(value[:1].expand(2, -1, -1, -1), xy, weight)
    got = sampled(value[:1], xy, weight, SHAPES)
    torch.testing.assert_close(got, expected, atol=1e-13, rtol=0)


def test_chunks_do_not_change_a_number(monkeypatch):
    value, xy, weight = random_samples()
    whole = sampled(value, xy, weight, SHAPES)
    monkeypatch.setattr("detr_viz.attention.sampling.CHUNK", 3)
    assert torch.equal(sampled(value, xy, weight, SHAPES), whole)


def test_the_splat_is_the_transpose_of_the_sampling():
    value, xy, weight = random_samples()
    deposit = splat(xy, weight, SHAPES)  # (B, Q, M, S)
    again = torch.einsum("bqms,bsmd->bqmd", deposit, value)
    torch.testing.assert_close(again, by_grid_sample(value, xy, weight), atol=1e-13, rtol=0)


@pytest.mark.parametrize("reach", [1.0, 3.0])
def test_the_sum_over_corners_is_that_over_all_cells(reach):
    value, xy, weight = random_samples(1, reach)
    found = mixed_corners(
        xy[0].transpose(0, 1), weight[0].transpose(0, 1), SHAPES, value[0].transpose(0, 1)
    )
    expected = by_grid_sample(value, xy, weight)[0].transpose(0, 1)
    torch.testing.assert_close(found, expected, atol=1e-13, rtol=0)


def test_a_sample_between_four_cells_and_one_at_the_edge():
    """x 2.25, y 1.5 in cells of 7 x 5: pixel 1.75, 1.0, so a quarter left and the rest right."""
    xy = torch.zeros(1, 2, 1, 2, dtype=torch.float64)
    xy[0, 0, 0] = torch.tensor([2.25 / 7, 1.5 / 5], dtype=torch.float64)
    weight = torch.tensor([[[0.6], [0.4]]], dtype=torch.float64)  # of level 1 at its corner (0, 0)
    got = splat(xy, weight, SHAPES)[0]
    expected = torch.zeros(CELLS, dtype=torch.float64)
    expected[7 + 1], expected[7 + 2] = 0.6 * 0.25, 0.6 * 0.75
    expected[35] = 0.4 / 4  # three of the four cells around the corner do not exist
    torch.testing.assert_close(got, expected, atol=1e-12, rtol=0)


def test_places_of_samples_are_cells_of_the_finest_level():
    """Half a cell beyond the edge of 7 x 5 and 4 x 3 cells nothing is read any more."""
    xy = torch.tensor([[[[0.999, 0.0]], [[0.5, 0.99]]], [[[1.08, 0.5]], [[-0.12, 0.5]]]])
    assert places_of(xy, SHAPES).tolist() == [[[6], [4 * 7 + 3]], [[-1], [2 * 7]]]
    coarse_first = (SHAPES[1], SHAPES[0])
    assert places_of(xy.flip(-3), coarse_first).tolist() == [[[4 * 7 + 3], [6]], [[2 * 7], [-1]]]


def test_samples_in_boxes_by_their_own_places():
    """Both samples lie in one cell, 0.5 to 0.75, and only one of them in the box."""
    xy = torch.tensor([[0.55, 0.6], [0.7, 0.6]]).view(1, 1, 1, 2, 2).expand(1, 2, 2, 2, 2)
    boxes = torch.tensor([[0.5, 0.0, 0.6, 1.0], [0.55, 0.6, 0.7, 0.6]])
    within = in_boxes(xy, boxes)
    assert within.shape == (1, 2, 2, 2)
    assert within[0, 0].tolist() == [[True, False]] * 2
    assert within[0, 1].all()  # the outline counts


@pytest.mark.parametrize("mask", ["cells", "samples"])
def test_a_hidden_place_hides_the_samples_of_every_level(mask):
    """Two levels of 4 x 4 and 2 x 2 cells, two points each; the place (0.6, 0.6) is hidden."""
    shapes, zero = ((4, 4), (2, 2)), torch.zeros(1, 1, 2, 2)
    logits = torch.tensor([[0.1, 0.2], [0.3, 0.4]]).log().view(1, 1, 2, 2)
    # level 0 at (0.6, 0.6) and (0.1, 0.6); level 1 at (0.7, 0.55) and at (0.9, 0.6), whose own
    # cell is the same, but not the fine cell under it
    xy = torch.tensor([[[0.6, 0.6], [0.1, 0.6]], [[0.7, 0.55], [0.9, 0.6]]])
    offsets = xy * torch.tensor([4.0, 2.0])[:, None, None]
    a = SampledAttention(
        zero,
        zero,
        logits,
        *(zero[..., None].expand(1, 1, 2, 2, 2),) * 2,
        offsets[None, None],
        torch.zeros(1, 2, 2),
        torch.arange(20.0).view(1, 20, 1),
        shapes,
    )
    if mask == "cells":
        hidden = torch.zeros(1, 16, dtype=torch.bool)
        hidden[0, 2 * 4 + 2] = True
    else:
        hidden = a.samples_in(torch.tensor([[0.5, 0.5, 0.75, 0.75]]))
        assert hidden.tolist() == [[[[True, False], [True, False]]]]
    weights, context = a.without(NOTHING, hidden)
    left = torch.tensor([[[[0.0, 0.2], [0.0, 0.4]]]]) / 0.6
    torch.testing.assert_close(weights, splat(xy[None, None], left, shapes), atol=1e-6, rtol=0)
    torch.testing.assert_close(context, weights @ a.value)


def attention(box: bool = False, padding: bool = False) -> SampledAttention:
    g = torch.Generator().manual_seed(5)

    def rand(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    reference = torch.rand(Q, 2, 4 if box else 2, generator=g, dtype=torch.float64)
    value, pad = rand(M, CELLS, D), None
    if padding:
        pad = torch.zeros(CELLS, dtype=torch.bool)
        pad[5:7] = True
        value = value.masked_fill(pad[:, None], 0)
    return SampledAttention(
        *(rand(M, n, 2, P) for n in (Q, Q, 1)),
        *(rand(M, n, 2, P, 2) for n in (Q, Q, 1)),
        reference,
        value,
        SHAPES,
        pad,
    )


def test_it_is_what_the_protocols_ask():
    a = attention()
    assert isinstance(a, HasSamples) and isinstance(a, HasTerms) and isinstance(a, Removable)
    assert (a.num_heads, a.num_rows, a.kind) == (M, Q, "sampled")
    assert set(a.modes) == {"combine", "position", "content"}


@pytest.mark.parametrize("box", [False, True])
@pytest.mark.parametrize(
    ("mode", "parts"), [("combine", "cp"), ("content", "c"), ("position", "p")]
)
def test_each_mode_moves_weights_and_places(mode, parts, box):
    """Logits and offsets of a mode's parts and the bias, by numpy, one sample after another."""
    a = attention(box)
    xy, weight = (x.numpy() for x in a.samples(mode, [2, 0]))
    assert xy.shape == (2, M, 2, P, 2)
    for i, q in enumerate([2, 0]):
        for m in range(M):
            logits = a.b_logits[m, 0].numpy() + sum(
                getattr(a, f"{x}_logits")[m, q].numpy() for x in parts
            )
            raised = np.exp(logits)
            np.testing.assert_allclose(weight[i, m], raised / raised.sum(), atol=1e-12)
            offsets = a.b_offsets[m, 0].numpy() + sum(
                getattr(a, f"{x}_offsets")[m, q].numpy() for x in parts
            )
            for level, (h, w) in enumerate(SHAPES):
                reference = a.reference[q, level].numpy()
                scale = reference[2:] / P / 2 if box else np.array([1 / w, 1 / h])
                expected = reference[:2] + offsets[level] * scale
                np.testing.assert_allclose(xy[i, m, level], expected, atol=1e-12)


def test_terms_add_up_to_the_logits():
    a = attention()
    total = sum(a.term_logits(name, [1, 3]) for name in a.term_names)
    weight = a.samples("combine", [1, 3])[1].transpose(0, 1).flatten(2)
    torch.testing.assert_close(total.softmax(-1), weight, atol=1e-12, rtol=0)
    # logit(c + p) = logit(c) + logit(p) - bias
    content, bias = a.term_logits("content"), a.term_logits("bias")
    only = a.samples("content")[1].transpose(0, 1).flatten(2)
    torch.testing.assert_close((content + bias).softmax(-1), only, atol=1e-12, rtol=0)


def test_weights_outside_and_padded_are_one():
    a = attention(padding=True)
    weights, outside = a.weights(), a.outside()
    assert outside.shape == (M, Q, 2) and float(outside.max()) > 0.01
    torch.testing.assert_close(weights.sum(-1) + outside.sum(-1), torch.ones(M, Q).double())
    torch.testing.assert_close(a.padded(), weights[..., 5] + weights[..., 6])
    assert float(a.padded().max()) > 1e-3
    assert not attention().padded().any()


def context(a: SampledAttention, mode: str = "combine") -> torch.Tensor:
    """(M, Q, D) by grid_sample."""
    xy, weight = a.samples(mode)
    return by_grid_sample(a.value.transpose(0, 1)[None], xy[None], weight[None])[0].transpose(0, 1)


def test_the_self_check_accepts_its_own_output_and_no_other():
    a = attention()
    own, other = (context(a, mode).transpose(0, 1).flatten(1) for mode in ("combine", "position"))
    project = torch.nn.Linear(M * D, 9, dtype=torch.float64).requires_grad_(False)
    assert a.residual(project(own), project) < 1e-12
    assert a.residual(project(other), project) > 0.17
    assert a.residual(torch.full((Q, 9), torch.nan), project) == float("inf")


def test_the_self_check_of_many_rows_takes_some(monkeypatch):
    monkeypatch.setattr("detr_viz.attention.self_check._MOST_CHECKED", 2)
    a = attention()
    out = context(a).transpose(0, 1).flatten(1)
    out[1] += 1  # rows 0 and 2 are looked at
    assert a.residual(out, lambda x: x) < 1e-12
    out[2] += 1
    assert a.residual(out, lambda x: x) > 0.1


def test_the_self_check_makes_maps_of_some_rows_and_sums_of_the_others(monkeypatch):
    """Two of four rows at once: the splat of rows 0 and 2 counts, and the sums of 1 and 3."""
    monkeypatch.setattr("detr_viz.attention.self_check._MOST_WEIGHTS", 2 * M * CELLS)
    a = attention()
    out = context(a).transpose(0, 1).flatten(1)
    assert a.residual(out, lambda x: x) < 1e-12
    shapes: list[tuple[int, ...]] = []

    def off_by_a_cell(xy, weight, levels):
        found = splat(xy, weight, levels)
        shapes.append(tuple(found.shape))
        return found.roll(1, -1)

    with monkeypatch.context() as patch:
        patch.setattr("detr_viz.attention.sampled.splat", off_by_a_cell)
        assert a.residual(out, lambda x: x) > 0.1
    assert shapes == [(M, 2, CELLS)]
    for row in range(Q):
        other = out.clone()
        other[row] += 1
        assert a.residual(other, lambda x: x) > 0.05


@pytest.mark.parametrize(
    ("removal", "mode"),
    [(NOTHING, "combine"), (parse("position"), "content"), (parse("content"), "position")],
)
def test_without_a_part(removal, mode):
    a = attention()
    weights, got = a.without(removal)
    torch.testing.assert_close(got, context(a, mode), atol=1e-12, rtol=0)
    torch.testing.assert_close(weights, a.weights(mode))


def test_without_a_head():
    weights, got = (a := attention()).without(parse("head:1"))
    assert not got[1].any() and not weights[1].any()
    torch.testing.assert_close(got[0], context(a)[0], atol=1e-12, rtol=0)


def test_a_hidden_cell_loses_its_samples_to_the_others():
    a = attention()
    xy, weight = a.samples()
    cells = places_of(xy, SHAPES)  # (Q, M, L, P)
    hidden = torch.zeros(Q, 35, dtype=torch.bool)
    first = int(cells[1][cells[1] >= 0][0])
    hidden[1, first] = True
    left = torch.where(cells[1] == first, 0, weight[1])
    assert not torch.equal(left, weight[1])
    left = left / left.sum((1, 2), keepdim=True)
    expected = by_grid_sample(a.value.transpose(0, 1)[None], xy[None, 1:2], left[None, None])[0]
    got = a.without(NOTHING, hidden)[1]
    torch.testing.assert_close(got[:, 1], expected[0], atol=1e-12, rtol=0)
    torch.testing.assert_close(got[:, 2], context(a)[:, 2], atol=1e-12, rtol=0)


def test_unknown_modes_and_scales_are_refused():
    a = attention()
    for mode in ("cq.ck", "all", ""):
        with pytest.raises(ValueError, match="is not one of combine, position, content"):
            a.weights(mode)
    with pytest.raises(ValueError, match="scale"):
        a.weights(scale="own")
    torch.testing.assert_close(a.weights(scale="layer"), a.weights(scale="mode"))


def test_without_a_level_the_other_reads_more():
    a = attention()
    xy, weight = a.samples()
    left = weight.clone()
    left[:, :, 1] = 0
    left = left / left.sum((2, 3), keepdim=True)
    expected = by_grid_sample(a.value.transpose(0, 1)[None], xy[None], left[None])[0]
    weights, got = a.without(parse("level:1"))
    torch.testing.assert_close(got, expected.transpose(0, 1), atol=1e-12, rtol=0)
    assert not weights[..., 35:].any()


def test_with_all_cells_hidden_nothing_is_read():
    a = attention()
    weights, got = a.without(NOTHING, torch.ones(Q, 35, dtype=torch.bool))
    assert not weights.any() and not got.any()
    torch.testing.assert_close(a.context(torch.zeros(Q, 35, dtype=torch.bool)), context(a))


def test_pixels_of_a_photo_as_shares_of_a_padded_input():
    """The photo covers the upper half and the left quarter of the input."""
    grid = Grid((4, 8), (64, 128), 16, "centered", valid_hw=(32, 32))
    np.testing.assert_allclose(grid.input_share(np.array([0.0, 250, 500]), 500, 0), [0, 0.25, 0.5])
    np.testing.assert_allclose(grid.input_share(np.array([100.0, 200]), 200, 1), [0.125, 0.25])
