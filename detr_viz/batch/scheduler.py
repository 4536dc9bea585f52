"""Reading, network and drawing of many images overlap, in bounded memory.

Worker processes read and draw; the caller's thread runs the network. An image is in flight from the
moment a worker starts to read it until its outcome is handed over; their number is limited.
"""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from detr_viz.images.annotated import Annotated

_MOST_DEATHS = 10  # so many images in a row that kill their workers end the run
_AHEAD = 4  # batches that are read ahead, where a batch is not one image
_WAIT_S = 0.2  # how soon a signal is seen


@dataclass(frozen=True)
class Item:
    """An image of a run.

    name: the start of the names of its files. earlier: its files from an earlier run, which this
    run may keep. annotated: its objects, as a file states them.
    """

    i: int
    path: str
    name: str
    earlier: Earlier | None = None
    annotated: Annotated | None = None


@dataclass(frozen=True)
class Ready:
    """An image that is read and waits for the network."""

    item: Item
    pixels: Pixels

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        return tuple(pixels.shape for pixels in self.pixels.inputs)


Outcome = Skipped | Drawn | Failure
# for each image of a batch: the task that draws it, None if nothing is to be drawn, or a Failure
Network = Callable[[Sequence[Ready]], Sequence[Draw | Failure | None]]


class Pipeline:
    """The loop of a run: `for item, outcome in pipeline.run(items, network)`.

    batch_size: images of equal shapes that share a forward pass. None as an outcome: nothing to
    draw. After stop() no image is started; images that are being drawn are still handed over.
    """

    def __init__(self, workers: Sequence[WorkerProcess], batch_size: int = 1) -> None:
        self._workers = workers
        self._batch_size = batch_size
        # images to read ahead of the network; photos in a row are seldom of one shape
        self._read_ahead = _AHEAD * batch_size if batch_size > 1 else 2
        self._most_in_flight = self._read_ahead + batch_size + 2 * len(workers)  # in flight
        self._changed = threading.Condition()
        self._ready: dict[object, deque[Ready]] = defaultdict(deque)
        self._to_draw: dict[int, deque[Draw | Drop]] = {k: deque() for k in range(len(workers))}
        self._owner: dict[int, int] = {}  # image -> the worker that has its pixels
        self._items: dict[int, Item] = {}  # in flight
        self._dropped: dict[int, Failure | None] = {}  # outcomes of images that are not drawn
        self._outcomes: deque[tuple[Item, Outcome | None]] = deque()
        self._reading = self._deaths = 0
        self._exhausted = self._over = self._stopped = False
        self._error: BaseException | None = None

    def run(self, items: Iterator[Item], network: Network) -> Iterator[tuple[Item, Outcome | None]]:
        """Every item with its outcome, as they come; WorkersDied where no worker stays alive."""
        self._source = items
        threads = [
            threading.Thread(target=self._keep_busy, args=(k,), daemon=True)
            for k in range(len(self._workers))
        ]
        for thread in threads:
            thread.start()
        try:
            while True:
                with self._changed:
                    while not (self._outcomes or self._batch_waits() or self._finished()):
                        self._changed.wait(_WAIT_S)
                        self._drop_ready()
                    outcomes = [self._outcomes.popleft() for _ in range(len(self._outcomes))]
                    self._drop_ready()
                    batch = [] if self._error else self._take_batch()
                    over = self._finished() and not outcomes and not batch
                yield from outcomes
                if self._error:
                    raise self._error
                if batch:
                    self._take_tasks(batch, network(batch))
                if over:
                    return
        finally:
            with self._changed:
                self._over = True
                self._changed.notify_all()
            for thread in threads:
                thread.join()

    def stop(self) -> None:
        """Start no more images: for a signal handler, so it takes no lock."""
        self._exhausted = self._stopped = True

    # ---- the network's side, under the lock ----------------------------------------------------

    def _drop_ready(self) -> None:
        """After stop(): drop the images that wait for the network, without an outcome."""
        if self._stopped:
            for waiting in self._ready.values():
                for ready in waiting:
                    del self._items[ready.item.i], self._owner[ready.item.i]
            self._ready.clear()

    def _finished(self) -> bool:
        return self._error is not None or (
            self._exhausted and not self._items and not self._outcomes
        )

    def _batch_waits(self) -> bool:
        return any(self._ready.values()) and self._fullest() is not None

    def _fullest(self) -> deque[Ready] | None:
        """The images to take: a full batch, or where no more can be read, the shape that has waited
        longest. Otherwise rare shapes would fill the room that batches need.
        """
        waiting = [queue for queue in self._ready.values() if queue]
        best = max(waiting, key=len)
        if len(best) >= self._batch_size:
            return best
        stuck = not self._reading and (self._exhausted or len(self._items) >= self._most_in_flight)
        if stuck or sum(map(len, waiting)) >= self._read_ahead:
            return min(waiting, key=lambda queue: queue[0].item.i)
        return None

    def _take_batch(self) -> list[Ready]:
        queue = self._fullest() if any(self._ready.values()) else None
        if queue is None:
            return []
        batch = [queue.popleft() for _ in range(min(self._batch_size, len(queue)))]
        for shapes in [shapes for shapes, waiting in self._ready.items() if not waiting]:
            del self._ready[shapes]  # photos have too many shapes to keep them all
        return batch

    def _take_tasks(self, batch: Sequence[Ready], tasks: Sequence[Draw | Failure | None]) -> None:
        with self._changed:
            for ready, task in zip(batch, tasks, strict=True):
                i = ready.item.i
                if isinstance(task, Draw):
                    self._to_draw[self._owner[i]].append(task)
                else:
                    self._to_draw[self._owner[i]].appendleft(Drop(i))
                    self._dropped[i] = task
            self._changed.notify_all()

    def _finish(self, i: int, outcome: Outcome | None) -> None:
        if isinstance(outcome, Drawn | Skipped):
            self._deaths = 0
        del self._owner[i]
        self._outcomes.append((self._items.pop(i), outcome))

    # ---- the workers' side, a thread each ------------------------------------------------------

    def _keep_busy(self, k: int) -> None:
        try:
            while (task := self._next_task(k)) is not None:
                result = self._ask(k, task)
                with self._changed:
                    self._take_result(task, result)
                    self._changed.notify_all()
        except BaseException as error:
            with self._changed:
                self._error = self._error or error
                self._changed.notify_all()

    def _next_task(self, k: int) -> Task | None:
        """The next task of worker k; None at the end of the run."""
        with self._changed:
            while not self._over:
                mine = self._to_draw[k]
                if mine and isinstance(mine[0], Drop):
                    return mine.popleft()
                waiting = sum(map(len, self._ready.values())) + self._reading
                if waiting < self._read_ahead and (task := self._read(k)):
                    return task
                if mine:
                    return mine.popleft()
                if task := self._read(k):
                    return task
                self._changed.wait(_WAIT_S)
        return None

    def _read(self, k: int) -> Read | None:
        if self._exhausted or len(self._items) >= self._most_in_flight:
            return None
        item = next(self._source, None)
        if item is None:
            self._exhausted = True
            self._changed.notify_all()
            return None
        self._items[item.i] = item
        self._owner[item.i] = k
        self._reading += 1
        return Read(item.i, item.path, item.earlier, item.annotated)

    def _ask(self, k: int, task: Task) -> TaskResult:
        """The worker's result; where it dies during a task, a new process tries once more."""
        worker, ended = self._workers[k], ""
        for _ in range(2):
            try:
                return worker.ask(task)
            except (EOFError, OSError):
                with self._changed:
                    if self._over:  # it was stopped
                        return None
                ended = worker.restart()
        with self._changed:
            self._deaths += 1
            if self._deaths > _MOST_DEATHS:
                raise WorkersDied(ended)
        verb = "reads" if isinstance(task, Read) else "draws"
        return Failure(f"the process that {verb} it died twice ({ended})")

    def _take_result(self, task: Task, result: TaskResult) -> None:
        if isinstance(task, Read):
            self._reading -= 1
        if isinstance(task, Drop):
            self._finish(task.i, self._dropped.pop(task.i))
            return
        assert isinstance(task, Read | Draw)
        if isinstance(result, Pixels):
            ready = Ready(self._items[task.i], result)
            self._ready[ready.shapes].append(ready)
        elif isinstance(result, Skipped | Drawn | Failure):
            self._finish(task.i, result)


def stacked(batch: Sequence[Ready], model: int) -> np.ndarray:
    """The input of one model for a batch, uint8 (B, h, w, 3)."""
    if len(batch) == 1:
        return batch[0].pixels.inputs[model][None]
    return np.stack([ready.pixels.inputs[model] for ready in batch])
