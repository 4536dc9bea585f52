"""The driver: a process beside the command that joins a Ray cluster and sends images to workers."""

from __future__ import annotations

import os
import pickle
import queue
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import BinaryIO

from detr_viz.batch.engine import Result
from detr_viz.batch.ray.job import NEEDS, RESUME, Job, Message, Share, Trouble, blocks, divide
from detr_viz.batch.scheduler import Item
from detr_viz.common.errors import UserError
from detr_viz.common.files import reason

_STORE = 200_000_000  # bytes; what crosses is small, and Ray would take a third of the memory
_CHECK_S, _NODES_S = 0.5, 5  # between two checks of the run, of the nodes
_ROOM_S, _ALONE_S = 30, 60  # how long to wait for CPUs without a note, for a node
_MOST_DEATHS = 3  # of one worker, with no image done in between; more end the run


def serve() -> None:
    """The main function of the driver: a job on stdin, messages on stdout.

    The message True says that the cluster is joined; None is the last. It ends when stdin closes.
    """
    source, channel = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    job, todo = pickle.load(source)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1) if job.options.traceback else (0, 1, 2):
        os.dup2(nowhere, stream)
    driver = RayDriver(job, todo, channel)
    threading.Thread(target=lambda: driver.leave(source.read()), daemon=True).start()
    try:
        driver.work()
    except Exception as error:
        driver.send(Trouble.of(error))
    finally:
        _leave(job.options.ray_address)


class RayDriver:
    """Sends images to workers in blocks, and passes on their messages."""

    def __init__(self, job: Job, todo: Sequence[Item], channel: BinaryIO) -> None:
        self._job, self._channel = job, channel
        self._left = {item.i: item for item in todo}
        self._events: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._busy: set[str] = set()  # workers that have begun a block
        self._started: Counter[str] = Counter()  # starts when an image was done last
        self._stopped_at: float | None = None
        self._over = self._noted = self._wait_noted = False

    def send(self, message: object) -> None:
        with suppress(OSError):  # the command has ended: leave() is called then too
            pickle.dump(message, self._channel)
            self._channel.flush()

    def leave(self, *_: object) -> None:
        """End work() soon; from another thread."""
        self._events.put(self._end)

    def _end(self) -> None:
        self._over = True

    def work(self) -> None:
        """Do the whole run. UserError where it cannot be finished."""
        join(self._job.options.ray_address)
        self._share = divide(
            nodes(), self._job.sources[0].device, os.environ.get("OMP_NUM_THREADS")
        )
        self.send(True)
        self._begun_at = self._nodes_at = self._checked_at = self._message_at = time.monotonic()
        threading.Thread(target=self._stream, daemon=True).start()
        while not self._over:
            with suppress(queue.Empty):
                self._events.get(timeout=_CHECK_S)()
            if time.monotonic() - self._checked_at >= _CHECK_S:
                self._check_run(time.monotonic())
        self.send(None)

    # ---- in a thread of its own: nothing can wake a thread that waits for Ray --------------------

    def _stream(self) -> None:
        try:
            before = len(self._left) + 1
            # Ray repeats the block of a dead worker; images that are left after that go out again
            while before > len(self._left) > 0 and self._stopped_at is None:
                before = len(self._left)
                self._send_out()
        except Exception as error:
            trouble = Trouble(error_line(error), True, Trouble.of(error).trace)
            self._events.put(lambda: self.send(trouble))
        else:
            self.leave()

    def _send_out(self) -> None:
        for message in worker_messages(self._job, list(self._left.values()), self._share):
            self._events.put(lambda message=message: self._take(*message))
        through = threading.Event()
        self._events.put(through.set)
        through.wait()

    # ---- in the main thread ---------------------------------------------------------------------

    def _take(self, worker: str, done: bool, messages: Sequence[Message]) -> None:
        self._message_at = time.monotonic()
        (self._busy.discard if done else self._busy.add)(worker)
        for message in messages:
            if isinstance(message, Result):
                self._left.pop(message.i, None)
                self._started = self._starts()
            if not isinstance(message, str):
                self.send(message)
            elif not self._noted:  # each worker sends the deviation of its first image
                self._noted = True
                self.send(message)

    def _starts(self) -> Counter[str]:
        """The starts of each worker: one that died is started again under the same name."""
        with suppress(OSError):
            return Counter(name.partition("-")[0] for name in os.listdir(self._job.running))
        return Counter()

    def _check_run(self, now: float) -> None:
        """End a stopped run after its last block. UserError where the run cannot continue."""
        self._checked_at = now
        if not self._job.running.exists():
            self._stopped_at = self._stopped_at or now
            # a little later: messages of workers need time, and a dead worker sends none
            quiet = now - max(self._stopped_at, self._message_at)
            self._over |= quiet > (_ALONE_S if self._busy else 2 * _CHECK_S)
            return
        starts = self._starts()
        again = starts - self._started
        if again and max(again.values()) > _MOST_DEATHS:
            raise UserError(
                f"a worker dies again and again, perhaps for want of memory: {len(self._left)} "
                f"images are left, {next(iter(self._left.values())).path} first; use a smaller "
                "--size or leave that image out, then go on with --resume"
            )
        if not starts and now - self._begun_at > _ROOM_S and not self._wait_noted:
            self._wait_noted = True
            self.send(f"note: the Ray cluster is busy: waiting for {self._share} to be free")
        if now - self._nodes_at > _NODES_S:
            if any(map(self._share.fits, nodes())):
                self._nodes_at = now
            elif now - self._nodes_at > _ALONE_S:
                raise UserError(f"the Ray cluster has no node left with {self._share}: {RESUME}")


