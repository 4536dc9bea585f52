"""The files of an atlas are not replaced without a word by those of other settings."""

from __future__ import annotations

from conftest import ROOT, demo_model

from detr_viz import explain
from detr_viz.atlas.collect import AtlasOptions, write
from detr_viz.atlas.table import AtlasTable
from detr_viz.figures.styles import PageFormat, Style


def test_a_table_and_a_figure_of_other_settings(tmp_path):
    e = explain(demo_model("cd_detr"), str(ROOT / "image/scene_1.jpg"))

    def lines(style: Style, queries: list[int]) -> list[str]:
        table = AtlasTable("a", ["combine"], e.layers, e.num_heads, "mode")
        table.add(e, queries)
        options = AtlasOptions(tmp_path, (".png",), style, PageFormat.of(dpi=40))
        return [line for line in write(table, "a", options) if not line.startswith("note")]

    csv, png = tmp_path / "a.csv", tmp_path / "a.png"
    wrote = [f"wrote {csv}", f"wrote {png}"]
    plain, violet = Style(norm="query"), Style(norm="query", cmap="violet")
    of_figure = f"replaced {png}, which was drawn with other settings"
    assert lines(plain, [3, 11]) == lines(plain, [3, 11]) == wrote
    assert lines(violet, [3, 11]) == [wrote[0], of_figure, wrote[1]]
    of_table = f"replaced {csv}, which had other numbers"
    assert lines(violet, [11]) == [of_table, wrote[0], of_figure, wrote[1]]
