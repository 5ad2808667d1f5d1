"""Stock Qwen3-VL of the same size: the whole clip in one forward pass, as transformers runs it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from spatial_ttt.bench.subject import STAMP_TOKENS, WORD_ID, Subject, random_model, weight_bytes

_IDS = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
_PREPARED_SLOTS = 16


class Stock:
    """Random weights in the subject's shape, SDPA attention."""

    def __init__(self, subject: Subject) -> None:
        from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

        ours = subject.config
        config = Qwen3VLConfig(
            text_config=ours.text_config.to_dict(),
            vision_config=ours.vision_config.to_dict(),
            tie_word_embeddings=ours.tie_word_embeddings,
            **{name: getattr(ours, name) for name in _IDS},
        )
        self.subject = subject
        self.model: Any = random_model(lambda: Qwen3VLForConditionalGeneration(config), subject)
        self.weight_bytes = weight_bytes(self.model)

    def patches(self, pool: Tensor, slots: int) -> Tensor:
        """Patches of a whole clip [S * patches, 1536] from a pool of frames, over and over."""
        piece = min(_PREPARED_SLOTS, pool.shape[0] // 2)
        parts = [
            self.subject.patches(pool[: 2 * min(piece, slots - at)])
            for at in range(0, slots, piece)
        ]
        return torch.cat(parts).flatten(0, 1)

    def patch_bytes(self, frames: int) -> int:
        """Bytes of the patches of so many frames."""
        height, width = self.subject.size
        return frames * height * width * 3 * self.subject.dtype.itemsize

    def cache_bytes(self, tokens: int) -> int:
        """Bytes of the keys and values of all layers."""
        text = self.subject.config.text_config
        per_layer = 2 * text.num_key_value_heads * text.head_dim * self.subject.dtype.itemsize
        return tokens * per_layer * text.num_hidden_layers

    def first_token(self, pool: Tensor, frames: int, question_tokens: int) -> None:
        """Read a clip and a question; choose the first token of the answer."""
        subject, slots = self.subject, frames // 2
        kinds = [0] * STAMP_TOKENS + [2] * subject.vision_tokens + [0]
        ids = subject.slot_ids * slots + [WORD_ID] * question_tokens
        out = self.model(
            input_ids=torch.tensor([ids], device=subject.device),
            mm_token_type_ids=torch.tensor(
                [kinds * slots + [0] * question_tokens], device=subject.device
            ),
            pixel_values_videos=self.patches(pool, slots),
            video_grid_thw=torch.tensor([[slots, *subject.grid]], device=subject.device),
            logits_to_keep=1,
            use_cache=True,
        )
        out.logits[:, -1].argmax(-1).item()
        self.model.model.rope_deltas = None
