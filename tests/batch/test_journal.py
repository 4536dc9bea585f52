"""What became of each image of a run: killed, torn, out of room, resumed, and in its tables."""

from __future__ import annotations

import csv
import errno
import io
import os
import random
import signal
import subprocess
import sys
import textwrap
import tracemalloc
from pathlib import Path

import pytest
from conftest import ROOT

from detr_viz.batch import run_folder
from detr_viz.batch.index import COLUMNS, Done, read_index
from detr_viz.batch.journal import Counts, Journal
from detr_viz.common.errors import UserError
from detr_viz.common.files import OutputError

posix = pytest.mark.skipif(os.name == "nt", reason="needs POSIX locks, limits and signals")
HEADER = "image,object,model,layer,query,class,score,left,top,right,bottom,files,recipe\n"
CAT = ("1", "detr", "6", "17", "cat", "0.98", "10.5", "20", "-3", "40")
DOG = ("2", "detr", "6", "2", "dog", "0.71", "0", "1", "2", "3")
A = Done("a.jpg", (CAT, DOG), ("a_detr.png",), "5f0c")
B = Done("sub/b.jpg", (), (), "77aa")
C = Done("c.jpg", (DOG,), ("sub/c_detr.png", "sub/c_detr.tex"))
IMAGES = ["a.jpg", "sub/b.jpg", "c.jpg", "d.jpg"]
INDEX = (
    HEADER
    + "a.jpg,1,detr,6,17,cat,0.98,10.5,20,-3,40,a_detr.png,5f0c\n"
    + "a.jpg,2,detr,6,2,dog,0.71,0,1,2,3,a_detr.png,5f0c\n"
    + "sub/b.jpg,,,,,,,,,,,,77aa\n"
    + "c.jpg,2,detr,6,2,dog,0.71,0,1,2,3,sub/c_detr.png;sub/c_detr.tex,\n"
)
FAILURES = "image,reason\nd.jpg,not an image\n"


@pytest.fixture
def out(tmp_path):
    return tmp_path / "new" / "figures"


def fill(journal: Journal) -> None:
    journal.done(0, A)
    journal.done(1, B)
    journal.done(2, C)
    journal.failed(3, "not an image")


def there(out: Path) -> list[str]:
    return sorted(p.relative_to(out).as_posix() for p in out.rglob("*"))


def stopped(out: Path, **options) -> bytes:
    """The journal of a run that recorded everything and was then cut off."""
    with Journal(out, IMAGES, **options) as journal:
        fill(journal)
    return (journal.temporary / "journal.jsonl").read_bytes()


def finished(out: Path, images: list[str], outcomes: dict[int, Done], **options) -> bytes:
    with Journal(out, images, **options) as journal:
        for i, outcome in outcomes.items():
            journal.done(i, outcome)
        return journal.finish()[0].read_bytes()


def table(path: Path) -> list[list[str]]:
    text = path.read_bytes().decode("utf-8", "surrogateescape")
    return list(csv.reader(io.StringIO(text, newline="")))


def python(code: str, *arguments: object, **options) -> subprocess.Popen[str]:
    """A process that runs `code`, with the package, the journal and IMAGES at hand."""
    start = f"""
        import errno, os, random, resource, signal, sys, time
        sys.path.insert(0, {str(ROOT)!r})
        from pathlib import Path
        from detr_viz.batch.journal import Done, Journal
        from detr_viz.common.files import OutputError
        IMAGES, A, B, C = {IMAGES!r}, {A!r}, {B!r}, {C!r}
    """
    source = textwrap.dedent(start) + textwrap.dedent(code)
    command = [sys.executable, "-c", source, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options)


def output(code: str, *arguments: object) -> str:
    process = python(code, *arguments)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return printed


# the tables


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


# resumed


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


# torn and damaged journals


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


# killed


