"""The results of a batch run, one line for each image, so that a killed run can be continued.

At the end of the run it becomes two tables: the images that are done, and those that failed.
"""

from __future__ import annotations

import errno
import os
from array import array
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

from detr_viz.batch.index import Done, in_rows, opened, read_index
from detr_viz.batch.journal_lines import Failed, decoded, encoded
from detr_viz.batch.run_folder import (
    AT_START,
    JOURNAL,
    LOCK,
    PLAIN_FILE,
    clear,
    disk_errors,
    lock_folder,
    unlock,
)
from detr_viz.common.errors import UserError
from detr_viz.common.files import OutputError, check_file
from detr_viz.common.regular import open_regular
from detr_viz.images.names import STATE_FOLDER

_DONE, _EMPTY, _FAILED = 1, 2, 3  # states of an image; 0: not known yet


class Counts(NamedTuple):
    """How many images are done (`empty` of them without a row), and how many failed."""

    done: int
    failed: int
    empty: int


class Journal:
    """The outcomes of a batch run that writes into the folder `out`; a context manager.

    `images` are the inputs in the order of the tables, each once. `tag` is part of every name: runs
    with different tags share a folder. With `resume`, the results of the run before are kept: from
    its journal, else from its index.csv, else from those of other tags. UserError while another run
    with this tag writes there; OutputError where the disk refuses to write. `kind` is the table of
    the images that are done.
    """

    temporary: Path  # the hidden folder, for files not yet finished: emptied at the start

    def __init__(
        self,
        out: Path,
        images: Sequence[str],
        *,
        tag: str = "",
        resume: bool = False,
        kind: type[Done] = Done,
    ) -> None:
        self._kind = kind
        end = f"-{tag}" if tag else ""
        self.temporary = out / f"{STATE_FOLDER}{end}"
        self._index, self._failures = out / f"{kind.table}{end}.csv", out / f"failures{end}.csv"
        self._path = self.temporary / JOURNAL
        self._images = images
        self._entries = array("q", bytes(8 * len(images)))  # offset in the journal << 2 | state
        self._numbers = [0, 0, 0, 0]
        self._earlier: dict[str, int] = {}  # where an earlier run recorded an image, or -1
        self._gap = b""  # a line end, where the journal's last line may be incomplete
        self._lock: int | None = None
        self._fd: int | None = None
        try:
            with disk_errors(f"cannot write to {self.temporary}", AT_START):
                self._open(resume)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def counts(self) -> Counts:
        """How many images are done, empty and failed so far."""
        _, drawn, empty, failed = self._numbers
        return Counts(drawn + empty, failed, empty)

    def earlier(self, image: str) -> Done | None:
        """The record of an image from the run before; None where there is none, or it failed.

        The caller checks that the files still exist, and passes the record on to done().
        """
        offset = self._earlier.get(image, -1)
        outcome = decoded(self._line(offset), self._kind) if offset >= 0 else None
        return outcome if isinstance(outcome, Done) else None

    def done(self, i: int, outcome: Done) -> None:
        """Record images[i] as done; an earlier record of it no longer counts."""
        if outcome.image != self._images[i]:
            raise ValueError(f"image {i} is {self._images[i]!r}, not {outcome.image!r}")
        self._record(i, _DONE if outcome.rows else _EMPTY, outcome)

    def failed(self, i: int, reason: str) -> None:
        """Record why images[i] failed; an earlier record of it no longer counts."""
        self._record(i, _FAILED, Failed(self._images[i], reason))

    def finish(self) -> tuple[Path, Path | None]:
        """Write index.csv, and failures.csv where an image failed; returns the paths of both.

        They hold only the images that were passed to done() and failed(). The hidden folder is
        removed with the journal; on an OutputError the journal stays for a resumed run.
        """
        index, failures = self.temporary / "index.part", self.temporary / "failures.part"
        any_failed = self.counts.failed > 0
        try:
            with disk_errors(f"cannot write {self._index}"):
                self._write_tables(index, failures)
                index.replace(self._index)
            with disk_errors(f"cannot write {self._failures}"):
                if any_failed:
                    failures.replace(self._failures)
                else:
                    self._failures.unlink(missing_ok=True)
        finally:
            clear(self.temporary)
        self._end(remove=True)
        return self._index, self._failures if any_failed else None

    def close(self) -> None:
        """Unlock the folder; the journal stays for a resumed run, if it has a line."""
        self._end(remove=self._fd is not None and os.fstat(self._fd).st_size == 0)

    def _open(self, resume: bool) -> None:
        for target in (self._index, self._failures):  # an error now, not after hours
            if target.is_dir():
                raise OutputError(f"cannot write {target}: it is a folder; {AT_START}")
            check_file(target, AT_START)
        self._lock = lock_folder(self.temporary)
        clear(self.temporary)
        # a journal without a line is from a run that did nothing, so it is ignored
        if resume and not (self._path.exists() and self._path.stat().st_size):
            self._convert()
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | (0 if resume else os.O_TRUNC) | PLAIN_FILE
        self._fd = os.open(self._path, flags, 0o666)
        self._reader: BinaryIO = open_regular(self._path)
        if resume:
            self._load()

    def _convert(self) -> None:
        """Make a journal from the index.csv of a finished run, else from those of other tags.

        Damaged parts are left out.
        """
        part, out = self.temporary / "journal.part", self.temporary.parent
        pattern = f"{self._kind.table}*.csv"
        tables = [self._index] if self._index.exists() else sorted(out.glob(pattern))
        source = self._index if self._index in tables else out / pattern
        with disk_errors(f"cannot continue from {source}", AT_START), part.open("wb") as file:
            for table in tables:
                start, seen = file.tell(), set()
                try:
                    for outcome in read_index(table, self._kind):
                        if (
                            hash(outcome.image) in seen
                        ):  # a user sorted the table: the rows of an image are apart
                            outcome = Failed(outcome.image, "rows apart")
                        seen.add(hash(outcome.image))
                        file.write(encoded(outcome))
                except UserError:
                    file.seek(start)
                    file.truncate()
        part.replace(self._path)
        clear(self.temporary)

    def _load(self) -> None:
        """Note the offset of each image's line in the journal: the last line counts."""
        self._earlier = dict.fromkeys(self._images, -1)
        offset, line = 0, b"\n"
        for line in self._reader:
            outcome = decoded(line, self._kind)
            if outcome and outcome.image in self._earlier:
                self._earlier[outcome.image] = offset
            offset += len(line)
        self._gap = b"" if line.endswith(b"\n") else b"\n"

    def _record(self, i: int, kind: int, outcome: Done | Failed) -> None:
        line, offset = encoded(outcome), self._earlier.get(outcome.image, -1)
        # a line of an earlier run that is the same is not written again
        if offset < 0 or self._line(offset) != line:
            with disk_errors(f"cannot write {self._path}"):
                offset = self._append(line)
            if outcome.image in self._earlier:
                self._earlier[outcome.image] = -1
        self._numbers[self._entries[i] & 3] -= 1
        self._numbers[kind] += 1
        self._entries[i] = offset << 2 | kind

    def _append(self, line: bytes) -> int:
        """Add a line to the end of the journal; returns its offset."""
        data, written = self._gap + line, 0
        try:
            # One write, so that a kill leaves at most the last line incomplete. A full disk takes
            # a part of it; only the write of the rest gives the reason.
            while written < len(data):
                n = os.write(self._fd, data[written:])
                if n == 0:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                written += n
        except OSError:
            self._gap = b"\n"  # in case the incomplete line cannot be removed
            if written:
                with suppress(OSError):
                    os.ftruncate(self._fd, os.lseek(self._fd, 0, os.SEEK_CUR) - written)
            raise
        self._gap = b""
        return os.lseek(self._fd, 0, os.SEEK_CUR) - len(line)

    def _line(self, offset: int) -> bytes:
        with disk_errors(f"cannot read {self._path}"):
            self._reader.seek(offset)
            return self._reader.readline()

    def _write_tables(self, index: Path, failures: Path) -> None:
        with (
            opened(index, self._kind.columns) as add,
            opened(failures, ("image", "reason")) as add_failure,
        ):
            for entry in filter(None, self._entries):
                outcome = decoded(self._line(entry >> 2), self._kind)
                if outcome is None:
                    raise OSError(f"{self._path} was changed during the run")
                if isinstance(outcome, Failed):
                    add_failure(outcome)
                    continue
                for row in in_rows(outcome):
                    add(row)

    def _end(self, remove: bool) -> None:
        """Close the files. The lock is released last, after the files that it guards."""
        if self._fd is not None:
            os.close(self._fd)
            self._reader.close()
        if remove:
            with suppress(OSError):
                clear(self.temporary, keep=(LOCK,))
                (self.temporary / LOCK).unlink(missing_ok=True)
                self.temporary.rmdir()
        if self._lock is not None:
            unlock(self._lock)
        self._fd = self._lock = None
