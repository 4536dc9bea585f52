"""Helpers of a run share one budget of pixels, whatever --jobs says."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
from PIL import Image

from detr_viz.batch.budget import UNIT, PixelBudget
from detr_viz.common.bounds import bound, raised_by
from detr_viz.images.loaded_image import MAX_PIXELS
from detr_viz.images.read import load_image

pytestmark = [
    pytest.mark.own_helpers,
    pytest.mark.skipif(os.name == "nt", reason="locks as POSIX has them"),
]


def _helper(folder: Path, pixels: int, seconds: float, line) -> None:
    budget = PixelBudget(folder, 8)
    with budget.room(pixels):
        line.put((time.monotonic(), pixels))
        time.sleep(seconds)
        line.put((time.monotonic(), -pixels))


def _together(folder: Path, sizes: list[int]) -> list[int]:
    """The pixels that processes hold at a time, at each change."""
    context = multiprocessing.get_context("spawn")
    line = context.SimpleQueue()
    helpers = [context.Process(target=_helper, args=(folder, n, 0.4, line)) for n in sizes]
    for one in helpers:
        one.start()
    events = sorted(line.get() for _ in range(2 * len(sizes)))
    for one in helpers:
        one.join()
    held = [0]
    for _, change in events:
        held.append(held[-1] + change)
    return held[1:]


def test_the_sum_stays_within_the_budget(tmp_path):
    held = _together(tmp_path, [90_000_000] * 5)
    assert max(held) == 180_000_000 and held[-1] == 0


def test_one_image_that_is_larger_than_the_budget_has_it_alone(tmp_path):
    with raised_by(["flight=1"]):  # what is read at all is read
        held = _together(tmp_path, [MAX_PIXELS, MAX_PIXELS, 20_000_000])
    assert max(held) == MAX_PIXELS


def test_a_budget_that_is_raised(tmp_path):
    with raised_by(["flight=900000000"]):
        assert max(_together(tmp_path, [170_000_000] * 4)) > 2 * 170_000_000


def test_small_images_take_none(tmp_path):
    assert max(_together(tmp_path, [900_000] * 4)) == 3_600_000
    assert not list(tmp_path.iterdir())


def test_what_a_killed_helper_held_is_free(tmp_path):
    context = multiprocessing.get_context("spawn")
    line = context.SimpleQueue()
    first = context.Process(target=_helper, args=(tmp_path, MAX_PIXELS, 60, line))
    first.start()
    line.get()
    os.kill(first.pid, signal.SIGKILL)
    first.join()
    start = time.monotonic()
    with PixelBudget(tmp_path, 8).room(MAX_PIXELS):
        assert time.monotonic() - start < 5


def test_a_stopped_helper_holds_up_others_for_half_a_task_at_most(tmp_path):
    context = multiprocessing.get_context("spawn")
    line = context.SimpleQueue()
    first = context.Process(target=_helper, args=(tmp_path, MAX_PIXELS, 60, line))
    first.start()
    line.get()
    start = time.monotonic()
    with raised_by(["seconds=2"]), PixelBudget(tmp_path, 8).room(MAX_PIXELS):
        assert 0.9 < time.monotonic() - start < 5
    first.kill()
    first.join()


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.jpg", "deep.png", "deep.tif"])
def test_an_image_waits_before_it_is_unpacked(tmp_path, name):
    import numpy as np

    picture = Image.new("RGB", (30, 20))
    if name == "deep.png":
        picture = Image.fromarray(np.zeros((20, 30), np.uint16))
    if name == "deep.tif":
        picture = Image.fromarray(np.zeros((20, 30), np.float32))
    picture.save(tmp_path / name)
    asked: list[int] = []
    budget = PixelBudget(tmp_path, 2)
    budget.take = asked.append  # type: ignore[method-assign]
    with budget.room():
        load_image(tmp_path / name)
    assert asked == [0, 600]
    load_image(tmp_path / name)
    assert asked == [0, 600]


def test_large_pictures_are_not_kept_from_task_to_task(tmp_path):
    one, eight = PixelBudget(tmp_path, 1), PixelBudget(tmp_path, 8)
    assert 8 * eight.held_most <= one.held_most <= bound("flight") // 2
    assert one.units * UNIT >= MAX_PIXELS
