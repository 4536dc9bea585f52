"""ModelSpec: what a model must say of itself to be loaded, explained and drawn."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from torch import Tensor, nn

from detr_viz.images.preprocessing import Preprocessing
from detr_viz.models.config import DetrConfig
from detr_viz.models.layers.resnet import NormLayer


class Builder(Protocol):
    """Sizes, and the norm layer of the backbone (frozen batch norm unless training), -> network."""

    def __call__(self, config: DetrConfig, norm_layer: NormLayer = ...) -> nn.Module: ...


@dataclass(frozen=True, repr=False)
class ModelSpec:
    """One member of the family.

    name                 word of --type
    title                as papers write it
    modes                the modes it has, keys of terms.MODES
    matches              keys of an official-format state dict -> is it this model's?
    read_config          (state_dict, nheads, dilation) -> sizes
    build                sizes -> network, whose state dict has the official names
    class_probabilities  pred_logits (..., num_logits) -> (..., num_classes), no-object left out
    num_classes          sizes -> number of real classes
    pairwise             detections are the top (query, class) pairs (focal loss),
                         not a class a query
    with_hints           (sizes, what else the file says) -> (sizes, notes), of sizes that leave no
                         trace in a state dict; None: there are none beyond heads and dilation
    own_tensors          state dict -> (the tensors that the network has, notes on those that are
                         left aside); None: it has them all. ConfigError for what is not its own
    preprocessing        how its authors make images its input; None: as DETR's
    salience             whether encoder layers refine only the salient tokens
    scales               whether encoder layers weigh levels (scale attention)
    cell_rule            where a cell lies: "aligned", "centered" or "strided" (grids.Grid)
    proposal_scores      sizes -> what tokens are scored by that become queries, in words, "" for
                         sizes with learned queries; None: its queries are always learned
    why_undivided        why it has no mode but combine, a clause; "" if it has others
    anchors              sizes -> number of points that several queries share; 0: there are none
    notes                what each run says of this model
    nheads               of the self-attention, where a file does not say
    class_names          of its authors' checkpoints, which do not name them; (): as DETR's
    """

    name: str
    title: str
    modes: tuple[str, ...]
    matches: Callable[[Collection[str]], bool]
    read_config: Callable[[Mapping[str, Tensor], int, bool], DetrConfig]
    build: Builder
    class_probabilities: Callable[[Tensor], Tensor]
    num_classes: Callable[[DetrConfig], int]
    pairwise: bool
    cell_rule: Literal["aligned", "centered", "strided"] = "aligned"
    why_undivided: str = ""
    notes: tuple[str, ...] = ()
    anchors: Callable[[Any], int] = lambda config: 0
    with_hints: Callable[[Any, Mapping[str, Any]], tuple[DetrConfig, tuple[str, ...]]] | None = None
    proposal_scores: Callable[[Any], str] | None = None
    own_tensors: (
        Callable[[Mapping[str, Tensor]], tuple[dict[str, Tensor], tuple[str, ...]]] | None
    ) = None
    preprocessing: Preprocessing | None = None
    salience: bool = False
    scales: bool = False
    nheads: int = 8
    class_names: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"ModelSpec(name={self.name!r}, title={self.title!r}, modes={self.modes!r})"

    def __reduce__(self) -> Any:
        """Pickled as its name where the registry has it: its functions may have none."""
        from detr_viz.models import registry

        if self.name in registry.names() and registry.get(self.name) is self:
            return registry.get, (self.name,)
        return super().__reduce__()