@posix
@pytest.mark.parametrize(("resume", "step"), [(True, 2), (False, 3)])
def test_killed_at_any_line_of_the_module(tmp_path, resume, step):
    """A fork for every second or third line that a run goes through, killed before that line.

    Lines of functions that change nothing on the disk are not counted.
    """
    code = """
        from detr_viz.batch import index as tables
        from detr_viz.batch import journal, journal_lines, run_folder

        pure = {f.__code__ for f in (
            journal_lines.encoded, journal_lines.decoded,
            tables._joined, tables._parted, tables._whole,
            tables.read_index, tables.in_rows, Journal._line, Journal._load, Journal.earlier,
            Done.__init__, Done.__post_init__, Journal.counts.fget,
        )}
        files = [m.__file__ for m in (journal, journal_lines, run_folder, tables)]
        root, resume, before = Path(sys.argv[1]), sys.argv[2] == "True", sys.argv[3]
        step = int(sys.argv[4])
        os.fsync = lambda fd: None  # a kill takes nothing from the system's memory

        def run(out, resume):
            with Journal(out, IMAGES, resume=resume) as journal:
                (journal.temporary / "half.png").touch()
                journal.failed(3, "not an image")
                for i, outcome in enumerate((A, B, C)):
                    journal.done(i, journal.earlier(IMAGES[i]) or outcome)
                journal.finish()

        def left_after(n, out):
            pid = os.fork()
            if pid:
                return os.waitpid(pid, 0)[1]
            count = 0
            def trace(frame, event, _):
                nonlocal count
                ours = frame.f_code.co_filename in files
                if not ours or frame.f_code in pure:
                    return None
                count += event == "line"
                if count == n:
                    os.kill(os.getpid(), signal.SIGKILL)
                return trace
            sys.settrace(trace)
            run(out, resume)
            os._exit(0)

        n, status = 0, signal.SIGKILL
        while status == signal.SIGKILL:
            n += step
            out = root / str(n)
            out.mkdir()
            (out / "index.csv").write_text(before)
            status = left_after(n, out)
            index = (out / "index.csv").read_bytes()
            with Journal(out, IMAGES, resume=True) as journal:
                assert os.listdir(journal.temporary) in (["lock", "journal.jsonl"],
                                                         ["journal.jsonl", "lock"])
                known = [journal.earlier(image) for image in IMAGES]
            assert known[0] == A or not resume, n
            assert known[1] is None or known[0] == A, n
            run(out, True)
            (root / f"{n}.csv").write_bytes(index)
        print(n, status)
    """
    one_image = "".join(INDEX.splitlines(keepends=True)[:3])  # of a finished run
    lines, status = map(int, output(code, tmp_path, resume, one_image, step).split())
    assert status == 0 and lines > 150
    seen = set()
    for n in range(step, lines + 1, step):
        seen.add((tmp_path / f"{n}.csv").read_text())  # whole at any moment: the old or the new
        assert there(tmp_path / str(n)) == ["failures.csv", "index.csv"]
        assert (tmp_path / str(n) / "index.csv").read_text() == INDEX
        assert (tmp_path / str(n) / "failures.csv").read_text() == FAILURES
    assert seen == {one_image, INDEX}


@posix
def test_killed_at_random_and_resumed_until_done(tmp_path):
    """Every outcome that the killed process had reported is there afterwards."""
    code = """
        out, seed = Path(sys.argv[1]), int(sys.argv[2])
        images = [f"{n}.jpg" for n in range(8000)]
        with Journal(out, images, resume=True) as journal:
            for i in random.Random(seed).sample(range(8000), 8000):
                image, row = images[i], ("1", "m", "6", str(i), "cat", "1", "0", "0", "1", "1")
                outcome = Done(image, (row,) * (i % 4), (image + ".png",), f"r{i % 5}")
                known = journal.earlier(image)
                assert known in (None, outcome)
                journal.done(i, outcome)
                if known is None:
                    print(image, flush=i % 8 == 0)
            journal.finish()
    """
    images = [f"{n}.jpg" for n in range(8000)]
    chance, reported, kills = random.Random(11), set(), 0
    for attempt in range(30):
        child = python(code, tmp_path, attempt)
        for _ in range(chance.randrange(1, 2500) if attempt < 5 else 10**6):
            if not (line := child.stdout.readline()):
                break
            reported.add(line.strip())
        child.kill()
        rest = child.stdout.read()  # communicate() would pass over what is buffered here
        child.communicate(timeout=60)
        reported.update(rest.splitlines(keepends=False)[:-1])  # its last line may be torn
        if child.returncode == 0:
            break
        assert child.returncode == -signal.SIGKILL
        kills += 1
        with Journal(tmp_path, images, resume=True) as journal:
            assert all(journal.earlier(image) for image in reported)
    assert kills >= 3 and there(tmp_path) == ["index.csv"]
    wanted = [list(COLUMNS)]
    for i in range(8000):
        row = ["1", "m", "6", str(i), "cat", "1", "0", "0", "1", "1"]
        rows = [row] * (i % 4) or [[""] * 10]
        wanted += [[f"{i}.jpg", *row, f"{i}.jpg.png", f"r{i % 5}"] for row in rows]
    assert table(tmp_path / "index.csv") == wanted


# no room


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


# the folder


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
    with pytest.raises(OutputError, match=r"cannot write to .*out.\.detr_viz: .*; choose another"):
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


# the lock


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
