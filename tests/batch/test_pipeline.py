"""The pipeline with helpers that are made up: order, bounds, crashes, stopping."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from detr_viz.batch.scheduler import Item, Pipeline, Ready, stacked
from detr_viz.batch.tasks import Draw, Drawn, Drop, Earlier, Failure, Pixels, Read, Skipped
from detr_viz.batch.worker_process import WorkersDied
from detr_viz.images.loaded_image import ImageFacts
from detr_viz.render.paths import OutputPaths
from detr_viz.render.run import MeasuredImage

SHAPES = ((4, 6, 3), (6, 4, 3))


class Record:
    """What all made-up helpers of a test have seen, together."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.now = self.most = 0
        self.drawn_by: dict[int, object] = {}
        self.read_by: dict[int, object] = {}
        self.dropped: list[int] = []
        self.restarts = 0

    def enter(self, change: int) -> None:
        with self.lock:
            self.now += change
            self.most = max(self.most, self.now)


class FakeHelper:
    """Answers at once; `crash` says on which orders the process dies instead."""

    def __init__(self, record: Record, crash=lambda order, count: False, pause=0.0) -> None:
        self.record, self.crash, self.pause = record, crash, pause
        self.counts: Counter = Counter()

    def ask(self, order):
        if self.pause:
            time.sleep(self.pause)
        self.counts[type(order), order.i] += 1
        if self.crash(order, self.counts[type(order), order.i]):
            raise EOFError
        if isinstance(order, Read):
            if order.path == "bad":
                return Failure("bad is no image")
            if order.earlier is not None:
                return Skipped()
            self.record.enter(+1)
            self.record.read_by[order.i] = self
            facts = ImageFacts((4, 6), order.path, "ab")
            return Pixels(facts, (np.full(SHAPES[order.i % 2], order.i % 256, np.uint8),))
        if isinstance(order, Drop):
            self.record.enter(-1)
            self.record.dropped.append(order.i)
            return None
        assert isinstance(order, Draw)
        self.record.enter(-1)
        self.record.drawn_by[order.i] = self
        return Drawn((Path(f"{order.i}.png"),), ())

    def restart(self) -> str:
        self.record.restarts += 1
        return "SIGKILL"


NOTHING = MeasuredImage({}, ())


def network(batch: Sequence[Ready]):
    """Draws all but every seventh; batches must be of one shape."""
    assert len({ready.shapes for ready in batch}) == 1
    return [
        None
        if ready.item.i % 7 == 6
        else Draw(ready.item.i, ready.item.path, "x", NOTHING, OutputPaths(Path(".")))
        for ready in batch
    ]


def items(count: int, bad: Sequence[int] = (), there: Sequence[int] = ()):
    for i in range(count):
        earlier = Earlier("r", ()) if i in there else None
        yield Item(i, "bad" if i in bad else f"{i}.jpg", str(i), earlier)


@pytest.mark.parametrize("helpers", [1, 3])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_every_image_has_one_outcome_of_the_right_kind(helpers, batch_size):
    record = Record()
    workers = [FakeHelper(record) for _ in range(helpers)]
    found = list(Pipeline(workers, batch_size).run(items(100, bad=(3, 50), there=(9, 51)), network))
    assert sorted(item.i for item, _ in found) == list(range(100))
    for item, outcome in found:
        kind = {3: Failure, 50: Failure, 9: Skipped, 51: Skipped}.get(item.i, Drawn)
        if kind is Drawn and item.i % 7 == 6:
            assert outcome is None
        else:
            assert isinstance(outcome, kind)
    assert record.now == 0  # nothing is still held
    assert all(record.drawn_by[i] is record.read_by[i] for i in record.drawn_by)
    assert sorted(record.dropped) == [i for i in range(100) if i % 7 == 6]


@pytest.mark.parametrize("batch_size", [1, 8])
def test_images_in_flight_are_bounded_however_slow_the_network(batch_size):
    record = Record()

    def slow(batch):
        time.sleep(0.02)
        return network(batch)

    list(Pipeline([FakeHelper(record)] * 2, batch_size).run(items(60), slow))
    read_ahead = 4 * batch_size if batch_size > 1 else 2
    assert 2 <= record.most <= read_ahead + batch_size + 2 * 2


def test_a_batch_is_full_where_it_can_be():
    sizes = []

    def counting(batch):
        time.sleep(0.01)
        sizes.append(len(batch))
        return network(batch)

    list(Pipeline([FakeHelper(Record())] * 2, 4).run(items(80), counting))
    assert sum(sizes) == 80 and max(sizes) == 4
    assert sizes.count(4) >= 16


