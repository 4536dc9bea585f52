"""What check says of changes that it must catch, and of changes that are none: the cases of
tests/mutations.py as a table of Markdown.

python tests/benchmarks/mutations.py [--python OTHER_PYTHON ...]

--python: interpreters with another torch (and this package's needs), which make the baseline.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path[0:1] = map(str, (HERE.parent, ROOT))  # and not this folder, whose file has the same name

import torch
from mutations import BASE, CAUGHT, IMAGE, PASSED, WEIGHTS, Case, fresh_project, tried


def row(case: Case) -> str:
    """A row of Markdown: the reasons and the worst head, as the JSON report has them."""
    with fresh_project():
        code, told = tried(case, "--json", "report.json")
        (entry,) = json.loads(Path("report.json").read_text())["baselines"]
    if bool(code) != bool(case.says) or not re.search(case.says, told):
        raise SystemExit(f"{case.name}: exit code {code}, {told}")
    said = entry.get("why") or entry.get("trouble") or entry["state"]
    heads = [head for head in entry.get("heads", ()) if head["excess"] > 1]
    if heads:
        worst = heads[0]
        said += "; worst: {mode}, layer {layer}, head {head}, query {query} {label}".format(**worst)
    return f"| {case.name} | {code} | {said} |"


def other_torch(python: str) -> Case:
    """The baseline is made by another interpreter."""
    version = subprocess.run(
        [python, "-c", "import torch; print(torch.__version__)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()

    def make() -> None:
        script = [python, str(ROOT / "attention_scripts.py"), "record", "--quiet", "--plot", "all"]
        where = ["--out", str(BASE), "--weights", str(WEIGHTS), "--image", str(IMAGE)]
        subprocess.run([*script, *where], check=True)

    return Case(f"made with torch {version}, checked with {torch.__version__}", files=make)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", nargs="+", default=[])
    args = parser.parse_args()
    print("| change | exit code | `check` says |\n|---|---|---|")
    for case in (*CAUGHT, *PASSED, *map(other_torch, args.python)):
        print(row(case), flush=True)


if __name__ == "__main__":
    main()
