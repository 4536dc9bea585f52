"""Outcomes of a run, and processes that record them, for tests of the journal."""

from __future__ import annotations

import csv
import io
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from conftest import ROOT

from detr_viz.batch.index import Done
from detr_viz.batch.journal import Journal

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
