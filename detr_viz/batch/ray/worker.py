"""The workers: processes of a Ray cluster that do blocks of images, as a local run does."""

from __future__ import annotations

import os
import pickle
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from detr_viz.batch import worker_process
from detr_viz.batch.engine import Result
from detr_viz.batch.local_engine import LocalEngine
from detr_viz.batch.ray.job import Job, Message, Share, Trouble, ended_folder
from detr_viz.batch.scheduler import Item
from detr_viz.batch.tasks import Failure, Skipped
from detr_viz.checkpoints import sources
from detr_viz.common.errors import UserError
from detr_viz.common.files import reason
from detr_viz.common.many_passes import for_many_passes
from detr_viz.render.recipe import Recipe, of_models

if TYPE_CHECKING:
    import pyarrow as pa

_SHARED_S = 20  # how long a network file system may hide a new folder
_SAME = "images, weights and --out must lie at the same place on all nodes"


class Worker:
    """An actor of Ray Data: blocks of images in, messages about them out.

    It never raises: Ray would repeat the block, and print messages of its own.
    """

    def __init__(self, job: Job, share: Share) -> None:
        import ray

        self._job = job
        self._name = ray.get_runtime_context().get_actor_id() or "worker"
        self._group = 8 if share.gpus else 1  # results that are sent together
        self._where = f"worker {socket.gethostname()}: "
        self._trouble: Trouble | None = None
        try:
            check_place(job, socket.gethostname())
            start = job.running / f"{self._name}-{os.urandom(6).hex()}"
            with suppress(FileNotFoundError):  # the run was stopped meanwhile
                start.write_text(f"{socket.gethostname()} {os.getpid()}\n")
            self._set_up(share)
        except ImportError as error:
            missing = UserError(f"{reason(error)}: install detr-viz on every node")
            self._trouble = Trouble.of(missing, self._where)
        except Exception as error:
            self._trouble = Trouble.of(error, self._where)

    def _set_up(self, share: Share) -> None:
        job, options = self._job, self._job.options
        for_many_passes()
        if not share.gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the GPUs are for other workers
        default = share.cpus - 1 if share.gpus else share.cpus // 2
        self._workers = worker_process.start(options.jobs or max(1, default))
        import torch

        torch.set_num_threads(share.cpus)
        loaded = sources.load(job.sources, progress=False)
        self._recipe = of_models(loaded, job.recipe)
        check_models(self._recipe, job.recipe)
        exact, self._models = sources.precise(loaded, job.recipe.precision)
        self._exact = None if options.quiet else exact
        self._batch_size = options.batch_size or (8 if loaded[0].device.type == "cuda" else 1)

    def __call__(self, table: pa.Table) -> Iterator[pa.Table]:
        import pyarrow as pa

        for block in table.column("block").to_pylist():
            for done, messages in self._do(pickle.loads(block)):
                message = pickle.dumps((self._name, done, messages))
                yield pa.table({"messages": pa.array([message], pa.binary())})

    def _do(self, items: Sequence[Item]) -> Iterator[tuple[bool, list[Message]]]:
        """Yields (whether the block is done, messages).

        The results have the same order each time that a block is done: after the death of a worker,
        Ray drops as many items of the second try as it has from the first.
        """
        yield False, []
        messages: list[Message] = []
        worked = 0
        try:
            for result in in_order(self._results(items, messages.append), items):
                messages.append(result)
                worked += not isinstance(result.outcome, Skipped)
                if worked == self._group:
                    yield False, messages.copy()
                    messages.clear()
                    worked = 0
        except Exception as error:
            self._trouble = Trouble.of(error, self._where)
        yield True, messages if self._trouble is None else [*messages, self._trouble]

    def _results(self, items: Sequence[Item], say: Callable[[str], None]) -> Iterator[Result]:
        if self._trouble is not None:
            return

        def say_once(note: str) -> None:
            self._exact = None  # the deviation is reported once
            say(note)

        engine = LocalEngine(
            self._models,
            self._recipe,
            self._job.paths,
            self._workers,
            self._batch_size,
            self._exact,
        )

        def unfinished() -> Iterator[Item]:
            for item in items:
                if not self._job.running.exists():
                    engine.stop()
                    return
                yield item

        for result in engine.run(unfinished(), self._job.temporary, say_once):
            if isinstance(result.outcome, Failure) and result.outcome.fatal:
                engine.stop()
            yield result


def in_order(results: Iterator[Result], items: Sequence[Item]) -> Iterator[Result]:
    """Results in the order of their items, without those that a stopped run leaves out."""
    waiting, done = deque(item.i for item in items), {}
    for result in results:
        done[result.i] = result
        while waiting and waiting[0] in done:
            yield done.pop(waiting.popleft())
    yield from (done[i] for i in waiting if i in done)


def check_place(job: Job, host: str) -> None:
    """Go to the command's working directory.

    UserError where this machine, `host`, lacks it or a folder of the images, or where its output
    folder is not the one of the command.
    """
    lacks = f"worker {host} has no folder"
    try:
        os.chdir(job.cwd)
    except OSError as error:
        raise UserError(f"{lacks} {job.cwd} ({reason(error)}): {_SAME}") from None
    for folder in job.inputs:
        if not os.path.isdir(folder or "."):
            raise UserError(f"{lacks} {os.path.abspath(folder)}: {_SAME}")
    out, until = job.temporary.parent, time.monotonic() + _SHARED_S
    # a folder of the same name need not be the same
    while not (job.running.exists() or ended_folder(job.running).exists()):
        if time.monotonic() > until:
            if out.is_dir():
                raise UserError(
                    f"worker {host} has another folder {out} than this machine: {_SAME}"
                )
            raise UserError(f"{lacks} {out}: {_SAME}")
        time.sleep(0.2)


def check_models(own: Recipe, expected: Recipe) -> None:
    """UserError where a worker's models, or its detr-viz, are not those of the command."""
    if own.software[0] != expected.software[0]:
        raise UserError(
            f"it has detr-viz {own.software[0]}, this machine {expected.software[0]}: "
            "install the same on all nodes"
        )
    for own_model, model in zip(own.models, expected.models, strict=True):
        if own_model.sha256 != model.sha256:
            raise UserError(f"its file {model.weights} differs from this machine's: {_SAME}")
        if own_model != model:
            raise UserError(
                f"it takes {model.weights} for another model than this machine does (class names, "
                "sizes): install the same detr-viz on all nodes"
            )
