"""The shape of clips and what may pass between processes."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from spatial_ttt.errors import ConfigError
from spatial_ttt.scenes.homes import home_seed, make_home
from spatial_ttt.train.clip_types import KINDS, ClipSpec, categories


def test_times_and_grid_of_a_clip() -> None:
    spec = ClipSpec(num_slots=3, fps=2.0, width=128, height=96)
    assert (spec.num_frames, spec.grid) == (6, (3, 4))
    np.testing.assert_allclose(spec.times, [0, 0.5, 1, 1.5, 2, 2.5])
    np.testing.assert_allclose(spec.slot_times, [0.25, 1.25, 2.25])


@pytest.mark.parametrize(
    "wrong", [{"width": 100}, {"height": 33}, {"num_slots": 0}, {"fps": 0.0}], ids=str
)
def test_impossible_clips_are_refused(wrong) -> None:
    values = {"num_slots": 2, "fps": 2.0, "width": 64, "height": 32} | wrong
    with pytest.raises(ConfigError, match=r"multiple of 32 pixels|needs slots and a rate"):
        ClipSpec(**values)


def test_every_category_of_a_home_has_its_own_index() -> None:
    names = categories()
    assert names[0] == "building" and len(set(names)) == len(names) <= 256
    home = make_home(home_seed("val", 3), num_rooms=2)
    assert {item.category for item in home.scene.objects} <= set(names)
    assert len(set(KINDS)) == len(KINDS)


def test_workers_start_without_torch() -> None:
    code = "import sys, spatial_ttt.train.scene_worker; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
