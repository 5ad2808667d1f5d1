"""Low-rank updates: nothing at the start, only they train, merged they are plain weights."""

from __future__ import annotations

import pytest
import torch

from spatial_ttt.errors import ConfigError
from spatial_ttt.loading import open_model
from spatial_ttt.testing.small import small_model
from spatial_ttt.train.checkpointing import Checkpoints
from spatial_ttt.train.lora import LoraLinear, add_lora, merge_lora
from spatial_ttt.train.run_config import LoraConfig
from spatial_ttt.train.trainer import train
from tests.train import toy

IDS = torch.arange(20)[None] + 60


def test_fresh_updates_change_nothing_and_merge_to_what_they_compute():
    plain, model = small_model(), small_model()
    config = LoraConfig(rank=2, alpha=4.0)
    assert add_lora(model, config, seed=0) == 4 * 7
    with torch.no_grad():
        assert torch.equal(model(IDS).logits, plain(IDS).logits)
        for module in model.modules():
            if isinstance(module, LoraLinear):
                module.lora_up.normal_(std=0.1)
        changed = model(IDS).logits
        assert float((changed - plain(IDS).logits).abs().max()) > 1e-2
        merged = merge_lora(dict(model.named_parameters()), config)
        plain.load_state_dict(
            merged | {"lm_head.weight": merged["model.language_model.embed_tokens.weight"]}
        )
        assert float((plain(IDS).logits - changed).abs().max()) < 1e-4


def test_targets_are_checked():
    with pytest.raises(ConfigError, match="names z_proj, which no decoder layer has"):
        add_lora(small_model(), LoraConfig(rank=2, targets=("q_proj", "z_proj")), seed=0)


def test_a_run_trains_updates_and_branches_only(tmp_path):
    data = toy.write_data(tmp_path / "data", count=4)
    start = train(toy.recipe(data, tmp_path / "base", max_steps=1), 1).folder / "model"
    changes = {"start": {"folder": str(start), "ttt": {}}, "lora": {"rank": 2}}
    recipe = toy.recipe(data, tmp_path / "lora", max_steps=2, **changes)
    # The toy recipe's own ttt fields are the start's: they stay as they are.
    outcome = train(recipe, 2)
    before = open_model(start, device="cpu").model.state_dict()
    after = open_model(outcome.folder / "model", device="cpu").model.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert any(".q_proj.weight" in name for name in moved)
    assert any("conv_q" in name for name in moved) and any("lr_proj" in name for name in moved)
    frozen = ("visual", "embed_tokens", "norm.weight", "layernorm.weight")
    still = {
        name for name in before if any(part in name for part in frozen) and "ttt_norm" not in name
    }
    assert still and not moved & still
    newest = Checkpoints(outcome.folder / "checkpoints", None, 1).newest()  # type: ignore[arg-type]
    assert newest is not None and newest.name == "step-00000002"
