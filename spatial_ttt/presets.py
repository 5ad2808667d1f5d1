"""Whole model configurations by name: the published 2B, the small one we train, one for tests.

Every number that changes what a model computes is written out; `PRESETS` maps names to functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

from spatial_ttt.errors import ConfigError
from spatial_ttt.model.configuration import SpatialTTTConfig, paper_ttt_config

QWEN_TOKEN_IDS = {
    "image_token_id": 151655,
    "video_token_id": 151656,
    "vision_start_token_id": 151652,
    "vision_end_token_id": 151653,
}
TINY_VOCAB_SIZE = 1536


def spatial_ttt_2b(**ttt: Any) -> SpatialTTTConfig:
    """Qwen3-VL-2B-Instruct's numbers with the paper's TTT layers; `ttt` changes fields of the latter."""
    return SpatialTTTConfig(
        text_config={
            "vocab_size": 151936,
            "hidden_size": 2048,
            "intermediate_size": 6144,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "rms_norm_eps": 1e-6,
            "attention_bias": False,
            "max_position_embeddings": 262144,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 5_000_000.0,
                "mrope_section": [24, 20, 20],
                "mrope_interleaved": True,
            },
            "tie_word_embeddings": True,
        },
        vision_config={
            "depth": 24,
            "hidden_size": 1024,
            "num_heads": 16,
            "intermediate_size": 4096,
            "patch_size": 16,
            "temporal_patch_size": 2,
            "spatial_merge_size": 2,
            "in_channels": 3,
            "out_hidden_size": 2048,
            "num_position_embeddings": 2304,
            "deepstack_visual_indexes": [5, 11, 17],
        },
        tie_word_embeddings=True,
        ttt=paper_ttt_config(**ttt).to_dict(),
        **QWEN_TOKEN_IDS,
    )


def tiny(*, token_ids: Mapping[str, int] | None = None, **ttt: Any) -> SpatialTTTConfig:
    """The small model (about 25 M parameters) for frames of 128 x 96 or 192 x 128 pixels.

    `token_ids` are the ids of the tokenizer's vision tokens (see `spatial_ttt.tokenizer`).
    """
    size = {"hidden": 384, "mlp": 1024, "layers": 8, "heads": 6, "vocab": TINY_VOCAB_SIZE}
    tower = {"hidden": 256, "mlp": 1024, "depth": 6, "heads": 4, "positions": 64, "taps": [2]}
    return _small(size, tower, token_ids, {"num_fast_heads": 6, "chunk_size": 128} | ttt)


def test_preset(*, token_ids: Mapping[str, int] | None = None, **ttt: Any) -> SpatialTTTConfig:
    """A few ten thousand parameters, four layers: for tests and smoke runs."""
    size = {"hidden": 32, "mlp": 48, "layers": 4, "heads": 2, "vocab": TINY_VOCAB_SIZE}
    tower = {"hidden": 16, "mlp": 32, "depth": 2, "heads": 2, "positions": 16, "taps": [0]}
    return _small(size, tower, token_ids, {"num_fast_heads": 2, "chunk_size": 128} | ttt)


test_preset.__test__ = False  # type: ignore[attr-defined]  # its name is no test's


def _small(
    size: Mapping[str, Any],
    tower: Mapping[str, Any],
    token_ids: Mapping[str, int] | None,
    ttt: Mapping[str, Any],
) -> SpatialTTTConfig:
    """A model of Qwen3-VL's shape, as wide and deep as asked for; the window covers one chunk."""
    head_dim = size["hidden"] // size["heads"]
    half = head_dim // 2
    spatial = half * 5 // 16  # the share of rows, and of columns, in Qwen3-VL's own section
    fields = {"window_size": ttt["chunk_size"]} | dict(ttt)
    return SpatialTTTConfig(
        text_config={
            "vocab_size": size["vocab"],
            "hidden_size": size["hidden"],
            "intermediate_size": size["mlp"],
            "num_hidden_layers": size["layers"],
            "num_attention_heads": size["heads"],
            "num_key_value_heads": size["heads"],
            "head_dim": head_dim,
            "rms_norm_eps": 1e-6,
            "attention_bias": False,
            "max_position_embeddings": 262144,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 100_000.0,
                "mrope_section": [half - 2 * spatial, spatial, spatial],
                "mrope_interleaved": True,
            },
            "tie_word_embeddings": True,
        },
        vision_config={
            "depth": tower["depth"],
            "hidden_size": tower["hidden"],
            "num_heads": tower["heads"],
            "intermediate_size": tower["mlp"],
            "patch_size": 16,
            "temporal_patch_size": 2,
            "spatial_merge_size": 2,
            "in_channels": 3,
            "out_hidden_size": size["hidden"],
            "num_position_embeddings": tower["positions"],
            "deepstack_visual_indexes": tower["taps"],
        },
        tie_word_embeddings=True,
        ttt=paper_ttt_config(**fields).to_dict(),
        **(token_ids or {}),
    )


PRESETS: dict[str, Callable[..., SpatialTTTConfig]] = {
    "tiny": tiny,
    "test": test_preset,
    "spatial_ttt_2b": spatial_ttt_2b,
}


def preset(name: str, **changes: Any) -> SpatialTTTConfig:
    """The configuration of this name; raises ConfigError for an unknown one."""
    if name not in PRESETS:
        near = get_close_matches(name, PRESETS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(PRESETS)}"
        raise ConfigError(f"no preset {name!r}; {hint}")
    return PRESETS[name](**changes)
