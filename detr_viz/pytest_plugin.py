"""A fixture for pytest that holds attention maps against saved ones; installed with the package.

    def test_where_it_looks(heatmap_regression):
        heatmap_regression.check(explain(model, "image.jpg"), max_tv=0.05)

The first run writes <test file>/<test>.npz and fails; from then on the maps must stay the same.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from detr_viz.findings import Findings
    from detr_viz.heatmaps import Heatmaps
    from detr_viz.regression.verdict import Outcome

_KEY = "detr_viz_heatmaps"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("heatmaps", "attention maps (detr_viz)")
    group.addoption(
        "--heatmap-regen",
        action="store_true",
        help="rewrite the saved maps that are not the same any more, or missing",
    )
    group.addoption(
        "--heatmap-report", metavar="FILE.html", help="a page with the maps of what failed"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(_Session(config), _KEY)


class _Session:
    """What became of all maps of a test run; with pytest-xdist, of all its workers."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self.outcomes: list[Outcome] = []
        self.written: list[str] = []
        self._said: list[str] = []  # of the report

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        data = getattr(node, "workeroutput", {}).get(_KEY)  # none where the worker crashed
        if data is not None:
            outcomes, written = pickle.loads(data)  # from a process of this very run
            self.outcomes += outcomes
            self.written += written

    def pytest_sessionfinish(self) -> None:
        output = getattr(self._config, "workeroutput", None)
        if output is not None:
            output[_KEY] = pickle.dumps((self.outcomes, self.written))
            return
        path = self._config.getoption("heatmap_report")
        if path:
            from detr_viz.errors import UserError
            from detr_viz.files import replacing
            from detr_viz.regression.page import page

            try:
                with replacing(path, "choose another --heatmap-report") as part:
                    part.write_text(page(self.outcomes), encoding="utf-8")
                self._said.append(f"wrote {path}")
            except UserError as error:
                self._said.append(f"error: {error}")

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        said = [*(f"wrote {path}" for path in self.written), *self._said]
        if said:
            terminalreporter.section("heatmaps")
        for line in said:
            terminalreporter.line(line)


@pytest.fixture
def heatmap_regression(request: pytest.FixtureRequest) -> HeatmapRegression:
    """See HeatmapRegression.check."""
    return HeatmapRegression(request)


class HeatmapRegression:
    """Maps of one test against those that were saved."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._request = request
        self._session: _Session = request.config.pluginmanager.get_plugin(_KEY)
        self._names: set[str] = set()

    def check(
        self,
        maps: Findings | Heatmaps | Mapping[str, NDArray],
        name: str | None = None,
        *,
        queries: Sequence[int] | None = None,
        modes: Sequence[str] | None = None,
        layer: int | None = None,
        store: str = "float32",
        **limits: float,
    ) -> None:
        """Fail where maps are further from the saved ones than the limits allow.

        maps     an explanation; saved maps; or arrays (q, heads, h, w) by mode, whose maps sum to 1
        name     of the file; needed where a test checks more than once (default: the test's)
        queries, modes, layer   of an explanation (default: the five best, all, the last captured)
        store    float32, or float16 for half the file
        limits   atol, max_tv, max_shift, min_iou; as regression.limits.Limits has them
        Without a saved file it is written, and the test fails once. ValueError for wrong arguments.
        """
        __tracebackhide__ = True
        from detr_viz import heatmaps
        from detr_viz.regression.limits import between
        from detr_viz.regression.tables import lines
        from detr_viz.regression.verdict import Outcome, judge

        between({}, {}, **limits)  # a wrong name is told before anything is written
        path = self._path(name)
        now = _as_heatmaps(maps, queries, modes, layer)
        regen = self._request.config.getoption("heatmap_regen")
        if not path.exists():
            self._write(path, now, store)
            if not regen:
                pytest.fail(f"no saved maps yet: wrote {path}; look at it and run again")
            return
        old = heatmaps.load(path)
        verdict = judge(old, now, between(old.meta, now.meta, **limits))
        outcome = Outcome(f"{self._request.node.nodeid} {path.stem}", path, verdict, old, now)
        failed = not verdict.same and not regen
        self._session.outcomes.append(outcome if failed else outcome.brief())
        if verdict.same:
            return
        if regen:
            self._write(path, now, store)
            return
        told = "\n".join(lines(str(path), verdict))
        pytest.fail(f"the maps are not the same any more (--heatmap-regen rewrites them)\n{told}")

    def _path(self, name: str | None) -> Path:
        stem = re.sub(r"[^\w.-]+", "_", name or self._request.node.name).strip("_.") or "maps"
        if stem in self._names:
            raise ValueError(f"this test has checked {stem!r} already: give each check a name")
        self._names.add(stem)
        test = Path(self._request.node.path)
        return test.parent / test.stem / f"{stem}.npz"

    def _write(self, path: Path, maps: Heatmaps, store: str) -> None:
        from detr_viz import heatmaps

        heatmaps.write(path, maps, store)
        self._session.written.append(str(path))


def _as_heatmaps(
    maps: Findings | Heatmaps | Mapping[str, NDArray],
    queries: Sequence[int] | None,
    modes: Sequence[str] | None,
    layer: int | None,
) -> Heatmaps:
    from detr_viz import heatmaps
    from detr_viz.findings import Findings

    if isinstance(maps, Findings):
        ids = maps.by_score()[:5] if queries is None else queries
        return heatmaps.of(maps, ids, maps.modes if modes is None else modes, layer=layer)
    if queries is not None or modes is not None or layer is not None:
        raise ValueError("queries, modes and layer are for an explanation")
    return maps if isinstance(maps, heatmaps.Heatmaps) else heatmaps.of_arrays(maps)
