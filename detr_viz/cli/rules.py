"""All rules of flags that do not go together, as one table; checked before the work starts."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from detr_viz.attention.terms import ALL_TERMS, PROPOSALS, SALIENCE, SCALE_PLOT
from detr_viz.cli.look_rules import LOOK_RULES
from detr_viz.cli.page_rules import PAGE_RULES
from detr_viz.cli.token_rules import TOKEN_RULES
from detr_viz.common.errors import UserError
from detr_viz.images import collect
from detr_viz.render import views
from detr_viz.render.paths import NUMBERS, PAGE, check_out, is_folder
from detr_viz.render.views import CROSS

_FOR_MANY = ("resume", "shard", "contact_sheet", "jobs", "batch_size", "ray_address")
_OWN_FLAGS = ("rollout", "faithfulness")  # of views


@dataclass(frozen=True)
class Flags:
    """The flags of the render command, and what follows from them."""

    args: argparse.Namespace

    @cached_property
    def sites(self) -> list[str]:
        """The sites of --attention, each once."""
        return list(dict.fromkeys(self.args.attention or ()))

    @cached_property
    def views(self) -> list[str]:
        """The names of the views to draw."""
        if self.args.rollout:
            return ["rollout_encoder" if self.sites == ["encoder"] else "rollout"]
        if self.draws_proposals:
            return [PROPOSALS]
        if self.draws_salience:
            return [SALIENCE]
        if self.draws_scales:
            return [SCALE_PLOT]
        if self.args.faithfulness:
            return ["faithfulness"]
        return self.sites or [CROSS]

    @cached_property
    def other_view(self) -> str:
        """The flag of the first view beside the cross-attention maps; "" where there is none."""
        names = [name for name in self.views if name != CROSS]
        return views.REGISTRY[names[0]].words(names[0]) if names else ""

    @property
    def several_models(self) -> bool:
        of_weights = max(len(self.args.type or ()), len(self.args.weights or ()))
        return of_weights + len(self.args.model or ()) > 1

    @property
    def several_images(self) -> bool:
        return self.args.image is not None and not collect.is_single(self.args.image)

    @property
    def is_batch(self) -> bool:
        """Whether this is a batch: several images, or a flag that only batches have."""
        if self.args.list_queries:
            return False
        batch_flag = any(getattr(self.args, name) for name in _FOR_MANY)
        return batch_flag or self.args.engine == "ray" or self.several_images

    @property
    def draws_terms(self) -> bool:
        return self.args.plot == ALL_TERMS

    @property
    def draws_proposals(self) -> bool:
        return self.args.plot == PROPOSALS

    @property
    def draws_salience(self) -> bool:
        return self.args.plot == SALIENCE

    @property
    def draws_scales(self) -> bool:
        return self.args.plot == SCALE_PLOT

    @property
    def merged_heads(self) -> bool:
        """Whether heads are sorted or merged."""
        return isinstance(self.args.heads, str)

    @property
    def formats(self) -> set[str]:
        return set(self.args.format or (".png",))

    @property
    def one_file(self) -> bool:
        return bool(self.args.out) and not is_folder(self.args.out)

    @property
    def is_tiff(self) -> bool:
        figures = {Path(self.args.out).suffix.lower()} if self.one_file else self.formats
        return figures - {*NUMBERS, PAGE} <= {".tif", ".tiff"}

    @property
    def no_figure(self) -> bool:
        if self.one_file:
            return Path(self.args.out).suffix.lower() == PAGE
        return self.formats <= {*NUMBERS, PAGE}

    @property
    def writes_page(self) -> bool:
        return self.no_figure if self.one_file else PAGE in self.formats


Rule = tuple[Callable[[Flags], object], str | Callable[[Flags], str]]

# A test for a wrong combination, and its message; the first that applies is reported.
RULES: tuple[Rule, ...] = (
    (
        lambda f: f.args.ablate_in is not None and not (f.args.ablate or f.args.faithfulness),
        "--ablate-in is for --ablate and --faithfulness: give one of them too",
    ),
    (
        lambda f: f.args.ablate and f.args.list_queries,
        "--ablate draws: leave --list-queries out",
    ),
    (
        lambda f: f.args.ablate and (f.args.layer != "last" or f.args.biography is not None),
        "--ablate shows the last layer: leave --layer and --biography out",
    ),
    *LOOK_RULES,
    (
        lambda f: f.args.model and f.args.classes and not (f.args.type or f.args.weights),
        "--classes is for --weights: give attach() the class_names of a --model",
    ),
    # ---- views -----------------------------------------------------------------------------------
    (
        lambda f: f.args.rollout and f.args.faithfulness,
        "--rollout and --faithfulness are figures of their own: one at a time",
    ),
    (
        lambda f: f.args.points and "encoder" not in f.sites,
        "--points are for --attention encoder, where cells look at cells",
    ),
    (
        lambda f: len(f.views) > 1 and f.one_file,
        lambda f: (
            f"--out {f.args.out} is one file, but {' and '.join(f.views)} make one each: "
            "give a folder"
        ),
    ),
    (
        lambda f: f.other_view and f.several_models,
        lambda f: f"{f.other_view} is for one model: give one --type or --weights",
    ),
    (
        lambda f: f.other_view and f.draws_terms,
        lambda f: f"--plot terms is not for {f.other_view}: leave one of them out",
    ),
    (
        lambda f: f.other_view and f.args.biography is not None,
        lambda f: f"--biography is not for {f.other_view}: leave one of them out",
    ),
    (
        lambda f: f.other_view and f.args.ablate and CROSS not in f.views,
        lambda f: f"--ablate is not for {f.other_view}: leave one of them out",
    ),
    (
        lambda f: f.other_view and f.args.list_queries,
        lambda f: f"--list-queries is not for {f.other_view}: leave one of them out",
    ),
    # ---- encoder, decoder ------------------------------------------------------------------------
    (
        lambda f: (
            f.args.points and f.args.queries is not None and not {CROSS, "decoder"} & {*f.sites}
        ),
        "--points and --queries both choose the points: give one of them",
    ),
    (
        lambda f: "decoder" in f.views and f.args.style not in (None, "overlay"),
        lambda f: (
            f"--style {f.args.style} is for maps of the image: with --attention decoder leave it "
            "out"
        ),
    ),
    (
        lambda f: "decoder" in f.views and f.args.interpolation,
        "--interpolation is for maps of the image: with --attention decoder leave it out",
    ),
    (
        lambda f: "decoder" in f.views and f.args.zoom not in ("auto", "none"),
        "--zoom would cut off boxes that are attended to: with --attention decoder leave it out",
    ),
    # ---- rollout ---------------------------------------------------------------------------------
    (
        lambda f: f.args.rollout and len(f.sites) > 1,
        "--rollout starts at queries or at points: give --attention one of them",
    ),
    (
        lambda f: f.args.rollout and not {*f.sites} <= {CROSS, "encoder"},
        lambda f: f"there is no --rollout of --attention {f.sites[0]}: give cross or encoder",
    ),
    (
        lambda f: f.args.rollout and f.args.plot != "combine",
        "--rollout takes the weights as they are used: leave --plot and --terms out",
    ),
    (
        lambda f: f.args.rollout and f.args.heads is not None,
        "--rollout takes the mean of the heads: leave --heads out",
    ),
    (
        lambda f: f.args.rollout and f.args.layer != "last",
        "--rollout goes through all layers: leave --layer out",
    ),
    (
        lambda f: f.args.rollout and f.args.scale != "mode",
        "--rollout takes the weights as they are used: leave --scale out",
    ),
    # ---- faithfulness ----------------------------------------------------------------------------
    (
        lambda f: f.args.faithfulness and {*f.sites} - {CROSS},
        "--faithfulness is about cross-attention: leave --attention out",
    ),
    (
        lambda f: f.args.faithfulness and f.args.heads is not None,
        "--faithfulness ranks cells by the mean of the heads: leave --heads out",
    ),
    (
        lambda f: f.args.faithfulness and f.args.layer != "last",
        "--faithfulness ranks cells by the last layer (--ablate-in: hides in): leave --layer out",
    ),
    (
        lambda f: f.args.faithfulness and f.args.zoom not in ("auto", "none"),
        "--faithfulness hides cells of the whole photo and shows all of it: leave --zoom out",
    ),
    *TOKEN_RULES,
    *PAGE_RULES,
    # ---- outputs ---------------------------------------------------------------------------------
    (
        lambda f: not f.args.list_queries and f.args.format and f.one_file,
        lambda f: (
            f"--out {f.args.out} has its format in its name: give a folder, or leave --format out"
        ),
    ),
    (
        lambda f: not f.args.list_queries and f.args.caption and f.no_figure,
        "--caption is for figures: add png, pdf or another picture to --format",
    ),
    (
        lambda f: not f.args.list_queries and f.args.caption and f.is_tiff,
        "--caption is for LaTeX, which reads no TIFF: write .pdf, .png, .jpg or .eps",
    ),
    (
        lambda f: not f.args.list_queries and f.args.show and f.is_batch,
        "--show is for one image: leave it out, the figures are in --out",
    ),
    (
        lambda f: not f.args.list_queries and f.args.show and f.no_figure,
        "--show is for figures: add png, pdf or another picture to --format",
    ),
    (
        lambda f: not f.args.list_queries and f.args.contact_sheet and ".png" not in f.formats,
        "--contact-sheet is made of the PNG files: add png to --format",
    ),
    (
        lambda f: (
            not f.args.list_queries and f.args.ray_address is not None and f.args.engine != "ray"
        ),
        "--ray-address is for --engine ray",
    ),
    (
        lambda f: f.args.ablate and f.args.plot != "combine",
        "--ablate shows the attention as it is used: leave --plot and --terms out",
    ),
)


def check(flags: Flags) -> None:
    """UserError for the first rule of the render command that is broken, or for a bad --out."""
    if not flags.args.list_queries:
        check_out(flags.args.out, flags.is_batch)
    for is_wrong, words in RULES:
        if is_wrong(flags):
            raise UserError(words if isinstance(words, str) else words(flags))
