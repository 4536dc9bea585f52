"""A run that finds no room: a full disk, limits, writes that take a part."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from journal_tools import (
    CAT,
    IMAGES,
    INDEX,
    A,
    B,
    C,
    fill,
    finished,
    output,
    posix,
    stopped,
    table,
    there,
)

from detr_viz.batch.index import Done
from detr_viz.batch.journal import Journal
from detr_viz.common.files import OutputError


@pytest.fixture
def out(tmp_path):
    return tmp_path / "new" / "figures"


def fails_after(monkeypatch, room: int) -> None:
    """A disk that takes `room` bytes more, and then is full."""
    left, write = [room], os.write

    def full(fd, data):
        if not left[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        n = write(fd, data[: left[0]])
        left[0] -= n
        return n

    monkeypatch.setattr(os, "write", full)


@pytest.mark.parametrize("room", [0, 1, 30])
@pytest.mark.parametrize("cut", [True, False], ids=["cut", "stuck"])
def test_a_full_disk_costs_only_the_outcome_that_found_no_room(out, monkeypatch, room, cut):
    with Journal(out, IMAGES) as journal:
        path = journal.temporary / "journal.jsonl"
        journal.done(0, A)
        whole = path.read_bytes()
        with monkeypatch.context() as patch:
            fails_after(patch, room)
            if not cut:
                patch.setattr(os, "ftruncate", lambda *_: os.stat("\0missing"[1:]))
            with pytest.raises(OutputError) as caught:
                journal.done(1, B)
        assert str(caught.value) == (
            f"cannot write {path}: No space left on device; correct that, then go on with --resume"
        )
        assert len(path.read_bytes()) == len(whole) + (0 if cut else room)
        assert journal.counts == (1, 0, 0)
        journal.done(2, C)  # room again
    with Journal(out, IMAGES, resume=True) as journal:
        assert [journal.earlier(image) for image in IMAGES] == [A, None, C, None]
        fill(journal)
        journal.finish()
    assert (out / "index.csv").read_text() == INDEX


def test_a_write_that_took_a_part_for_no_reason_is_made_whole(out, monkeypatch):
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda fd, data: write(fd, data[:7]))
        whole = stopped(out)
    assert whole == stopped(out.with_name("other"))


def test_a_write_that_takes_nothing_does_not_hang(out, monkeypatch):
    with Journal(out, IMAGES) as journal, monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda fd, data: 0)
        with pytest.raises(OutputError, match="No space left"):
            journal.done(0, A)


@pytest.mark.parametrize("what", ["fsync", "replace"])
def test_tables_that_find_no_room_leave_everything_for_a_resumed_run(out, monkeypatch, what):
    old = finished(out, ["c.jpg"], {0: C})
    (out / "failures.csv").write_text("old")

    def full(*_):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    with Journal(out, IMAGES) as journal:
        fill(journal)
        with monkeypatch.context() as patch:
            patch.setattr(*(os, "fsync") if what == "fsync" else (Path, "replace"), full)
            with pytest.raises(OutputError) as caught:
                journal.finish()
        assert str(caught.value) == (
            f"cannot write {out / 'index.csv'}: Disk quota exceeded; "
            "correct that, then go on with --resume"
        )
        assert sorted(os.listdir(journal.temporary)) == ["journal.jsonl", "lock"]
    assert (out / "index.csv").read_bytes() == old
    assert (out / "failures.csv").read_text() == "old"
    with Journal(out, IMAGES, resume=True) as journal:
        assert [journal.earlier(image) for image in IMAGES] == [A, B, C, None]
        fill(journal)
        journal.finish()
    assert (out / "index.csv").read_text() == INDEX


@posix
def test_a_real_limit_on_the_size_of_files(tmp_path):
    """The journal reaches the limit first; with all recorded, the tables do; then all is well."""
    code = """
        images = [f"{n}.jpg" for n in range(100)]
        limit = int(sys.argv[2]) or resource.RLIM_INFINITY
        try:
            with Journal(Path(sys.argv[1]), images, resume=True) as journal:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
                for i, image in enumerate(images):
                    # names that take more room in a table than in a line
                    row = ("1", "m", "6", str(i), '"' * 50, "1", "0", "0", "1", "1")
                    journal.done(i, Done(image, (row,) * 9, ("f" * 90,)))
                journal.finish()
        except OutputError as error:
            print(error)
    """
    journal, index = tmp_path / ".detr_viz/journal.jsonl", tmp_path / "index.csv"
    end = "File too large; correct that, then go on with --resume\n"
    finished(tmp_path, ["0.jpg"], {0: Done("0.jpg", (), ())})
    old = index.read_bytes()
    assert output(code, tmp_path, 50_000) == f"cannot write {journal}: {end}"
    lines = journal.read_bytes().splitlines(keepends=True)
    assert len(lines) > 20 and 48_000 < sum(map(len, lines)) < 50_000
    assert all(line.endswith(b"}\n") for line in lines)
    assert output(code, tmp_path, 145_000) == f"cannot write {index}: {end}"
    assert index.read_bytes() == old and there(tmp_path / ".detr_viz") == ["journal.jsonl", "lock"]
    before = journal.read_bytes()
    assert len(before) < 145_000
    assert output(code, tmp_path, 0) == ""
    assert there(tmp_path) == ["index.csv"] and len(table(index)) == 901


@posix
def test_no_room_to_go_on_from_an_index(tmp_path):
    outcomes = {n: Done(f"{n}.jpg", (CAT,), ()) for n in range(500)}
    images = [f"{n}.jpg" for n in range(500)]
    old = finished(tmp_path, images, outcomes)
    code = """
        resource.setrlimit(resource.RLIMIT_FSIZE, (9000, resource.RLIM_INFINITY))
        try:
            Journal(Path(sys.argv[1]), IMAGES, resume=True)
        except OutputError as error:
            print(error)
    """
    index = tmp_path / "index.csv"
    assert output(code, tmp_path) == (
        f"cannot continue from {index}: File too large; choose another folder with --out\n"
    )
    assert index.read_bytes() == old
    with Journal(tmp_path, images, resume=True) as journal:
        assert journal.earlier("499.jpg") == outcomes[499]
