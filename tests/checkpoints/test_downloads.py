"""Downloads against a local server: whole, wrong, refused, cut; nothing half-written stays."""

from __future__ import annotations

import dataclasses
import hashlib
import http.server
import io
import resource
import subprocess
import sys
import threading

import pytest
import torch
from checkpoint_factory import small_state_dict

from detr_viz.checkpoints import downloads
from detr_viz.checkpoints.checkpoint import load_checkpoint
from detr_viz.checkpoints.downloads import KNOWN, DownloadError, fetch
from detr_viz.common import assets
from detr_viz.common.files import OutputError

DATA = bytes(range(256)) * 20_000  # 5 MB: several chunks
PREFIX = hashlib.sha256(DATA).hexdigest()[:8]


class Server(http.server.ThreadingHTTPServer):
    """Answers every request in the way of the moment, and counts them."""

    way = "good"
    data = DATA
    requests = 0
    daemon_threads = True

    def handle_error(self, *_):
        """A client that hangs up, as one whose disk is full, is no news."""

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.requests += 1
        data = self.server.data
        getattr(self, self.server.way.replace(" ", "_"))(data)

    def head(self, code=200, length=None, **headers):
        self.send_response(code)
        self.send_header("Content-Type", headers.pop("kind", "application/octet-stream"))
        if length is not None:
            self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def good(self, data):
        self.head(length=len(data))
        self.wfile.write(data)

    def wrong(self, data):
        self.head(length=len(data))
        self.wfile.write(data[::-1])

    def missing(self, data):
        self.send_error(404)

    def failing(self, data):
        self.send_error(503)

    def page(self, data):
        self.head(length=9, kind="text/html; charset=utf-8")
        self.wfile.write(b"<html>hi!")

    def empty(self, data):
        self.head(length=0)

    def cut(self, data):
        self.head(length=len(data))
        self.wfile.write(data[: len(data) // 2])
        self.close_connection = True

    def cut_at_once(self, data):
        self.head(length=len(data))
        self.close_connection = True

    def cut_chunks(self, data):
        self.head(Transfer_Encoding="chunked")
        self.wfile.write(b"100000\r\n" + data[:1000])
        self.close_connection = True

    def chunks(self, data):
        self.head(Transfer_Encoding="chunked")
        for start in range(0, len(data), 1 << 20):
            part = data[start : start + (1 << 20)]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
        self.wfile.write(b"0\r\n\r\n")

    def no_answer(self, data):
        self.close_connection = True

    def moved(self, data):
        if self.path.startswith("/there/"):
            self.good(data)
        else:
            self.head(302, length=0, Location=f"/there{self.path}")

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    for name, known in list(KNOWN.items()):
        prefix = None if known.sha256_prefix is None else PREFIX
        local = dataclasses.replace(known, url=server.url + known.filename, sha256_prefix=prefix)
        monkeypatch.setitem(KNOWN, name, local)
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def refused(cache, *fragments, name="detr_resnet50"):
    with pytest.raises((DownloadError, OutputError)) as raised:
        fetch(name, cache)
    message = str(raised.value)
    assert "\n" not in message
    for fragment in fragments:
        assert fragment in message
    return message


def test_the_known_names():
    """As the authors published them."""
    fair = "https://dl.fbaipublicfiles.com/detr/"
    meng = "https://github.com/DeppMeng/ConditionalDETR/releases/download/v1.0/"
    expected = {
        "detr_resnet50": (fair + "detr-r50-e632da11.pth", "e632da11", "detr", False),
        "detr_resnet50_dc5": (fair + "detr-r50-dc5-f0fb7ef5.pth", "f0fb7ef5", "detr", True),
        "detr_resnet101": (fair + "detr-r101-2c7b67e5.pth", "2c7b67e5", "detr", False),
        "detr_resnet101_dc5": (fair + "detr-r101-dc5-a2e86def.pth", "a2e86def", "detr", True),
    }
    for name, file in (
        ("resnet50", "r50"),
        ("resnet50_dc5", "r50dc5"),
        ("resnet101", "r101"),
        ("resnet101_dc5", "r101dc5"),
    ):
        url = f"{meng}ConditionalDETR_{file}_epoch50.pth"
        expected[f"conditional_detr_{name}"] = (url, None, "cd_detr", "dc5" in file)
    found = {k: (v.url, v.sha256_prefix, v.type, v.dilation) for k, v in KNOWN.items()}
    assert found == expected
    assert all(known.name == name for name, known in KNOWN.items())


@pytest.mark.parametrize("way", ["good", "chunks", "moved"])
def test_a_good_file_is_fetched_once(tmp_path, server, way):
    server.way = way
    cache = tmp_path / "new" / "cache"
    path = fetch("detr_resnet50", cache)
    assert path == cache / "detr-r50-e632da11.pth"
    assert path.read_bytes() == DATA
    assert names(cache) == [path.name]
    asked = server.requests
    assert fetch("detr_resnet50", cache) == path
    assert server.requests == asked


@pytest.mark.parametrize(
    ("way", "fragments"),
    [
        ("wrong", ["sha256", PREFIX, "nothing was kept"]),
        ("missing", ["answered 404"]),
        ("failing", ["answered 503"]),
        ("page", ["web page"]),
        ("empty", ["empty file"]),
        ("cut", ["connection broke after 2.6 MB of 5.1 MB", "run again"]),
        ("cut at once", ["connection broke"]),
        ("cut chunks", ["connection broke", "of an unknown size"]),
        ("no answer", ["cannot reach"]),
    ],
)
def test_what_goes_wrong_leaves_nothing_and_the_next_run_mends_it(tmp_path, server, way, fragments):
    server.way = way
    message = refused(tmp_path, *fragments)
    assert server.url in message
    assert names(tmp_path) == []
    server.way = "good"
    assert fetch("detr_resnet50", tmp_path).read_bytes() == DATA
    server.way = "missing"  # and from now on it is there
    assert fetch("detr_resnet50", tmp_path).read_bytes() == DATA


def test_no_network(tmp_path, server):
    server.shutdown()
    server.server_close()
    message = refused(tmp_path, "cannot reach", "Connection refused", "check the network")
    assert f"put it at {tmp_path / 'detr-r50-e632da11.pth'}" in message
    assert names(tmp_path) == []


def test_a_file_that_is_not_the_released_one_is_kept_and_refused(tmp_path, server):
    mine = tmp_path / "detr-r50-e632da11.pth"
    mine.write_bytes(b"my own file")
    refused(tmp_path, str(mine), "delete it", PREFIX)
    assert mine.read_bytes() == b"my own file"
    assert server.requests == 0


def test_a_hash_that_was_not_published_is_recorded_and_held_to(tmp_path, server):
    name = "conditional_detr_resnet50"
    path = fetch(name, tmp_path)
    record = tmp_path / f"{path.name}.sha256"
    digest = hashlib.sha256(DATA).hexdigest()
    assert record.read_text() == f"{digest}  {path.name}\n"
    assert names(tmp_path) == [path.name, record.name]
    assert fetch(name, tmp_path) == path and server.requests == 1
    path.write_bytes(DATA[:-1])
    refused(tmp_path, str(path), f"recorded in {record.name}", digest[:12], name=name)
    record.write_text("")
    refused(tmp_path, "recorded", name=name)
    record.unlink()  # as if put there by hand: taken as it is, and held to from now on
    assert fetch(name, tmp_path) == path
    assert record.read_text().startswith(hashlib.sha256(DATA[:-1]).hexdigest())
    assert server.requests == 1


def test_unknown_names(tmp_path):
    with pytest.raises(DownloadError, match="detr_resnet101_dc5"):
        fetch("yolov8n", tmp_path)


def test_a_cache_that_cannot_be_written(tmp_path, server):
    (tmp_path / "file").write_text("in the way")
    refused(tmp_path / "file" / "cache", "cannot write", "--cache")
    assert names(tmp_path) == ["file"]


def test_a_full_disk(tmp_path, server):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, limits[1]))
    try:
        refused(tmp_path, "cannot write", "--cache")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert names(tmp_path) == []


