"""Many images through reading, network and drawing, which overlap; memory does not grow.

Helpers (processes) read and draw, the caller's thread runs the network. An image is in flight
from the moment a helper starts to read it until its outcome is handed over, and only so many are.
"""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from detr_viz.batch.tasks import (
    Draw,
    Drawn,
    Drop,
    Earlier,
    Failure,
    Pixels,
    Read,
    Skipped,
    Task,
    TaskResult,
)
from detr_viz.batch.worker_process import WorkerProcess, WorkersDied

_LOST = 10  # images that kill their helpers, with none done in between, end the run
_AHEAD = 4  # batches that are read ahead, where a batch is not one image
_WAIT_S = 0.2  # how soon a signal is seen


@dataclass(frozen=True)
class Item:
    """An image to do.

    name: what its files are called after. earlier: what an earlier run made of it, perhaps what
    would be made now.
    """

    i: int
    path: str
    name: str
    earlier: Earlier | None = None


@dataclass(frozen=True)
class Ready:
    """An image that was read and waits for the network."""

    item: Item
    pixels: Pixels

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        return tuple(pixels.shape for pixels in self.pixels.inputs)


Outcome = Skipped | Drawn | Failure
# the network's part: for each image what is to be drawn, None for nothing, or why not
Network = Callable[[Sequence[Ready]], Sequence[Draw | Failure | None]]


