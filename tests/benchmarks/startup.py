"""The first second: whole processes, medians of interleaved pairs.

run      attention_scripts.py --type cd_detr --plot combine (one figure written) / the imports
check    attention_scripts.py check of four baselines / the imports
help     attention_scripts.py --help, seconds

The imports are python -c "import torch, torchvision, matplotlib". Byte code is cached, as it is
after the first run of an installed package.

python tests/benchmarks/startup.py [pairs]
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path[:0] = [str(HERE)]

from ratios import in_pairs, keep, seconds

RATIOS = {
    "startup: a demo run / imports": "<= 0.80",
    "startup: check of four baselines / imports": "<= 0.80",
    "startup: --help, seconds": "<= 0.30",
}
SCRIPT = str(ROOT / "attention_scripts.py")


def run(*argv: str) -> None:
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run([sys.executable, *argv], check=True, stdout=subprocess.DEVNULL, env=env)


def main() -> None:
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    imports = ["-c", "import torch, torchvision, matplotlib"]
    with tempfile.TemporaryDirectory() as folder:
        demo = [SCRIPT, "--type", "cd_detr", "--plot", "combine", "--out", f"{folder}/figure.png"]
        found = in_pairs(lambda: run(*demo), lambda: run(*imports), pairs)
    keep(RATIOS, "startup: a demo run / imports", found.median, found)
    check = [SCRIPT, "check", str(ROOT / "tests/heatmaps")]
    found = in_pairs(lambda: run(*check), lambda: run(*imports), pairs)
    keep(RATIOS, "startup: check of four baselines / imports", found.median, found)
    answers = sorted(seconds(lambda: run(SCRIPT, "--help")) for _ in range(pairs))
    keep(RATIOS, "startup: --help, seconds", answers[len(answers) // 2])


if __name__ == "__main__":
    main()
