#!/usr/bin/env python3
"""Draw what the attention heads of a DETR look at: python attention_scripts.py --help"""

import sys

from detr_viz.cli import main

if __name__ == "__main__":
    sys.exit(main())
