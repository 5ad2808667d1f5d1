"""`SpatialTTTForConditionalGeneration`: vision tower, hybrid decoder, language head.

Whole sequences go in through `forward`, in Hugging Face's terms; a stream goes in piece by piece through
`embed` and `decode_piece`. Both push tokens through the same decoder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModel, AutoModelForImageTextToText, PreTrainedModel
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLVisionModel
from transformers.utils import ModelOutput

from spatial_ttt.errors import VideoError
from spatial_ttt.model.configuration import SpatialTTTConfig, check_window_covers_chunk
from spatial_ttt.model.decoder import HybridDecoder
from spatial_ttt.model.layout import (
    Layout,
    RunKind,
)
from spatial_ttt.model.state import DecoderState, Tokens
from spatial_ttt.model.vision import VisionTokens, encode_slots

IGNORE_INDEX = -100


@dataclass
class SpatialTTTOutput(ModelOutput):  # type: ignore[misc]
    """Loss (with labels) and logits [B, L, V] (zero at padding)."""

    loss: Tensor | None = None
    logits: Tensor | None = None


class SpatialTTTPreTrainedModel(PreTrainedModel):  # type: ignore[misc]
    """Loading, saving and initialisation shared by the Spatial-TTT models."""

    config: SpatialTTTConfig
    config_class = SpatialTTTConfig
    base_model_prefix = "model"
    input_modalities = ("image", "video", "text")
    supports_gradient_checkpointing = True
    _no_split_modules = ("TTTLayer", "AnchorLayer", "Qwen3VLVisionBlock")
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Fresh TTT parameters are made by their modules; a fresh gate is exactly zero."""
        scale = getattr(module, "ttt_scale_proj", None)
        if scale is not None:
            nn.init.zeros_(scale.weight)
            nn.init.zeros_(scale.bias)


class SpatialTTTModel(SpatialTTTPreTrainedModel):
    """Vision tower and hybrid decoder."""

    def __init__(self, config: SpatialTTTConfig) -> None:
        super().__init__(config)
        self.visual = Qwen3VLVisionModel._from_config(config.vision_config)
        self.language_model = HybridDecoder(config.text_config, config.ttt_config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Token embeddings."""
        return self.language_model.embed_tokens

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replace the token embeddings."""
        self.language_model.embed_tokens = value


class SpatialTTTForConditionalGeneration(SpatialTTTPreTrainedModel):
    """The whole model; `allow_window_gap` accepts a window smaller than a chunk."""

    _tied_weights_keys = {"lm_head.weight": "model.language_model.embed_tokens.weight"}  # noqa: RUF012 - the library's own form

    def __init__(self, config: SpatialTTTConfig, *, allow_window_gap: bool = False) -> None:
        super().__init__(config)
        if not allow_window_gap:
            check_window_covers_chunk(config.ttt_config)
        self.model = SpatialTTTModel(config)
        text = config.text_config
        self.lm_head = nn.Linear(text.hidden_size, text.vocab_size, bias=False)
        self.post_init()

    @property
    def decoder(self) -> HybridDecoder:
        """The hybrid decoder."""
        return self.model.language_model

    def encode(self, patches: Tensor, grid: tuple[int, int]) -> VisionTokens:
        """Vision tokens of S slots; patches [S, height * width, channels * 2 * patch * patch], grid in patches."""
        return encode_slots(self.model.visual, patches, grid)

    def embed(
        self, ids: Tensor, layout: Layout, vision: VisionTokens | None
    ) -> tuple[Tensor, Tensor | None]:
        """Token embeddings with vision tokens in their places.

        ids [B, L]; `vision` holds the B * S slots of the layout, row by row. Returns hidden [B, L, D]
        and DeepStack features [K, B, L, D] (None without slots).
        """
        hidden = self.model.get_input_embeddings()(ids)
        if vision is None:
            return hidden, None
        index = vision_index(layout, ids.device)
        batch = ids.shape[0]
        if vision.tokens.shape[:2].numel() != batch * index.numel():
            raise VideoError(
                f"{vision.tokens.shape[:2].numel()} vision tokens for {batch * index.numel()} placeholders"
            )
        rows = vision.tokens.to(hidden.dtype).reshape(batch, index.numel(), -1)
        hidden = hidden.index_copy(1, index, rows)
        taps = vision.deepstack.shape[0]
        if not taps:
            return hidden, None
        features = vision.deepstack.to(hidden.dtype).reshape(taps, batch, index.numel(), -1)
        return hidden, hidden.new_zeros(taps, *hidden.shape).index_copy(2, index, features)

    def decode_piece(
        self, ids: Tensor, layout: Layout, vision: VisionTokens | None, state: DecoderState
    ) -> tuple[Tokens, DecoderState]:
        """Push the next piece of a stream, B rows of one layout; returns determined tokens, normed."""
        hidden, deepstack = self.embed(ids, layout, vision)
        tokens, position = self.decoder.tokens(hidden, layout, state.position, deepstack)
        return self.decoder(tokens, state._replace(position=position))

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        image_grid_thw: Tensor | None = None,
        pixel_values_videos: Tensor | None = None,
        video_grid_thw: Tensor | None = None,
        sample_ids: Tensor | None = None,
        labels: Tensor | None = None,
        **unused: Any,
    ) -> SpatialTTTOutput:
        """Logits of whole sequences.

        input_ids [B, L] with placeholders; attention_mask [B, L] marks padding with 0; pixels are patches
        of all images / videos [patches, channels * 2 * patch * patch] with grids [n, 3] in patches, in order of
        appearance; sample_ids [B, L] keeps the samples packed in a row apart. `labels` are shifted
        here: token i is predicted at i - 1.
        """
        from spatial_ttt.model.batching import run_whole

        hidden = run_whole(
            self,
            input_ids,
            attention_mask if attention_mask is not None else torch.ones_like(input_ids),
            sample_ids,
            {
                "image": (pixel_values, image_grid_thw),
                "video": (pixel_values_videos, video_grid_thw),
            },
        )
        logits = self.lm_head(hidden)
        loss = None
        if labels is not None:
            targets = labels[:, 1:]
            if sample_ids is not None:
                targets = targets.masked_fill(sample_ids[:, 1:] != sample_ids[:, :-1], IGNORE_INDEX)
            exact = logits[:, :-1].flatten(0, 1)
            loss = F.cross_entropy(
                exact.to(torch.promote_types(exact.dtype, torch.float32)), targets.flatten()
            )
        return SpatialTTTOutput(loss=loss, logits=logits)


def vision_index(layout: Layout, device: torch.device) -> Tensor:
    """Indices of the vision tokens in a piece, in order."""
    parts, at = [], 0
    for run in layout:
        if run.kind == RunKind.SLOT:
            parts.append(torch.arange(at, at + run.length))
        at += run.length
    return torch.cat(parts).to(device) if parts else torch.zeros(0, dtype=torch.long, device=device)


AutoModel.register(SpatialTTTConfig, SpatialTTTForConditionalGeneration, exist_ok=True)
AutoModelForImageTextToText.register(
    SpatialTTTConfig, SpatialTTTForConditionalGeneration, exist_ok=True
)
