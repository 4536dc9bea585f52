"""A fixture for pytest that compares attention maps with saved ones; installed with the package.

    def test_where_it_looks(heatmap_regression):
        heatmap_regression.check(explain(model, "image.jpg"), atol=0.01, max_tv=0.05)

The first run writes <test file>/<test>.npz and fails; from then on the maps must stay the same.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from detr_viz.common.files import printable
from detr_viz.heatmaps.limits import between, of_run

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from detr_viz.explanation.results import ExplanationBase
    from detr_viz.heatmaps.compare import Outcome
    from detr_viz.heatmaps.npz import Heatmaps

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
    """The outcomes of a test run; with pytest-xdist, of all its workers."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self.outcomes: list[Outcome] = []
        self.written: list[str] = []
        self.checked: dict[Path, str] = {}  # file -> the test that uses it
        self._report_lines: list[str] = []
        self._names: dict[Path, set[str]] = {}

    def names(self, node: Any, folder: Path) -> set[str]:
        """The names of all collected tests whose maps lie in a folder."""
        if not self._names:
            for item in node.session.items:
                if "heatmap_regression" in getattr(item, "fixturenames", ()):
                    self._names.setdefault(_folder_of(item), set()).add(_name_of(item))
        return self._names.get(folder, set())

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        data = getattr(node, "workeroutput", {}).get(_KEY)  # none where the worker crashed
        if data is not None:
            outcomes, written = pickle.loads(data)  # from a process of this very run
            self.outcomes += outcomes
            self.written += written

    def add(self, outcome: Outcome) -> None:
        """Keep an outcome; with its maps only if a page will show them."""
        from detr_viz.regression.reports import MOST_SHOWN

        shown = sum(known.old is not None for known in self.outcomes)
        has_page = self._config.getoption("heatmap_report") is not None
        keep = has_page and not outcome.passed and shown < MOST_SHOWN
        self.outcomes.append(outcome if keep else outcome.brief())

    def pytest_sessionfinish(self) -> None:
        output = getattr(self._config, "workeroutput", None)
        if output is not None:
            output[_KEY] = pickle.dumps((self.outcomes, self.written))
            return
        path = self._config.getoption("heatmap_report")
        if path and self.outcomes:
            from detr_viz.common.errors import UserError
            from detr_viz.common.files import replacing
            from detr_viz.regression.page import page

            try:
                with replacing(path, "choose another --heatmap-report") as part:
                    text = page(self.outcomes)
                    part.write_text(text, encoding="utf-8", errors="backslashreplace")
                self._report_lines.append(f"wrote {path}")
            except UserError as error:
                self._report_lines.append(f"error: {error}")

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        lines = [*(f"wrote {path}" for path in self.written), *self._report_lines]
        if lines:
            terminalreporter.section("heatmaps")
        for line in lines:
            terminalreporter.line(line)


@pytest.fixture
def heatmap_regression(request: pytest.FixtureRequest) -> HeatmapRegression:
    """See HeatmapRegression.check."""
    return HeatmapRegression(request)


