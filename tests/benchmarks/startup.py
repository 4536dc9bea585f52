"""A whole run on the demo / the imports alone, whole processes, median of interleaved pairs.

    run       attention_scripts.py --type cd_detr --plot combine (one figure written)
    imports   python -c "import torch, torchvision, matplotlib"              target <= 1.5
    help      attention_scripts.py --help, seconds                           target < 0.3

python tests/benchmarks/startup.py [pairs]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SCRIPT = str(Path(__file__).resolve().parents[2] / "attention_scripts.py")


def seconds(*argv: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *argv], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    with tempfile.TemporaryDirectory() as folder:
        run = [SCRIPT, "--type", "cd_detr", "--plot", "combine", "--out", f"{folder}/figure.png"]
        imports = ["-c", "import torch, torchvision, matplotlib"]
        seconds(*run), seconds(*imports)  # files into the cache
        times = [(seconds(*run), seconds(*imports)) for _ in range(pairs)]
        answers = [seconds(SCRIPT, "--help") for _ in range(pairs)]
    ratio = statistics.median(a / b for a, b in times)
    ours, theirs = (statistics.median(column) for column in zip(*times, strict=True))
    print(f"run / imports: {ratio:.2f}  (medians {ours:.2f} s / {theirs:.2f} s)")
    print(f"help: {statistics.median(answers):.3f} s")


if __name__ == "__main__":
    main()
