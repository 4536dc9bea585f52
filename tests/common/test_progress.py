"""How far a batch is: what a log and a terminal show, and streams that take no more words."""

from __future__ import annotations

import io
import os
import struct
import sys
import threading

import pytest

from detr_viz.common.progress import Progress, duration, rate


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    def shown(self) -> list[str]:
        """What stood on the line, one after another; notes are among them."""
        return [text.strip() for text in self.getvalue().replace("\n", "\r").split("\r")]


@pytest.fixture
def clock():
    return Clock()


def run(progress: Progress, clock: Clock, steps: list[tuple[float, str]]) -> None:
    """Advance after so many seconds each; what happened: "", "failed" or "skipped"."""
    with progress:
        for seconds, what in steps:
            clock.now += seconds
            progress.advance(**{what: True} if what else {})


# ---- words ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("per_s", "words"),
    [
        (4.1, "4.1 images/s"),
        (1, "1.0 images/s"),
        (99.94, "99.9 images/s"),
        (99.96, "100 images/s"),
        (1234.5, "1234 images/s"),
        (0.999, "1.0 s an image"),
        (0.4348, "2.3 s an image"),
        (1 / 150, "150 s an image"),
    ],
)
def test_rates(per_s, words):
    assert rate(per_s) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "1 s"),
        (0.2, "1 s"),
        (40, "40 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (89, "1 min"),
        (91, "2 min"),
        (180, "3 min"),
        (3569, "59 min"),
        (3599, "1 h"),
        (3600, "1 h"),
        (3660, "1 h 1 min"),
        (7800, "2 h 10 min"),
        (250_000, "69 h 27 min"),
    ],
)
def test_durations(seconds, words):
    assert duration(seconds) == words


# ---- lines ------------------------------------------------------------------------------------


def test_a_log_gets_a_line_at_first_one_now_and_then_and_one_at_the_end(clock):
    log = io.StringIO()
    steps = [(2.0, "failed" if i == 3 else "") for i in range(12)]
    run(Progress(12, stream=log, clock=clock), clock, steps)
    assert log.getvalue().splitlines() == [
        "1 of 12 images, 2.0 s an image, 22 s left",
        "6 of 12 images, 1 failed, 2.0 s an image, 12 s left",
        "11 of 12 images, 1 failed, 2.0 s an image, 2 s left",
        "12 of 12 images, 1 failed, 2.0 s an image",
    ]


def test_a_line_in_the_midst_of_a_batch(clock):
    log = io.StringIO()
    steps = [(0.25, "failed" if i < 3 else "") for i in range(130)]
    run(Progress(1000, stream=log, clock=clock, every_s=29.75), clock, steps)
    said = log.getvalue().splitlines()
    assert said[1] == "120 of 1000 images, 3 failed, 4.0 images/s, 4 min left"  # 880 of 1/4 s


@pytest.mark.parametrize(("every_s", "lines"), [(0.0, 100), (10.0, 11), (25.0, 5), (1e9, 2)])
def test_lines_are_as_rare_as_asked(clock, every_s, lines):
    log = io.StringIO()
    progress = Progress(100, stream=log, clock=clock, every_s=every_s)
    run(progress, clock, [(1.0, "")] * 100)
    assert log.getvalue().count("\n") == lines
    assert log.getvalue().endswith("\n100 of 100 images, 1.0 images/s\n")


def test_no_line_is_said_twice_and_none_after_the_last(clock):
    log = io.StringIO()
    progress = Progress(1, stream=log, clock=clock)
    run(progress, clock, [(0.5, "")])
    progress.close()
    clock.now += 60
    progress.note("late")
    progress.advance()
    progress.close()
    assert log.getvalue() == "1 of 1 images, 2.0 images/s\n"


def test_a_line_is_there_to_be_read_at_once(clock):
    raw = io.BytesIO()
    with Progress(9, stream=io.TextIOWrapper(raw), clock=clock) as progress:
        progress.advance()
        assert raw.getvalue() == b"1 of 9 images\n"


def test_a_batch_that_stops_early_says_how_far_it_came_and_lets_the_error_through(clock):
    log = io.StringIO()
    with pytest.raises(KeyError), Progress(9, stream=log, clock=clock) as progress:
        for _ in range(3):
            clock.now += 1
            progress.advance()
        raise KeyError
    assert log.getvalue().splitlines()[1:] == ["3 of 9 images, 1.0 images/s"]


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_a_batch_of_nothing_says_nothing(clock, stream):
    said = stream()
    run(Progress(0, stream=said, clock=clock), clock, [])
    assert said.getvalue() == ""


def test_counts(clock):
    progress = Progress(9, quiet=True, clock=clock)
    run(progress, clock, [(1, what) for what in ("", "failed", "skipped", "failed", "")])
    assert (progress.done, progress.failed, progress.skipped) == (5, 2, 1)


