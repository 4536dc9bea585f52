"""The tables of docs/your_model.md: every detector of the installed transformers, tiny and random.

python docs/adapters_table.py           # writes them into docs/your_model.md
python docs/adapters_table.py --line    # with another version of transformers: its line alone
"""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "tests" / "adapters")]

import numpy as np  # noqa: E402
import tiny_models as tiny  # noqa: E402
import transformers  # noqa: E402

from detr_viz import explain  # noqa: E402
from detr_viz.adapters.read import checked  # noqa: E402
from detr_viz.adapters.run import run  # noqa: E402
from detr_viz.adapters.transformers_models import detector_of  # noqa: E402
from detr_viz.adapters.transformers_types import TYPES  # noqa: E402
from detr_viz.common.errors import UserError  # noqa: E402
from detr_viz.explanation import rollout  # noqa: E402
from detr_viz.explanation.faithfulness import faithfulness  # noqa: E402

RGB = np.random.default_rng(1).integers(0, 255, (60, 80, 3), np.uint8)


def row(model_type: str) -> tuple[str, float, float]:
    """(one line of the table, its largest residual, its largest split error)."""
    network, processor = tiny.model(model_type), tiny.processor_of(model_type)
    detector = detector_of(network, processor, tiny.PROMPTS.get(model_type))
    kinds = dict.fromkeys(kind for kind, _ in detector.attention_sites())
    e = explain(detector, RGB, layers="all", sites=[k for k in kinds if k != "cross"])
    counts = ", ".join(f"{sum(k == kind for k, _ in e.sites)} {kind}" for kind in kinds)
    prepared = detector.prepare(RGB[None])[0]
    errors = []
    for call in run(network, prepared, detector._found).calls:
        if any(role.is_call(call) for role in detector._roles.values()):
            errors += [p.error for p in checked(call, 0)[2] if p is not None]
    two_ways = [error for error in errors if error is not None]
    split = f"{max(two_ways):.0e}" if two_ways else ("one way" if errors else "-")
    split = split if len(e.modes) > 1 else "-"
    worst = max(value for value in tiny.residuals(e).values())
    cross = max(e.residuals.values())
    cells = [
        TYPES[model_type].title,
        f"`{model_type}`",
        counts,
        f"{cross:.0e}",
        f"{worst:.0e}",
        split,
    ]
    line = "| " + " | ".join([*cells, ", ".join(e.modes), ", ".join(views(e, kinds))]) + " |"
    return line, worst, max(two_ways, default=0.0)


def views(e, kinds) -> list[str]:
    """What works, tried one by one."""
    tries = {
        "maps": lambda: e.maps(),
        "encoder": lambda: e.attention(("encoder", 0), rows=[0]),
        "decoder": lambda: e.attention(("decoder", 0)),
        "ablation": lambda: e.ablate("head:0"),
        "faithfulness": lambda: faithfulness(e, [0], orders=1),
        "rollout": lambda: rollout.of_queries(e, [0]),
    }
    found = []
    for name, attempt in tries.items():
        if name in ("encoder", "decoder") and name not in kinds:
            continue
        try:
            attempt()
        except UserError:
            continue
        found.append(name)
    return found


def main() -> None:
    """Write the table between its marks, and the line of this version."""
    head = "| model | model_type | sites | residual | of all sites | split | modes | views |"
    lines = [f"transformers {transformers.__version__}:", "", head, "|" + "---|" * 8]
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for model_type in tiny.installed_types():
            line, *found[model_type] = row(model_type)
            lines.append(line)
            print(line, flush=True)
    page = HERE / "your_model.md"
    text = page.read_text()
    if "--line" not in sys.argv:
        text = between(text, "table", lambda _: "\n".join(lines) + "\n")
    page.write_text(between(text, "versions", lambda old: with_line(old, found)))


def with_line(table: str, found: dict) -> str:
    """The table of versions with the line of the one that is installed, newest first."""
    head = ["| transformers | model types | largest residual | largest split error | not there |"]
    head.append("|---|---|---|---|---|")
    rows = [line for line in table.splitlines() if re.match(r"\| \d", line)]
    version = transformers.__version__
    rows = [line for line in rows if not line.startswith(f"| {version} ")]
    residual, split = (max(numbers) for numbers in zip(*found.values(), strict=True))
    missing = ", ".join(f"`{name}`" for name in TYPES if name not in found) or "-"
    cells = [version, str(len(found)), f"{residual:.0e}", f"{split:.0e}", missing]
    rows.append("| " + " | ".join(cells) + " |")
    rows.sort(key=lambda line: [int(n) for n in line.split()[1].split(".")], reverse=True)
    return "\n".join([*head, *rows]) + "\n"


def between(text: str, mark: str, change: Callable[[str], str]) -> str:
    """The text with what lies between two marks changed."""
    whole = rf"(<!-- {mark} -->\n)(.*?)(<!-- end of {mark} -->)"
    return re.sub(whole, lambda m: m[1] + change(m[2]) + m[3], text, flags=re.DOTALL)


if __name__ == "__main__":
    main()
