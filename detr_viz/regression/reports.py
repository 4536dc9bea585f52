"""Reports of a check: HTML, JUnit XML, JSON, annotations of GitHub Actions."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import detr_viz
from detr_viz.common.console import say
from detr_viz.common.files import OutputError, replacing
from detr_viz.heatmaps.compare import STATES, Outcome
from detr_viz.regression.tables import lines, why, worst

MOST_SHOWN = 100  # failed baselines whose maps the page shows; a map is a few hundred bytes there
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write(paths: dict[str, Path], outcomes: Sequence[Outcome]) -> Iterator[Path]:
    """Write the reports; in GitHub Actions also annotations and a summary of the step.

    Yields the path of each written report. OutputError at the end if one could not be written.
    """
    trouble: OutputError | None = None
    for kind, path in paths.items():
        text = {"report": _page, "junit": junit, "json": as_json}[kind](outcomes)
        try:
            with replacing(path, f"choose another --{kind}") as part:
                part.write_text(text, encoding="utf-8", errors="backslashreplace")
        except OutputError as error:
            trouble = trouble or error
        else:
            yield path
    if os.environ.get("GITHUB_ACTIONS") == "true":
        for outcome in outcomes:
            if not outcome.passed:
                say(_annotation(outcome))
        _add_summary(outcomes)
    if trouble is not None:
        raise trouble


def _page(outcomes: Sequence[Outcome]) -> str:
    from detr_viz.regression.page import page  # matplotlib's colours

    return page(outcomes)


def counts(outcomes: Sequence[Outcome]) -> dict[str, int]:
    """State -> number of outcomes."""
    states = [outcome.state for outcome in outcomes]
    return {state: states.count(state) for state in STATES}


def _failure_text(outcome: Outcome) -> str:
    """Why a baseline has not passed, on one line."""
    if outcome.verdict is None:
        return outcome.trouble
    return ". ".join(filter(None, (why(outcome.verdict), worst(outcome.verdict))))


# ---- JUnit, JSON --------------------------------------------------------------------------------


def junit(outcomes: Sequence[Outcome]) -> str:
    """JUnit XML: a difference is a failure, a baseline that could not run is an error."""
    by_state = counts(outcomes)
    numbers = {
        "name": "detr_viz",
        "tests": str(len(outcomes)),
        "failures": str(by_state["different"]),
        "errors": str(by_state["not run"]),
        "skipped": "0",
        "time": f"{sum(outcome.seconds for outcome in outcomes):.3f}",
    }
    suite = ElementTree.Element("testsuite", numbers)
    for outcome in outcomes:
        case = {"classname": "heatmaps", "name": _xml(outcome.name)}
        case["time"] = f"{outcome.seconds:.3f}"
        entry = ElementTree.SubElement(suite, "testcase", case)
        if not outcome.passed:
            kind = "error" if outcome.verdict is None else "failure"
            reason = {"message": _xml(_failure_text(outcome)), "type": outcome.state}
            text = outcome.verdict and "\n".join(lines(outcome.name, outcome.verdict))
            ElementTree.SubElement(entry, kind, reason).text = _xml(text or outcome.trouble)
    suites = ElementTree.Element("testsuites")
    suites.append(suite)
    ElementTree.indent(suites)
    return ElementTree.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"


def _xml(text: str) -> str:
    """The text without characters that XML does not allow."""
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)


def as_json(outcomes: Sequence[Outcome]) -> str:
    """Counts, and the numbers of each baseline; null for infinite numbers.

    heads: all heads above the limits, worst first; else the one with the largest change.
    parts: the same for mass off the map and for sampling points, if there are any.
    excess: the change divided by its limit, the largest if there are several limits.
    """
    report = {
        "detr_viz": detr_viz.__version__,
        "counts": counts(outcomes),
        "baselines": [_entry(outcome) for outcome in outcomes],
    }
    return json.dumps(_finite(report), indent=1, allow_nan=False) + "\n"


def _entry(outcome: Outcome) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": outcome.name, "state": outcome.state}
    verdict = outcome.verdict
    if verdict is None:
        return {**entry, "trouble": outcome.trouble}
    if not verdict.same:
        entry |= {"why": why(verdict), "gone": verdict.gone, "new": verdict.new}
        entry["queries"] = [asdict(change) for change in verdict.queries]
    entry |= {"changed": verdict.changed, "limits": asdict(verdict.limits)}
    far = [change for change in verdict.heads if change.excess > 1] or verdict.heads[:1]
    entry["heads"] = [asdict(change) for change in far]
    if verdict.parts:
        moved = [change for change in verdict.parts if change.excess > 1] or verdict.parts[:1]
        entry["parts"] = [asdict(change) for change in moved]
    return entry


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    return [_finite(entry) for entry in value] if isinstance(value, list | tuple) else value


# ---- GitHub Actions -----------------------------------------------------------------------------


def _annotation(outcome: Outcome) -> str:
    """A workflow command (docs.github.com, "Workflow commands": escapes of data, properties)."""
    text = _escaped(_failure_text(outcome))
    title = _escaped(f"heatmap {outcome.state}: {outcome.name}")
    return f"::error title={title.replace(':', '%3A').replace(',', '%2C')}::{text}"


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _add_summary(outcomes: Sequence[Outcome]) -> None:
    """Add a table of failed baselines to the step's summary."""
    path = os.environ.get("GITHUB_STEP_SUMMARY")
    if not path:
        return
    totals = ", ".join(f"{n} {state}" for state, n in counts(outcomes).items() if n)
    rows = [f"### Heatmaps: {totals}", ""]
    failed = [outcome for outcome in outcomes if not outcome.passed]
    if failed:
        rows += ["| baseline | | |", "|---|---|---|"]
        rows += [f"| {_cell(o.name)} | {o.state} | {_cell(_failure_text(o))} |" for o in failed]
    if os.path.lexists(path) and not os.path.isfile(path):
        return  # a pipe would wait for a reader
    with suppress(OSError), open(path, "a", encoding="utf-8", errors="backslashreplace") as file:
        file.write("\n".join(rows) + "\n")


def _cell(text: str) -> str:
    """Text for a table in Markdown, with every character of markup escaped."""
    return re.sub(r"([\\`*_{}\[\]<>()#+!|~-])", r"\\\1", " ".join(text.split()))
