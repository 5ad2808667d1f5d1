"""Ablations of the small model: python runs/variants.py --seeds 0 1 --at-once 20 -- --max-steps 1000 --workers 2."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from spatial_ttt.train.variants import main

if __name__ == "__main__":
    sys.exit(main())
