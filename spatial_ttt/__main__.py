"""`python -m spatial_ttt` is `spatial-ttt`."""

import sys

from spatial_ttt.cli import main

if __name__ == "__main__":
    sys.exit(main())
