"""Checkpoints: ours, a stock Qwen3-VL, the authors' layout; single and sharded; strict both ways."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageTextToText,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

from spatial_ttt.checkpoint import import_checkpoint, load_model, read_off
from spatial_ttt.errors import CheckpointError, ConfigError
from spatial_ttt.model.modeling import SpatialTTTForConditionalGeneration
from spatial_ttt.testing.small import small_model
from tests.model.prompts import kinds

PROMPT = kinds()["two videos"].arguments()
RULE = {"use_muon": True, "norm_placement": "post"}
SIZES = {"chunk_size": 24, "window_size": 24, "newton_schulz_dtype": "float32"}


def logits(model) -> Tensor:
    with torch.no_grad():
        return model(**PROMPT).logits


# ---- ours


@pytest.mark.parametrize("shard", ["1GB", "30KB"])
@pytest.mark.parametrize("ttt", [{}, {"low_rank": 2, "norm_placement": "pre", "use_muon": False}])
def test_saved_and_loaded_nothing_differs(tmp_path, shard, ttt):
    model = small_model(**ttt)
    model.save_pretrained(str(tmp_path), max_shard_size=shard)
    assert (tmp_path / "model.safetensors.index.json").exists() == (shard == "30KB")
    for loaded in (
        load_model(tmp_path),
        SpatialTTTForConditionalGeneration.from_pretrained(tmp_path),
        AutoModel.from_pretrained(tmp_path),
        AutoModelForImageTextToText.from_pretrained(str(tmp_path)),
    ):
        assert isinstance(loaded, SpatialTTTForConditionalGeneration) and not loaded.training
        assert torch.equal(logits(loaded), logits(model))
        assert loaded.config.ttt_config == model.config.ttt_config
        assert loaded.lm_head.weight is loaded.get_input_embeddings().weight
    assert AutoConfig.from_pretrained(tmp_path).ttt == model.config.ttt


def test_precision_is_kept_or_as_asked(tmp_path):
    small_model().bfloat16().save_pretrained(str(tmp_path))
    assert load_model(tmp_path).dtype == torch.bfloat16
    wide = load_model(tmp_path, dtype=torch.float32)
    assert {p.dtype for p in wide.parameters()} == {torch.float32}


def edit(folder: Path, change) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


CONV = "model.language_model.layers.0.self_attn.conv_q.weight"


@pytest.mark.parametrize("load", [load_model, AutoModel.from_pretrained], ids=["ours", "auto"])
def test_missing_extra_and_misshapen_tensors(tmp_path, load):
    small_model().save_pretrained(str(tmp_path))
    edit(tmp_path, lambda t: t.pop(CONV))
    with pytest.raises(CheckpointError, match=rf"lacks 1 tensors \({CONV}\)"):
        load(tmp_path)
    edit(
        tmp_path, lambda t: t.update({CONV: torch.zeros(32, 1, 3, 3, 3), "odd.one": torch.zeros(1)})
    )
    with pytest.raises(CheckpointError, match=r"has unknown 1 tensors \(odd\.one\)"):
        load(tmp_path)
    edit(
        tmp_path, lambda t: t.pop("odd.one") is None or t.update({CONV: torch.zeros(2, 1, 3, 3, 3)})
    )
    with pytest.raises(CheckpointError, match="another shape"):
        load(tmp_path)


def test_folders_that_are_not_ours(tmp_path):
    with pytest.raises(CheckpointError, match=r"cannot read .*config\.json"):
        load_model(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text('{"model_type": "qwen3_vl"}')
    with pytest.raises(CheckpointError, match="run `spatial-ttt import-checkpoint`"):
        load_model(tmp_path)


def test_a_configuration_without_its_rule_or_with_a_wrong_one(tmp_path):
    small_model().save_pretrained(str(tmp_path))
    path = tmp_path / "config.json"
    saved = json.loads(path.read_text())
    for field, value, complaint in (
        ("use_muon", None, "ttt lacks use_muon"),
        ("norm_placement", "sideways", "ttt.norm_placement must be one of pre, post"),
        ("chunk_size", 100, "window_size 24 is smaller than"),
    ):
        ttt = dict(saved["ttt"]) | {field: value}
        path.write_text(
            json.dumps(saved | {"ttt": {k: v for k, v in ttt.items() if v is not None}})
        )
        with pytest.raises(ConfigError, match=complaint):
            load_model(tmp_path)


@pytest.mark.parametrize("length", [0, 5, 300, -1])
def test_truncated_weights(tmp_path, length):
    small_model().save_pretrained(str(tmp_path))
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(CheckpointError, match="cannot read the weights"):
        load_model(tmp_path)


def test_a_missing_shard(tmp_path):
    small_model().save_pretrained(str(tmp_path), max_shard_size="30KB")
    sorted(tmp_path.glob("model-*.safetensors"))[2].unlink()
    with pytest.raises(CheckpointError, match="cannot read the weights"):
        load_model(tmp_path)


# ---- stock Qwen3-VL


def stock_config(tied: bool = True) -> dict:
    """As the published files write it: rotary settings under their old names, the flag to tie twice."""
    config = small_model().config.to_dict()
    text = config["text_config"]
    rope = text.pop("rope_parameters")
    text |= {
        "rope_theta": rope["rope_theta"],
        "rope_scaling": {"mrope_interleaved": True, "mrope_section": rope["mrope_section"], "rope_type": "default"},
        "tie_word_embeddings": tied,
    }  # fmt: skip
    keep = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    return {
        "architectures": ["Qwen3VLForConditionalGeneration"],
        "model_type": "qwen3_vl",
        "text_config": text,
        "vision_config": config["vision_config"],
        "tie_word_embeddings": tied,
        **{k: config[k] for k in keep},
    }


def write(folder: Path, tensors: dict[str, Tensor], config: dict, shards: int = 1) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    tensors = {k: v.clone().contiguous() for k, v in tensors.items()}
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return folder
    weight_map = {}
    for number in range(shards):
        name = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        part = {k: v for i, (k, v) in enumerate(sorted(tensors.items())) if i % shards == number}
        save_file(part, folder / name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, name)
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def stock_tensors(tied: bool = True, seed: int = 0) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    theirs = Qwen3VLForConditionalGeneration(Qwen3VLConfig(**stock_config(tied)))
    tensors = theirs.state_dict()
    if tied:
        tensors.pop("lm_head.weight")
    return tensors


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("tied", [True, False])
def test_a_stock_model_stays_itself_while_the_window_covers_everything(tmp_path, tied, shards):
    tensors = stock_tensors(tied)
    folder = write(tmp_path / "stock", tensors, stock_config(tied), shards)
    ours = import_checkpoint(folder, **RULE, num_fast_heads=2, chunk_size=8, window_size=4096)
    assert ours.config.hybrid_layers == ("ttt", "ttt", "ttt", "anchor")
    assert ours.config.text_config.rope_parameters["rope_theta"] == 1e4
    assert (ours.lm_head.weight is ours.get_input_embeddings().weight) == tied
    theirs = Qwen3VLForConditionalGeneration.from_pretrained(folder).eval()
    types = torch.where(PROMPT["input_ids"] == 262, 2, 0)
    with torch.no_grad():
        expected = theirs(**PROMPT, mm_token_type_ids=types).logits
    assert float((logits(ours) - expected).abs().max()) <= 1e-4
    # Saved as one of ours, it is loaded without another word.
    ours.save_pretrained(str(tmp_path / "ours"))
    assert torch.equal(logits(load_model(tmp_path / "ours")), logits(ours))


def test_the_rule_has_no_default(tmp_path):
    folder = write(tmp_path / "stock", stock_tensors(), stock_config())
    for incomplete in ({}, {"use_muon": True}, {"norm_placement": "pre"}):
        with pytest.raises(TypeError):
            import_checkpoint(folder, **incomplete)
    with pytest.raises(ConfigError, match="norm_placement must be one of pre, post, got 'both'"):
        import_checkpoint(folder, use_muon=True, norm_placement="both", num_fast_heads=2)
    for use_muon in (True, False):
        for placement in ("pre", "post"):
            model = import_checkpoint(
                folder, use_muon=use_muon, norm_placement=placement, num_fast_heads=2
            )
            ttt = model.config.ttt_config
            assert (ttt.use_muon, ttt.norm_placement) == (use_muon, placement)


def test_strict_about_a_stock_model(tmp_path):
    tensors = stock_tensors()
    name = "model.language_model.layers.1.self_attn.q_norm.weight"
    folder = write(tmp_path / "a", {k: v for k, v in tensors.items() if k != name}, stock_config())
    with pytest.raises(CheckpointError, match=rf"lacks 1 tensors \({name}\)"):
        import_checkpoint(folder, **RULE, num_fast_heads=2)
    folder = write(tmp_path / "b", tensors | {"model.extra": torch.zeros(1)}, stock_config())
    with pytest.raises(CheckpointError, match=r"has unknown 1 tensors \(model\.extra\)"):
        import_checkpoint(folder, **RULE, num_fast_heads=2)
    folder = write(tmp_path / "c", tensors | {name: torch.zeros(9)}, stock_config())
    with pytest.raises(
        CheckpointError, match=rf"{name} has shape \[9\], the configuration wants \[8\]"
    ):
        import_checkpoint(folder, **RULE, num_fast_heads=2)
    untied = {k: v for k, v in stock_tensors(tied=False).items() if k != "lm_head.weight"}
    folder = write(tmp_path / "d", untied, stock_config(tied=False))
    with pytest.raises(CheckpointError, match=r"lacks 1 tensors \(lm_head\.weight\)"):
        import_checkpoint(folder, **RULE, num_fast_heads=2)


def test_folders_that_cannot_be_imported(tmp_path):
    folder = write(tmp_path / "a", {}, {"model_type": "llama"})
    with pytest.raises(CheckpointError, match="holds a 'llama' model; wanted qwen3_vl"):
        import_checkpoint(folder, **RULE)
    folder = write(tmp_path / "b", {}, {"model_type": "qwen3_vl"})
    with pytest.raises(CheckpointError, match="lacks text_config, vision_config"):
        import_checkpoint(folder, **RULE)
    (tmp_path / "c").mkdir()
    (tmp_path / "c/config.json").write_text(json.dumps(stock_config()))
    with pytest.raises(CheckpointError, match=r"holds neither model\.safetensors nor"):
        import_checkpoint(tmp_path / "c", **RULE)
    (tmp_path / "c/model.safetensors").write_bytes(b"\x08\x00")
    with pytest.raises(CheckpointError, match="copy the file again"):
        import_checkpoint(tmp_path / "c", **RULE)
    config = stock_config()
    config["text_config"]["head_dim"] = 16
    folder = write(tmp_path / "d", stock_tensors(), config)
    with pytest.raises(ConfigError, match=r"4 \* 16 = 64 != 32"):
        import_checkpoint(folder, **RULE, num_fast_heads=2)


# ---- the authors' layout, names as their checkpoint has them

TTT_NAMES = {
    "q_proj.weight": "attn_layer.q_proj.weight", "k_proj.weight": "attn_layer.k_proj.weight",
    "v_proj.weight": "attn_layer.v_proj.weight", "o_proj.weight": "attn_layer.o_proj.weight",
    "q_norm.weight": "attn_layer.q_norm.weight", "k_norm.weight": "attn_layer.k_norm.weight",
    "fast_weights.gate": "w0", "fast_weights.down": "w1", "fast_weights.up": "w2",
    "fast_weights.gate_left": "w0.w_left", "fast_weights.gate_right": "w0.w_right",
    "fast_weights.up_left": "w2.w_left", "fast_weights.up_right": "w2.w_right",
    "momentum_proj.weight": "momentum_proj.0.weight", "momentum_proj.bias": "momentum_proj.0.bias",
}  # fmt: skip
SAME = ("q_scale", "k_scale", "q_offset", "k_offset", "lr_proj.weight", "lr_proj.bias", "ttt_scale_proj.weight",
        "ttt_scale_proj.bias", "ttt_norm.weight", "conv_q.weight", "conv_k.weight", "conv_v.weight")  # fmt: skip


def authors_tensors(model) -> dict[str, Tensor]:
    """Our model's tensors under the authors' names, as listed in their checkpoint."""
    tensors, types = {}, model.config.hybrid_layers
    for name, value in model.state_dict().items():
        prefix, mark, last = name.partition(".self_attn.")
        if mark and types[int(prefix.rpartition(".")[2])] == "ttt":
            assert last in TTT_NAMES or last in SAME, last
            name = prefix + mark + TTT_NAMES.get(last, last)
        tensors[name] = value
    return tensors


@pytest.mark.parametrize("shards", [1, 2])
@pytest.mark.parametrize("head", ["tied", "written too"])
@pytest.mark.parametrize("low_rank", [0, 3])
def test_the_authors_layout(tmp_path, shards, head, low_rank):
    source = small_model(low_rank=low_rank, norm_placement="pre")
    tensors = authors_tensors(source)
    layer = "model.language_model.layers.0.self_attn."
    names = {k.removeprefix(layer) for k in tensors if k.startswith(layer)}
    assert len(names) == (17 if not low_rank else 19) + 6
    if head == "tied":
        tensors.pop("lm_head.weight")
    folder = write(tmp_path / "authors", tensors, stock_config(), shards)
    model = import_checkpoint(folder, use_muon=True, norm_placement="pre", **SIZES)
    assert model.config.ttt_config == source.config.ttt_config
    assert torch.equal(logits(model), logits(source))
    other = import_checkpoint(folder, use_muon=False, norm_placement="post", **SIZES)
    assert not torch.equal(logits(other), logits(source)), "the rule decides what is computed"


def test_what_the_tensors_tell(tmp_path):
    source = small_model(
        layer_pattern=("anchor", "ttt"),
        convolution="none",
        use_momentum=False,
        use_gate=False,
        num_fast_heads=4,
    )
    folder = write(tmp_path / "authors", authors_tensors(source), stock_config())
    model = import_checkpoint(folder, **RULE, **SIZES)
    ttt = model.config.ttt_config
    assert model.config.hybrid_layers == ("anchor", "ttt", "anchor", "ttt")
    assert (ttt.convolution, ttt.use_momentum, ttt.use_gate, ttt.num_fast_heads) == (
        "none",
        False,
        False,
        4,
    )
    assert torch.equal(logits(model), logits(source))
    assert read_off({}, 4) == {}


def test_bfloat16_stays(tmp_path):
    tensors = {k: v.bfloat16() for k, v in authors_tensors(small_model()).items()}
    folder = write(tmp_path / "authors", tensors, stock_config())
    assert import_checkpoint(folder, **RULE, **SIZES).dtype == torch.bfloat16
    assert import_checkpoint(folder, **RULE, **SIZES, dtype=torch.float32).dtype == torch.float32


def test_strict_about_the_authors_layout(tmp_path):
    tensors = authors_tensors(small_model())
    layer = "model.language_model.layers.1.self_attn."
    less = {
        k: v for k, v in tensors.items() if k not in (layer + "q_scale", layer + "conv_k.weight")
    }
    folder = write(tmp_path / "a", less | {layer + "w9": torch.zeros(1)}, stock_config())
    with pytest.raises(
        CheckpointError,
        match=r"lacks 2 tensors \(.*conv_k.*q_scale\) and has unknown 1 tensors \(.*w9\)",
    ):
        import_checkpoint(folder, **RULE, **SIZES)
    no_down = {k: v for k, v in tensors.items() if not k.endswith(".w1")}
    folder = write(tmp_path / "b", no_down, stock_config())
    with pytest.raises(CheckpointError, match="lacks w1"):
        import_checkpoint(folder, **RULE, **SIZES)


def test_long_lists_are_cut_short(tmp_path):
    few = {k: v for k, v in stock_tensors().items() if "layers.0" not in k}
    folder = write(tmp_path / "a", few, stock_config())
    with pytest.raises(CheckpointError, match=r"lacks 11 tensors \(.*and 3 more\)"):
        import_checkpoint(folder, **RULE, num_fast_heads=2)
