"""Every benchmark, one after the other, and their ratios as one table in docs/performance.md.

python tests/benchmarks/all.py [--only SCRIPT ...] [--quick] [--print]

shares.py fills a second table there: where the time of a forward pass goes.

Takes about two hours on two CPUs, and means something only where nothing else runs. --only: these
scripts; the rows of the others stay. --quick: fewer pairs, half an hour; the rows say so. --print:
leave the page as it is.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE)]

import torch
from ratios import KEPT, ROOT, is_met

PAGE = ROOT / "docs/performance.md"
BEGIN, END = "<!-- ratios: python tests/benchmarks/all.py -->", "<!-- end of the ratios -->"
SCRIPTS = ("forward", "deformable", "batch", "startup", "figures", "explorer", "check", "adapters")
QUICK = {  # what --quick gives a script
    "forward": ["3"],
    "deformable": ["3"],
    "batch": ["--rounds", "1", "--images", "24"],
    "startup": ["5"],
    "figures": ["3"],
    "explorer": ["200"],
    "check": ["--rounds", "1", "--baselines", "12"],
    "adapters": ["5"],
    "shares": ["1"],
}
SHARES = "shares"
SHARES_BEGIN = "<!-- shares: python tests/benchmarks/shares.py -->"
SHARES_END = "<!-- end of the shares -->"
HEAD = "| measured | ratio | target | | with | script |\n|---|---|---|---|---|---|"


def ratios_of(script: str) -> dict[str, str]:
    """What a script measures, and the targets, without running it."""
    for node in ast.parse((HERE / f"{script}.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "RATIOS":
            return ast.literal_eval(node.value)
    raise SystemExit(f"{script}.py has no RATIOS")


def machine() -> str:
    """Processor, cores, software and day, in a few words."""
    model = platform.processor() or platform.machine()
    if (info := Path("/proc/cpuinfo")).exists():
        found = re.search(r"model name\s*:\s*(.+)", info.read_text())
        model = found[1].strip() if found else model
    model += f" ({torch.backends.cpu.get_cpu_capability()})"  # some names are of many generations
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} cores of {model}, torch {version('torch').split('+')[0]}, {date.today()}"


def run(script: str, machine: str, flags: Sequence[str]) -> dict[str, str]:
    """Run a script; name -> its row of the table."""
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder, "ratios")
        kept.touch()
        environment = {**os.environ, KEPT: str(kept)}
        command = [sys.executable, str(HERE / f"{script}.py"), *flags]
        done = subprocess.run(command, env=environment)
        if done.returncode:
            raise SystemExit(f"{script}.py: exit code {done.returncode}")
        lines = [json.loads(line) for line in kept.read_text().splitlines()]
    missing = {*ratios_of(script)} - {name for name, _, _ in lines}
    if missing:
        raise SystemExit(f"{script}.py did not measure {', '.join(sorted(missing))}")
    return {name: row(name, value, target, machine, script) for name, value, target in lines}


def row(name: str, value: float, target: str, machine: str, script: str) -> str:
    """A row of the table."""
    met = "" if not target else "yes" if is_met(value, target) else "**no**"
    shown = f"{value:.3f}" if value < 10 else f"{value:.0f}"
    return f"| {name} | {shown} | {target} | {met} | {machine} | `{script}.py` |"


def rows_in(page: str) -> dict[str, str]:
    """Name -> row of the table that the page has."""
    table = page.partition(BEGIN)[2].partition(END)[0]
    rows = re.findall(r"^\| ((?:[^|`])+?) \|.*$", table, re.MULTILINE)
    lines = re.findall(r"^\| .*$", table, re.MULTILINE)
    return {n: line for n, line in zip(rows, lines, strict=True) if n != "measured"}


def with_rows(page: str, rows: Mapping[str, str]) -> str:
    """The page with these rows, in the order of the scripts; rows of no script are dropped."""
    names = [name for script in SCRIPTS for name in ratios_of(script)]
    table = "\n".join([HEAD, *(rows[name] for name in names if name in rows)])
    return _between(page, BEGIN, END, table)


def _between(page: str, begin: str, end: str, table: str) -> str:
    before, _, rest = page.partition(begin)
    return f"{before}{begin}\n\n{table}\n\n{end}{rest.partition(end)[2]}"


def shares(machine: str, flags: Sequence[str]) -> str:
    """The table of shares.py, with the machine below it."""
    command = [sys.executable, str(HERE / f"{SHARES}.py"), *flags]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    rows = [line for line in done.stdout.splitlines() if line.startswith("|")]
    return "\n".join([*rows, "", f"{machine}."])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    every = (*SCRIPTS, SHARES)
    parser.add_argument("--only", nargs="+", choices=every, metavar="SCRIPT", default=every)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--print", action="store_true")
    args = parser.parse_args()
    here, measured = machine(), {}
    if args.quick:
        here += ", quick"
    for script in args.only:
        flags = QUICK[script] if args.quick else []
        print(f"== {script}.py", flush=True)
        if script == SHARES:
            table = shares(here, flags)
            print(table, flush=True)
            if not args.print:
                page = PAGE.read_text(encoding="utf-8")
                PAGE.write_text(_between(page, SHARES_BEGIN, SHARES_END, table), encoding="utf-8")
            continue
        measured |= run(script, here, flags)
        if not args.print:  # after each: a run that is stopped keeps what it has
            page = PAGE.read_text(encoding="utf-8")
            PAGE.write_text(with_rows(page, rows_in(page) | measured), encoding="utf-8")
    print("\n".join([HEAD, *measured.values()]))


if __name__ == "__main__":
    main()
