"""Checkpoint folders: ours, a stock Qwen3-VL, the authors' Spatial-TTT. Strict in every direction.

Ours say everything about the model. A stock or an authors' folder does not say which update rule is
meant, so importing one takes the rule as an argument (`use_muon` and `norm_placement` have no default).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from spatial_ttt.errors import CheckpointError
from spatial_ttt.files import read_json
from spatial_ttt.model.configuration import (
    NormPlacement,
    SpatialTTTConfig,
    TTTConfig,
    paper_ttt_config,
)
from spatial_ttt.model.modeling import SpatialTTTForConditionalGeneration, refuse_differences
from spatial_ttt.model.naming import from_official

_LAYER = re.compile(r"model\.language_model\.layers\.(\d+)\.self_attn\.(.+)")
_TTT_ONLY = re.compile(
    r"\.self_attn\.(fast_weights|[qk]_scale|[qk]_offset|lr_proj|momentum_proj|ttt_scale_proj|ttt_norm|conv_[qkv])"
)


def load_model(
    folder: str | Path, *, device: str | torch.device = "cpu", dtype: torch.dtype | None = None
) -> SpatialTTTForConditionalGeneration:
    """A model saved by `save_pretrained`, in evaluation mode; `dtype` None keeps the saved precision.

    Raises CheckpointError for a folder that is not ours, and for missing or extra tensors.
    """
    folder = Path(folder)
    config = read_json(folder / "config.json")
    if config.get("model_type") != "spatial_ttt":
        raise CheckpointError(
            f"{folder} holds a {config.get('model_type', 'nameless')} model, not a spatial_ttt one; "
            f"run `spatial-ttt import-checkpoint` on it first"
        )
    try:
        model = SpatialTTTForConditionalGeneration.from_pretrained(
            str(folder), dtype=dtype or "auto"
        )
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot read the weights in {folder}: {error}") from error
    return cast(SpatialTTTForConditionalGeneration, model.to(device).eval())


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors of `model.safetensors` or of the shards its index names."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        files = sorted(set(read_json(index)["weight_map"].values()))
    elif (folder / "model.safetensors").is_file():
        files = ["model.safetensors"]
    else:
        raise CheckpointError(
            f"{folder} holds neither model.safetensors nor model.safetensors.index.json"
        )
    tensors: dict[str, Tensor] = {}
    for name in files:
        try:
            with safe_open(folder / name, "pt") as file:
                tensors.update({key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118 - not a dict
        except (OSError, SafetensorError) as error:
            raise CheckpointError(
                f"cannot read {folder / name}: {error}; copy the file again"
            ) from error
    return tensors


def import_checkpoint(
    folder: str | Path,
    *,
    use_muon: bool,
    norm_placement: NormPlacement,
    dtype: torch.dtype | None = None,
    **changes: Any,
) -> SpatialTTTForConditionalGeneration:
    """A stock Qwen3-VL or the authors' Spatial-TTT, under an explicit update rule.

    Which layers are TTT layers, fast heads, rank, convolution, momentum and gate are read off the tensors;
    a stock model gets the paper's pattern and fresh TTT parameters with a zero gate. `changes` name further
    fields of `TTTConfig`. Raises CheckpointError for missing, extra or misshapen tensors.
    """
    folder = Path(folder)
    stock = read_json(folder / "config.json")
    if stock.get("model_type") != "qwen3_vl":
        raise CheckpointError(
            f"{folder} holds a {stock.get('model_type')!r} model; wanted qwen3_vl (stock or authors')"
        )
    lacking = {"text_config", "vision_config"} - set(stock)
    if lacking:
        raise CheckpointError(f"{folder / 'config.json'} lacks {', '.join(sorted(lacking))}")
    tensors = {from_official(name): value for name, value in read_tensors(folder).items()}
    found = read_off(tensors, stock["text_config"]["num_hidden_layers"])
    rule = {"use_muon": use_muon, "norm_placement": norm_placement}
    config = _config_of(stock, paper_ttt_config(**(found | changes | rule)))
    model = SpatialTTTForConditionalGeneration(config)
    wanted = model.state_dict()
    tied = bool(config.tie_word_embeddings)
    if tied:
        tensors.pop("lm_head.weight", None)
    missing = {k for k in wanted if k not in tensors and not (tied and k == "lm_head.weight")}
    if not found:
        missing = {k for k in missing if not _TTT_ONLY.search(k)}
    refuse_differences(folder, missing, set(tensors) - set(wanted))
    _refuse_shapes(folder, tensors, wanted)
    model.load_state_dict(tensors, strict=False)
    model.tie_weights()
    return model.to(dtype or next(iter(tensors.values())).dtype).eval()


def _refuse_shapes(
    folder: Path, tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]
) -> None:
    for name, value in tensors.items():
        if value.shape != wanted[name].shape:
            raise CheckpointError(
                f"{folder}: {name} has shape {list(value.shape)}, the configuration wants {list(wanted[name].shape)}"
            )


def read_off(tensors: Mapping[str, Tensor], num_layers: int) -> dict[str, Any]:
    """The TTT settings that the tensors themselves show (our names); empty for a stock model."""
    names: dict[int, set[str]] = {}
    for name in tensors:
        match = _LAYER.match(name)
        if match and _TTT_ONLY.search(name):
            names.setdefault(int(match[1]), set()).add(match[2])
    if not names:
        return {}
    layer, own = next(iter(names.items()))
    prefix = f"model.language_model.layers.{layer}.self_attn."
    down = tensors.get(f"{prefix}fast_weights.down")
    left = tensors.get(f"{prefix}fast_weights.gate_left")
    if down is None:
        raise CheckpointError(f"layer {layer} has TTT tensors but lacks w1 (our fast_weights.down)")
    return {
        "layer_pattern": tuple("ttt" if i in names else "anchor" for i in range(num_layers)),
        "num_fast_heads": down.shape[0],
        "low_rank": 0 if left is None else left.shape[-1],
        "convolution": "centred" if "conv_q.weight" in own else "none",
        "use_momentum": "momentum_proj.weight" in own,
        "use_gate": "ttt_scale_proj.weight" in own,
    }


def _config_of(stock: dict[str, Any], ttt: TTTConfig) -> SpatialTTTConfig:
    """Our configuration with a stock one's numbers."""
    known = ("text_config", "vision_config", "image_token_id", "video_token_id", "vision_start_token_id",
             "vision_end_token_id", "tie_word_embeddings")  # fmt: skip
    values = {k: stock[k] for k in known if k in stock}
    # Old files tie by default and keep the flag in the text part.
    values.setdefault("tie_word_embeddings", stock["text_config"].get("tie_word_embeddings", True))
    return SpatialTTTConfig(ttt=ttt.to_dict(), **values)
