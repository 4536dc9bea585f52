"""Output files: one rename, also where temporary files lie on another file system."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from detr_viz.common import files
from detr_viz.common.files import OutputError


@pytest.fixture
def apart(tmp_path, monkeypatch):
    """A folder for temporary files from which no rename leads out, as on another disk."""
    (tmp_path / "tmp").mkdir()
    (tmp_path / "out").mkdir()
    real = Path.replace

    def replace(self, target):
        if self.parent != Path(target).parent:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    monkeypatch.setattr(files, "_elsewhere", tmp_path / "tmp")
    return tmp_path


def test_a_file_gets_to_another_file_system(apart):
    with files.replacing(apart / "out/a.txt") as part:
        assert part.parent == apart / "tmp"
        part.write_text("new")
    assert (apart / "out/a.txt").read_text() == "new"
    assert [p.name for p in apart.rglob("*") if p.is_file()] == ["a.txt"]
    assert not files._unfinished


def test_a_disk_that_fills_up_on_the_way_leaves_what_was_there(apart, monkeypatch):
    (apart / "out/a.txt").write_text("old")

    def full(source, target):
        Path(target).write_text("ne")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.shutil, "copyfile", full)
    with (
        pytest.raises(OutputError, match="No space left") as raised,
        files.replacing(apart / "out/a.txt") as part,
    ):
        part.write_text("new")
    assert raised.value.of_the_disk
    assert (apart / "out/a.txt").read_text() == "old"
    assert [p.name for p in apart.rglob("*") if p.is_file()] == ["a.txt"]


@pytest.mark.parametrize("number", [errno.EACCES, errno.ENOSPC])
def test_only_another_file_system_is_worked_around(tmp_path, monkeypatch, number):
    def refused(self, target):
        raise OSError(number, "no")

    monkeypatch.setattr(Path, "replace", refused)
    with (
        pytest.raises(OutputError, match="cannot write"),
        files.replacing(tmp_path / "a.txt") as part,
    ):
        part.write_text("new")
    assert not list(tmp_path.iterdir())
