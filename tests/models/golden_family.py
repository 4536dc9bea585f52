"""What the readers of the family's goldens share: official networks, a run of a case, tolerances.

class Run(GoldenRun):
    def __init__(self, case, dtype):
        super().__init__("anchor", case, dtype)
        self.out = ...                          # of the network
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pytest
import torch
from conftest import GOLDEN

from detr_viz import models

LAST = 5  # of six decoder layers


def official(
    name: str, state_dict: Mapping[str, torch.Tensor], dtype: torch.dtype, dilation: bool = False
) -> torch.nn.Module:
    """A network of a type with an official state dict, strictly loaded, for inference."""
    spec = models.get(name)
    assert spec.matches(state_dict)
    net = spec.build(spec.read_config(state_dict, 8, dilation))
    net.load_state_dict(state_dict, strict=True)
    net = net.to(dtype).eval().requires_grad_(False)
    net.fold_batch_norm()
    return net


class GoldenRun:
    """The golden arrays of a case and the tolerances of a dtype.

    A subclass adds `out`, what the network put out, and `calls` of its attention sites.
    compared: names of the arrays that were compared.
    """

    out: dict
    calls: Mapping

    def __init__(self, name: str, case: str, dtype: torch.dtype) -> None:
        with np.load(GOLDEN / "family" / f"{name}_{case}.npz") as archive:
            self.gold = dict(archive)
        self.exact = dtype == torch.float64
        self.images = range(1 if case.startswith("A") else 2)
        self.compared: set[str] = set()

    def tolerance(self, array: str, factor: float = 1.0) -> float:
        """float64 2e-5; float32 three times the authors' own error, times how it is magnified."""
        return 2e-5 if self.exact else 3 * float(self.gold[f"err32.{array}"]) * factor

    def valid(self, tokens) -> np.ndarray:
        """(B, tokens): those of the image; padded ones can only be compared in float64."""
        padding = self.out["encoded"].padding
        if padding is None or self.exact:
            return np.ones((len(self.images), len(tokens)), bool)
        return ~padding[:, tokens].numpy()

    def attention(self, kind: str, layer: int, i: int):
        """What a site of image i attended with."""
        return self.calls[kind, layer].of_image(i, ()).attention

    def close(self, actual, expected: str, tolerance: float, valid=None) -> None:
        """An array is a golden one; valid: where it can be compared."""
        actual, gold = np.asarray(actual, np.float64), self.gold[expected]
        assert actual.shape == gold.shape, expected
        difference = np.abs(actual - gold)
        if valid is not None:
            difference = difference[valid]
        assert difference.size and difference.max() <= tolerance, (expected, difference.max())
        self.compared.add(expected)


def cases(size: int, names: Iterable[str] = ()) -> list:
    """(name,) case, dtype of all goldens of a shorter side; one image in float32 alone is quick."""
    out = []
    for name in tuple(names) or (None,):
        for case in (f"A{size}", f"batch{size}"):
            for dtype in (torch.float32, torch.float64):
                values = (case, dtype) if name is None else (name, case, dtype)
                quick = case.startswith("A") and dtype == torch.float32
                words = [str(value).removeprefix("torch.") for value in values]
                marks = () if quick else (pytest.mark.slow,)
                out.append(pytest.param(*values, id="-".join(words), marks=marks))
    return out
