"""Draws docs/images/home_SEED.jpg: twelve frames that show most of each home, without labels.

Use: python scripts/draw_homes.py 8 17 28
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # run from a plain checkout

from spatial_ttt.scenes.homes import make_home  # noqa: E402
from spatial_ttt.scenes.pictures import choose_frames, lay_out  # noqa: E402
from spatial_ttt.scenes.renderer import Renderer  # noqa: E402
from spatial_ttt.scenes.walk import walk  # noqa: E402

SIZE = (320, 240)


def draw(seed: int, drawn: Renderer) -> Path:
    """The sheet of one home."""
    home = make_home(seed)
    camera = walk(home, seed, fps=4.0, width=SIZE[0], height=SIZE[1])
    frames = choose_frames(drawn.visibility(home.parts, camera), 12)
    sheet = lay_out(drawn.render(home.parts, camera, frames).rgb, columns=4)
    path = ROOT / "docs" / "images" / f"home_{seed}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet).save(path, quality=88)
    return path


if __name__ == "__main__":
    with Renderer(*SIZE, samples=3) as drawn:
        for text in sys.argv[1:]:
            sys.stdout.write(f"{draw(int(text), drawn)}\n")
