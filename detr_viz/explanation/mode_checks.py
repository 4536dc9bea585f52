"""Whether a result has what is asked for: a mode, a sum of terms. Each refusal is one line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from detr_viz.attention.terms import SITES, Mode, are_products, check_mode, is_sum
from detr_viz.common.errors import UserError

if TYPE_CHECKING:
    from detr_viz.attention.base import Attention, Where
    from detr_viz.explanation.results import ExplanationBase


def check_mode_of(e: ExplanationBase, mode: str | Mode) -> None:
    """UserError for a mode that the model does not have; ValueError for a wrong sum of terms."""
    own = not isinstance(mode, str) or is_sum(mode)
    if own or mode not in e.modes:
        check_divided(e, mode)
    if own and not are_products(e.term_names):
        raise UserError(f"{_no_products(e)}: take a mode")
    if is_sum(mode):
        check_mode(str(mode))
    elif isinstance(mode, str) and mode not in e.modes:
        raise UserError(f"{e.model_title} has no mode {mode!r}; it has {', '.join(e.modes)}")


def check_products(e: ExplanationBase) -> None:
    """UserError if the logits are not a sum of products of query and key parts."""
    if not are_products(e.term_names):
        why = f": {e.why_undivided}" if e.why_undivided else ""
        raise UserError(f"{_no_products(e)}{why}")


def check_divided(e: ExplanationBase, part: str | Mode) -> None:
    """UserError if a part of the attention is asked for, and the model's has none."""
    if e.why_undivided:
        name = part if isinstance(part, str) else part.formula
        raise UserError(f"{e.model_title} has only combine, no {name!r}: {e.why_undivided}")


def check_divided_site(attention: Attention, site: Where, part: str | Mode) -> None:
    """The same of one site, where others of the model have parts."""
    if why := getattr(attention, "why", ""):
        name = part if isinstance(part, str) else part.formula
        raise UserError(f"{SITES[site[0]]} {site[1]} has only combine, no {name!r}: {why}")


def _no_products(e: ExplanationBase) -> str:
    if not e.term_names:
        return f"the attention of {e.model_title} is not a sum of terms"
    parts = ", ".join(e.term_names)
    return f"the logits of {e.model_title} are sums of {parts}, not of products of parts"