def test_a_rare_shape_does_not_wait_for_a_batch_that_never_comes():
    """One image in ten is of a shape of its own; the rest must still come in whole batches."""
    sizes, order = [], []

    class Mixed(FakeHelper):
        def ask(self, order):
            reply = super().ask(order)
            if isinstance(reply, Pixels) and order.i % 10 == 3:
                reply = Pixels(reply.facts, (np.zeros((order.i, 1, 3), np.uint8),))
            elif isinstance(reply, Pixels):
                reply = Pixels(reply.facts, (np.zeros((4, 6, 3), np.uint8),))
            return reply

    def counting(batch):
        sizes.append(len(batch))
        order.extend(ready.item.i for ready in batch)
        time.sleep(0.002)
        return network(batch)

    list(Pipeline([Mixed(Record())] * 2, 8).run(items(1500), counting))
    assert sorted(order) == list(range(1500))
    assert sizes.count(8) >= 0.8 * 1350 / 8  # of the shape that is common
    late = [place - i for place, i in enumerate(order)]
    assert max(late) <= 10 * 32 + 20  # as far as is read ahead; none waits for the end


def test_batches_are_stacked_in_order():
    facts = ImageFacts((4, 6), "a", "ab")
    ready = [
        Ready(Item(i, "a", "a"), Pixels(facts, (np.full((2, 2, 3), i, np.uint8),)))
        for i in range(3)
    ]
    assert stacked(ready, 0)[:, 0, 0, 0].tolist() == [0, 1, 2]
    assert stacked(ready[1:2], 0).shape == (1, 2, 2, 3)


@pytest.mark.parametrize("kind", [Read, Draw])
def test_an_order_that_kills_its_helper_once_is_tried_again(kind):
    record = Record()
    crash = lambda order, count: isinstance(order, kind) and order.i == 5 and count == 1  # noqa: E731
    found = dict(
        (item.i, outcome)
        for item, outcome in Pipeline([FakeHelper(record, crash)]).run(items(12), network)
    )
    assert isinstance(found[5], Drawn) and len(found) == 12 and record.restarts == 1


@pytest.mark.parametrize(("kind", "word"), [(Read, "reads"), (Draw, "draws")])
def test_an_order_that_kills_two_helpers_is_a_failure_and_the_rest_goes_on(kind, word):
    record = Record()
    crash = lambda order, count: isinstance(order, kind) and order.i == 5  # noqa: E731
    found = dict(
        (item.i, outcome)
        for item, outcome in Pipeline([FakeHelper(record, crash)] * 2).run(items(12), network)
    )
    assert found[5] == Failure(f"the process that {word} it died twice (SIGKILL)")
    assert len(found) == 12 and isinstance(found[11], Drawn)


@pytest.mark.parametrize("helpers", [1, 2])
def test_neighbours_that_kill_their_helpers_are_failures_each(helpers):
    crash = lambda order, count: order.i in range(4, 12)  # noqa: E731
    workers = [FakeHelper(Record(), crash) for _ in range(helpers)]
    found = {item.i: outcome for item, outcome in Pipeline(workers).run(items(20), network)}
    assert sorted(found) == list(range(20))
    assert {i for i, outcome in found.items() if isinstance(outcome, Failure)} == {*range(4, 12)}


@pytest.mark.parametrize("kind", [Read, Draw])
def test_helpers_that_cannot_live_end_the_run(kind):
    workers = [FakeHelper(Record(), lambda order, count: isinstance(order, kind)) for _ in range(2)]
    found = []
    with pytest.raises(WorkersDied, match=r"keep dying \(SIGKILL\)"):
        for outcome in Pipeline(workers).run(items(500), network):
            found.append(outcome)
    assert 9 <= len(found) <= 20  # what is known by then is handed over


def test_a_helper_that_cannot_be_replaced_ends_the_run():
    class Last(FakeHelper):
        def restart(self):
            raise WorkersDied("no memory")

    workers = [Last(Record(), lambda order, count: order.i == 5)]
    done = []
    with pytest.raises(WorkersDied, match="no memory"):
        for item, _ in Pipeline(workers).run(items(50), network):
            done.append(item.i)
    assert 0 in done and 5 not in done


def test_an_error_of_the_network_itself_comes_out_and_threads_end():
    before = threading.active_count()

    def broken(batch):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(Pipeline([FakeHelper(Record())] * 2).run(items(10), broken))
    assert threading.active_count() == before


def test_after_stop_nothing_new_begins_and_what_is_drawn_is_handed_over():
    record = Record()
    pipeline = Pipeline([FakeHelper(record, pause=0.002)] * 2)
    found = []
    for item, outcome in pipeline.run(items(10_000), network):
        found.append((item.i, outcome))
        if len(found) == 5:
            pipeline.stop()
    drawn = {i for i, outcome in found if isinstance(outcome, Drawn)}
    assert 5 <= len(found) < 30
    assert drawn == set(record.drawn_by)  # what was written is known to be written


def test_a_consumer_that_leaves_ends_the_threads():
    before = threading.active_count()
    run = Pipeline([FakeHelper(Record())] * 2).run(items(1000), network)
    next(run)
    run.close()
    assert threading.active_count() == before
