"""Pictures are written for what was measured, and only for that."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from spatial_ttt.bench import plots
from spatial_ttt.errors import ConfigError

FACTS = {"model": "test", "device": "CPU", "commit": "abc", "peak_gib": None}


def prefill(mode: str, frames: int, seconds: float | None, peak: float | None = None) -> dict:
    figures = {"frames": frames, "seconds_to_first_token": seconds, "peak_gib": peak}
    return FACTS | {"what": "prefill", "mode": mode} | figures


def test_pictures_of_what_is_there(tmp_path):
    lines = [prefill(m, f, f / 100, f / 50) for m in ("stock", "exact") for f in (128, 1024)]
    lines.append(prefill("stock", 8192, None))  # ran out of memory
    live = {"what": "live", "mode": "exact", "asks_every": 20, "all_seconds": [0.01, 0.02, 0.01]}
    written = plots.draw([*lines, FACTS | live], tmp_path)
    assert [path.name for path in written] == ["prefill.png", "memory.png", "live.png"]
    for path in written:
        pixels = np.asarray(Image.open(path).convert("RGB"))
        assert pixels.shape == (630, 960, 3) and pixels.std() > 10
    assert [p.name for p in plots.draw([prefill("exact", 8, 0.1)], tmp_path)] == ["prefill.png"]
    assert plots.draw([prefill("exact", 8, None)], tmp_path) == []


def test_nothing_to_draw_with_is_told(monkeypatch):
    plots.check_plotting()
    monkeypatch.setattr(plots, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="--plot needs matplotlib"):
        plots.check_plotting()
