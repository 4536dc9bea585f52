"""The HTML report: one file without scripts or links, which opens from a disk or an artifact."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import detr_viz
from detr_viz.heatmaps.changes import HeadChange, PartChange, QueryChange
from detr_viz.heatmaps.compare import Comparison, Outcome
from detr_viz.heatmaps.schema import Heatmaps
from detr_viz.regression.tables import part_words, where_of, why, worst

_MOST = 24  # heads of a baseline that are shown
_WIDE_PX = 144  # of a map on the page
_MAP, _CHANGE = "inferno", "RdBu_r"

_READING = (
    "Maps are the attention weights of one head for one query, before and after on one scale; "
    "differences are red where a weight grew and blue where it fell. Numbers: largest change of a "
    "weight (max), total variation (TV), Jensen-Shannon divergence in bits (JSD), shifts of peak "
    "and centre in cells."
)
_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1c1c1c; background: #fff;
  max-width: 62rem; margin: 2rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.5rem; margin: 0 0 .2rem; } p { margin: .3rem 0; }
.quiet { color: #5f5f5f; }
details { border: 1px solid #dcdcdc; border-radius: 6px; margin: .6rem 0; padding: .5rem .9rem;
  overflow-x: auto; }
summary { cursor: pointer; overflow-wrap: anywhere; }
.state { display: inline-block; min-width: 6.2em; font-weight: 600; }
.different { color: #a3330c; } .same { color: #276738; } .notrun { color: #7a5200; }
table { border-collapse: collapse; margin: .7rem 0; }
th { font-weight: 600; text-align: left; color: #5f5f5f; font-size: .85rem; }
th, td { padding: .2rem .8rem .2rem 0; vertical-align: top; }
td.n { text-align: right; font-variant-numeric: tabular-nums; }
.maps { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(29rem, 100%), 1fr)); }
figure { margin: 0; } figcaption { font-size: .88rem; margin-bottom: .2rem; }
figcaption span { display: block; }
.three { display: flex; gap: .5rem; flex-wrap: wrap; }
.three div { font-size: .78rem; color: #5f5f5f; }
img { display: block; image-rendering: pixelated; border: 1px solid #dcdcdc; }
"""


