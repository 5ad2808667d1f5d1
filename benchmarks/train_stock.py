"""Stock Qwen3-VL from transformers, dealt out and trained like ours: sample by sample, logits at targets."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.nn import functional as F

from spatial_ttt.model.configuration import SpatialTTTConfig
from spatial_ttt.processor import Processor, qwen3_vl_frames
from spatial_ttt.testing.small import byte_tokenizer
from spatial_ttt.train.dataset import LoadedSample
from spatial_ttt.train.devices import sent
from spatial_ttt.train.distributed import Processes
from spatial_ttt.train.sharding import add_up

_KEPT = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id",
         "tie_word_embeddings")  # fmt: skip


class StockPack:
    """Samples whose frames are on their way to a device."""

    def __init__(self, samples: Sequence[LoadedSample], device: torch.device) -> None:
        self.samples = [
            sample._replace(frames=tuple(sent(frames, device) for frames in sample.frames))
            for sample in samples
        ]

    def tensors(self) -> list[Tensor]:
        """What was sent."""
        return [frames for sample in self.samples for frames in sample.frames]


class StockStep(nn.Module):
    """Samples in, summed cross entropy out."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pack: StockPack) -> SimpleNamespace:
        """`loss` of all targets."""
        losses = [self._one(sample) for sample in pack.samples]
        return SimpleNamespace(loss=torch.stack(losses).sum())

    def _one(self, sample: LoadedSample) -> Tensor:
        device = self.model.get_input_embeddings().weight.device
        ids = torch.tensor([sample.encoded.ids], device=device)
        count = sample.encoded.num_targets  # at the end, as the benchmark makes them
        size = sample.frames[0].shape[1:3]
        processor = Processor(byte_tokenizer(), qwen3_vl_frames((int(size[0]), int(size[1]))))
        patches, grid = processor.patches(sample.frames[0])
        self.model.model.rope_deltas = None
        out = self.model(
            input_ids=ids,
            mm_token_type_ids=2 * (ids == self.model.config.video_token_id).long(),
            pixel_values_videos=patches.flatten(0, 1),
            video_grid_thw=torch.tensor([[patches.shape[0], *grid]], device=device),
            logits_to_keep=count + 1,
            use_cache=False,
        )
        return F.cross_entropy(out.logits[0, :-1].float(), ids[0, -count:], reduction="sum")


def stock_model(
    config: SpatialTTTConfig, how: str, group: Processes, precision: torch.dtype
) -> tuple[nn.Module, SpatialTTTConfig]:
    """The module, and our configuration of the same costs (every layer an anchor)."""
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    values = config.to_dict()
    stock = Qwen3VLConfig(
        text_config=values["text_config"],
        vision_config=values["vision_config"],
        **{key: values[key] for key in _KEPT},
    )
    with torch.device(group.device):
        model = Qwen3VLForConditionalGeneration(stock).float().train()
    if how != "none":
        model.gradient_checkpointing_enable({"use_reentrant": False})
    visual = model.model.visual.requires_grad_(False).to(precision)
    module = StockStep(model)
    policy = MixedPrecisionPolicy(
        param_dtype=precision if precision != torch.float32 else None,
        reduce_dtype=torch.float32,
        cast_forward_inputs=False,
    )
    options: dict[str, Any] = {"mesh": group.mesh, "mp_policy": policy}
    for layer in model.model.language_model.layers:
        fully_shard(layer, reshard_after_forward=group.world > 1, **options)
    ignored = set(visual.parameters())
    fully_shard(module, reshard_after_forward=False, ignored_params=ignored, **options)
    if group.world > 1:
        add_up(module)
    costs = SpatialTTTConfig(**values | {"ttt": values["ttt"] | {"layer_pattern": ["anchor"]}})
    return module, costs
