"""python -m detr_viz: the same command as attention_scripts.py."""

import sys

from detr_viz.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
