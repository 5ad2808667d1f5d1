"""Small real models, tokenizers and checkpoints for tests: the true layouts at toy sizes."""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from spatial_ttt.model.configuration import SpatialTTTConfig, paper_ttt_config
from spatial_ttt.model.modeling import SpatialTTTForConditionalGeneration
from spatial_ttt.processor import FrameFormat, Processor

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token per byte, plus Qwen3-VL's special tokens: 263 in all."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, special=True) for t in SPECIAL])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )


def small_frames(size: tuple[int, int] = (32, 48)) -> FrameFormat:
    """Patches of 8 pixels, tokens of 16."""
    half = (0.5, 0.5, 0.5)
    return FrameFormat(
        patch_size=8, spatial_merge_size=2, size=size, max_pixels=10_000, mean=half, std=half
    )


def small_processor(size: tuple[int, int] = (32, 48)) -> Processor:
    """Bytes and small patches."""
    return Processor(byte_tokenizer(), small_frames(size))


def small_config(**ttt: Any) -> SpatialTTTConfig:
    """Four layers of width 32; `ttt` changes fields of TTTConfig (chunk 24, window 24)."""
    settings = {
        "num_fast_heads": 2,
        "chunk_size": 24,
        "window_size": 24,
        "newton_schulz_dtype": "float32",
    }
    ids = {token: 256 + i for i, token in enumerate(SPECIAL)}
    return SpatialTTTConfig(
        text_config={
            "vocab_size": 264, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4,
            "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "rms_norm_eps": 1e-6,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1],
                                "mrope_interleaved": True},
        },
        vision_config={
            "depth": 2, "hidden_size": 16, "intermediate_size": 24, "num_heads": 2, "patch_size": 8,
            "spatial_merge_size": 2, "temporal_patch_size": 2, "out_hidden_size": 32,
            "num_position_embeddings": 16, "deepstack_visual_indexes": [0],
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
        ttt=paper_ttt_config(**(settings | ttt)).to_dict(),
    )  # fmt: skip


def small_model(
    seed: int = 0, *, noise: float = 0.1, **ttt: Any
) -> SpatialTTTForConditionalGeneration:
    """A random model whose gates are open, whose parameters were moved by `noise` and whose answers vary."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = SpatialTTTForConditionalGeneration(small_config(**ttt), allow_window_gap=True)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += noise * torch.randn(parameter.shape, generator=generator)
        # With tied embeddings and weights near one, every token's likeliest successor would be itself.
        final = model.decoder.norm.weight
        final.copy_(torch.randn(final.shape, generator=generator))
    model.tie_weights()
    return model.eval()
