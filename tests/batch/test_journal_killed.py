"""A run that is killed: at any line, and at random until all is done."""

from __future__ import annotations

import random
import signal

import pytest
from journal_tools import (
    FAILURES,
    INDEX,
    output,
    posix,
    python,
    table,
    there,
)

from detr_viz.batch.index import COLUMNS
from detr_viz.batch.journal import Journal


@pytest.fixture
def out(tmp_path):
    return tmp_path / "new" / "figures"


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
