"""A resumed run: what it knows, from a journal or an index, whole or damaged."""

from __future__ import annotations

import csv
import os

import pytest
from journal_tools import (
    DOG,
    FAILURES,
    IMAGES,
    INDEX,
    A,
    B,
    C,
    fill,
    finished,
    stopped,
    table,
    there,
)

from detr_viz.batch.index import Done, read_index
from detr_viz.batch.journal import Journal
from detr_viz.common.errors import UserError
from detr_viz.common.files import OutputError


@pytest.fixture
def out(tmp_path):
    return tmp_path / "new" / "figures"


def test_a_resumed_run_knows_what_was_done_and_not_what_failed(out):
    before = stopped(out)
    with Journal(out, IMAGES, resume=True) as journal:
        assert [journal.earlier(image) for image in IMAGES] == [A, B, C, None]
        assert journal.earlier("other.jpg") is None
        assert journal.counts == (0, 0, 0)
        for i, outcome in enumerate((A, B, C)):
            journal.done(i, outcome)
        assert (journal.temporary / "journal.jsonl").read_bytes() == before  # nothing twice
        journal.failed(3, "not an image")
        journal.finish()
    assert (out / "index.csv").read_text() == INDEX
    assert (out / "failures.csv").read_text() == FAILURES


def test_a_run_not_resumed_knows_nothing_of_the_one_before(out):
    stopped(out)
    with Journal(out, IMAGES) as journal:
        assert [journal.earlier(image) for image in IMAGES] == [None] * 4
        journal.done(2, C)
    with Journal(out, IMAGES, resume=True) as journal:
        assert [journal.earlier(image) for image in IMAGES] == [None, None, C, None]


def test_what_was_not_reported_is_not_in_the_index(out):
    stopped(out)
    with Journal(out, IMAGES, resume=True) as journal:
        journal.done(2, journal.earlier("c.jpg"))
        index, failures = journal.finish()
    assert [row[0] for row in table(index)] == ["image", "c.jpg"] and failures is None


def test_images_come_and_go_between_runs(out):
    finished(out, IMAGES, {0: A, 1: B, 2: C})
    with Journal(out, ["c.jpg", "new.jpg", "a.jpg"], resume=True) as journal:
        assert journal.earlier("sub/b.jpg") is None and journal.earlier("new.jpg") is None
        journal.done(0, journal.earlier("c.jpg"))
        journal.done(2, journal.earlier("a.jpg"))
    with Journal(out, IMAGES, resume=True) as journal:  # cut off: nothing is lost yet
        assert journal.earlier("sub/b.jpg") == B
        journal.done(2, C)
        journal.done(0, A)
        journal.finish()
    assert [row[0] for row in table(out / "index.csv")] == ["image", "a.jpg", "a.jpg", "c.jpg"]


def test_the_journal_outranks_the_index_and_takes_nothing_more_from_it(out):
    finished(out, IMAGES, {0: A, 1: B, 2: C})
    other = Done("a.jpg", (DOG,), ("other.png",))
    with Journal(out, IMAGES) as journal:  # all anew, cut off after one image
        journal.done(0, other)
    assert (out / "index.csv").read_text() == INDEX
    with Journal(out, IMAGES, resume=True) as journal:
        assert [journal.earlier(image) for image in IMAGES] == [other, None, None, None]


@pytest.mark.parametrize("again", [False, True])
def test_a_run_that_recorded_nothing_was_no_run(out, again):
    finished(out, IMAGES, {0: A, 1: B, 2: C})
    Journal(out, IMAGES).close()
    assert there(out) == ["index.csv"]
    if again:  # the same, killed before it could clear up
        (out / ".detr_viz").mkdir()
        (out / ".detr_viz/journal.jsonl").touch()
    with Journal(out, IMAGES, resume=True) as journal:
        assert [journal.earlier(image) for image in IMAGES] == [A, B, C, None]
    assert (out / "index.csv").read_text() == INDEX


def test_a_later_failure_outranks_an_earlier_success(out):
    finished(out, IMAGES, {0: A, 1: B, 2: C})
    with Journal(out, IMAGES, resume=True) as journal:
        journal.failed(0, "its figure is gone, and so is the image")
        assert journal.earlier("a.jpg") is None
        journal.done(1, B)
        journal.failed(1, "first")
        journal.done(1, B)
    with Journal(out, IMAGES, resume=True) as journal:
        assert [journal.earlier(image) for image in IMAGES] == [None, B, C, None]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: "",
        lambda text: "file,width\na.jpg,3\n",
        lambda text: text.replace("image,", "picture,", 1),
        lambda text: text.replace(",recipe", "", 1),
        lambda text: "\ufeff" + text,
        lambda text: text[:-1],  # cut off in the last name
        lambda text: text[:-40],
        lambda text: text + "a.jpg\n",
        lambda text: text + "\n",
        lambda text: text + "x.jpg,1,2\n",
        lambda text: text.replace("0.98", "0.98,1"),
        lambda text: text.replace("10.5", '"10.5'),
        lambda text: text.replace("a.jpg,", '"a"jpg,', 1),
        lambda text: text[:200] + "\0" * 300,
        lambda text: "x" * 300_000,
    ],
    ids=range(15),
)
def test_an_index_that_is_foreign_or_damaged_is_as_if_not_there(out, spoil):
    out.mkdir(parents=True)
    (out / "index.csv").write_bytes(spoil(INDEX).encode())
    with Journal(out, IMAGES, resume=True) as journal:
        assert [journal.earlier(image) for image in IMAGES] == [None] * 4
        assert os.listdir(journal.temporary).count("journal.part") == 0
    assert (out / "index.csv").read_bytes() == spoil(INDEX).encode()
    assert finished(out, IMAGES, {0: A, 1: B, 2: C}, resume=True) == INDEX.encode()


