"""Rules of pages (--format html): the part of the table in rules.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from detr_viz.cli.rules import Flags

Rule = tuple[Callable[["Flags"], object], str | Callable[["Flags"], str]]

PAGE_RULES: tuple[Rule, ...] = (
    (
        lambda f: f.writes_page and f.other_view,
        lambda f: f"a page (html) shows cross-attention, not {f.other_view}: leave one of them out",
    ),
    (
        lambda f: f.writes_page and f.args.ablate,
        "a page (html) shows no --ablate: leave one of them out",
    ),
    (
        lambda f: f.writes_page and not f.args.list_queries and f.args.save_maps and f.one_file,
        "a page (html) holds maps in 8 bits: for exact ones give --out a folder and --format "
        "html,npz",
    ),
)
