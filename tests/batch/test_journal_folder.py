"""The folder of a run: others' files, links, locks, and runs at the same time."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from journal_tools import IMAGES, INDEX, A, fill, posix, python, stopped, table, there

from detr_viz.batch import run_folder
from detr_viz.batch.journal import Journal
from detr_viz.common.errors import UserError
from detr_viz.common.files import OutputError


@pytest.fixture
def out(tmp_path):
    return tmp_path / "new" / "figures"


def test_runs_of_other_tags_are_left_alone(out):
    stopped(out)
    (out / ".detr_viz/half.png").touch()
    with (
        Journal(out, IMAGES[:1], tag="0-of-2") as first,
        Journal(out, IMAGES[2:3], tag="1-of-2", resume=True) as second,
    ):
        assert first.temporary == out / ".detr_viz-0-of-2"
        assert second.earlier("c.jpg") is None
        first.done(0, A)
        second.failed(0, "broken")
        assert first.finish() == (out / "index-0-of-2.csv", None)
        assert second.finish() == (out / "index-1-of-2.csv", out / "failures-1-of-2.csv")
    assert there(out) == [
        ".detr_viz",
        *(f".detr_viz/{name}" for name in ("half.png", "journal.jsonl", "lock")),
        *("failures-1-of-2.csv", "index-0-of-2.csv", "index-1-of-2.csv"),
    ]
    assert [row[0] for row in table(out / "index-0-of-2.csv")] == ["image", "a.jpg", "a.jpg"]


@pytest.mark.parametrize("resume", [False, True])
def test_what_a_killed_run_left_half_done_is_removed(out, tmp_path, resume):
    stopped(out)
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/file").touch()
    hidden = out / ".detr_viz"
    (hidden / "half.png").touch()
    (hidden / "sub/sub").mkdir(parents=True)
    (hidden / "sub/half.pdf").touch()
    if os.name != "nt":
        (hidden / "link").symlink_to(tmp_path / "kept")
    with Journal(out, IMAGES, resume=resume) as journal:
        assert sorted(os.listdir(hidden)) == ["journal.jsonl", "lock"]
        assert journal.earlier("a.jpg") == (A if resume else None)
    assert (tmp_path / "kept/file").exists()


@posix
def test_links_are_not_followed(out, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").write_text("x")
    out.mkdir(parents=True)
    hidden = out / ".detr_viz"
    for target in (elsewhere, tmp_path / "nowhere", elsewhere / "precious"):
        hidden.symlink_to(target)
        with pytest.raises(OutputError, match=r"\.detr_viz is not the folder of a run: remove it"):
            Journal(out, IMAGES)
        hidden.unlink()
    hidden.mkdir()
    for resume in (False, True):
        (hidden / "journal.jsonl").symlink_to(elsewhere / "precious")
        with Journal(out, IMAGES, resume=resume) as journal:
            journal.done(0, A)
        (hidden / "journal.jsonl").unlink()
    (hidden / "lock").unlink()
    (hidden / "lock").symlink_to(elsewhere / "made")
    with pytest.raises(OutputError, match=r"cannot write to .*\.detr_viz: .*--out"):
        Journal(out, IMAGES)
    assert there(elsewhere) == ["precious"] and (elsewhere / "precious").read_text() == "x"


@pytest.mark.parametrize("name", ["index.csv", "failures.csv"])
def test_a_folder_in_the_place_of_a_table_is_said_at_the_start(out, name):
    (out / name).mkdir(parents=True)
    with pytest.raises(OutputError, match=f"cannot write .*{name}: it is a folder; choose another"):
        Journal(out, IMAGES)
    assert there(out) == [name]


def test_a_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "out").touch()
    (tmp_path / ".detr_viz").touch()
    with pytest.raises(OutputError, match=r"cannot write .*out.*: .*out is a file, not a folder; "):
        Journal(tmp_path / "out", IMAGES)
    with pytest.raises(OutputError, match="is not the folder of a run: remove it"):
        Journal(tmp_path, IMAGES)
    assert there(tmp_path) == [".detr_viz", "out"]


def test_closed_twice_and_after_an_error(out):
    with pytest.raises(RuntimeError), Journal(out, IMAGES) as journal:
        journal.done(0, A)
        raise RuntimeError
    journal.close()
    assert there(out) == [".detr_viz", ".detr_viz/journal.jsonl", ".detr_viz/lock"]
    with Journal(out, IMAGES, resume=True) as journal:
        assert journal.earlier("a.jpg") == A
        fill(journal)
        journal.finish()
        journal.close()
    assert there(out) == ["failures.csv", "index.csv"]


@posix
def test_another_run_at_work_is_waited_for_and_a_killed_one_is_not(out):
    code = """
        journal = Journal(Path(sys.argv[1]), IMAGES, tag=sys.argv[2])
        journal.done(0, A)
        print("ready", flush=True)
        time.sleep(60)
    """
    other = python(code, out, "1-of-2")
    try:
        assert other.stdout.readline() == "ready\n"
        with pytest.raises(UserError) as caught:
            Journal(out, IMAGES, tag="1-of-2", resume=True)
        assert str(caught.value) == (
            f"another run is writing to {out}: wait for it, or choose another --out"
        )
        Journal(out, IMAGES, tag="0-of-2").close()
        assert (out / ".detr_viz-1-of-2/journal.jsonl").stat().st_size > 0
    finally:
        other.kill()
        other.communicate()
    with Journal(out, IMAGES, tag="1-of-2", resume=True) as journal:
        assert journal.earlier("a.jpg") == A


@posix
def test_a_run_in_the_same_process_is_another_run(out):
    with Journal(out, IMAGES) as journal:
        with pytest.raises(UserError, match="another run is writing to"):
            Journal(out, IMAGES)
        fill(journal)
        journal.finish()
    assert (out / "index.csv").read_text() == INDEX
    Journal(out, IMAGES).close()


@posix
@pytest.mark.parametrize("remade", [False, True])
def test_the_lock_of_a_deleted_folder_is_no_lock(out, monkeypatch, remade):
    """A run that ends deletes the folder between another's open and its lock."""
    flock, calls = run_folder.fcntl.flock, []

    def late(fd, how):
        calls.append(how)
        if len(calls) == 1:
            (out / ".detr_viz/lock").unlink()
            if remade:
                (out / ".detr_viz/lock").touch()
            else:
                (out / ".detr_viz").rmdir()
        flock(fd, how)

    monkeypatch.setattr(run_folder.fcntl, "flock", late)
    with Journal(out, IMAGES) as journal:
        assert len(calls) == 2
        with pytest.raises(UserError, match="another run"):  # the lock guards the path
            Journal(out, IMAGES)
        fill(journal)
        journal.finish()


