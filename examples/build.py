"""Run tour.ipynb from top to bottom and store it with its outputs, without what changes by itself.

python examples/build.py              # after a change of a cell, or of what a cell shows
python examples/build.py --check      # run it, and compare its text with that which is stored

Needs nbclient and ipykernel (pip install -e ".[dev]").
"""

from __future__ import annotations

import argparse
import base64
import copy
import re
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import nbformat
from PIL import Image

HERE = Path(__file__).resolve().parent
TOUR = HERE / "tour.ipynb"
_PICTURE = re.compile(r'(src="data:image/png;base64,)([^"]*)"')
_PAGE_SIZE = re.compile(r"a page of [\d,]+ kB")  # of the explorer
_SECONDS = 300  # of one cell
_COLORS = 72  # of a stored picture


def run(notebook: Any) -> Any:
    """The notebook, run in a new kernel in this folder. CellExecutionError where a cell fails."""
    from nbclient import NotebookClient

    fresh = copy.deepcopy(notebook)
    client = NotebookClient(
        fresh,
        timeout=_SECONDS,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": str(HERE)}},
    )
    client.execute()
    return tidy(fresh)


def tidy(notebook: Any) -> Any:
    """Without times, versions and the page of the explorer; pictures once, not twice."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:02}"
        cell.metadata = {}
        if cell.cell_type == "code":
            cell.outputs = _joined(cell.outputs)
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            html = data.get("text/html", "")
            if "<iframe" in html:  # its text says what it is
                del data["text/html"]
            elif "data:image/png" in html:
                data.pop("image/png", None)
                data["text/html"] = _PICTURE.sub(lambda found: _small(*found.groups()), html)
            elif "image/png" in data:
                data["image/png"] = _fewer_colors(data["image/png"])
    return notebook


def _joined(outputs: list[Any]) -> list[Any]:
    """What is printed comes in pieces, by chance: as one."""
    found: list[Any] = []
    for output in outputs:
        if found and "text" in output and found[-1].get("name") == output.get("name"):
            found[-1]["text"] += output["text"]
        else:
            found.append(output)
    return found


def _small(before: str, data: str) -> str:
    return f'{before}{_fewer_colors(data)}"'


def _fewer_colors(data: str) -> str:
    """A PNG in base64 as one of a few colours: a notebook under version control should be small."""
    page = Image.open(BytesIO(base64.b64decode(data))).convert("RGB")
    file = BytesIO()
    page.quantize(_COLORS, kmeans=2, dither=Image.Dither.NONE).save(file, "png", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def texts(notebook: Any) -> list[list[str]]:
    """What each cell of code says: printed text, reprs, tables; of pictures that they are there."""
    found = []
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        words = []
        for output in cell.outputs:
            words.append(output.get("text", ""))
            for kind, data in sorted(output.get("data", {}).items()):
                text = kind if kind.startswith("image/") else _PICTURE.sub(r'\1"', data)
                words.append(_PAGE_SIZE.sub("a page", text))
        found.append(words)
    return found


def differences(stored: Any, now: Any) -> list[str]:
    """A line for each cell whose text is another."""
    lines = []
    for i, (old, new) in enumerate(zip(texts(stored), texts(now), strict=True)):
        if old != new:
            pair = [(a, b) for a, b in zip(old, new, strict=False) if a != b]
            was, now_is = pair[0] if pair else (f"{len(old)} outputs", f"{len(new)} outputs")
            lines.append(f"cell {i} of code: stored {was[:300]!r}, today {now_is[:300]!r}")
    return lines


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing, compare the text")
    check = parser.parse_args(argv).check
    stored = nbformat.read(TOUR, as_version=4)
    now = run(stored)
    if check:
        lines = differences(stored, now)
        print("\n".join(lines) or "the stored outputs are those of today")
        return 1 if lines else 0
    nbformat.validate(now)
    nbformat.write(now, TOUR)
    print(f"{TOUR.name}: {TOUR.stat().st_size / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