# ---- Ray ----------------------------------------------------------------------------------------


def join(address: str | None) -> None:
    """Join a cluster, or start one on this machine. UserError where that fails."""
    # There may be no network for reports; and Ray must start nothing on its own
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_AUTO_CONNECT": "0"}
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise UserError(f"{NEEDS} ({reason(error)})") from error
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    able = hasattr(os, "sched_getaffinity")
    try:
        if address is not None:
            ray.init(address=address, **quiet)
        else:
            ray.init(
                address="local",
                num_cpus=len(os.sched_getaffinity(0)) if able else os.cpu_count(),
                include_dashboard=False,
                object_store_memory=_STORE,
                **quiet,
            )
    except ConnectionError as error:
        if address == "auto" and "not find any" in str(error):
            raise UserError(
                "no Ray cluster runs on this machine: start one with ray start --head, "
                "or leave --ray-address out"
            ) from error
        raise UserError(_not_joined(address, error)) from error
    except Exception as error:
        raise UserError(_not_joined(address, error)) from error


def _leave(address: str | None) -> None:
    """End this process, and the cluster that it started."""
    if address is None:
        with suppress(AttributeError, OSError):
            if os.getpgrp() == os.getpid():  # Ray's servers are in this group; workers follow them
                os.killpg(0, signal.SIGKILL)
    with suppress(BaseException):
        import ray

        ray.shutdown()
    os._exit(0)  # threads of Ray may be stuck


def _not_joined(address: str | None, error: Exception) -> str:
    failure = f"the Ray cluster at {address} cannot be joined" if address else "Ray does not start"
    return f"{failure}: {reason(error)[:300]}"


def nodes() -> list[Mapping[str, float]]:
    """The resources of each node that is alive."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def worker_messages(
    job: Job, items: Sequence[Item], share: Share
) -> Iterator[tuple[str, bool, list[Message]]]:
    """What the workers send, as it arrives: (worker, whether a block is done, messages)."""
    import ray

    from detr_viz.batch.ray.worker import Worker

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.target_max_block_size = 1  # byte: each message arrives at once
    rows = [{"block": pickle.dumps(block)} for block in blocks(items, share)]
    tables = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        Worker,
        fn_constructor_args=(job, share),
        batch_size=1,
        batch_format="pyarrow",  # in others bytes may lose zeros at their end
        num_cpus=share.cpus,
        num_gpus=share.gpus or None,
        compute=ray.data.ActorPoolStrategy(
            size=min(share.workers, len(rows)), max_tasks_in_flight_per_actor=2
        ),
    )
    for table in tables.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        for message in table.column("messages").to_pylist():
            yield pickle.loads(message)


def error_line(error: Exception) -> str:
    """An error of Ray as one line."""
    text = str(error)
    if "No module named" in text:
        missing = text.partition("No module named")[2].split()[0].strip("'\"")
        return f"a worker of the Ray cluster has no {missing}: install detr-viz on every node"
    last = reason(text.strip().rpartition("\n")[2])[:200]
    return f"the Ray cluster failed ({last}): {RESUME} (--traceback shows the output of Ray)"
