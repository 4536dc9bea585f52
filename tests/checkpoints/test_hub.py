"""hf:owner/name, with the hub played by a folder, by a local server, or by nobody."""

from __future__ import annotations

import http.server
import json
import sys
import threading

import pytest
import torch
from checkpoint_factory import small_state_dict
from safetensors.torch import save_file

from detr_viz.checkpoints import hub
from detr_viz.checkpoints.checkpoint import load_checkpoint
from detr_viz.checkpoints.load_model import load_model
from detr_viz.common.errors import UserError

huggingface_hub = pytest.importorskip("huggingface_hub")
CONFIG = json.dumps({"model_type": "detr"})


class FakeHub:
    """snapshot_download that copies the files asked for into a folder."""

    def __init__(self, folder, *files):
        self.folder, self.files, self.calls = folder, files, []

    def __call__(self, repo_id, *, revision, cache_dir, allow_patterns):
        self.calls.append((repo_id, revision, cache_dir, allow_patterns))
        self.folder.mkdir(exist_ok=True)
        (self.folder / "config.json").write_text(CONFIG)
        for name, write in self.files:
            if name in allow_patterns:
                write(self.folder / name)
        return str(self.folder)


def safetensors(path):
    save_file(small_state_dict("detr"), path)


def torch_file(path):
    torch.save(small_state_dict("detr"), path)


@pytest.mark.parametrize(
    ("name", "write", "calls"),
    [("model.safetensors", safetensors, 1), ("pytorch_model.bin", torch_file, 2)],
)
def test_safetensors_first_then_bin(tmp_path, monkeypatch, name, write, calls):
    fake = FakeHub(tmp_path / "snapshot", (name, write))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fake)
    checkpoint = load_checkpoint("hf:owner/name@v1", cache=tmp_path / "cache", progress=False)
    assert checkpoint.spec.name == "detr"
    assert len(fake.calls) == calls
    for repo, revision, cache, patterns in fake.calls:
        assert (repo, revision, cache) == ("owner/name", "v1", tmp_path / "cache")
        assert "config.json" in patterns
    assert not any("bin" in pattern for pattern in fake.calls[0][3])


def test_the_preprocessing_comes_too_if_there_is_a_file_of_it(tmp_path, monkeypatch):
    def sizes(path):
        path.write_text('{"size": 48, "max_size": 77}')

    for number, files in enumerate(([], [("preprocessor_config.json", sizes)])):
        fake = FakeHub(tmp_path / str(number), ("model.safetensors", safetensors), *files)
        monkeypatch.setattr(huggingface_hub, "snapshot_download", fake)
        model = load_model("hf:owner/name", cache=tmp_path / "cache", device="cpu", progress=False)
        assert model.input_hw((30, 80)) == ((29, 77) if files else (500, 1333))


def test_without_a_revision_or_a_cache_the_hubs_own(tmp_path, monkeypatch):
    fake = FakeHub(tmp_path / "snapshot", ("model.safetensors", safetensors))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fake)
    assert hub.fetch_hf("owner/name") == tmp_path / "snapshot"
    assert fake.calls[0][:3] == ("owner/name", None, None)


def test_progress_bars_are_as_before_afterwards(tmp_path, monkeypatch):
    seen = []

    def snapshot(*_, **__):
        seen.append(huggingface_hub.utils.are_progress_bars_disabled())
        raise OSError("no")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    before = huggingface_hub.utils.are_progress_bars_disabled()
    with pytest.raises(UserError):
        hub.fetch_hf("owner/name", progress=False)
    assert seen == [True]
    assert huggingface_hub.utils.are_progress_bars_disabled() == before


def refused(name, *fragments, **options):
    with pytest.raises(UserError) as raised:
        load_checkpoint(f"hf:{name}", **options)
    message = str(raised.value)
    assert "\n" not in message and f"hf:{name}" in message
    for fragment in fragments:
        assert fragment in message


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    refused("facebook/detr-resnet-50", "pip install huggingface_hub")


@pytest.mark.parametrize("name", ["", "detr", "a/b/c", "/b", "a/", "a b/c", "a/..b", "a/b@"])
def test_names_that_are_none(tmp_path, monkeypatch, name):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    refused(name, cache=tmp_path)


def test_offline(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    refused("owner/name", "cannot be reached", "local folder", cache=tmp_path)


class Handler(http.server.BaseHTTPRequestHandler):
    """A hub that has nothing: /api/models/<owner>/<name>/revision/<revision> says why."""

    def do_GET(self):
        if "gated" in self.path:
            code, why = 403, "GatedRepo"
        elif "v9" in self.path:
            code, why = 404, "RevisionNotFound"
        else:
            code, why = 404, "RepoNotFound"
        self.send_response(code)
        self.send_header("X-Error-Code", why)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


@pytest.fixture
def endpoint(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    real = huggingface_hub.snapshot_download
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda *a, **k: real(*a, endpoint=url, **k)
    )
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "fragment"),
    [
        ("owner/name", "no such repository"),
        ("owner/name@v9", "no revision 'v9'"),
        ("owner/gated", "gated"),
    ],
)
def test_what_the_hub_says(tmp_path, endpoint, name, fragment):
    refused(name, fragment, cache=tmp_path)


@pytest.mark.filterwarnings("ignore")
def test_a_hub_that_is_not_there(tmp_path, endpoint):
    endpoint.shutdown()
    endpoint.server_close()
    refused("owner/name", "cannot be reached", cache=tmp_path)