def test_an_index_can_be_read_on_its_own(out):
    finished(out, IMAGES, {2: C, 0: A, 1: B})
    assert list(read_index(out / "index.csv")) == [A, B, C]
    (out / "index.csv").write_text(INDEX + "d.jpg,\n")
    limit = csv.field_size_limit()
    outcomes = read_index(out / "index.csv")
    assert [next(outcomes), next(outcomes)] == [A, B]
    with pytest.raises(UserError) as caught:
        list(outcomes)
    assert str(caught.value).startswith(f"{out / 'index.csv'} is not the index of a run: ")
    assert str(caught.value).endswith("; remove it") and "\n" not in str(caught.value)
    assert csv.field_size_limit() == limit
    with pytest.raises(FileNotFoundError):
        next(read_index(out / "none.csv"))


def test_an_index_sorted_by_hand_gives_only_images_whose_rows_are_together(out):
    out.mkdir(parents=True)
    header, cat, dog, empty, c = INDEX.splitlines(keepends=True)
    (out / "index.csv").write_text("".join([header, c, dog, empty, cat]))
    with Journal(out, IMAGES, resume=True) as journal:
        assert [journal.earlier(image) for image in IMAGES] == [None, B, C, None]


def test_an_index_that_a_spreadsheet_gave_other_line_ends_is_read(out):
    out.mkdir(parents=True)
    (out / "index.csv").write_bytes(INDEX.replace("\n", "\r\n").encode())
    with Journal(out, IMAGES, resume=True) as journal:
        assert [journal.earlier(image) for image in IMAGES] == [A, B, C, None]


def test_a_journal_cut_anywhere_gives_whole_outcomes_only(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda fd: None)  # 400 runs: not to wait for the disk
    whole = stopped(tmp_path / "whole")
    lines = whole.splitlines(keepends=True)
    assert len(lines) == 4
    for cut in range(len(whole) + 1):
        out = tmp_path / str(cut)
        (out / ".detr_viz").mkdir(parents=True)
        (out / ".detr_viz/journal.jsonl").write_bytes(whole[:cut])
        # a line is whole from its last brace on
        known = sum(cut >= len(b"".join(lines[: n + 1])) - 1 for n in range(3))
        with Journal(out, IMAGES, resume=True) as journal:
            earlier = [journal.earlier(image) for image in IMAGES]
            assert earlier == [*[A, B, C][:known], *[None] * (4 - known)]
            journal.done(2, C)
        # what comes after a torn line is not lost
        with Journal(out, IMAGES, resume=True) as journal:
            assert journal.earlier("c.jpg") == C
            fill(journal)
            journal.finish()
        assert (out / "index.csv").read_text() == INDEX
        assert (out / "failures.csv").read_text() == FAILURES


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\0" * 512,
        b"\xff\xfe{}",
        b"{}",
        b"[]",
        b"3",
        b'"failed"',
        b"null",
        b"[" * 100_000,
        b'{"image":"a.jpg"}',
        b'{"image":"a.jpg","rows":[["detr"]],"files":[]}',
        b'{"image":"a.jpg","rows":3,"files":[]}',
        b'{"image":"a.jpg","rows":[],"fi{"image":"c.jpg","rows":[],"files":[]}',
    ],
    ids=lambda line: ascii(line[:40]),
)
def test_damaged_lines_are_passed_over(out, line):
    first, *rest = stopped(out).splitlines(keepends=True)
    path = out / ".detr_viz/journal.jsonl"
    path.write_bytes(line + b"\n" + first + line + b"\n" + b"".join(rest) + line)
    with Journal(out, IMAGES, resume=True) as journal:
        assert [journal.earlier(image) for image in IMAGES] == [A, B, C, None]
        fill(journal)
        journal.finish()
    assert (out / "index.csv").read_text() == INDEX


def test_a_journal_changed_by_something_else_is_no_table(out):
    finished(out, ["c.jpg"], {0: C})
    index = (out / "index.csv").read_bytes()
    with Journal(out, IMAGES) as journal:
        fill(journal)
        (journal.temporary / "journal.jsonl").write_bytes(b"")
        with pytest.raises(OutputError, match=r"index\.csv: .*journal\.jsonl was changed"):
            journal.finish()
    assert (out / "index.csv").read_bytes() == index
