"""Words that people type: which name is meant, and which one they may have meant.

resolve("Conditional-DETR", {"cd_detr": ("Conditional DETR",)})     # "cd_detr"
did_you_mean("contuor", STYLES)                                     # "did you mean contour?"
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence


def plain(word: str) -> str:
    """Letters and digits alone, in one case: what two spellings of a name share."""
    return "".join(c for c in word.casefold() if c.isalnum())


def resolve(word: str, names: Mapping[str, Iterable[str]]) -> str | None:
    """The name that a word stands for: the name itself, or one of its aliases.

    names: name -> its aliases. Case, dashes, underscores and spaces do not matter.
    """
    if word in names:
        return word
    wanted = plain(word)
    for name, aliases in names.items():
        if wanted and wanted in map(plain, (name, *aliases)):
            return name
    return None


def nearest(word: str, choices: Iterable[str], most: int = 1, cutoff: float = 0.6) -> list[str]:
    """The choices that look most like a word, best first; never the word itself."""
    by_plain: dict[str, str] = {}
    for choice in choices:
        by_plain.setdefault(plain(choice) or choice, choice)
    wanted = plain(word) or word
    near = difflib.get_close_matches(wanted[:200], by_plain, n=most + 1, cutoff=cutoff)
    return [by_plain[key] for key in near if by_plain[key] != word][:most]


def did_you_mean(word: str, choices: Iterable[str], most: int = 1, cutoff: float = 0.6) -> str:
    """ "did you mean A?", "did you mean A, B or C?", or "" where no choice looks like the word."""
    near = nearest(word, choices, most, cutoff)
    if not near:
        return ""
    *first, last = near
    start = f"{', '.join(first)} or " if first else ""
    return f"did you mean {start}{last}?"


def listed(words: Sequence[object]) -> str:
    """a; a and b; a, b and c."""
    texts = [str(word) for word in words]
    return " and ".join([", ".join(texts[:-1]), texts[-1]] if len(texts) > 1 else texts)
