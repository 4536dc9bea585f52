"""The table of docs/your_model.md: every detector of the installed transformers, tiny and random.

python docs/adapters_table.py           # writes it into docs/your_model.md
"""

from __future__ import annotations

import re
import sys
import warnings
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


def row(model_type: str) -> str:
    """One line of the table."""
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
    return "| " + " | ".join([*cells, ", ".join(e.modes), ", ".join(views(e, kinds))]) + " |"


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
    """Write the table between its marks."""
    head = "| model | model_type | sites | residual | of all sites | split | modes | views |"
    lines = [f"transformers {transformers.__version__}:", "", head, "|" + "---|" * 8]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for model_type in tiny.installed_types():
            lines.append(row(model_type))
            print(lines[-1], flush=True)
    page = HERE / "your_model.md"
    text = re.sub(
        r"(<!-- table -->\n).*?(<!-- end of table -->)",
        lambda m: m[1] + "\n".join(lines) + "\n" + m[2],
        page.read_text(),
        flags=re.DOTALL,
    )
    if "--print" not in sys.argv:
        page.write_text(text)


if __name__ == "__main__":
    main()
