"""What is trained, and how it is dealt out to processes with FSDP2.

Masters, gradients and moments are float32 shares; a layer is gathered in the compute precision when
it runs. A frozen vision tower is not dealt out: every process keeps it in the compute precision. One process alone
deals nothing out (see `rounded`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import (
    FSDPModule,
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)

from spatial_ttt.model.modeling import SpatialTTTForConditionalGeneration
from spatial_ttt.model.vision import keep_derived_of
from spatial_ttt.train.distributed import Processes
from spatial_ttt.train.lora import DOWN, UP
from spatial_ttt.train.optim import GROUPS, parameter_groups
from spatial_ttt.train.packed import PackedModel
from spatial_ttt.train.rounded import RoundedCopies
from spatial_ttt.train.run_config import Gathered

SMALL_MODEL = 200_000_000
"""Parameters. Smaller models train their vision tower too unless told otherwise."""


def resolve_rates(
    model: nn.Module, rates: Mapping[str, float | None], *, uses_lora: bool
) -> dict[str, float]:
    """The peak rate of every group; 0 is frozen."""
    base = rates["base"] or 0.0
    is_small = sum(p.numel() for p in model.parameters()) < SMALL_MODEL
    defaults = {
        "base": base,
        "ttt": 0.0,
        "head": 0.0 if uses_lora else base,
        "vision": base if is_small and not uses_lora else 0.0,
    }
    found = {name: rates.get(name) for name in GROUPS}
    return {name: defaults[name] if rate is None else float(rate) for name, rate in found.items()}


def freeze(model: SpatialTTTForConditionalGeneration, rates: Mapping[str, float]) -> None:
    """Switch off the gradients of groups without a rate and, beside LoRA, of the base matrices."""
    with_lora = {id(p) for n, p in model.named_parameters() if n.endswith((DOWN, UP))}
    for name, members in parameter_groups(model).items():
        for parameter in members:
            trains = rates[name] > 0
            if with_lora and name == "base":
                trains &= id(parameter) in with_lora
            parameter.requires_grad_(trains)


def shard(
    packed: PackedModel, processes: Processes, precision: torch.dtype, gathered: Gathered = "step"
) -> None:
    """Deal the parameters out: decoder layers one by one, everything else together.

    `gathered` says how often: see `TrainConfig.gathered`, and `begin_pack`.
    """
    for parameter in packed.parameters():
        if not parameter.requires_grad:
            parameter.data = parameter.data.to(precision)
    packed.touch_all = processes.world > 1  # they add up the gradients of the same parameters
    visual = packed.model.model.visual
    frozen = {p for p in visual.parameters() if not p.requires_grad}
    if len(frozen) == len(list(visual.parameters())):
        keep_derived_of(visual)
    if processes.world == 1:
        _keep_whole(packed, processes, precision)
        return
    if frozen:
        visual.to(processes.device)
    policy = MixedPrecisionPolicy(
        param_dtype=precision if precision != torch.float32 else None,
        reduce_dtype=torch.float32,
        cast_forward_inputs=False,
    )
    options: dict[str, Any] = {"mesh": processes.mesh, "mp_policy": policy}
    for layer in packed.model.decoder.layers:
        fully_shard(layer, reshard_after_forward=gathered == "layer", **options)
        register_fsdp_forward_method(layer, "run_rows")
    fully_shard(packed, reshard_after_forward=False, ignored_params=frozen, **options)
    add_up(packed)
    packed.stays_gathered = gathered == "step"


def _keep_whole(packed: PackedModel, processes: Processes, precision: torch.dtype) -> None:
    packed.to(processes.device)
    if precision != torch.float32:
        packed.copies = RoundedCopies(packed, precision)


def add_up(module: nn.Module) -> None:
    """Sum gradients over processes instead of taking their mean: losses are normalised by targets."""
    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.set_force_sum_reduction_for_comms(True)
            part.set_gradient_divide_factor(1.0)


def begin_pack(packed: PackedModel, number: int, count: int) -> None:
    """Call it before each of a step's packs, numbered from 0.

    What is gathered once a step stays whole, and gradients of its packs are summed where they are made, in float32;
    with the last pack they are dealt out.
    """
    if not packed.stays_gathered:
        return
    is_last = number + 1 == count
    # FSDP deals gradients of one dtype out together: what the last pack is the first to use would not be float32 yet.
    packed.touch_all = number == 0
    for module in packed.modules():
        if isinstance(module, FSDPModule):
            module.set_requires_gradient_sync(is_last, recurse=False)
            module.set_reshard_after_backward(is_last, recurse=False)


def reshard(packed: PackedModel) -> None:
    """The model holds masters again: after a step's packs, and after passes without gradients."""
    if packed.copies is not None:
        packed.copies.put_masters_back()
    for module in packed.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
