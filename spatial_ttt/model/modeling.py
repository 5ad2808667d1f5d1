"""`SpatialTTTForConditionalGeneration`: vision tower, hybrid decoder, language head.

Whole sequences go in through `forward`, in Hugging Face's terms; a stream goes in piece by piece through
`embed` and `decode_piece`. Both push tokens through the same decoder.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModel, AutoModelForImageTextToText, PreTrainedModel
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLVisionModel
from transformers.utils import ModelOutput

from spatial_ttt.errors import CheckpointError, ConfigError, VideoError
from spatial_ttt.model.attention import IMPLEMENTATIONS
from spatial_ttt.model.batching import run_whole
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

    def _check_and_adjust_attn_implementation(
        self, attn_implementation: str | None, *args: Any, **kwargs: Any
    ) -> str:
        """Refuse what would silently compute something else; transformers calls this on every change."""
        if attn_implementation not in (None, *IMPLEMENTATIONS):
            raise ConfigError(
                f"attn_implementation must be one of {', '.join(IMPLEMENTATIONS)}, got {attn_implementation!r}"
            )
        if attn_implementation == "flash_attention_2" and find_spec("flash_attn") is None:
            raise ConfigError(
                "attn_implementation='flash_attention_2' needs the package flash-attn, which is not installed; "
                "install it or use 'sdpa'"
            )
        return super()._check_and_adjust_attn_implementation(attn_implementation, *args, **kwargs)

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

    @classmethod
    def from_pretrained(cls, folder: str | Path, *args: Any, **kwargs: Any) -> Any:
        """As transformers', but strict: missing, unknown and misshapen tensors raise CheckpointError."""
        wants_info = kwargs.pop("output_loading_info", False)
        kwargs |= {"output_loading_info": True, "ignore_mismatched_sizes": True}
        model, info = super().from_pretrained(folder, *args, **kwargs)
        tied = bool(model.config.tie_word_embeddings)
        missing = {k for k in info["missing_keys"] if not (tied and k == "lm_head.weight")}
        refuse_differences(folder, missing, info["unexpected_keys"])
        if info["mismatched_keys"]:
            raise CheckpointError(
                f"{folder}: tensors of another shape than config.json says: {sorted(info['mismatched_keys'])[:8]}"
            )
        return (model, info) if wants_info else model

    @property
    def decoder(self) -> HybridDecoder:
        """The hybrid decoder."""
        return self.model.language_model

    def encode(self, patches: Tensor | list[Tensor], grid: tuple[int, int]) -> VisionTokens:
        """Vision tokens of S slots; patches [S, height * width, channels * 2 * patch * patch], grid in patches.

        Patches may be given away (see `layers.taken`).
        """
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
        put = torch.Tensor.index_copy if torch.is_grad_enabled() else torch.Tensor.index_copy_
        hidden = put(
            hidden, 1, index, rows
        )  # a long piece is large: in place where that is allowed
        taps = vision.deepstack.shape[0]
        if not taps:
            return hidden, None
        features = vision.deepstack.to(hidden.dtype).reshape(taps, batch, index.numel(), -1)
        return hidden, put(hidden.new_zeros(taps, *hidden.shape), 2, index, features)

    def decode_piece(
        self,
        ids: Tensor,
        layout: Layout,
        vision: VisionTokens | None,
        state: DecoderState,
        wanted: int | None = None,
    ) -> tuple[Tokens, DecoderState]:
        """Push the next piece of a stream, B rows of one layout; returns determined tokens, normed.

        With `wanted` only the last so many of them: who only watches wants 0, and the last layer only remembers.
        """
        hidden, deepstack = self.embed(ids, layout, vision)
        tokens, position = self.decoder.tokens(hidden, layout, state.position, deepstack)
        box = [tokens]
        del (
            hidden,
            deepstack,
            tokens,
            vision,
        )  # a large piece: nobody else may keep what layers let go of
        # Not as a module's call, which would keep the tokens until it returns.
        return self.decoder.forward(box.pop(), state._replace(position=position), wanted=wanted)

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
        num_items_in_batch: Tensor | int | None = None,
        **unused: Any,
    ) -> SpatialTTTOutput:
        """Logits of whole sequences.

        input_ids [B, L] with placeholders; attention_mask [B, L] marks padding with 0; pixels are patches
        of all images / videos [patches, channels * 2 * patch * patch] with grids [n, 3] in patches, in order of
        appearance; sample_ids [B, L] keeps the samples packed in a row apart. `labels` are shifted
        here: token i is predicted at i - 1, within a sample. The loss is the mean over targets, or
        their sum over `num_items_in_batch`. Positions follow from the ids and grids.
        """
        refuse_unused(unused)
        mask = attention_mask if attention_mask is not None else torch.ones_like(input_ids)
        hidden = run_whole(
            self,
            input_ids,
            mask,
            sample_ids,
            {
                "image": (pixel_values, image_grid_thw),
                "video": (pixel_values_videos, video_grid_thw),
            },
        )
        logits = self.lm_head(hidden)
        loss = None
        if labels is not None:
            is_pair = mask[:, 1:].bool() & mask[:, :-1].bool()
            if sample_ids is not None:
                is_pair &= sample_ids[:, 1:] == sample_ids[:, :-1]
            loss = next_token_loss(
                logits, labels[:, 1:].masked_fill(~is_pair, IGNORE_INDEX), num_items_in_batch
            )
        return SpatialTTTOutput(loss=loss, logits=logits)


def next_token_loss(logits: Tensor, targets: Tensor, count: Tensor | int | None) -> Tensor:
    """Cross-entropy of logits [B, L, V] at targets [B, L - 1]: the mean, or the sum over `count`."""
    exact = logits[:, :-1].flatten(0, 1)
    exact = exact.to(torch.promote_types(exact.dtype, torch.float32))
    if count is None:
        return F.cross_entropy(exact, targets.flatten(), ignore_index=IGNORE_INDEX)
    total = F.cross_entropy(exact, targets.flatten(), ignore_index=IGNORE_INDEX, reduction="sum")
    return total / count


_HARMLESS = ("mm_token_type_ids", "use_cache", "return_dict")


def refuse_unused(arguments: dict[str, Any]) -> None:
    """Raise ConfigError for arguments that this model cannot honour; a forward must not drop them in silence."""
    dropped = [
        k for k, v in arguments.items() if k not in _HARMLESS and v is not None and v is not False
    ]
    if dropped:
        raise ConfigError(
            f"forward has no use for {', '.join(dropped)}: give input_ids, attention_mask, pixels with grids, "
            f"sample_ids and labels; for a cache open a StreamingSession"
        )


def refuse_differences(folder: str | Path, missing: Iterable[str], extra: Iterable[str]) -> None:
    """Raise CheckpointError that lists missing and extra tensor names, if there are any."""
    problems = []
    for what, names in (("lacks", sorted(missing)), ("has unknown", sorted(extra))):
        if names:
            shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
            problems.append(f"{what} {len(names)} tensors ({shown})")
    if problems:
        raise CheckpointError(
            f"{folder} {' and '.join(problems)}; it does not fit the model its config describes"
        )


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # else the kept tensors could not be used in training
def vision_index(layout: Layout, device: torch.device) -> Tensor:
    """Indices of the vision tokens in a piece, in order; kept, since patterns repeat."""
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
