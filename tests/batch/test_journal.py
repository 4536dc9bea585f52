"""The journal of a run and its tables: what they hold, and names of every kind."""

from __future__ import annotations

import csv
import os
import random
import tracemalloc

import pytest
from journal_tools import (
    CAT,
    DOG,
    FAILURES,
    HEADER,
    IMAGES,
    INDEX,
    A,
    B,
    C,
    fill,
    finished,
    table,
    there,
)

from detr_viz.batch.index import COLUMNS, Done
from detr_viz.batch.journal import Counts, Journal


@pytest.fixture
def out(tmp_path):
    return tmp_path / "new" / "figures"


def test_a_run_ends_in_its_tables_and_nothing_else(out):
    with Journal(out, IMAGES) as journal:
        assert journal.temporary == out / ".detr_viz" and journal.temporary.is_dir()
        (journal.temporary / "half.png").write_bytes(b"x")
        fill(journal)
        assert journal.counts == Counts(done=3, failed=1, empty=1)
        assert journal.finish() == (out / "index.csv", out / "failures.csv")
    assert there(out) == ["failures.csv", "index.csv"]
    assert (out / "index.csv").read_bytes() == INDEX.encode()
    assert (out / "failures.csv").read_bytes() == FAILURES.encode()
    assert ",".join(COLUMNS) + "\n" == HEADER


def test_an_old_failures_csv_goes_where_nothing_failed(out):
    out.mkdir(parents=True)
    for name in ("failures.csv", "failures-1-of-2.csv", "index.csv"):
        (out / name).write_text("old")
    with Journal(out, ["a.jpg"]) as journal:
        journal.done(0, A)
        assert journal.finish() == (out / "index.csv", None)
    assert there(out) == ["failures-1-of-2.csv", "index.csv"]


def test_no_image_makes_an_index_of_a_header(out):
    assert finished(out, [], {}) == HEADER.encode()


def test_the_last_outcome_of_an_image_counts(out):
    with Journal(out, IMAGES) as journal:
        journal.failed(0, "first")
        journal.done(1, B)
        journal.done(1, B)
        journal.done(0, A)
        journal.done(2, C)
        journal.failed(2, "second\nline")
        assert journal.counts == Counts(done=2, failed=1, empty=1)
        index, failures = journal.finish()
    assert [row[0] for row in table(index)[1:]] == ["a.jpg", "a.jpg", "sub/b.jpg"]
    assert table(failures) == [["image", "reason"], ["c.jpg", "second\nline"]]


def test_tables_do_not_tell_the_order_nor_where_the_run_stopped(tmp_path):
    chance = random.Random(5)
    images = [f"{n:02}.jpg" for n in chance.sample(range(60), 60)]  # not sorted by name
    wanted = HEADER
    for n, image in enumerate(images):
        for k in range(n % 3):
            wanted += f"{image},7,m,{k},1,cat,0.5,0,0,1,1,{image}.png,r{n}\n"
        wanted += f"{image},,,,,,,,,,,{image}.png,r{n}\n" * (n % 3 == 0)
    outcomes = {
        n: Done(
            image,
            tuple(("7", "m", str(k), "1", "cat", "0.5", "0", "0", "1", "1") for k in range(n % 3)),
            (image + ".png",),
            f"r{n}",
        )
        for n, image in enumerate(images)
    }
    for attempt in range(4):
        order = chance.sample(range(60), 60)
        out = tmp_path / str(attempt)
        for stop in (0, 13, 40):
            with Journal(out, images, resume=True) as journal:
                for n in order[:stop]:
                    journal.done(n, journal.earlier(images[n]) or outcomes[n])
        chance.shuffle(order)
        assert finished(out, images, {n: outcomes[n] for n in order}, resume=True) == (
            wanted.encode()
        )


def test_an_outcome_must_fit(out):
    with pytest.raises(ValueError, match="10 columns"):
        Done("a.jpg", (CAT, DOG[1:]), ())
    with Journal(out, IMAGES) as journal:
        with pytest.raises(ValueError, match=r"image 1 is 'sub/b.jpg', not 'a.jpg'"):
            journal.done(1, A)
        with pytest.raises(IndexError):
            journal.failed(4, "no such image")
        assert journal.counts == (0, 0, 0)


