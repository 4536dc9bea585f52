"""Checkpoints from the Hugging Face hub, through huggingface_hub (extra `hf`).

folder = fetch_hf("facebook/detr-resnet-50")
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from detr_viz.checkpoints.downloads import DownloadError
from detr_viz.common.files import reason

PREFIX = "hf:"
# of models that take a prompt: how its words become numbers
_TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
)
_UNREACHABLE = {
    "LocalEntryNotFoundError",
    "OfflineModeIsEnabled",
    "ConnectionError",
    "ConnectError",
}


def check(repo: str) -> None:
    """DownloadError where `owner/name[@revision]` cannot be read, or huggingface_hub is absent."""
    name, at, revision = repo.partition("@")
    if name.count("/") != 1 or not all(name.split("/")) or (at and not revision):
        raise DownloadError(f"{PREFIX}{repo} is not hf:owner/name, like hf:facebook/detr-resnet-50")
    try:
        absent = find_spec("huggingface_hub") is None
    except ValueError:  # None among the modules: switched off
        absent = True
    if absent:
        raise DownloadError(
            f"{PREFIX}{repo} needs huggingface_hub: run pip install huggingface_hub"
        )


def fetch_hf(repo: str, cache: Path | None = None, progress: bool = True) -> Path:
    """Folder with config.json and the weights of a hub repository `owner/name[@revision]`.

    With its preprocessor_config.json and the files of its tokenizer, if it has them.

    Goes through huggingface_hub and, unless `cache` is given, its own cache, so that nothing is
    fetched twice. Raises DownloadError: huggingface_hub absent, no such repository or revision,
    gated, offline.
    """
    check(repo)
    name, _, revision = repo.partition("@")
    import huggingface_hub

    from detr_viz.checkpoints.preprocessing import FILE, PROCESSOR

    def snapshot(kind: str, suffix: str) -> Path:
        files = [f"{kind}{suffix}", f"{kind}{suffix}.index.json", f"{kind}-*{suffix}"]
        return Path(
            huggingface_hub.snapshot_download(
                name,
                revision=revision or None,
                cache_dir=cache,
                # absent ones are no error
                allow_patterns=["config.json", FILE, PROCESSOR, *_TOKENIZER, *files],
            )
        )

    with _hub_progress(progress):
        try:
            folder = snapshot("model", ".safetensors")
            if not any(folder.glob("model*.safetensors")):
                folder = snapshot("pytorch_model", ".bin")
        except Exception as error:  # its own, those of requests or httpx, and the system's
            raise DownloadError(_message(name, revision, error)) from None
    return folder


@contextlib.contextmanager
def _hub_progress(wanted: bool) -> Iterator[None]:
    from huggingface_hub import utils

    if wanted or utils.are_progress_bars_disabled():
        yield
        return
    utils.disable_progress_bars()
    try:
        yield
    finally:
        utils.enable_progress_bars()


def _message(name: str, revision: str, error: Exception) -> str:
    # by class name, parents included: where these classes live moved between releases of the hub
    kinds = {kind.__name__ for kind in type(error).__mro__}
    where = f"{PREFIX}{name}" + (f"@{revision}" if revision else "")
    if "GatedRepoError" in kinds:
        page = f"https://huggingface.co/{name}"
        return f"{where} is gated: accept its terms at {page} and run hf auth login"
    if "RevisionNotFoundError" in kinds:
        return f"{where}: the repository has no revision {revision!r}, leave @{revision} out"
    if "RepositoryNotFoundError" in kinds:
        return f"{where}: no such repository on the hub (if it is private, run hf auth login)"
    if "HFValidationError" in kinds:
        return f"{where} is not hf:owner/name: {reason(error)}"
    if kinds & _UNREACHABLE:
        return (
            f"{where} is not in the cache and the hub cannot be reached: check the network, "
            "or give a local folder"
        )
    return f"{where} could not be fetched ({type(error).__name__}): {reason(error)[:200]}"
