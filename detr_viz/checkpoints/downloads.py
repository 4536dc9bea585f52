"""Released checkpoints by name: fetched once, checked by sha256, never left half-written.

path = fetch("detr_resnet50", cache=Path("weights"))      # the second call makes no request
folder = fetch_hf("facebook/detr-resnet-50")              # needs the extra `hf`

The hub's files come by huggingface_hub. Files of the authors do not come by torch.hub's downloader:
it waits without end for a server that does not answer, keeps a file that was cut short where no
hash is published (Conditional DETR), takes a web page for a checkpoint, and gives no sha256.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import shutil
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from detr_viz import models
from detr_viz.common import assets
from detr_viz.common.console import raw_stream
from detr_viz.common.errors import UserError
from detr_viz.common.files import OutputError, reason, replacing
from detr_viz.common.regular import read_regular

CHUNK_BYTES = 1 << 20
TIMEOUT_S = 30


class DownloadError(UserError):
    """A checkpoint could not be fetched, or is not the one that was published."""


@dataclass(frozen=True)
class KnownWeights:
    """One released checkpoint. `sha256_prefix` is None where its authors published no hash."""

    name: str
    url: str
    sha256_prefix: str | None
    type: str
    dilation: bool
    title: str

    @property
    def filename(self) -> str:
        return self.url.rsplit("/", 1)[-1]


KNOWN: dict[str, KnownWeights] = {
    release.name: KnownWeights(
        name=release.name,
        url=release.url,
        sha256_prefix=release.sha256_prefix,
        type=name,
        dilation=release.dilation,
        title=release.title,
    )
    for name, entry in models.REGISTRY.items()
    for release in entry.releases
}


def weights_folder() -> Path:
    """weights/ of the source tree; of the current folder where the package came without it."""
    beside = assets.ROOT / "weights"
    return beside if beside.is_dir() else Path("weights")


def sha256_of(*paths: Path) -> str:
    """sha256 (hex) of a file, or of several files as if joined in the order given."""
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(CHUNK_BYTES))
    for path in paths:
        with open(path, "rb", buffering=0) as file:
            while count := file.readinto(buffer):
                digest.update(buffer[:count])
    return digest.hexdigest()


def fetch(name: str, cache: Path | None = None, progress: bool = True) -> Path:
    """Path of a known checkpoint in `cache` (default weights/), downloaded if it is not there.

    A file that is there and whose sha256 is right is used without any request. Raises
    DownloadError: unknown name, no network, 404, connection cut, hash that differs, folder that
    cannot be written. Nothing half-written stays, and a file already there is never overwritten.
    """
    return fetch_checked(name, cache, progress)[0]


def fetch_checked(name: str, cache: Path | None = None, progress: bool = True) -> tuple[Path, str]:
    """Like `fetch`, and with the file's sha256, which had to be computed anyway."""
    known = KNOWN.get(name)
    if known is None:
        raise DownloadError(f"no known weights are called {name!r}: choose from {', '.join(KNOWN)}")
    target = (Path(cache) if cache is not None else weights_folder()) / known.filename
    if target.is_file():
        return target, _verified(target, known)
    sha256 = _download(known, target, progress)
    if known.sha256_prefix is None:
        _record(target, sha256)
    return target, sha256


def _verified(target: Path, known: KnownWeights) -> str:
    """sha256 of a file already there, once it is the published (or the recorded) one."""
    record = _record_path(target)
    try:
        sha256 = sha256_of(target)
        expected, source = known.sha256_prefix, "published"
        if expected is None and record.is_file():
            words = read_regular(record).decode("utf-8", "replace").split()
            expected, source = (words[0].lower() if words else ""), f"recorded in {record.name}"
    except OSError as error:
        raise DownloadError(f"cannot read {target}: {reason(error)}") from None
    if expected is None:
        _record(target, sha256)
    elif not expected or not sha256.startswith(expected):
        raise DownloadError(
            f"{target} is not the {known.title} checkpoint: its sha256 starts with {sha256[:12]}, "
            f"{source} is {expected[:12] or 'nothing'}; delete it and run again to download it"
        )
    return sha256