def page(outcomes: Sequence[Outcome]) -> str:
    """The whole document; failed baselines come first and open, the others folded."""
    failed = [outcome for outcome in outcomes if not outcome.passed]
    passed = [outcome for outcome in outcomes if outcome.passed]
    title = f"{len(failed)} of {len(outcomes)} baselines failed" if failed else "All baselines hold"
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    body = "\n".join(section for o in (*failed, *passed) for section in _section(o))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>Heatmaps: {escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{escape(title)}</h1>
<p class="quiet">detr_viz {escape(detr_viz.__version__)}. {_READING}</p>
{body}
</body>
</html>
"""


def _section(outcome: Outcome) -> Iterator[str]:
    verdict = outcome.verdict
    name = escape(outcome.name)
    if verdict is None:
        yield _details(outcome.state, name, f"<p>{escape(outcome.trouble)}</p>", opened=True)
        return
    if verdict.same:
        changed = "; ".join(verdict.changed)
        rest = f"<p class=quiet>{escape(changed)}</p>" if changed else ""
        used = f"<p>{verdict.used:.0%} of the limits used</p>"
        yield _details(outcome.state, name, used + rest, opened=False)
        return
    limits = verdict.limits
    allowed = (
        f"allowed: {limits.atol:g} of a weight, TV {limits.max_tv:g}, shifts {limits.max_shift:g}, "
        f"scores {limits.max_score:g}, box IoU from {limits.min_iou:g}"
    )
    parts = [f"<p>{escape(why(verdict))}</p><p class=quiet>{allowed}</p>", *_queries(verdict)]
    parts += _moved(verdict)
    if outcome.old is not None and outcome.new is not None:
        parts += _heads(verdict, outcome.old, outcome.new)
    elif text := worst(verdict):  # with very many failures the maps are not kept
        parts.append(f"<p>{escape(text)}</p>")
    yield _details(outcome.state, name, "\n".join(parts), opened=True)


def _details(state: str, name: str, content: str, opened: bool) -> str:
    kind = state.replace(" ", "")
    tag = "<details open>" if opened else "<details>"
    return (
        f"{tag}<summary><span class='state {kind}'>{state}</span> {name}"
        f"</summary>\n{content}\n</details>"
    )


def _queries(verdict: Comparison) -> Iterator[str]:
    for what, ids in (("gone", verdict.gone), ("new", verdict.new)):
        if ids:
            yield f"<p>Queries {what}: {', '.join(map(str, ids))}</p>"
    far = [change for change in verdict.queries if change.excess > 1]
    if far:
        head = "<tr><th>query<th>class<th>score<th>box IoU</tr>"
        yield f"<table>{head}{''.join(map(_query, far[:_MOST]))}</table>"
    if len(far) > _MOST:
        yield f"<p class=quiet>and {len(far) - _MOST} more</p>"


def _query(change: QueryChange) -> str:
    before, after = map(escape, change.labels)
    query = str(change.query)
    query += f" (now {change.other})" if change.other != change.query else ""
    label = before if before == after else f"{before} → {after}"
    scores = "{:.3f} → {:.3f}".format(*change.scores)
    return f"<tr><td>{query}<td>{label}<td>{scores}<td class=n>{change.iou:.3f}</tr>"


def _moved(verdict: Comparison) -> Iterator[str]:
    """A table of changes beside the maps: mass off the map, sampling points."""
    far = [change for change in verdict.parts if change.excess > 1]
    if far:
        where = "<th>stage" if verdict.stages else "<th>layer<th>head"
        head = f"<tr><th>mode{where}<th>query<th>what has moved</tr>"
        rows = "".join(_part(change, verdict.stages) for change in far[:_MOST])
        yield f"<table>{head}{rows}</table>"
    if len(far) > _MOST:
        yield f"<p class=quiet>and {len(far) - _MOST} more</p>"


def _part(change: PartChange, stages: bool) -> str:
    query = f"{change.query} {escape(change.label)}"
    head = "" if stages else f"<td class=n>{change.head}"
    return (
        f"<tr><td>{escape(change.mode)}<td class=n>{change.layer}{head}"
        f"<td>{query}<td>{part_words(change)}</tr>"
    )


def _heads(verdict: Comparison, old: Heatmaps, new: Heatmaps) -> Iterator[str]:
    far = [change for change in verdict.heads if change.excess > 1]
    if not far:
        return
    yield "<div class=maps>"
    for change in far[:_MOST]:
        yield _figure(change, old, new, verdict.stages)
    yield "</div>"
    if len(far) > _MOST:
        yield f"<p class=quiet>and {len(far) - _MOST} more</p>"


def _figure(change: HeadChange, old: Heatmaps, new: Heatmaps, stages: bool) -> str:
    before, after = _map(old, change, change.query), _map(new, change, change.other)
    most = max(float(before.max()), float(after.max()))
    apart = after - before
    largest = float(np.abs(apart).max())
    shown = (
        ("before", _picture(before, 0.0, most, _MAP)),
        ("after", _picture(after, 0.0, most, _MAP)),
        (f"difference, ±{largest:.2g}", _picture(apart, -largest, largest, _CHANGE)),
    )
    numbers = (
        f"max {change.max_abs:.2g} · TV {change.total_variation:.2g}"
        f" · JSD {change.jensen_shannon:.2g} · peak {change.peak_shift:.1f}"
        f" · centre {change.centroid_shift:.1f}"
    )
    where = f"{escape(change.mode)}, {where_of(change, stages)}"
    if change.level is not None:
        where += f", level {change.level}"
    title = f"<b>{where}</b>, query {change.query}"
    panels = "".join(f"<div>{image}{escape(words)}</div>" for words, image in shown)
    return (
        f"<figure><figcaption>{title} {escape(change.label)} "
        f"<span class=quiet>{numbers}</span></figcaption><div class=three>{panels}</div></figure>"
    )


def _map(maps: Heatmaps, change: HeadChange, query: int) -> NDArray[np.float32]:
    (place,) = np.flatnonzero(maps.query_ids == query)[:1]
    mode = change.mode
    arrays = maps.maps[mode] if change.level is None else maps.levels[mode][change.level]
    return arrays[place, change.head]


def _picture(values: NDArray, low: float, high: float, colors: str) -> str:
    """A map as an image with one pixel for each cell, which the page enlarges without blur."""
    from matplotlib import colormaps

    span = high - low or 1.0
    levels = np.clip(np.rint((values - low) / span * 255), 0, 255).astype(np.uint8)
    image = Image.fromarray(levels, "L").convert("P")
    palette = (colormaps[colors](np.arange(256))[:, :3] * 255).round().astype(np.uint8)
    image.putpalette(palette.tobytes())
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode()
    height = round(_WIDE_PX * values.shape[0] / values.shape[1])
    return f"<img width={_WIDE_PX} height={height} alt='' src='data:image/png;base64,{data}'>"
