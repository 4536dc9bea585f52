"""Lists as people type them: commas, spaces or both between the items, ranges of numbers.

items("png, npz")          # ["png", "npz"]
numbers("0-3 7")           # [0, 1, 2, 3, 7]
"""

from __future__ import annotations

import re

_MOST = 10_000  # numbers of one range
_MOST_DIGITS = 9


def items(text: str) -> list[str]:
    """The items of a list. An empty one, as in "0,,2" or "0,", stays empty and names nothing."""
    return re.split(r"\s*,\s*|\s+", text.strip())


def numbers(text: str, digits: int = _MOST_DIGITS) -> list[int] | None:
    """Whole numbers of a list, in their order; 0-3 is 0, 1, 2, 3. None where it is no such list.

    digits: at most, of a number.
    """
    found: list[int] = []
    for item in items(text):
        first, dash, last = item.partition("-")
        ends = (first, last) if dash else (first,)
        if not all(end.isdecimal() and len(end) <= digits for end in ends):
            return None
        start, stop = int(first), int(ends[-1])
        if not 0 <= stop - start < _MOST:
            return None
        found += range(start, stop + 1)
    return found
