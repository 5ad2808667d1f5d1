"""Wrong options are told before anything is loaded."""

from __future__ import annotations

import pytest

from spatial_ttt.bench import plan as planning
from spatial_ttt.bench.plan import BenchPlan, frame_size, whole_numbers, words
from spatial_ttt.errors import ConfigError


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"frames": (128, 129)}, "--frames wants even numbers .* got 129"),
        ({"frames": (0,)}, "at least 2"),
        ({"bounded_frames": 7201}, "--bounded-frames wants even"),
        ({"measures": ("bounded",), "bounded_frames": 64}, "four pieces of 16"),
        ({"modes": ("stok",)}, "--modes has no 'stok'; did you mean 'stock'"),
        ({"measures": ("speed",)}, "--what has no 'speed'; known: prefill, question"),
        ({"measures": ()}, "--what names nothing"),
        ({"engine": "fast"}, "--engine has no 'fast'"),
        ({"modes": ("stock",), "measures": ("live",)}, "live is measured in the modes exact, bounded"),
        ({"repeats": 0}, "--repeats must be at least 1, got 0"),
        ({"slots_per_piece": -1}, "--slots-per-piece must be at least 1"),
        ({"peak_tflops": 0.0}, "--peak-tflops must be positive"),
    ],
)  # fmt: skip
def test_what_cannot_be_measured_is_refused(wrong, told):
    with pytest.raises(ConfigError, match=told):
        BenchPlan(**wrong)


def test_jobs_run_one_mode_after_the_other():
    plan = BenchPlan(measures=("prefill", "bounded", "live"), modes=("bounded", "stock", "exact"))
    assert plan.jobs == [
        ("bounded", "prefill"),
        ("bounded", "bounded"),
        ("bounded", "live"),
        ("stock", "prefill"),
        ("exact", "prefill"),
        ("exact", "live"),
    ]


def test_lists_of_words_and_numbers():
    assert words("exact, bounded exact") == ("exact", "bounded")
    assert whole_numbers("frames", "1024,128 128") == (128, 1024)
    assert frame_size("352x480") == (352, 480)
    for text in ("12a", "", "1.5"):
        with pytest.raises(ConfigError, match="--frames"):
            whole_numbers("frames", text)
    for text in ("352", "352x", "-1x3", "1x2x3"):
        with pytest.raises(ConfigError, match="HEIGHTxWIDTH"):
            frame_size(text)


def test_a_library_without_the_stock_model_is_told(monkeypatch):
    monkeypatch.setattr(planning, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="leave stock out"):
        BenchPlan(modes=("stock", "exact"))
    BenchPlan(modes=("exact",))
