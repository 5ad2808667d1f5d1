"""Ablations of the small model at one budget: python runs/variants.py --seeds 0 1 -- --minutes 2.5 --workers 14."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from spatial_ttt.train.variants import main

if __name__ == "__main__":
    sys.exit(main())
