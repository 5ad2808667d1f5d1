"""`python -m spatial_ttt.bench` is `spatial-ttt bench`."""

import sys

from spatial_ttt.cli import main

if __name__ == "__main__":
    sys.exit(main(["bench", *sys.argv[1:]]))
