"""From the command line to a model and its optimizers."""

from __future__ import annotations

import pytest
import torch

from spatial_ttt.errors import ConfigError
from spatial_ttt.train.annealing import close_gates, gates_are_closed
from spatial_ttt.train.optim import GROUPS
from spatial_ttt.train.publish import save_model
from spatial_ttt.train.tiny import parse
from spatial_ttt.train.tiny_setup import (
    count_parameters,
    make_model,
    optim_config,
    pick_device,
    pick_dtype,
    start_workers,
)
from tests.train import clips


def test_a_fresh_model_follows_preset_seed_and_changes() -> None:
    chosen = parse(["--preset", "test", "--ttt", "chunk_size=64", "--ttt", "convolution=none",
                    "--ttt", "use_muon=false", "--seed", "3", "--gate-bias", "0.5",
                    "--attention", "hybrid"])  # fmt: skip
    model = make_model(chosen, clips.tokenizer(), None)
    config = model.config.ttt_config
    assert (config.chunk_size, config.convolution, config.use_muon) == (64, "none", False)
    assert model.config.video_token_id == clips.tokenizer().convert_tokens_to_ids("<|video_pad|>")
    gate = model.decoder.layers[0].self_attn.ttt_scale_proj
    assert (gate.bias == 0.5).all()
    again = make_model(chosen, clips.tokenizer(), None)
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True)
    )


def test_a_field_that_does_not_exist_is_refused() -> None:
    chosen = parse(["--preset", "test", "--ttt", "chunks=64"])
    with pytest.raises(ConfigError, match="no field 'chunks'"):
        make_model(chosen, clips.tokenizer(), None)


def test_a_change_without_a_value_is_refused() -> None:
    chosen = parse(["--preset", "test", "--ttt", "chunk_size"])
    with pytest.raises(ConfigError, match="--ttt chunk_size has no value"):
        make_model(chosen, clips.tokenizer(), None)


def test_a_resumed_model_has_the_weights_of_before_in_float32(tmp_path) -> None:
    model = clips.model(seed=4)
    save_model(model, clips.tokenizer(), tmp_path / "model", (32, 64))
    chosen = parse(["--preset", "test", "--resume", str(tmp_path / "model")])
    found = make_model(chosen, clips.tokenizer(), tmp_path / "model")
    weights = dict(found.named_parameters())
    for name, value in model.named_parameters():
        assert weights[name].dtype == torch.float32
        assert torch.equal(weights[name], value.detach().bfloat16().float())


def test_a_resumed_model_may_be_given_another_rule(tmp_path) -> None:
    model = clips.model(seed=4)
    save_model(model, clips.tokenizer(), tmp_path / "model", (32, 64))
    changes = ("convolution=none", "window_size=256", 'layer_pattern=["ttt"]')
    options = [word for change in changes for word in ("--ttt", change)]
    chosen = parse(["--preset", "test", "--resume", str(tmp_path / "model"), *options])
    found = make_model(chosen, clips.tokenizer(), tmp_path / "model")
    rule = found.config.ttt_config
    assert (rule.convolution, rule.window_size, rule.layer_pattern) == ("none", 256, ("ttt",))
    before, weights = dict(model.named_parameters()), dict(found.named_parameters())
    carried = before.keys() & weights.keys()
    assert all(
        torch.equal(weights[name], before[name].detach().bfloat16().float()) for name in carried
    )
    assert not any("conv_q" in name for name in weights)  # of the old model only
    assert any("fast_weights" in name for name in weights.keys() - carried)  # of the old anchors


def test_annealing_goes_on_from_closed_gates_only(tmp_path) -> None:
    folder = tmp_path / "model"
    words = ["--preset", "test", "--resume", str(folder), "--attention", "annealed"]
    model = clips.model(seed=4)
    save_model(model, clips.tokenizer(), folder, (32, 64))
    with pytest.raises(ConfigError, match="begins without fast weights"):
        make_model(parse(words), clips.tokenizer(), folder)
    close_gates(model)
    save_model(model, clips.tokenizer(), folder, (32, 64))
    assert gates_are_closed(make_model(parse(words), clips.tokenizer(), folder))


def test_a_resumed_run_is_told_how_it_attends_where_that_shrinks(capsys) -> None:
    with pytest.raises(SystemExit):
        parse(["--resume", "somewhere", "--shrink", "0.1", "0.3"])
    assert "say --attention annealed" in capsys.readouterr().err
    chosen = parse(["--resume", "somewhere", "--attention", "annealed", "--shrink", "0.1", "0.3"])
    assert (chosen.memory_from, chosen.shrink) == (0.3, [0.1, 0.3])
    assert parse([]).shrink == [0.35, 0.65]


def test_one_rate_for_all_groups() -> None:
    config = optim_config(parse(["--learning-rate", "3e-4", "--no-muon-optimizer"]))
    assert config.learning_rate == dict.fromkeys(GROUPS, 3e-4)
    assert config.use_muon is False and optim_config(parse([])).use_muon is True


def test_devices_and_precisions_by_name() -> None:
    assert pick_device("cpu") == clips.CPU
    assert pick_dtype("auto", clips.CPU) == torch.float32
    assert pick_dtype("auto", torch.device("cuda")) == torch.bfloat16
    assert pick_dtype("bfloat16", clips.CPU) == torch.bfloat16
    model = clips.model()
    assert count_parameters(model) == f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f} M"


def test_workers_get_the_tokenizer_and_the_papers_words(tmp_path) -> None:
    clips.tokenizer().save_pretrained(tmp_path)
    chosen = parse(["--workers", "1"])
    chosen.workers = 0  # processes are test_pool's
    source = start_workers(chosen, tmp_path / "tokenizer.json", clips.CPU)
    assert source.workers == [] and source.pump() == 0
    source.close()
