"""Settings that contradict themselves are refused where they are made."""

from __future__ import annotations

import dataclasses

import pytest

from spatial_ttt.errors import ConfigError
from spatial_ttt.train.run_config import (
    DataConfig,
    FramesConfig,
    LoraConfig,
    RatesConfig,
    WindowConfig,
)
from tests.train import toy


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DataConfig(files=()), "names no file"),
        (lambda: DataConfig(files=("a",), packs_per_step=0), "packs_per_step"),
        (lambda: FramesConfig(fps=0.0), "fps must be above 0"),
        (lambda: FramesConfig(least=4, most=3), "least <= most"),
        (lambda: RatesConfig(learning_rate={"base": 1.0}), "base and ttt"),
        (lambda: RatesConfig(learning_rate={"base": -1.0, "ttt": 1.0}), "below 0"),
        (lambda: RatesConfig(learning_rate={"base": 1.0, "ttt": 1.0}, max_grad_norm=0), "positive"),
        (lambda: WindowConfig(first=0, epochs=1), "first >= 1"),
        (lambda: LoraConfig(alpha=0), "alpha > 0"),
    ],
)
def test_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


@pytest.mark.parametrize("field", ["epochs", "max_steps", "log_every", "save_every", "keep"])
def test_counts_are_positive(tmp_path, field):
    with pytest.raises(ConfigError, match=field):
        dataclasses.replace(toy.recipe(tmp_path, tmp_path), **{field: 0})