@posix
def test_the_folder_is_made_again_where_a_run_took_it_away(out, monkeypatch):
    real, calls = os.open, []

    def late(path, *rest, **named):
        if Path(path).name == "lock" and not calls:
            calls.append(path)
            (out / ".detr_viz").rmdir()
        return real(path, *rest, **named)

    monkeypatch.setattr(os, "open", late)
    stopped(out)
    assert calls and there(out)[1:] == [".detr_viz/journal.jsonl", ".detr_viz/lock"]


@posix
def test_a_process_that_inherited_the_lock_does_not_hold_it(out):
    with Journal(out, IMAGES) as journal:
        journal.done(0, A)  # so that the folder stays
        child = subprocess.Popen(
            [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[journal._lock]
        )
    try:
        with Journal(out, IMAGES, resume=True) as journal:
            assert journal.earlier("a.jpg") == A
        assert child.poll() is None
    finally:
        child.communicate(b"\n")


@pytest.mark.parametrize("how", ["no fcntl", "refused"])
def test_where_there_are_no_locks_runs_go_on_without(out, monkeypatch, how):
    class Refuses:
        LOCK_EX, LOCK_NB, LOCK_UN = 2, 4, 8

        @staticmethod
        def flock(fd, how):
            raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(run_folder, "fcntl", None if how == "no fcntl" else Refuses)
    with Journal(out, IMAGES) as journal:
        fill(journal)
        journal.finish()
    assert there(out) == ["failures.csv", "index.csv"]
    assert (out / "index.csv").read_text() == INDEX