def test_a_clock_that_stands_still_gives_no_rate(clock):
    log = io.StringIO()
    run(Progress(2, stream=log, clock=clock), clock, [(0, ""), (0, "")])
    assert log.getvalue().splitlines() == ["1 of 2 images", "2 of 2 images"]


# ---- skipped images ---------------------------------------------------------------------------


def test_images_skipped_at_the_start_promise_no_early_end(clock):
    log = io.StringIO()
    steps = [(0.001, "skipped")] * 1000 + [(2.0, "")] * 10
    run(Progress(1100, stream=log, clock=clock, every_s=20.0), clock, steps)
    assert log.getvalue().splitlines() == [
        "1 of 1100 images, 1 skipped",
        "1010 of 1100 images, 1000 skipped, 2.0 s an image, 3 min left",  # 90 of 2 s
    ]


def test_time_spent_on_skipping_at_the_start_is_not_that_of_images(clock):
    log = io.StringIO()
    run(Progress(12, stream=log, clock=clock), clock, [(60.0, "skipped"), (0.5, ""), (9.5, "")])
    assert log.getvalue().splitlines()[-1] == "3 of 12 images, 1 skipped, 5.0 s an image, 45 s left"


def test_images_skipped_between_others_are_not_counted_as_worked_on(clock):
    log = io.StringIO()
    steps = [(4.0, ""), (0.0, "skipped"), (0.0, "skipped"), (4.0, "failed"), (6.0, "")]
    run(Progress(100, stream=log, clock=clock), clock, steps)
    last = log.getvalue().splitlines()[-1]  # 95 of 14/3 s are 443 s
    assert last == "5 of 100 images, 1 failed, 2 skipped, 4.7 s an image, 7 min left"


# ---- notes and quiet --------------------------------------------------------------------------


def test_notes_are_lines_between_the_lines(clock):
    log = io.StringIO()
    with Progress(2, stream=log, clock=clock) as progress:
        progress.note("note: a")
        clock.now += 1
        progress.advance()
        progress.note("error: b")
    assert log.getvalue() == "note: a\n1 of 2 images, 1.0 images/s, 1 s left\nerror: b\n"


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_quiet_says_nothing(clock, stream):
    said = stream()
    with Progress(3, quiet=True, stream=said, clock=clock) as progress:
        progress.advance(failed=True)
        progress.note("note")
    assert said.getvalue() == "" and progress.failed == 1


def test_stderr_is_where_it_goes(clock, capsys):
    run(Progress(1, clock=clock), clock, [(1, "")])
    assert capsys.readouterr() == ("", "1 of 1 images, 1.0 images/s\n")


@pytest.mark.parametrize("terminal", [False, True])
def test_what_a_stream_has_no_characters_for_is_escaped(clock, terminal):
    raw = io.BytesIO()
    narrow = io.TextIOWrapper(raw, encoding="ascii", write_through=True)
    narrow.isatty = lambda: terminal
    with Progress(2, stream=narrow, clock=clock) as progress:
        progress.note("größe\udc80.jpg")
        progress.advance()
    said = raw.getvalue().decode("ascii")
    assert "gr\\xf6\\xdfe\\udc80.jpg\n" in said
    assert ("1/2 images" if terminal else "1 of 2 images") in said


# ---- a bar ------------------------------------------------------------------------------------


def test_a_terminal_gets_a_bar(clock):
    terminal = Terminal()
    steps = [(0.5, ""), (0.5, "failed"), (0.5, "skipped"), (0.5, "")]
    run(Progress(4, stream=terminal, clock=clock), clock, steps)
    shown = [text.split("|")[0::2] for text in terminal.shown() if text]
    assert shown[:5] == [
        ["0%", " 0/4 images"],
        ["25%", " 1/4 images, 2.0 images/s, 2 s left"],
        ["50%", " 2/4 images, 1 failed, 2.0 images/s, 1 s left"],
        ["75%", " 3/4 images, 1 failed, 1 skipped, 1.3 images/s, 1 s left"],
        ["100%", " 4/4 images, 1 failed, 1 skipped, 1.5 images/s"],
    ]
    assert shown[-1] == shown[4] and terminal.getvalue().endswith("\n")


def test_the_bar_is_not_drawn_for_every_image_but_for_the_last(clock):
    terminal = Terminal()
    run(Progress(1000, stream=terminal, clock=clock), clock, [(0.001, "")] * 999)
    assert 10 < len(terminal.shown()) < 20
    assert "999/1000" in terminal.shown()[-2]


def test_a_bar_that_is_stopped_promises_nothing(clock):
    terminal = Terminal()
    run(Progress(10, stream=terminal, clock=clock), clock, [(1, "")] * 3)
    assert terminal.shown()[-2].endswith("3/10 images, 1.0 images/s")


