"""Points of deformable convolutions as an attention site, in float64."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from detr_viz.attention.grids import Grid
from detr_viz.attention.taps import PartCall, TapAttention, part_calls
from detr_viz.models.layers.dynamic_encoder import EncoderBlock

WIDTH = 32
SHAPES = ((7, 10), (4, 5), (2, 3))
STRIDES, INPUT_HW = (8, 16, 32), (53, 77)  # no multiple of the strides


@pytest.fixture(scope="module", params=[True, False])
def case(request):
    """(attention of the second image, its inputs, the block, what it gave)."""
    torch.manual_seed(2)
    block = EncoderBlock(WIDTH, request.param).double().requires_grad_(False)
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    inputs = block.inputs([torch.randn(2, WIDTH, *hw, dtype=torch.float64) for hw in SHAPES])
    out = block.DyConv(inputs)[1]
    grids = tuple(
        Grid(hw, INPUT_HW, stride, "strided", name=f"level {i}")
        for i, (hw, stride) in enumerate(zip(SHAPES, STRIDES, strict=True))
    )
    attention = replace(block.DyConv.read(inputs.of_image(1)), grids=grids)
    return attention, inputs, block, out


def test_points_lie_where_the_convolution_reads(case):
    """Of all three parts and of cells of all levels, in pixels of the input."""
    attention, inputs, block, _ = case
    rows = [0, 37, 69]
    xy, weight = attention.samples(rows=rows)
    seen = set()
    for call in part_calls(3):
        offsets, masks = block.DyConv.taps(call, inputs)
        for i, cell in enumerate(rows):
            row, column = (cell // 10) >> call.grid, (cell % 10) >> call.grid
            step = 2 if call.part == "finer" else 1
            for k in range(9):
                dy, dx = offsets[1, 2 * k : 2 * k + 2, row, column].tolist()
                stride = STRIDES[call.source]
                y = (step * row + k // 3 - 1 + dy + 0.5) * stride / INPUT_HW[0]
                x = (step * column + k % 3 - 1 + dx + 0.5) * stride / INPUT_HW[1]
                place = xy[i, call.level, call.source, k]
                torch.testing.assert_close(
                    place, torch.tensor([x, y], dtype=torch.float64), atol=1e-12, rtol=0
                )
                mask = 1.0 if masks is None else float(masks[1, k, row, column])
                part = float(weight[i, call.level, call.source, k])
                first = float(weight[i, call.level, call.level, 0])
                _, own_masks = block.DyConv.taps(_own(call.level), inputs)
                row_own, column_own = (cell // 10) >> call.level, (cell % 10) >> call.level
                base = 1.0 if own_masks is None else float(own_masks[1, 0, row_own, column_own])
                assert part / first == pytest.approx(mask / base, rel=1e-9)
        seen.add((call.level, call.source))
    for level in range(3):
        for source in range(3):
            assert bool((weight[:, level, source] > 0).all()) == ((level, source) in seen)
    torch.testing.assert_close(
        weight.sum((-2, -1)), torch.ones(3, 3, dtype=torch.float64), atol=1e-12, rtol=0
    )


def _own(level: int) -> PartCall:
    return next(call for call in part_calls(3) if call[:2] == (level, "own"))


def test_the_self_check_passes_for_the_blocks_own_points_alone(case):
    attention, _, _, out = case
    assert attention.residual(out, lambda x: x) < 1e-13
    moved = tuple(places + 0.02 for places in attention.places)
    assert replace(attention, places=moved).residual(out, lambda x: x) > 0.05
    swapped = (*attention.matrices[1:], attention.matrices[0])
    assert replace(attention, matrices=swapped).residual(out, lambda x: x) > 0.5
    assert attention.residual(out * float("nan"), lambda x: x) == float("inf")


def test_maps_hold_the_masks_of_what_lies_on_the_map(case):
    attention = case[0]
    maps = attention.weights(rows=[0, 37])
    assert maps.shape == (3, 2, 70 + 20 + 6)
    assert (maps >= 0).all() and (maps.sum(-1) <= 1 + 1e-12).all()
    assert (maps[2, :, :70] == 0).all()  # a cell of the coarsest level does not read the finest
    assert maps[2, :, 90:].sum() > 0


def test_it_has_combine_alone(case):
    attention: TapAttention = case[0]
    assert list(attention.modes) == ["combine"]
    for call in (attention.samples, attention.weights):
        with pytest.raises(ValueError, match="does not exist"):
            call("position", [0])
