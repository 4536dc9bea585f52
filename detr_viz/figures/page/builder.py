"""A page in the making: what every layout of head maps puts on it, measured before it is placed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from detr_viz.figures.page.crop import Crop, crop_of
from detr_viz.figures.page.elements import (
    AIR,
    ALERT,
    BOX_BLUE,
    CAP,
    CLASS_PT,
    GRAY,
    INK,
    LINE,
    LOCATOR,
    PHOTO,
    SMALL_PT,
    TEXT_PT,
    Bar,
    Group,
    Label,
    PageLayout,
    Panel,
    Section,
    TextLine,
    all_groups,
)
from detr_viz.figures.page.label_lines import with_letter
from detr_viz.figures.page.metrics import PageMetrics
from detr_viz.figures.page.shares import captions
from detr_viz.figures.page.views import views_of
from detr_viz.figures.styles import PageFormat, Style

LOCATOR_SHARE = 0.36  # of the panel's width
IN_BOX = " in box"
_BAR_PT = 1.6  # height of a bar
_BAR_INK = "#4a4a4a"


@dataclass(frozen=True)
class Columns:
    """Names of the columns, as numbers of heads (or of another noun) where they are such."""

    names: tuple[str, ...]
    noun: str = "head"

    @property
    def numbered(self) -> bool:
        return all(name.isdecimal() for name in self.names)

    def title(self, i: int) -> str:
        """The name of a column: the noun only before the first number."""
        return f"{self.noun} {self.names[i]}" if self.numbered and i == 0 else self.names[i]


class PageBuilder:
    """Collects panels, lines and bars. One for each try of a layout."""

    def __init__(
        self,
        sections: Sequence[Section],
        heads: Sequence[str],
        style: Style,
        page_format: PageFormat,
        panel_limit_px: float | None = None,
    ) -> None:
        self.sections, self.style = sections, style
        self.groups = all_groups(sections)
        nouns = [row.noun for group in self.groups for row in group.rows]
        self.columns = Columns(tuple(heads), *nouns[:1])
        self.page = PageMetrics(page_format, self.groups[0].photo.shape[:2], panel_limit_px)
        self.limited = panel_limit_px is not None
        self.crops = [crop for section in sections for crop in _crops(section, style)]
        self.views = views_of(self.groups, style)
        self.texts = [[captions(row, g, style) for row in g.rows] for g in self.groups]
        self.panels: list[Panel] = []
        self.lines: list[TextLine] = []
        self.bars: list[Bar] = []
        self.joined: list[tuple[Panel, Panel]] = []
        self._lettered = 0
        # with a scale of their own the foot says what the numbers are
        self._first_caption = style.name != "contour" and any(
            "%" in text and style.scaling in ("even", None)
            for group, texts in zip(self.groups, self.texts, strict=True)
            for row, of_row in zip(group.rows, texts, strict=True)
            for text in of_row
            if row.captions is None
        )
        self.says_in_box = not self._first_caption

    # ---- measures ----------------------------------------------------------------------------

    @property
    def has_captions(self) -> bool:
        """Whether anything stands under the panels."""
        texts = any(text for group in self.texts for row in group for text in row)
        bars = any(row.bars for group in self.groups for row in group.rows)
        return texts or bars or any(group.score is not None for group in self.groups)

    @property
    def label_height(self) -> int:
        """From the top of a label's line to the top of the panels under it."""
        return self.page.px(CLASS_PT * CAP + AIR)

    @property
    def names_height(self) -> int:
        return self.page.px(TEXT_PT * CAP + AIR)

    def bar_height(self) -> int:
        return self.page.px(_BAR_PT)

    # ---- parts -------------------------------------------------------------------------------

    def lettered(self, label: Label) -> Label:
        """The label with the next letter before it, if letters are asked for."""
        if not self.page.page_format.letters:
            return label
        self._lettered += 1
        return with_letter(label, self._lettered - 1)

    def label(self, label: Label, x: float, baseline: float, limit: float) -> float:
        """A label on one line; details are shortened first. Gives the x where it ends."""
        page, pen = self.page, self.page.pen
        space = page.px(2.2)
        score = pen.width(label.score, page.class_pt) + space if label.score else 0
        title = pen.shorten(label.title, limit - x - score, page.class_pt, label.style)
        ink = GRAY if label.weak else INK
        pieces = [(title, page.class_pt, ink, label.style), (label.score, page.class_pt, ink, "")]
        if label.alert:
            pieces.append((label.alert, page.text_pt, ALERT, ""))
        details = " · ".join(label.details)
        pieces.append((details, page.text_pt, GRAY, ""))
        for text, size, color, style in pieces:
            if not text:
                continue
            room = limit - x
            if text in (details, label.alert):
                text = pen.shorten(text, room, size, style)
                if len(text) < 4 and text != details:
                    continue
            self.lines.append(TextLine(text, x, baseline, size, color, style))
            x += pen.width(text, size, style) + (space if size == page.class_pt else space * 1.2)
        return x

    def note(self, label: Label, left: float, top: int, right: float) -> int:
        """The sentence of a label, on lines under it; gives their height, 0 where there is none."""
        if not label.note:
            return 0
        page = self.page
        step = page.px(SMALL_PT * LINE + 0.6)
        texts = page.pen.fit(label.note, right - left, page.small_pt, lines=3)
        for i, text in enumerate(texts):
            base = top + page.px(SMALL_PT * CAP) + i * step
            self.lines.append(TextLine(text, left, base, page.small_pt, INK))
        return len(texts) * step

    def label_width(self, label: Label) -> float:
        """How wide a label is on one line."""
        page, pen = self.page, self.page.pen
        wide = pen.width(label.title, page.class_pt, label.style) + page.px(2.2)
        for text in (label.score, label.alert, " · ".join(label.details)):
            if text:
                wide += pen.width(text, page.class_pt) + page.px(2.5)
        return wide

    def photo(self, group: int, top: int, left: int, hw: tuple[int, int]) -> None:
        """The photo of a group, with the whole of it in a corner where it is a view."""
        self.panels.append(Panel(group, PHOTO, 0, top, left, *hw))
        crop, box = self.crops[group], self.groups[group].box_xyxy_px
        if not crop.is_part:
            return
        wide = round(LOCATOR_SHARE * hw[1])
        high = max(round(wide / self.page.aspect), 4)
        low, late = True, False
        if box is not None:
            x, y = crop.on_panel((box[:2] + box[2:]) / 2, 0, 0, hw)
            low, late = y < 0.62 * hw[0], x < 0.3 * hw[1]
        y, x = top + (hw[0] - high) * low, left + (hw[1] - wide) * late
        self.panels.append(Panel(group, LOCATOR, 0, y, x, high, wide))

    def panel(self, group: int, row: int, head: int, top: int, left: int, hw) -> Panel:
        panel = Panel(group, row, head, top, left, *hw)
        self.panels.append(panel)
        return panel

    def caption_text(self, group: int, row: int, head: int, room: float) -> str:
        """The text under a panel; the first that is a share says of what, if there is room."""
        text = self.texts[group][row][head]
        own = self.groups[group].rows[row].captions is not None
        if self._first_caption and "%" in text and not own:
            self._first_caption = False
            longer = text.replace("%", f"%{IN_BOX}", 1)
            if self.page.pen.width(longer, self.page.small_pt) <= room:
                text, self.says_in_box = longer, True
        short = self.groups[group].rows[row].short_captions
        if short and self.page.pen.width(text, self.page.small_pt) > room - self.page.gap * 0.8:
            text = short[head]
        if self.page.pen.width(text, self.page.small_pt) > room:
            text = text if short else text.replace(", ", " ")
        return self.page.pen.shorten(text, room, self.page.small_pt)

    def caption(self, panel: Panel) -> None:
        """The text under a panel, in the middle."""
        room = panel.width + self.page.gap * 0.8
        text = self.caption_text(panel.group, panel.row, panel.head, room)
        base = panel.top + panel.height + self.page.px(SMALL_PT * CAP + AIR * 0.8)
        if self.groups[panel.group].rows[panel.row].bars:
            base += self.bar_height() + self.page.px(1)
        x = panel.left + panel.width / 2
        if text:
            self.lines.append(TextLine(text, x, base, self.page.small_pt, GRAY, align="center"))

    def row_bar(self, panel: Panel) -> None:
        """The bar under a panel, where its row has bars."""
        row = self.groups[panel.group].rows[panel.row]
        if row.bars and panel.head < len(row.bars):
            top = panel.top + panel.height + self.page.px(1)
            value = row.bars[panel.head]
            self.bars.append(Bar(value, panel.left, top, panel.width, self.bar_height(), _BAR_INK))

    def score_bar(self, group: int, left: int, bottom: int, width: int) -> None:
        """The score that is left, under the photo."""
        one = self.groups[group]
        if one.score is not None:
            color = ALERT if one.label.alert else BOX_BLUE
            top = bottom + self.page.px(1.2)
            self.bars.append(Bar(one.score, left, top, width, self.bar_height(), color))

    def head_names(self, lefts: Sequence[int], width: int, baseline: float) -> None:
        """Once over the columns: "head 0", 1, 2."""
        page = self.page
        for i, left in enumerate(lefts):
            name, room = self.columns.title(i), width + page.gap
            if self.columns.numbered and page.pen.width(name, page.text_pt) > room:
                name = self.columns.names[i]  # a number alone is no cut text
            name = page.pen.shorten(name, room, page.text_pt)
            x = left + width / 2
            self.lines.append(TextLine(name, x, baseline, page.text_pt, GRAY, align="center"))

    def column_name(self, name: str, panel: Panel, baseline: float) -> None:
        """The name of one column over its panel; formulas between dollar signs."""
        page = self.page
        if not name:
            return
        if page.pen.length(name, page.text_pt) > panel.width + page.gap:
            name = page.pen.shorten(name.replace("$", ""), panel.width, page.text_pt)
        left = panel.left + (panel.width - page.pen.length(name, page.text_pt)) / 2
        for run in page.pen.runs(name, page.text_pt):
            x = left + run.left + run.width / 2
            self.lines.append(
                TextLine(run.text, x, baseline + run.drop, run.size_pt, INK, run.style, "center")
            )

    def remark(self, group: Group, x: float, right: float, top: float) -> int:
        """A remark in place of panels, on at most two lines from a height on; gives its bottom."""
        page = self.page
        texts = page.pen.fit(group.remark, right - x, page.small_pt) if group.remark else []
        baseline = top
        for text in texts:
            baseline += page.px(SMALL_PT * (LINE if baseline > top else CAP))
            self.lines.append(TextLine(text, x, baseline, page.small_pt, GRAY, "italic"))
        return int(baseline + page.px(SMALL_PT * 0.3))

    def layout(self, width: int, height: int) -> PageLayout:
        return PageLayout(
            width=width,
            height=height,
            panels=tuple(self.panels),
            lines=tuple(self.lines),
            bars=tuple(self.bars),
            crops=tuple(self.crops),
            joined=tuple(self.joined),
            views=self.views,
        )


def _crops(section: Section, style: Style) -> list[Crop]:
    """A view for every group of an object: all the same, around all of its boxes."""
    boxes = [
        box
        for group in section.groups
        for box in (group.box_xyxy_px, group.old_box_xyxy_px)
        if box is not None
    ]
    first = section.groups[0].photo.shape[:2]
    if not boxes:
        return [Crop.whole(first)] * len(section.groups)
    rows = [row for group in section.groups for row in group.rows]
    grids = [row.grid for row in rows if row.cells is None and row.samples is None]
    all_of_them = np.concatenate([np.min(boxes, 0)[:2], np.max(boxes, 0)[2:]])
    attended = any(row.attended for group in section.groups for row in group.rows)
    zoom = "none" if attended else style.zoom  # those looked at may be anywhere
    crop = crop_of(all_of_them, first, grids[0] if grids else None, zoom)
    return [crop] * len(section.groups)