class HeatmapRegression:
    """Compares the maps of one test with saved ones."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._request = request
        self._session: _Session = request.config.pluginmanager.get_plugin(_KEY)
        self._names: set[str] = set()

    def check(
        self,
        maps: ExplanationBase | Heatmaps | Mapping[str, NDArray],
        name: str | None = None,
        *,
        queries: Sequence[int] | None = None,
        modes: str | Sequence[str] | None = None,
        layer: int | None = None,
        store: str = "float32",
        **limits: float,
    ) -> None:
        """Fail if the maps differ from the saved ones by more than the limits.

        maps     an explanation; saved maps; or arrays (q, heads, h, w) by mode, whose maps sum to 1
        name     of the file; needed if a test checks more than once (default: the test's)
        queries, modes, layer   of an explanation (default: the queries of the saved file, else the
                 five best; all modes; the last layer captured)
        store    float32, or float16 for half the file
        limits   atol, max_tv, max_shift, min_iou, max_score; see heatmaps.limits.Limits
        If there is no saved file, it is written, and the test fails once. ValueError for wrong
        arguments.
        """
        __tracebackhide__ = True
        from detr_viz import heatmaps
        from detr_viz.heatmaps.compare import Outcome, judge
        from detr_viz.regression.tables import lines

        _check_limits(limits)
        path = self._path(name)
        label = f"{self._request.node.nodeid} {path.stem}"
        regen = self._request.config.getoption("heatmap_regen")
        old, trouble = None, "no saved maps yet"
        if path.exists():
            try:
                old = heatmaps.load(path)
            except heatmaps.HeatmapError as error:
                trouble = str(error)
        now = _as_heatmaps(maps, queries, modes, layer, old)
        if old is None:
            if regen or not path.exists():
                self._write(path, now, store)
            if regen:
                return
            self._session.add(Outcome(label, trouble=trouble))
            if trouble == "no saved maps yet":
                pytest.fail(f"no saved maps yet: wrote {path}; look at it and run again")
            pytest.fail(f"{trouble}; or let --heatmap-regen replace it")
        runs, says = (maps.meta.get("precision", "float32") for maps in (now, old))
        if says != runs and not regen:
            pytest.fail(
                f"{path} was made in {printable(says)[:40]}, and this test runs {runs}: "
                "--heatmap-regen rewrites it"
            )
        verdict = judge(old, now, of_run(runs, **limits))
        if regen and not verdict.same:
            self._write(path, now, store)
            return
        self._session.add(Outcome(label, path, verdict, old, now))
        if not verdict.same:
            text = "\n".join(lines(str(path), verdict))
            pytest.fail(
                f"the maps are not the same any more (--heatmap-regen rewrites them)\n{text}"
            )

    def _path(self, name: str | None) -> Path:
        """<test file>/<name>.npz; the default name is that of the test after that of its class."""
        from detr_viz.regression.baseline_names import baseline_path

        node = self._request.node
        folder = _folder_of(node)
        others = self._session.names(node, folder)
        path = baseline_path(folder, name or _name_of(node), others)
        other = self._session.checked.setdefault(path, node.nodeid)
        if path.stem in self._names or other != node.nodeid:
            whose = "this test" if other == node.nodeid else other
            raise ValueError(f"{whose} has checked {path.stem!r} already: give each check a name")
        self._names.add(path.stem)
        return path

    def _write(self, path: Path, maps: Heatmaps, store: str) -> None:
        from detr_viz import heatmaps

        heatmaps.write(path, maps, store, "see to the folder of the test")
        self._session.written.append(str(path))


def _name_of(node: Any) -> str:
    """The name of a test after that of its class."""
    classes = [part.name for part in node.listchain() if isinstance(part, pytest.Class)]
    return ".".join([*classes, node.name])


def _folder_of(node: Any) -> Path:
    """The folder of the maps that the tests of a file save."""
    test = Path(node.path)
    return test.parent / test.stem


def _check_limits(limits: Mapping[str, float]) -> None:
    """ValueError, before anything is written."""
    known = between({}, {}).__dict__
    for name, value in limits.items():
        if name not in known:
            raise ValueError(f"no limit {name!r}: there is {', '.join(known)}")
        most = float("inf") if name == "max_shift" else 1
        if not isinstance(value, int | float) or not 0 <= value <= most:
            raise ValueError(f"{name}={value!r} is no limit: a number from 0 to {most}")


def _as_heatmaps(
    maps: ExplanationBase | Heatmaps | Mapping[str, NDArray],
    queries: Sequence[int] | None,
    modes: str | Sequence[str] | None,
    layer: int | None,
    old: Heatmaps | None,
) -> Heatmaps:
    from detr_viz import heatmaps
    from detr_viz.explanation.results import ExplanationBase

    if isinstance(maps, ExplanationBase):
        chosen = maps.modes if modes is None else [modes] if isinstance(modes, str) else [*modes]
        if queries is not None:
            ids = [index(q) for q in queries]
        elif old is not None and old.meta.get("weights_sha256") == maps.meta["weights_sha256"]:
            ids = [int(q) for q in old.query_ids if q < maps.num_queries]
        else:
            ids = maps.by_score()[:5]
        if not ids or not chosen or len(set(ids)) < len(ids):
            raise ValueError("queries and modes: at least one of each, each query once")
        return heatmaps.of(maps, ids, chosen, layer=layer)
    if queries is not None or modes is not None or layer is not None:
        raise ValueError("queries, modes and layer are for an explanation")
    if isinstance(maps, heatmaps.Heatmaps):
        return maps
    if not isinstance(maps, Mapping):
        raise ValueError("an explanation, saved maps, or arrays by mode are needed")
    result = heatmaps.of_arrays(maps)
    if not len(result.query_ids):
        raise ValueError("maps of at least one query are needed")
    return result
