"""Draw the pictures of the pages again: python docs/pictures.py [--out docs/images] [NAME ...]

Each is a command of the tool, or a script of library.md, so that the pictures show what a reader
gets. `photo_layout` needs a full-size network: its weights are filled by a rule and were not
trained, so only its layout means anything.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

DPI = 220  # wide enough for the page of a repository
_FILLED = "<filled>"  # stands for the checkpoint that is filled by a rule
_SCENES = "<scenes>"  # stands for a folder with held-out scenes and their instances.json

# Name of the picture -> arguments of the command.
PICTURES = {
    **{
        f"{name}_{mode}_feature_image": f"--type {kind} --plot {mode}"
        for name, kind in (("detr", "detr"), ("conditional_detr", "cd_detr"))
        for mode in ("combine", "position", "content")
    },
    "detr_terms_feature_image": "--type detr --plot terms --queries top:1",
    "faithfulness": "--type cd_detr --faithfulness --plot all --queries top:3",
    "decoder_self_attention": "--type detr --attention decoder --queries score:0.9",
    "encoder_points": "--type cd_detr --attention encoder --heads mean "
    "--points 340,150 100,200 190,200",
    "ablation": "--type cd_detr --ablate content position head:3 --queries top:1",
    "style_contour": "--type cd_detr --plot position --style contour --queries top:2 "
    "--image image/scene_4.jpg",
    "style_heat": "--type cd_detr --plot position --style heat --norm query --queries top:2 "
    "--image image/scene_4.jpg",
    "compare_position": "--type detr cd_detr --plot position --queries top:2 "
    "--image image/scene_2.jpg",
    "deformable_detr_points": "--type deformable_detr --plot combine --queries top:2 "
    "--image image/scene_3.jpg",
    "efficient_detr_proposals": "--type efficient_detr --plot proposals",
    "anchor_detr_patterns": "--type anchor_detr --queries anchor:17",
    "salience_detr_salience": "--type salience_detr --plot salience",
    "sparse_rcnn_stages": "--type sparse_rcnn --queries top:2 --image image/scene_2.jpg",
    "dynamic_detr_scales": "--type dynamic_detr --plot scales",
    "layers": "--type cd_detr --layer all --image image/scene_3.jpg",
    "missed_objects": f"--type detr --image {_SCENES}/scene_0015.png "
    f"--annotations {_SCENES}/instances.json --queries missed",
    "photo_layout": f"--type cd_detr --weights {_FILLED} --queries 91,34 "
    "--image image/photo_coffee.jpg",
}


OWN = {"two_panels": "library.md"}  # name -> the page with the script that saves <name>.pdf


def script(name: str) -> str:
    """The code block of a page that saves a figure of one's own."""
    text = (ROOT / "docs" / OWN[name]).read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (found,) = [block for block in blocks if f'savefig("{name}.pdf")' in block]
    return found


def draw_own(name: str, out: Path) -> Path:
    """Run the script of a page as it stands there, but for the file, and draw <out>/<name>.png."""
    import os

    import matplotlib

    matplotlib.use("Agg")
    out.mkdir(parents=True, exist_ok=True)
    target, before = out.resolve() / f"{name}.png", Path.cwd()
    code = script(name).replace(f'"{name}.pdf"', f"{str(target)!r}, dpi={DPI}")
    os.chdir(ROOT)
    try:
        exec(compile(code, name, "exec"), {})
    finally:
        os.chdir(before)
    return target


def filled_checkpoint(folder: Path) -> Path:
    """An official-format checkpoint of Conditional DETR R50, filled by the rule of the tests."""
    sys.path[:0] = [str(ROOT / "tests")]
    import torch
    from conftest import filled_state_dict

    path = folder / "conditional_detr_r50_filled.pth"
    torch.save({"model": filled_state_dict("cond_r50")}, path)
    return path


def with_scenes(argv: Sequence[str], folder: Path) -> list[str]:
    """The arguments with a folder of scenes, which is written if they name it."""
    from detr_viz.demo import scenes

    if any(_SCENES in word for word in argv):
        scenes.write(folder, 16)
    return [word.replace(_SCENES, str(folder)) for word in argv]


def draw(name: str, out: Path, more: Sequence[str] = ()) -> Path:
    """Draw one picture as <out>/<name>.png; more: further flags, such as --dpi."""
    if name in OWN:
        return draw_own(name, out)
    from detr_viz import cli

    with tempfile.TemporaryDirectory() as folder:
        more = more or ("--dpi", str(DPI))
        argv = [str(ROOT / a) if a.startswith("image/") else a for a in PICTURES[name].split()]
        if _FILLED in argv:
            argv[argv.index(_FILLED)] = str(filled_checkpoint(Path(folder)))
        argv = with_scenes(argv, Path(folder, "scenes"))
        # into a folder: a view may write a second figure beside the first
        code = cli.main([*argv, *more, "--out", f"{folder}/figures/", "--quiet"])
        if code:
            raise SystemExit(code)
        first = min(Path(folder, "figures").glob("*.png"), key=lambda path: len(path.name))
        out.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copyfile(first, out / f"{name}.png"))


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw the pictures of the pages again.")
    names = [*PICTURES, *OWN]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names)}")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/images", metavar="FOLDER")
    args = parser.parse_args()
    if unknown := [name for name in args.names if name not in names]:
        parser.error(f"no picture {unknown[0]!r}: choose from {', '.join(names)}")
    for name in args.names or names:
        print(draw(name, args.out))


if __name__ == "__main__":
    main()