class Pipeline:
    """The run itself: `for item, outcome in pipeline.run(items, network)`.

    batch_size: images of equal shapes that share a forward pass. None as an outcome: nothing to
    draw. After stop() nothing new is begun; what is being drawn is still handed over.
    """

    def __init__(self, helpers: Sequence[WorkerProcess], batch_size: int = 1) -> None:
        self._helpers = helpers
        self._batch_size = batch_size
        # read ahead of the network; of photos few in a row are of one shape
        self._wanted = _AHEAD * batch_size if batch_size > 1 else 2
        self._most = self._wanted + batch_size + 2 * len(helpers)  # in flight
        self._changed = threading.Condition()
        self._ready: dict[object, deque[Ready]] = defaultdict(deque)
        self._to_draw: dict[int, deque[Draw | Drop]] = {k: deque() for k in range(len(helpers))}
        self._owner: dict[int, int] = {}  # image -> the helper that has its pixels
        self._items: dict[int, Item] = {}  # in flight
        self._dropped: dict[int, Failure | None] = {}  # outcomes of what is not to be drawn
        self._outcomes: deque[tuple[Item, Outcome | None]] = deque()
        self._reading = self._lost = 0
        self._exhausted = self._over = self._stopped = False
        self._broken: BaseException | None = None

    def run(self, items: Iterator[Item], network: Network) -> Iterator[tuple[Item, Outcome | None]]:
        """Every item with its outcome, as they come; WorkersDied where no helper stays alive."""
        self._source = items
        threads = [
            threading.Thread(target=self._keep_busy, args=(k,), daemon=True)
            for k in range(len(self._helpers))
        ]
        for thread in threads:
            thread.start()
        try:
            while True:
                with self._changed:
                    while not (self._outcomes or self._batch_waits() or self._finished()):
                        self._changed.wait(_WAIT_S)
                        self._give_up_ready()
                    outcomes = [self._outcomes.popleft() for _ in range(len(self._outcomes))]
                    self._give_up_ready()
                    batch = [] if self._broken else self._take_batch()
                    over = self._finished() and not outcomes and not batch
                yield from outcomes
                if self._broken:
                    raise self._broken
                if batch:
                    self._hand_out(batch, network(batch))
                if over:
                    return
        finally:
            with self._changed:
                self._over = True
                self._changed.notify_all()
            for thread in threads:
                thread.join()

    def stop(self) -> None:
        """Begin nothing new: for a signal handler, so it takes no lock."""
        self._exhausted = self._stopped = True

    # ---- the network's side, under the lock ----------------------------------------------------

    def _give_up_ready(self) -> None:
        """After stop(): images that wait for the network are let go, without an outcome."""
        if self._stopped:
            for waiting in self._ready.values():
                for ready in waiting:
                    del self._items[ready.item.i], self._owner[ready.item.i]
            self._ready.clear()

    def _finished(self) -> bool:
        return self._broken is not None or (
            self._exhausted and not self._items and not self._outcomes
        )

    def _batch_waits(self) -> bool:
        return any(self._ready.values()) and self._fullest() is not None

    def _fullest(self) -> deque[Ready] | None:
        """The images to take: a full batch, or where there is no room for more, those of the shape
        that has waited longest: else shapes that are rare would take the room that batches need.
        """
        waiting = [queue for queue in self._ready.values() if queue]
        best = max(waiting, key=len)
        if len(best) >= self._batch_size:
            return best
        stuck = not self._reading and (self._exhausted or len(self._items) >= self._most)
        if stuck or sum(map(len, waiting)) >= self._wanted:
            return min(waiting, key=lambda queue: queue[0].item.i)
        return None

    def _take_batch(self) -> list[Ready]:
        queue = self._fullest() if any(self._ready.values()) else None
        if queue is None:
            return []
        batch = [queue.popleft() for _ in range(min(self._batch_size, len(queue)))]
        for shapes in [shapes for shapes, waiting in self._ready.items() if not waiting]:
            del self._ready[shapes]  # of photos there are more shapes than one would keep
        return batch

    def _hand_out(self, batch: Sequence[Ready], made: Sequence[Draw | Failure | None]) -> None:
        with self._changed:
            for ready, order in zip(batch, made, strict=True):
                i = ready.item.i
                if isinstance(order, Draw):
                    self._to_draw[self._owner[i]].append(order)
                else:
                    self._to_draw[self._owner[i]].appendleft(Drop(i))
                    self._dropped[i] = order
            self._changed.notify_all()

    def _finish(self, i: int, outcome: Outcome | None) -> None:
        if isinstance(outcome, Drawn | Skipped):
            self._lost = 0
        del self._owner[i]
        self._outcomes.append((self._items.pop(i), outcome))

    # ---- the helpers' side, a thread each ------------------------------------------------------

    def _keep_busy(self, k: int) -> None:
        try:
            while (order := self._next_order(k)) is not None:
                reply = self._ask(k, order)
                with self._changed:
                    self._take_reply(order, reply)
                    self._changed.notify_all()
        except BaseException as error:
            with self._changed:
                self._broken = self._broken or error
                self._changed.notify_all()

    def _next_order(self, k: int) -> Task | None:
        """What helper k does next; None at the end of the run."""
        with self._changed:
            while not self._over:
                mine = self._to_draw[k]
                if mine and isinstance(mine[0], Drop):
                    return mine.popleft()
                waiting = sum(map(len, self._ready.values())) + self._reading
                if waiting < self._wanted and (order := self._read(k)):
                    return order
                if mine:
                    return mine.popleft()
                if order := self._read(k):
                    return order
                self._changed.wait(_WAIT_S)
        return None

    def _read(self, k: int) -> Read | None:
        if self._exhausted or len(self._items) >= self._most:
            return None
        item = next(self._source, None)
        if item is None:
            self._exhausted = True
            self._changed.notify_all()
            return None
        self._items[item.i] = item
        self._owner[item.i] = k
        self._reading += 1
        return Read(item.i, item.path, item.earlier)

    def _ask(self, k: int, order: Task) -> TaskResult:
        """The helper's reply; where it dies over an order, a new one tries once more."""
        helper, ended = self._helpers[k], ""
        for _ in range(2):
            try:
                return helper.ask(order)
            except (EOFError, OSError):
                with self._changed:
                    if self._over:  # it was stopped
                        return None
                ended = helper.restart()
        with self._changed:
            self._lost += 1
            if self._lost > _LOST:
                raise WorkersDied(ended)
        task = "reads" if isinstance(order, Read) else "draws"
        return Failure(f"the process that {task} it died twice ({ended})")

    def _take_reply(self, order: Task, reply: TaskResult) -> None:
        if isinstance(order, Read):
            self._reading -= 1
        if isinstance(order, Drop):
            self._finish(order.i, self._dropped.pop(order.i))
            return
        assert isinstance(order, Read | Draw)
        if isinstance(reply, Pixels):
            ready = Ready(self._items[order.i], reply)
            self._ready[ready.shapes].append(ready)
        elif isinstance(reply, Skipped | Drawn | Failure):
            self._finish(order.i, reply)


def stacked(batch: Sequence[Ready], model: int) -> np.ndarray:
    """The input of one model for a batch, uint8 (B, h, w, 3)."""
    if len(batch) == 1:
        return batch[0].pixels.inputs[model][None]
    return np.stack([ready.pixels.inputs[model] for ready in batch])
