"""Maps of points of the photo around it, each joined to its point."""

from __future__ import annotations

from detr_viz.figures.page.builder import PageBuilder
from detr_viz.figures.page.elements import AIR, CAP, SMALL_PT, TEXT_PT, Panel

MOST = 8  # points that find room around a photo
_PHOTO_SHARE, _PANEL_SHARE = 0.39, 0.255  # of the page's width


def around(b: PageBuilder) -> tuple[int, int]:
    """The photo in the middle, the maps at its left and right by where their points lie."""
    page = b.page
    width = round(_PANEL_SHARE * page.width)
    if b.limited:
        width = min(width, page.panel_limit)
    hw = page.panel_height(width), width
    photo = round(width * _PHOTO_SHARE / _PANEL_SHARE)
    photo_hw = page.panel_height(photo), photo
    between = (page.width - 2 * page.margin - 2 * width - photo) // 2
    if b.limited:
        between = min(between, page.px(20))
    order = sorted(range(len(b.groups)), key=lambda i: b.groups[i].mark or (0, 0))
    half = len(order) - len(order) // 2
    sides = order[:half], order[half:]
    step = hw[0] + page.px(TEXT_PT * CAP + AIR * 2.2)
    rows = max(len(side) for side in sides)
    high = rows * step - page.px(AIR * 1.4)
    total = max(high, photo_hw[0])
    lefts = (
        page.margin,
        page.margin + width + between + photo + between,
    )
    middle = page.margin + total / 2
    center = Panel(0, -1, 0, round(middle - photo_hw[0] / 2), lefts[0] + width + between, *photo_hw)
    b.panels.append(center)
    for left, side in zip(lefts, sides, strict=True):
        side = sorted(side, key=lambda i: (b.groups[i].mark or (0, 0))[1])
        top = round(middle - (len(side) * step - page.px(AIR * 1.4)) / 2)
        for i in side:
            panel = b.panel(i, 0, 0, top, left, hw)
            b.joined.append((panel, center))
            base = top + hw[0] + page.px(TEXT_PT * CAP + AIR * 0.7)
            b.label(b.lettered(b.groups[i].label), left, base, left + width)
            top += step
    return lefts[1] + width + page.margin, page.margin + total + page.px(SMALL_PT * 0.3)
