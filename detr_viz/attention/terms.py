"""Glossary: dimension letters, names of the parts, modes, terms, sites and precisions.

    B  images                 Q  object queries (rows)         M  heads
    K  keys = h * w cells     E  width of a head's query/key   D  width of a head's value = C / M
    C  model width            h, w  the memory grid

Every attention site of the family is, per head,

    logits = (c_q + p_q + b_q) . (c_k + p_k + b_k) * scale        weights = softmax(logits over K)

with c the content part, p the position part (the papers say spatial) and b the bias of a projection
that content and position share. A mode is a choice of these parts. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

PARTS = {"c": "content", "p": "position", "b": "bias"}


@dataclass(frozen=True)
class Mode:
    """The parts of the query and of the key that a mode uses, and the formula a figure prints."""

    q_parts: str
    k_parts: str
    formula: str

    def __post_init__(self) -> None:
        for parts in (self.q_parts, self.k_parts):
            if not parts or set(parts) - set(PARTS) or len(set(parts)) < len(parts):
                raise ValueError(f"parts {parts!r}: name c, p and b, each at most once")


# b_k adds the same number to every key of a query and never changes a map; b_q does.
MODES: dict[str, Mode] = {
    "combine": Mode("cpb", "cpb", "(c_q + p_q) · (c_k + p_k)"),
    "position": Mode("pb", "pb", "p_q · p_k"),
    "content": Mode("cb", "cb", "c_q · c_k"),
}

UNDIVIDED_FORMULA = "q · k"  # combine, where content and position were added before

# The logits are the sum of these four products of a query part and a key part. A shared bias counts
# as content.
TERMS: dict[str, tuple[str, str]] = {
    "cq.ck": ("cb", "cb"),
    "cq.pk": ("cb", "p"),
    "pq.ck": ("p", "cb"),
    "pq.pk": ("p", "p"),
}


MIXED = {"cq.pk", "pq.ck"}  # zero if a model concatenates content and position

ALL_TERMS = "terms"  # the plot of all terms, of their sum and of the weights

PROPOSALS = "proposals"  # the plot of the tokens that became queries

SALIENCE = "salience"  # the plot of the tokens that the encoder refines

SCALE_PLOT = "scales"  # the plot of an encoder's scale attention


def parse_terms(text: str) -> tuple[str, ...]:
    """ "cq.pk + pq.pk" -> the names of the terms in the sum; ValueError for anything else."""
    names = tuple(name.strip() for name in text.split("+"))
    unknown = [name for name in names if name not in TERMS]
    if unknown or len(set(names)) < len(names):
        wrong = repr(unknown[0][:40]) if unknown else "one of them twice"
        raise ValueError(f"terms are sums such as cq.pk+pq.pk of {', '.join(TERMS)}: not {wrong}")
    return names


def is_sum(mode: object) -> bool:
    """Whether a mode is a sum of terms by name, not a key of MODES."""
    return isinstance(mode, str) and "." in mode


def are_products(names: Sequence[str]) -> bool:
    """Whether terms of logits are products of a query part and a key part, those of TERMS."""
    return set(names) == set(TERMS)


def modes_of_plot(plot: str, modes: Sequence[str]) -> list[str]:
    """The modes that a plot shows, for a model with these modes.

    plot: a mode, several ("position,content"), a sum of terms, "all", or ALL_TERMS: each term by
    itself, and combine.
    """
    known = {"all": [*modes], ALL_TERMS: [*TERMS, "combine"]}
    return known.get(plot) or plot.split(",")


def check_mode(mode: str) -> None:
    """ValueError for a name that is neither a mode nor a sum of terms."""
    if is_sum(mode):
        parse_terms(mode)
    elif mode not in MODES:
        raise ValueError(f"mode {mode!r} is not one of {', '.join(MODES)}")


def formula_of(mode: str) -> str:
    """The formula of a mode's logits. mode: a key of MODES, or a sum of terms."""
    if not is_sum(mode):
        return MODES["combine" if mode == ALL_TERMS else mode].formula
    sides = (name.split(".") for name in parse_terms(mode))
    return " + ".join(f"{q[0]}_q · {k[0]}_k" for q, k in sides)


# combine, if content and position lie in orthogonal parts of every head: no cross terms
SEPARATE_COMBINE = "c_q · c_k + p_q · p_k"

# The attention sites: from the decoder's queries to the memory's cells, from queries to queries,
# from cells to cells.
SITES = {
    "cross": "decoder cross-attention",
    "decoder": "decoder self-attention",
    "encoder": "encoder self-attention",
}

# "mode": the scale for the case that only that mode's q and k attend; "layer": the layer's own
# scale, so that the logits of content and position are exact parts of combine's.
SCALES = ("mode", "layer")

PRECISIONS = (
    "float32",
    "tf32",
    "bfloat16",
    "float64",
)  # of the network's arithmetic; see precision.py
