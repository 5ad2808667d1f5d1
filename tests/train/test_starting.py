"""Where weights come from and where they go: presets, stock folders, trained folders, exports."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from spatial_ttt.errors import ConfigError
from spatial_ttt.loading import open_model
from spatial_ttt.testing.small import small_config, small_model, small_processor
from spatial_ttt.train.run_config import StartConfig, TrainConfig
from spatial_ttt.train.starting import count_parameters, export, start_model
from tests.train import toy


def starting_from(tmp_path, **start) -> TrainConfig:
    recipe = toy.recipe(tmp_path, tmp_path)
    frames = dataclasses.replace(recipe.data.frames, size=(32, 64))
    data = dataclasses.replace(recipe.data, frames=frames)
    return dataclasses.replace(recipe, data=data, start=StartConfig(**start))


@pytest.fixture(scope="module")
def stock(tmp_path_factory):
    """A stock Qwen3-VL folder."""
    folder = tmp_path_factory.mktemp("stock")
    values = small_config().to_dict()
    keep = ("text_config", "vision_config", "image_token_id", "video_token_id", "vision_start_token_id",
            "vision_end_token_id", "tie_word_embeddings")  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Qwen3VLForConditionalGeneration(Qwen3VLConfig(**{k: values[k] for k in keep}))
    model.save_pretrained(str(folder))
    small_processor().tokenizer.save_pretrained(str(folder))
    return folder


def test_a_preset_is_the_same_from_the_same_seed(tmp_path):
    config = starting_from(tmp_path, preset="test", gate_bias=0.5)
    first, processor = start_model(config)
    again, _ = start_model(config)
    other, _ = start_model(dataclasses.replace(config, seed=1))
    assert processor.frames.size == (32, 64)
    for (name, a), b in zip(first.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b), name
    assert any(
        not torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True)
    )
    assert all(p.dtype == torch.float32 for p in first.parameters())
    assert count_parameters(first)[0] == sum(p.numel() for p in first.parameters())


def test_a_stock_model_needs_its_rule_and_starts_with_closed_gates(tmp_path, stock):
    with pytest.raises(ConfigError, match=r"start\.ttt lacks use_muon, norm_placement"):
        start_model(starting_from(tmp_path, folder=str(stock)))
    rule = {"use_muon": True, "norm_placement": "post", "num_fast_heads": 2, "chunk_size": 24}
    config = starting_from(tmp_path, folder=str(stock), ttt=rule | {"window_size": 24})
    model, _ = start_model(config)
    gates = [p for n, p in model.named_parameters() if "ttt_scale_proj" in n]
    assert gates and not any(p.any() for p in gates)
    again, _ = start_model(config)
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True)
    )


def test_a_trained_model_keeps_its_rule(tmp_path):
    export(
        small_config(),
        dict(small_model().named_parameters()),
        small_processor(),
        tmp_path / "m",
        {},
    )
    model, _ = start_model(
        starting_from(tmp_path, folder=str(tmp_path / "m"), ttt={"chunk_size": 24})
    )
    assert model.config.ttt_config.chunk_size == 24
    with pytest.raises(ConfigError, match=r"was trained with chunk_size = 24, start\.ttt says 12"):
        start_model(starting_from(tmp_path, folder=str(tmp_path / "m"), ttt={"chunk_size": 12}))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_exported_is_what_is_opened(tmp_path, dtype):
    model = small_model()
    tensors = {name: p.detach().to(dtype) for name, p in model.named_parameters()}
    export(model.config, dict(tensors), small_processor(), tmp_path / "model", {"stage": 2})
    export(model.config, dict(tensors), small_processor(), tmp_path / "model", {"stage": 2})
    name = str(dtype).removeprefix("torch.")
    opened = open_model(tmp_path / "model", device="cpu", dtype=name).model
    assert opened.config.to_dict()["ttt"] == model.config.ttt and opened.dtype == dtype
    for key, value in opened.named_parameters():
        assert torch.equal(value, tensors[key]), key
    assert '"stage": 2' in (tmp_path / "model/training.json").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]