def test_a_note_stands_above_the_bar(clock):
    terminal = Terminal()
    with Progress(3, stream=terminal, clock=clock) as progress:
        clock.now += 1
        progress.advance()
        progress.note("error: no image at cat.jpg")
        clock.now += 1
        progress.advance()
    before, after = terminal.getvalue().split("error: no image at cat.jpg\n")
    # the bar is wiped, the note written where it stood, and the bar drawn again below
    drawn, wiped = before.removesuffix("\r").split("\r")[-2:]
    assert "1/3 images" in drawn and wiped == " " * len(drawn)
    assert "1/3 images" in after.split("\r")[1]


@pytest.mark.parametrize(("columns", "later"), [(200, 200), (80, 40), (50, 120), (0, 0)])
def test_on_a_real_terminal_the_bar_fits_its_width_though_it_changes(clock, columns, later):
    fcntl, termios = pytest.importorskip("fcntl"), pytest.importorskip("termios")
    ours, theirs = os.openpty()

    def resize(columns: int) -> None:
        rows = 24 if columns else 0  # 0 x 0 is what a terminal without a window says
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read_to(mark: str) -> str:
        """What the terminal got up to a mark; it comes in pieces."""
        said = ""
        while mark not in said:
            said += os.read(ours, 100_000).decode()
        return said.partition(mark)[0]

    with open(theirs, "w", encoding="utf-8") as terminal:
        resize(columns)
        with Progress(9, stream=terminal, clock=clock) as progress:
            for width in (columns, later):
                resize(width)
                clock.now += 1
                progress.advance(failed=True)
                progress.note("<mark>")
                bar = [text for text in read_to("<mark>").split("\r") if "%|" in text][-1].rstrip()
                assert bar.startswith((" 11%|", " 22%|")) and "/9 images, " in bar
                assert len(bar) == (width or 80) - 1
    os.close(ours)


def test_the_bar_has_no_thread_and_no_lock_of_processes_and_leaves_no_setting(clock):
    import tqdm

    threads, interval = threading.active_count(), tqdm.tqdm.monitor_interval
    with Progress(3, stream=Terminal(), clock=clock) as progress:
        progress.advance()
        assert threading.active_count() == threads
        assert isinstance(progress._bar.get_lock(), type(threading.RLock()))
    assert tqdm.tqdm.monitor_interval == interval > 0


def test_without_tqdm_a_terminal_gets_lines(clock, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    terminal = Terminal()
    run(Progress(1, stream=terminal, clock=clock), clock, [(1, "")])
    assert terminal.getvalue() == "1 of 1 images, 1.0 images/s\n"


# ---- broken streams ---------------------------------------------------------------------------


class Broken(io.StringIO):
    """A stream that fails from some write on."""

    def __init__(self, terminal: bool, left: int, error: Exception) -> None:
        super().__init__()
        self.terminal, self.left, self.error, self.tried = terminal, left, error, 0

    def isatty(self) -> bool:
        return self.terminal

    def write(self, text: str) -> int:
        self.left -= 1
        if self.left < 0:
            self.tried += 1
            raise self.error
        return super().write(text)


ERRORS = [
    OSError(5, "Input/output error"),
    OSError(28, "No space left on device"),
    BrokenPipeError(32, "Broken pipe"),
    ValueError("I/O operation on closed file."),
    ValueError("something else"),
]


@pytest.mark.parametrize("left", range(8))
@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("error", ERRORS, ids=str)
@pytest.mark.filterwarnings("error")  # nor may what is left of a bar complain when it goes
def test_a_stream_that_breaks_ends_the_words_not_the_run(clock, error, terminal, left):
    stream = Broken(terminal, left, error)
    with Progress(20, stream=stream, clock=clock) as progress:
        for i in range(20):
            clock.now += 11
            progress.advance(failed=i % 2 == 0)
            progress.note("note")
    assert (progress.done, progress.failed) == (20, 10)
    assert stream.tried >= 1


def test_a_stream_that_is_closed_or_none(clock, monkeypatch):
    closed = io.StringIO()
    closed.close()
    for stream in (closed, None):
        monkeypatch.setattr(sys, "stderr", stream)
        progress = Progress(2, clock=clock)
        progress.note("note")
        run(progress, clock, [(1, ""), (1, "skipped")])
        assert (progress.done, progress.skipped) == (2, 1)


def test_a_line_from_a_signal_handler_in_the_middle_of_another_costs_only_itself(clock):
    class Busy(io.StringIO):
        busy = False

        def write(self, text):
            if self.busy:
                raise RuntimeError("reentrant call inside <_io.BufferedWriter name='<stderr>'>")
            return super().write(text)

    stream = Busy()
    progress = Progress(3, stream=stream, clock=clock)
    stream.busy = True
    progress.note("stopping")
    stream.busy = False
    progress.note("later")
    assert stream.getvalue() == "later\n"
