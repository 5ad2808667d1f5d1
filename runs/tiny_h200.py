"""The small model on one GPU, from scenes to weights: python runs/tiny_h200.py --minutes 8 --publish OUT."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from spatial_ttt.train.tiny import main

if __name__ == "__main__":
    sys.exit(main())
