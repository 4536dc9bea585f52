"""The measures of a page: points to pixels, widths of text, the shape of its panels."""

from __future__ import annotations

from collections.abc import Sequence

from detr_viz.figures.page.elements import CLASS_PT, SMALL_PT, TEXT_PT, TextLine
from detr_viz.figures.page.text import Lettering
from detr_viz.figures.styles import FigureError, PageFormat

_MARGIN, _GAP, _PAD = 2.0, 3.1, 5.0
_ASPECTS = (0.4, 4.0)  # width / height of a panel; a photo beyond is stretched
_MIN_PANEL_PX = 8
_COLUMN_IN = 4.0  # pages narrower than this, at the default size of type, are columns


class PageMetrics:
    """The page's measures: points to pixels, text widths, the shape of a panel."""

    def __init__(
        self,
        page_format: PageFormat,
        photo_hw: tuple[int, int],
        panel_limit_px: float | None = None,
    ) -> None:
        self.page_format = page_format
        self.pen = Lettering(page_format.dpi, page_format.font)
        self.width = round(page_format.width_in * page_format.dpi)
        if panel_limit_px is None:
            # few heads: a narrower figure, not huge panels; but two of them fill a column
            is_column = page_format.width_in < _COLUMN_IN * page_format.type_size
            panel_limit_px = self.width // (2 if is_column else 4)
        self.panel_limit = int(panel_limit_px)
        true_aspect = photo_hw[1] / photo_hw[0]
        self.aspect = min(max(true_aspect, _ASPECTS[0]), _ASPECTS[1])
        self.stretched = self.aspect != true_aspect
        self.class_pt, self.text_pt, self.small_pt = (
            pt * page_format.type_size for pt in (CLASS_PT, TEXT_PT, SMALL_PT)
        )
        self.margin, self.gap, self.pad = self.px(_MARGIN), self.px(_GAP), self.px(_PAD)

    def px(self, pt: float) -> int:
        """Points at the default size of type to whole pixels, one at least."""
        return self.pen.px(pt * self.page_format.type_size)

    def panel_height(self, width: float) -> int:
        return max(_MIN_PANEL_PX, round(width / self.aspect))

    def panel_width(self, room: float, panels: float) -> int:
        width = int(room / panels)
        if width < _MIN_PANEL_PX:
            inches = self.page_format.width_in
            raise FigureError(
                f"a figure {inches:g} in wide is too narrow for its panels: make it wider"
            )
        return max(min(width, self.panel_limit), _MIN_PANEL_PX)

    def widest(self, lines: Sequence[TextLine]) -> int:
        """Where the last of some lines ends, in whole pixels; their x counts from 0."""
        ends = (t.x + self.pen.width(t.text, t.size_pt, t.style) for t in lines)
        return int(max(ends, default=0)) + 1
