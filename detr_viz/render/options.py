"""How a run goes: where files go, how many images at a time, what is printed."""

from __future__ import annotations

from dataclasses import dataclass

from detr_viz.render.paths import MAPS, NUMBERS, OutputPaths, output_paths


@dataclass(frozen=True)
class RunOptions:
    """The flags of a run, except for models and recipe.

    out           a file, a folder, or None: outputs/
    formats       suffixes of figures, of numbers (.npz, .csv: each view has one of them) and of
                  pages (.html)
    save_maps     write numbers too
    caption       write a LaTeX file beside each figure
    show          open the figures in windows
    list_queries  print the tables of queries, draw nothing
    contact_sheet figures a page; None: no sheet
    resume        skip images that an earlier run drew
    shard         (i, n): part i of n of the images
    jobs          worker processes; None: as the machine has cores
    batch_size    images that share a forward pass; None: 1, 8 on a GPU
    engine        "local" or "ray";  ray_address: of the cluster, None: a local one
    """

    out: str | None = None
    formats: tuple[str, ...] = (".png",)
    save_maps: bool = False
    caption: bool = False
    show: bool = False
    list_queries: bool = False
    contact_sheet: int | None = None
    resume: bool = False
    shard: tuple[int, int] | None = None
    jobs: int | None = None
    batch_size: int | None = None
    engine: str = "local"
    ray_address: str | None = None
    quiet: bool = False
    traceback: bool = False

    @property
    def suffixes(self) -> tuple[str, ...]:
        """The suffixes of files in a folder; .npz stands for numbers of any kind."""
        figures = tuple(suffix for suffix in self.formats if suffix not in NUMBERS)
        return (*figures, MAPS) if self.saves_numbers else figures

    @property
    def saves_numbers(self) -> bool:
        return self.save_maps or bool({*self.formats} & {*NUMBERS})

    @property
    def tag(self) -> str:
        """The part of the names of tables that tells shards apart."""
        return f"{self.shard[0]}-of-{self.shard[1]}" if self.shard else ""

    @property
    def paths(self) -> OutputPaths:
        return output_paths(self.out, self.suffixes, self.caption, self.tag)
