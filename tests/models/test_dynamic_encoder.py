"""Dynamic DETR's encoder in float64, against a computation of its own by torchvision's operator."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import deform_conv2d

from detr_viz.attention.taps import part_calls
from detr_viz.models.layers.dynamic_encoder import (
    DynamicEncoder,
    DynamicReLU,
    EncoderBlock,
    Pyramid,
)

WIDTH = 32
SHAPES = ((7, 10), (4, 5), (2, 3))  # each is half of the one before, rounded up


def block(masked: bool = True, seed: int = 3) -> EncoderBlock:
    """Weights that make offsets of some cells and scales away from a half."""
    torch.manual_seed(seed)
    one = EncoderBlock(WIDTH, masked).double()
    for name, parameter in one.named_parameters():
        torch.nn.init.normal_(parameter, std=0.6 if "AttnConv" in name else 0.2)
        if name.endswith("bn.weight"):
            parameter.data += 1
    return one.requires_grad_(False)


def maps(seed: int = 4) -> list[torch.Tensor]:
    torch.manual_seed(seed)
    return [torch.randn(2, WIDTH, *hw, dtype=torch.float64) for hw in SHAPES]


def parts_by_hand(one: EncoderBlock, levels: list[torch.Tensor], level: int):
    """{part: normed map} of a level, by the specification."""
    state = one.state_dict()
    x = levels[level]
    predicted = F.conv2d(x, state["offset.weight"], state["offset.bias"], padding=1)
    offsets, masks = predicted[:, :18], None
    if predicted.shape[1] == 27:
        masks = 1 / (1 + torch.exp(-predicted[:, 18:]))

    def part(index: int, source: torch.Tensor, offsets, masks, stride: int) -> torch.Tensor:
        weight = state[f"DyConv.{index}.conv.weight"]
        y = deform_conv2d(source, offsets, weight, None, stride=stride, padding=1, mask=masks)
        grouped = y.unflatten(1, (16, -1)).flatten(2)
        mean = grouped.mean(-1, keepdim=True)
        var = grouped.var(-1, unbiased=False, keepdim=True)
        normed = ((grouped - mean) / (var + 1e-5).sqrt()).view_as(y)
        scale, shift = (
            state[f"DyConv.{index}.bn.{leaf}"][:, None, None] for leaf in ("weight", "bias")
        )
        return normed * scale + shift

    def resize(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=False)

    found = {"own": part(1, x, offsets, masks, 1)}
    if level > 0:
        found["finer"] = part(2, levels[level - 1], offsets, masks, 2)
    if level + 1 < len(levels):
        above = levels[level + 1]
        small = None if masks is None else resize(masks, above)
        found["coarser"] = resize(part(0, above, resize(offsets, above), small, 1), x)
    return found


def output_by_hand(one: EncoderBlock, levels: list[torch.Tensor], level: int):
    """(output, {part: scale weight}, {part: share}, {part: shares in cells}) of a level."""
    state = one.state_dict()
    found = parts_by_hand(one, levels, level)
    scales, terms = {}, {}
    for name, part in found.items():
        logit = (part.mean((2, 3)) * state["AttnConv.1.weight"][0, :, 0, 0]).sum(-1)
        scales[name] = ((logit + state["AttnConv.1.bias"] + 3) / 6).clamp(0, 1)
        terms[name] = scales[name][:, None, None, None] * part / len(found)
    mix = sum(terms.values())
    hidden = (mix.mean((2, 3)) @ state["relu.fc.0.weight"].T + state["relu.fc.0.bias"]).clamp(0)
    theta = hidden @ state["relu.fc.2.weight"].T + state["relu.fc.2.bias"]
    theta = ((theta + 3) / 6).clamp(0, 1) - 0.5
    a1, b1, a2, b2 = (theta[:, k * WIDTH : (k + 1) * WIDTH, None, None] for k in range(4))
    out = torch.maximum((1 + 2 * a1) * mix + b1, 2 * a2 * mix + b2)
    shares = {
        name: (term * mix).sum((1, 2, 3)) / (mix * mix).sum((1, 2, 3))
        for name, term in terms.items()
    }
    cells = {name: (term * mix).sum(1) / (mix * mix).sum(1) for name, term in terms.items()}
    return out, scales, shares, cells


@pytest.mark.parametrize("masked", [True, False])
def test_a_block_is_what_the_specification_says(masked):
    one, levels = block(masked), maps()
    assert one.offset.out_channels == (27 if masked else 18)
    outputs, numbers = one(levels)
    for level in range(len(SHAPES)):
        out, scales, shares, cells = output_by_hand(one, levels, level)
        here = slice(
            sum(h * w for h, w in SHAPES[:level]), sum(h * w for h, w in SHAPES[: level + 1])
        )
        torch.testing.assert_close(outputs[level], out, atol=1e-11, rtol=0)
        for k, name in enumerate(("finer", "own", "coarser")):
            if name not in scales:
                assert numbers.weights[:, level, k].isnan().all()
                assert numbers.shares[:, level, k].isnan().all()
                assert numbers.maps[:, k, here].isnan().all()
                continue
            assert 0 < scales[name].min() < 1
            torch.testing.assert_close(
                numbers.weights[:, level, k], scales[name], atol=1e-12, rtol=0
            )
            torch.testing.assert_close(
                numbers.shares[:, level, k], shares[name], atol=1e-12, rtol=0
            )
            local = numbers.maps[:, k, here].unflatten(-1, SHAPES[level])
            torch.testing.assert_close(local, cells[name], atol=1e-11, rtol=1e-11)


def test_shares_of_the_parts_are_1_in_all():
    _, numbers = block()(maps())
    whole = numbers.shares.nansum(-1)
    torch.testing.assert_close(whole, torch.ones_like(whole), atol=1e-14, rtol=0)
    in_cells = numbers.maps.nansum(1)
    torch.testing.assert_close(in_cells, torch.ones_like(in_cells), atol=1e-12, rtol=0)


def test_a_part_is_the_sum_over_its_taps():
    """Each tap's masked bilinear sample times the tap's own matrix, cell by cell, in a loop."""
    one, levels = block(), maps()
    inputs = one.inputs(levels)
    rows = one.DyConv(inputs)
    start = 0
    for call in part_calls(len(SHAPES)):
        layer, source = one.DyConv.of(call.part).conv, levels[call.source]
        offsets, masks = one.DyConv.taps(call, inputs)
        h, w = SHAPES[call.grid]
        for p in (0, h * w // 2, h * w - 1):
            total = torch.zeros(WIDTH, dtype=torch.float64)
            for k in range(9):
                row, column = divmod(p, w)
                y = row * layer.stride + k // 3 - 1 + float(offsets[1, 2 * k, row, column])
                x = column * layer.stride + k % 3 - 1 + float(offsets[1, 2 * k + 1, row, column])
                value = float(masks[1, k, row, column]) * bilinear(source[1], y, x)
                total += layer.weight[:, :, k // 3, k % 3] @ value
            torch.testing.assert_close(rows[1, start + p], total, atol=1e-12, rtol=0)
        start += h * w
    assert start == rows.shape[1]


def bilinear(x: torch.Tensor, row: float, column: float) -> torch.Tensor:
    """(C,) of x (C, h, w) between its cells, 0 outside."""
    total = torch.zeros(len(x), dtype=x.dtype)
    for i in range(x.shape[1]):
        for j in range(x.shape[2]):
            share = max(0.0, 1 - abs(row - i)) * max(0.0, 1 - abs(column - j))
            total += share * x[:, i, j]
    return total


def test_a_batch_is_its_images():
    encoder = DynamicEncoder(WIDTH, 2).double()
    levels = maps()
    outputs, numbers = encoder(levels)
    assert numbers.weights.shape == (2, 2, len(SHAPES), 3)
    assert numbers.maps.shape == (2, 2, 3, sum(h * w for h, w in SHAPES))
    for i in range(2):
        alone, own = encoder([x[i : i + 1] for x in levels])
        for one, both in zip(alone, outputs, strict=True):
            torch.testing.assert_close(one[0], both[i], atol=1e-12, rtol=0)
        torch.testing.assert_close(
            own.shares[0], numbers.shares[i], atol=1e-12, rtol=0, equal_nan=True
        )


def test_the_dynamic_relu_of_first_values_is_between_its_two_lines():
    relu = DynamicReLU(WIDTH).double()
    for parameter in relu.parameters():
        torch.nn.init.zeros_(parameter)
    x = torch.randn(1, WIDTH, 3, 3, dtype=torch.float64)
    torch.testing.assert_close(relu(x), x.clamp(0), atol=1e-15, rtol=0)  # theta is 0


def test_the_pyramid_adds_what_lies_above_and_halves_its_last_level():
    torch.manual_seed(0)
    features = [torch.randn(1, c, *hw) for c, hw in ((3, (7, 10)), (4, (4, 5)), (5, (2, 3)))]
    pyramid = Pyramid((3, 4, 5), WIDTH, 5, 3)
    with torch.no_grad():
        for name, parameter in pyramid.named_parameters():
            if "output" in name:
                torch.nn.init.dirac_(parameter) if parameter.ndim == 4 else parameter.zero_()
        levels = pyramid(features)
        laterals = [
            F.conv2d(
                x, *(pyramid.state_dict()[f"fpn_lateral{k}.{leaf}"] for leaf in ("weight", "bias"))
            )
            for k, x in enumerate(features, start=3)
        ]
    for row in range(7):
        for column in range(10):
            total = (
                laterals[0][..., row, column]
                + laterals[1][..., row // 2, column // 2]
                + laterals[2][..., row // 4, column // 4]
            )
            torch.testing.assert_close(levels[0][..., row, column], total)
    assert [tuple(x.shape[-2:]) for x in levels] == [(7, 10), (4, 5), (2, 3), (1, 2), (1, 1)]
    torch.testing.assert_close(levels[3][..., 0, 1], levels[2][..., 0, 2])