def _record_path(target: Path) -> Path:
    return target.with_name(target.name + ".sha256")


def _record(target: Path, sha256: str) -> None:
    """Write down the hash first seen, as sha256sum does; a read-only cache is no reason to fail."""
    with contextlib.suppress(OutputError), replacing(_record_path(target)) as part:
        part.write_text(f"{sha256}  {target.name}\n", encoding="utf-8")


def _download(known: KnownWeights, target: Path, progress: bool) -> str:
    """Fetch known.url into `target`; returns the sha256."""
    expected = known.sha256_prefix or ""
    with (
        _open_url(known.url, target) as response,
        replacing(target, "choose another folder with --cache") as part,
    ):
        with part.open("wb") as file:
            sha256 = _copy(response, file, known.url, _Progress(target.name, progress))
        if not sha256.startswith(expected):
            raise DownloadError(
                f"{known.url} has sha256 {sha256[:12]}..., expected {expected}...: nothing "
                f"was kept; try again later, or put the right file at {target}"
            )
    return sha256


def _open_url(url: str, target: Path) -> http.client.HTTPResponse:
    request = urllib.request.Request(url, headers={"User-Agent": "detr-viz"})
    way_out = f"check the network, or download it elsewhere and put it at {target}"
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        error.close()
        raise DownloadError(f"{url} answered {error.code} {error.reason}: {way_out}") from None
    except (OSError, http.client.HTTPException) as error:
        cause = reason(getattr(error, "reason", error))
        raise DownloadError(f"cannot reach {url} ({cause}): {way_out}") from None
    if response.headers.get_content_type() == "text/html":
        response.close()
        raise DownloadError(f"{url} answered with a web page, not a checkpoint: {way_out}")
    return response


def _copy(response: http.client.HTTPResponse, file: BinaryIO, url: str, progress: _Progress) -> str:
    """Write the whole body; returns its sha256. The file's OSErrors pass, the network's do not."""
    digest = hashlib.sha256()
    total = response.length  # None where the server does not say
    done = 0
    with progress:
        while True:
            try:
                chunk = response.read(CHUNK_BYTES)
                cut = not chunk and total is not None and done < total
            except (OSError, http.client.HTTPException):
                chunk, cut = b"", True
            if cut:
                raise DownloadError(
                    f"the connection broke after {_mb(done)} of {_mb(total)} of {url}: "
                    "nothing was kept, run again"
                )
            if not chunk:
                break
            file.write(chunk)
            digest.update(chunk)
            done += len(chunk)
            progress.show(done, total)
        file.flush()
    if not done:
        raise DownloadError(f"{url} answered with an empty file: nothing was kept, try again later")
    return digest.hexdigest()


class _Progress:
    """One line on stderr, redrawn a few times a second; silent unless stderr is a terminal."""

    def __init__(self, title: str, wanted: bool) -> None:
        self.title = title
        self.on = wanted and sys.stderr is not None and sys.stderr.isatty()
        self.start = self.last = time.monotonic()

    def show(self, done: int, total: int | None) -> None:
        now = time.monotonic()
        if not self.on or (now - self.last < 0.1 and done != total):
            return
        self.last = now
        share = f"{100 * done // total:3d} % of {_mb(total)}" if total else _mb(done)
        text = f"{self.title}  {share}  {_mb(done / max(now - self.start, 1e-3))}/s"
        room = shutil.get_terminal_size().columns - 1
        raw_stream(sys.stderr).write("\r" + text[:room].ljust(room))
        sys.stderr.flush()

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self.on and self.last != self.start:
            sys.stderr.write("\n")


def _mb(count: float | None) -> str:
    return "an unknown size" if count is None else f"{count / 1e6:.1f} MB"
