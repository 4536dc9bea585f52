"""One sum in place of a look at each number."""

from __future__ import annotations

import pytest
import torch

from detr_viz.attention.self_check import all_finite

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    ("numbers", "finite"),
    [
        ([1.0, -2.0], True),
        ([], True),
        ([0.0, NAN], False),
        ([INF, 1.0], False),
        ([INF, -INF], False),
        ([-INF, NAN], False),
    ],
)
def test_numbers(numbers, finite, dtype):
    assert all_finite(torch.tensor(numbers, dtype=dtype)) is finite


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_large_numbers_whose_sum_is_beyond_the_type_are_finite(dtype):
    most = torch.finfo(dtype).max
    assert all_finite(torch.tensor([most, most, most], dtype=dtype))
    assert not all_finite(torch.tensor([most, most, NAN], dtype=dtype))