def test_interrupted(tmp_path, server, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(downloads._Progress, "show", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fetch("detr_resnet50", tmp_path)
    assert names(tmp_path) == []


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_is_drawn_on_a_terminal_only(tmp_path, server, monkeypatch, capsys):
    fetch("detr_resnet50", tmp_path / "a")
    assert capsys.readouterr() == ("", "")
    for progress in (True, False):
        monkeypatch.setattr(sys, "stderr", Terminal())
        fetch("detr_resnet50", tmp_path / str(progress), progress=progress)
        drawn = sys.stderr.getvalue()
        assert ("100 % of 5.1 MB" in drawn and drawn.endswith("\n")) is progress
        assert bool(drawn) is progress


def test_sha256_of_files_as_if_joined(tmp_path):
    for name, part in (("a", DATA[:3_000_001]), ("b", DATA[3_000_001:])):
        (tmp_path / name).write_bytes(part)
    joined = downloads.sha256_of(tmp_path / "a", tmp_path / "b")
    assert joined == hashlib.sha256(DATA).hexdigest()


def test_the_cache_is_weights_unless_given(tmp_path, server, monkeypatch):
    monkeypatch.setattr(assets, "ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights").mkdir()
    assert fetch("detr_resnet50") == tmp_path / "weights" / "detr-r50-e632da11.pth"
    monkeypatch.setattr(assets, "ROOT", tmp_path / "site-packages")  # installed: no weights/ there
    assert fetch("detr_resnet50").resolve() == tmp_path / "weights" / "detr-r50-e632da11.pth"


@pytest.mark.parametrize(
    ("name", "kind"), [("detr_resnet50", "detr"), ("conditional_detr_resnet50", "cd_detr")]
)
def test_loading_by_known_name(tmp_path, server, monkeypatch, name, kind):
    buffer = io.BytesIO()
    torch.save({"model": small_state_dict(kind)}, buffer)
    server.data = buffer.getvalue()
    digest = hashlib.sha256(server.data).hexdigest()
    if kind == "detr":
        monkeypatch.setitem(KNOWN, name, dataclasses.replace(KNOWN[name], sha256_prefix=digest[:8]))
    for _ in range(2):
        checkpoint = load_checkpoint(name, cache=str(tmp_path))
        assert checkpoint.spec.name == kind
        assert checkpoint.sha256 == digest
        assert checkpoint.notes == ()  # heads and dilation of a released file are known
        assert checkpoint.path == str(tmp_path / KNOWN[name].filename)
    assert server.requests == 1


def test_downloads_import_nothing_heavy():
    code = "import sys, detr_viz.checkpoints.downloads; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=assets.ROOT).returncode == 0
