"""Attention sites of any network, known by their children and not by their names.

    sites = find_sites(module)                  # SiteModule, in order of the modules
    sites[0].kind                               # "sampled", "dense", "packed" or "apart"

sampled  children `sampling_offsets` and `attention_weights`: deformable attention
dense    children of one of _DENSE: projections of query, key and value; or found by what they give
packed   nn.MultiheadAttention
apart    projections of content and of position, which are added or laid side by side
watched  nothing is known of the module but the function that it attends with (unknown.py)
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

_DENSE = (
    ("q_proj", "k_proj", "v_proj"),
    ("query", "key", "value"),
    ("to_q", "to_k", "to_v"),
    ("wq", "wk", "wv"),
    ("linear_q", "linear_k", "linear_v"),
    ("q_linear", "k_linear", "v_linear"),
)
_OUT = ("o_proj", "out_proj", "output_proj", "to_out", "wo", "linear_out", "out_linear")
# content and position apart: "sa_qcontent_proj", "q_content_proj", "cross_attn_key_pos_proj", ...
_APART = re.compile(
    r"(?P<stem>(?:sa|ca|self_attn|cross_attn)_)?(?P<side>q|k|query|key)_?"
    r"(?P<part>content|pos_sine|pos)_proj"
)
_APART_VALUE = re.compile(r"(?P<stem>(?:sa|ca|self_attn|cross_attn)_)?(?:v|value)_proj")
_APART_INNER = {
    "": (),
    "sa_": ("self_attn",),
    "self_attn_": ("self_attn",),
    "ca_": ("cross_attn", "encoder_attn"),
    "cross_attn_": ("cross_attn",),
}


@dataclass(frozen=True, eq=False)
class Clues:
    """What was seen of a module that is known by nothing else.

    event   which of the attentions is meant that are computed while it runs
    heads, scale   of it
    cuts    role of a child -> the part of its output's columns that is meant
    project weight and bias of a function that projects the heads' output itself
    """

    event: int
    heads: int
    scale: float | None = None
    cuts: Mapping[str, slice] = field(default_factory=dict)
    project: tuple[Tensor, Tensor | None] | None = None


@dataclass(frozen=True, eq=False)
class SiteModule:
    """A module that attends.

    name      in the network
    module    whose call is the attention
    kind      see above
    children  role -> child whose call is read: "offsets", "logits", "value"; "q", "k", "v"; "q
              content", "q pos", "q pos_sine", "k content", "k pos", "v"
    out       the child that projects the heads' output; None: the module gives the heads' output
    layer     the layer that the module belongs to, and its name
    inner     of "apart": the module that attends with what was projected, which knows its heads
    clues     of a module that is found by its functions, else None
    """

    name: str
    module: nn.Module
    kind: str
    children: Mapping[str, nn.Module]
    out: nn.Module | None
    layer: nn.Module
    layer_name: str
    inner: nn.Module = field(default=None)  # type: ignore[assignment]
    clues: Clues | None = None

    def __post_init__(self) -> None:
        if self.inner is None:
            object.__setattr__(self, "inner", self.module)


def find_sites(network: nn.Module) -> list[SiteModule]:
    """All sites, each module once; those inside another site are left out."""
    modules = dict(network.named_modules())
    found: list[SiteModule] = []
    taken: set[int] = set()
    for name, module in modules.items():
        if id(module) in taken:
            continue
        for kind, children, out, inner in _read_as(module):
            if id(module) != id(inner):
                taken.add(id(inner))
            layer_name = layer_name_of(name, modules)
            layer = modules[layer_name]
            own_name = next((n for n, c in module.named_children() if c is inner), "")
            full = ".".join(filter(None, (name, own_name)))
            found.append(SiteModule(full, module, kind, children, out, layer, layer_name, inner))
            taken.add(id(module))
    inside = {id(s.inner) for s in found if s.inner is not s.module}
    return [s for s in found if s.kind == "apart" or id(s.module) not in inside]


def _read_as(
    module: nn.Module,
) -> Iterator[tuple[str, dict[str, nn.Module], nn.Module | None, nn.Module]]:
    """(kind, children, out, inner) of each attention that a module is."""
    own = {name: child for name, child in module.named_children() if child is not None}
    out = next((own[name] for name in _OUT if name in own), None)
    if isinstance(module, nn.MultiheadAttention):
        yield "packed", {}, None, module
    elif {"sampling_offsets", "attention_weights"} <= own.keys():
        children = {"offsets": own["sampling_offsets"], "logits": own["attention_weights"]}
        if "value_proj" in own:
            children["value"] = own["value_proj"]
        yield "sampled", children, out, module
    elif apart := _apart(own, out, module):
        yield from apart
    else:
        for names in _DENSE:
            if own.keys() >= set(names):
                children = dict(zip("qkv", (own[name] for name in names), strict=True))
                yield "dense", children, out, module
                return


def _apart(
    own: Mapping[str, nn.Module], out: nn.Module | None, module: nn.Module
) -> list[tuple[str, dict[str, nn.Module], nn.Module | None, nn.Module]]:
    """Sites whose projections of content and position are children of their own."""
    groups: dict[str, dict[str, nn.Module]] = {}
    for name, child in own.items():
        if match := _APART.fullmatch(name):
            role = f"{match['side'][0]} {match['part']}"
            groups.setdefault(match["stem"] or "", {})[role] = child
        elif match := _APART_VALUE.fullmatch(name):
            groups.setdefault(match["stem"] or "", {})["v"] = child
    found = []
    for stem, children in groups.items():
        if not {"q content", "k content", "k pos", "v"} <= children.keys():
            continue
        inner = next((own[name] for name in _APART_INNER[stem] if name in own), module)
        inner_out = next((c for n, c in inner.named_children() if n in _OUT), out)
        found.append(("apart", children, inner_out, inner))
    return found


def layer_name_of(name: str, modules: Mapping[str, nn.Module]) -> str:
    """The nearest item of a list of modules that a site is in; else its parent."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        if parts[end - 1].isdecimal():
            found = ".".join(parts[:end])
            parent = modules.get(".".join(parts[: end - 1]))
            if isinstance(parent, nn.ModuleList | nn.Sequential):
                return found
    return ".".join(parts[:-1])
