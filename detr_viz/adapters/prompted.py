"""Detectors of transformers that find what a prompt names: Grounding DINO, OmDet-Turbo.

Each phrase of the prompt is a class: "a cat. a remote control." has two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from detr_viz.adapters.answers import Answers, Facts
from detr_viz.adapters.attached import AttachedDetector
from detr_viz.adapters.run import Prepared
from detr_viz.adapters.transformers_types import TransformersType
from detr_viz.common.errors import UserError


def phrases(prompt: str | Sequence[str] | None, title: str) -> tuple[str, ...]:
    """The phrases of a prompt; UserError for one without any."""
    texts = prompt.split(".") if isinstance(prompt, str) else [*(prompt or ())]
    found = tuple(" ".join(text.split()) for text in texts)
    found = tuple(text for text in found if text)
    if not found:
        raise UserError(
            f"{title} finds what a prompt names: give --prompt 'a cat. a remote control.' "
            "(prompt= in Python)"
        )
    return found


def prompted_detector(
    model: nn.Module,
    processor: Callable[..., Any],
    prompt: str | Sequence[str] | None,
    kind: TransformersType,
    facts: Facts,
    live: bool,
) -> AttachedDetector:
    """A detector of such a model for one prompt. UserError without one.

    live: whether the same model may come again, with other weights
    """
    names = phrases(prompt, kind.title)
    if kind.name == "omdet_turbo":
        answers = Answers(lambda out: out.decoder_coord_logits, _omdet_scores)
        prepare = partial(_for_omdet, processor, names)
    else:
        reader = PhraseScores(_tokens_of(processor, names, kind.title))
        answers = Answers(lambda out: out.pred_boxes, reader)
        prepare = partial(_for_grounding, processor, names)
    return AttachedDetector(
        model,
        answers,
        prepare,
        class_names=names,
        facts=facts,
        settings=names if live else None,
    )


def _omdet_scores(out: Any) -> Tensor:
    return out.decoder_class_logits.sigmoid()


def _for_omdet(
    processor: Callable[..., Any], names: Sequence[str], rgb: NDArray[np.uint8]
) -> Prepared:
    found = processor(images=Image.fromarray(rgb), text=[*names], return_tensors="pt")
    return _whole(dict(found))


def _for_grounding(
    processor: Callable[..., Any], names: Sequence[str], rgb: NDArray[np.uint8]
) -> Prepared:
    found = processor(images=Image.fromarray(rgb), text=_text(names), return_tensors="pt")
    return _whole(dict(found))


def _whole(inputs: dict[str, Any]) -> Prepared:
    pixels = inputs["pixel_values"]
    hw = tuple(pixels.shape[-2:])
    mask = inputs.get("pixel_mask")
    if isinstance(mask, Tensor) and not mask.bool().all():
        shown = mask[0].bool()
        return Prepared(inputs, hw, (int(shown.any(1).sum()), int(shown.any(0).sum())))
    return Prepared(inputs, hw)


def _text(names: Sequence[str]) -> str:
    return " ".join(f"{name.lower()}." for name in names)


@dataclass(frozen=True)
class PhraseScores:
    """(1, Q, phrases): the best score of any token of each phrase, as post-processing has it.

    tokens: their places in the prompt, of each phrase
    """

    tokens: tuple[tuple[int, ...], ...]

    def __call__(self, out: Any) -> Tensor:
        scores = out.logits.sigmoid()
        return torch.stack([scores[..., list(own)].amax(-1) for own in self.tokens], -1)


def _tokens_of(processor: Any, names: Sequence[str], title: str) -> tuple[tuple[int, ...], ...]:
    """Places of each phrase's tokens, between the full stops of the prompt."""
    tokenizer = getattr(processor, "tokenizer", processor)
    ids = tokenizer(_text(names))["input_ids"]
    ids = ids[0] if ids and isinstance(ids[0], list) else list(ids)
    stops = {tokenizer.convert_tokens_to_ids("."), *tokenizer.all_special_ids}
    found: list[list[int]] = [[]]
    for place, token in enumerate(ids):
        if token in stops:
            found += [[]] if found[-1] else []
        else:
            found[-1].append(place)
    spans = tuple(tuple(own) for own in found if own)
    if len(spans) != len(names):
        raise UserError(
            f"the tokenizer of {title} splits the prompt into {len(spans)} phrases, not "
            f"{len(names)}: leave full stops out of them"
        )
    return spans
