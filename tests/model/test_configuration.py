"""Settings: none has a default, wrong ones are refused with what to do, saved ones come back equal."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import AutoConfig

from spatial_ttt.errors import ConfigError
from spatial_ttt.model.configuration import (
    SpatialTTTConfig,
    TTTConfig,
    check_window_covers_chunk,
    paper_ttt_config,
    state_dtype,
)
from spatial_ttt.testing.small import small_config


def test_no_field_has_a_default():
    with pytest.raises(TypeError):
        TTTConfig()
    with pytest.raises(ConfigError, match=r"ttt lacks layer_pattern, .*use_muon.*name it"):
        TTTConfig.from_dict({})
    values = paper_ttt_config().to_dict()
    for name in ("use_muon", "norm_placement"):
        with pytest.raises(ConfigError, match=f"ttt lacks {name}"):
            TTTConfig.from_dict({k: v for k, v in values.items() if k != name})


def test_an_unknown_field_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'chunk_size'"):
        paper_ttt_config(chunksize=3)
    with pytest.raises(ConfigError, match="known: layer_pattern"):
        paper_ttt_config(zzz=3)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"chunk_size": 0}, "ttt.chunk_size must be an integer of at least 1, got 0"),
        ({"chunk_size": 2.5}, "ttt.chunk_size must be an integer"),
        ({"window_size": True}, "ttt.window_size must be an integer"),
        ({"num_fast_heads": 0}, "ttt.num_fast_heads"),
        ({"low_rank": -1}, "ttt.low_rank"),
        ({"norm_placement": "middle"}, "ttt.norm_placement must be one of pre, post, got 'middle'"),
        ({"convolution": None}, "ttt.convolution must be one of centred, causal, none"),
        ({"newton_schulz_dtype": "float16"}, "ttt.newton_schulz_dtype"),
        ({"use_muon": 1}, "ttt.use_muon must be true or false, got 1"),
        ({"use_momentum": None}, "ttt.use_momentum"),
        ({"use_gate": "yes"}, "ttt.use_gate"),
        ({"base_lr": 0.0}, "ttt.base_lr must be positive"),
        ({"layer_pattern": ()}, "ttt.layer_pattern holds nothing"),
        ({"layer_pattern": ("ttt", "full")}, "ttt.layer_pattern holds \\['full'\\]"),
    ],
)
def test_wrong_values(changes, complaint):
    with pytest.raises(ConfigError, match=complaint):
        paper_ttt_config(**changes)


def test_the_pattern_repeats():
    config = paper_ttt_config()
    assert [i for i, t in enumerate(config.layer_types(28)) if t == "anchor"] == [
        3,
        7,
        11,
        15,
        19,
        23,
        27,
    ]


def test_hidden_size_must_be_heads_times_head_dim():
    values = small_config().to_dict()
    values["text_config"]["head_dim"] = 16
    with pytest.raises(ConfigError, match=r"got 4 \* 16 = 64 != 32"):
        SpatialTTTConfig(**{k: v for k, v in values.items() if k != "model_type"})


@pytest.mark.parametrize(
    ("heads", "complaint"),
    [(3, "does not divide into"), (8, "narrower than head_dim 8.*at most 4")],
)
def test_fast_heads_must_fit(heads, complaint):
    with pytest.raises(ConfigError, match=complaint):
        small_config(num_fast_heads=heads)


def test_a_window_smaller_than_a_chunk_leaves_a_gap():
    with pytest.raises(ConfigError, match=r"window_size 10 is smaller than ttt.chunk_size 24"):
        check_window_covers_chunk(paper_ttt_config(chunk_size=24, window_size=10))
    check_window_covers_chunk(paper_ttt_config(chunk_size=24, window_size=24))


def test_a_stock_configuration_names_no_rule():
    with pytest.raises(ConfigError, match="import it with an explicit rule"):
        _ = SpatialTTTConfig().ttt_config


def test_saved_and_loaded_it_is_equal(tmp_path):
    config = small_config(norm_placement="pre", low_rank=2, layer_pattern=("ttt", "anchor"))
    config.save_pretrained(str(tmp_path))
    loaded = AutoConfig.from_pretrained(str(tmp_path))
    assert isinstance(loaded, SpatialTTTConfig)
    assert loaded.ttt_config == config.ttt_config
    differing = {k for k, v in config.to_dict().items() if loaded.to_dict()[k] != v}
    assert differing <= {"_name_or_path", "architectures"}
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["ttt"]["norm_placement"] == "pre" and written["ttt"]["use_muon"] is True
    assert loaded.hybrid_layers == ("ttt", "anchor", "ttt", "anchor")


def test_states_are_kept_in_at_least_float32():
    kinds = (torch.bfloat16, torch.float16, torch.float32, torch.float64)
    assert [state_dtype(k) for k in kinds] == [torch.float32] * 3 + [torch.float64]
