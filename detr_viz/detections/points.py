"""Points of an image, as --points gives them. Imports nothing heavy, for --help.

parse("300,200"), parse("grid:4x3")
"""

from __future__ import annotations

from dataclasses import dataclass

_MOST = 200
SYNTAX = f"x,y in pixels of the image, or grid:4x3 (columns x rows, at most {_MOST} points)"


@dataclass(frozen=True)
class Points:
    """One point (x, y), or a grid of (columns, rows) of them."""

    name: str
    xy: tuple[float, float] | None = None
    grid: tuple[int, int] | None = None

    def on(self, image_hw: tuple[int, int]) -> list[tuple[float, float]]:
        """As (x, y) in pixels of an image; ValueError if a point is outside."""
        height, width = image_hw
        if self.grid:
            columns, rows = self.grid
            return [
                ((i + 0.5) * width / columns, (j + 0.5) * height / rows)
                for j in range(rows)
                for i in range(columns)
            ]
        assert self.xy is not None
        x, y = self.xy
        if not (0 <= x <= width and 0 <= y <= height):
            raise ValueError(
                f"{self.name} is outside the image, which is {width} x {height} pixels"
            )
        return [(x, y)]


def parse(text: str) -> Points:
    """The points of a text such as "300,200" or "grid:4x3"; ValueError for anything else."""
    word = text.strip()
    try:
        if word.startswith("grid:"):
            columns, rows = map(int, word.removeprefix("grid:").split("x"))
            if columns < 1 or rows < 1 or columns * rows > _MOST:
                raise ValueError
            return Points(word, grid=(columns, rows))
        x, y = map(float, word.split(","))
    except ValueError:
        raise ValueError(f"{text[:40]!r} is not a point: write {SYNTAX}") from None
    if not (abs(x) < 1e6 and abs(y) < 1e6):
        raise ValueError(f"{text[:40]!r} is not a point: write {SYNTAX}")
    return Points(word, xy=(x, y))