NASTY = [
    "plain.jpg",
    "with, comma.jpg",
    'quo"te"s.jpg',
    "semi;colon;.jpg",
    "back\\slash\\;.jpg",
    "two\nlines.jpg",
    "old mac\rline.jpg",
    "dos\r\nline.jpg",
    "\n",
    " spaces ",
    "=1+1",
    "-3",
    "@x",
    "'",
    "Ünïcödé 猫 🐈.jpg",
    "line\u2028separator\x85.jpg",
    "\ufeffmark.jpg",
    "latin-\udce9.jpg",
    "\udcff\udcfe",
    '{"failed": 1}',
]


@pytest.mark.parametrize("name", NASTY, ids=ascii)
def test_names_survive_both_ways(out, name):
    row = ("3", "detr", "6", "2", name, "-0.5", "-1", "=1", "@", "+3")
    images = ["first.jpg", name, "last.jpg"]
    outcomes = {
        0: Done("first.jpg", (CAT,), ()),
        1: Done(name, (row, CAT, row), (name, "sub/" + name, "c.png"), name),
        2: Done("last.jpg", (), (name,)),
    }
    index = finished(out, images, outcomes)
    rows = table(out / "index.csv")
    assert rows[0] == list(COLUMNS) and len(rows) == 6
    assert [row[0] for row in rows[1:]] == ["first.jpg", *[name] * 3, "last.jpg"]
    assert rows[2][1:11] == list(row) and rows[3][1:11] == list(CAT)
    assert [row[-1] for row in rows[1:]] == ["", name, name, name, ""]
    if not set(name) & set(";\\"):
        assert rows[2][-2] == f"{name};sub/{name};c.png" and rows[5][-2] == name
    for source in ("index", "journal"):
        with Journal(out, images, resume=True) as journal:
            for i, outcome in outcomes.items():
                assert journal.earlier(images[i]) == outcome, source
                journal.done(i, outcome)
    assert finished(out, images, outcomes, resume=True) == index


def test_names_of_bytes_are_those_bytes_in_the_table(out):
    name = os.fsdecode(b"caf\xe9.jpg") if os.name != "nt" else "caf\udce9.jpg"
    assert b"\ncaf\xe9.jpg,,,,,,,,,,,,\n" in finished(out, [name], {0: Done(name, (), ())})


def test_a_half_of_a_character_does_not_raise(out):
    outcome = Done("a.jpg", ((*CAT[:4], "cat \ud83d, \udce9", *CAT[5:]),), ())
    index = finished(out, ["a.jpg"], {0: outcome})
    assert b',"cat \\ud83d, \xe9",' in index
    with Journal(out, ["a.jpg"], resume=True) as journal:
        journal.done(0, journal.earlier("a.jpg"))
        assert journal.finish()[0].read_bytes() == index


def test_more_files_than_a_cell_of_csv_holds(out):
    outcome = Done("a.jpg", (CAT,), tuple(f"{'x' * 90}/{n}.png" for n in range(3000)))
    finished(out, ["a.jpg"], {0: outcome})
    limit = csv.field_size_limit()
    assert limit < len(";".join(outcome.files))
    with Journal(out, ["a.jpg"], resume=True) as journal:
        assert journal.earlier("a.jpg") == outcome
    assert csv.field_size_limit() == limit


def test_outcomes_are_not_held_in_memory(out):
    images = [f"{n}.jpg" for n in range(2000)]
    finished(out, ["a.jpg"], {0: A})  # whatever is loaded once is
    tracemalloc.start()
    try:
        with Journal(out, images) as journal:
            for n, image in enumerate(images):
                journal.done(n, Done(image, (CAT,), (image * 600,)))
            index, _ = journal.finish()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert index.stat().st_size > 8_000_000
    assert peak < 1_500_000
