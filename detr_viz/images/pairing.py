"""Which annotation belongs to which image, by their names, where both lie anywhere.

pairs = pair(["a/train/1.jpg", "a/val/1.jpg"], ["labels/train/1.txt"], by_stem=True, title="labels")
[0, None]
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from detr_viz.common.errors import UserError
from detr_viz.common.files import path_text
from detr_viz.images.names import posix_path


def pair(
    images: Sequence[str], others: Sequence[str], *, by_stem: bool, title: str
) -> list[int | None]:
    """For each image the index of the annotation of its name; None where there is none.

    by_stem: names are compared without their suffix. Of several of one name, that whose folders
    share most names is taken. UserError where two do alike.
    """
    index: dict[str, list[int]] = {}
    for i, other in enumerate(others):
        index.setdefault(_key(other, by_stem), []).append(i)
    found: list[int | None] = []
    claims: dict[int, list[tuple[int, int]]] = {}
    for at, image in enumerate(images):
        near = index.get(_key(image, by_stem), [])
        shared = [len(_folders(image) & _folders(others[i])) for i in near]
        best = [i for i, n in zip(near, shared, strict=True) if n == max(shared)]
        if len(best) > 1:
            raise UserError(
                f"{title}: {path_text(others[best[0]])} and {path_text(others[best[1]])} may both "
                f"be about {path_text(image)}: give the folder that has one of them"
            )
        found.append(best[0] if best else None)
        if best:
            claims.setdefault(best[0], []).append((max(shared), at))
    for i, of_one in claims.items():
        most = max(shared for shared, _ in of_one)
        winners = [at for shared, at in of_one if shared == most]
        folders = {posix_path(images[at]).rpartition("/")[0] for at in winners}
        if len(folders) > 1:
            one, other = images[winners[0]], images[winners[-1]]
            raise UserError(
                f"{title}: {path_text(others[i])} may be about {path_text(one)} or "
                f"{path_text(other)}: give one of them at a time"
            )
        for shared, at in of_one:
            if shared < most:
                found[at] = None
    return found


def _key(path: str, by_stem: bool) -> str:
    last = posix_path(path).rpartition("/")[2]
    stem = last.rpartition(".")[0] if by_stem and "." in last else last
    return unicodedata.normalize("NFC", stem)


def _folders(path: str) -> set[str]:
    return {part for part in posix_path(path).split("/")[:-1] if part not in ("", ".", "..")}
