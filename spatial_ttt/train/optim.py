"""Which parameters train at which rate, and the optimizers of the slow weights.

Groups follow module types, never names: "vision", "ttt" (everything a TTT layer adds, convolution
included), "head" (embeddings and the layer over the vocabulary) and "base". Muon, if asked for, takes the matrices of
base and vision; AdamW takes the rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from spatial_ttt.errors import ConfigError
from spatial_ttt.model.modeling import SpatialTTTForConditionalGeneration
from spatial_ttt.model.newton_schulz import plain_newton_schulz
from spatial_ttt.model.ttt import TTTAttention

GROUPS = ("base", "ttt", "vision", "head")


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimConfig:
    """Rates and decay; `learning_rate` holds one rate per group."""

    learning_rate: dict[str, float]
    """Peak rate of each of "base", "ttt", "vision", "head"; 0 freezes the group."""
    weight_decay: float
    """Of matrices; vectors have none."""
    betas: tuple[float, float]
    max_grad_norm: float
    """Gradients are scaled down to this norm."""
    use_muon: bool
    """Orthogonalise the updates of the slow matrices of base and vision."""

    def __post_init__(self) -> None:
        unknown = sorted(set(self.learning_rate) ^ set(GROUPS))
        if unknown:
            raise ConfigError(f"learning_rate needs exactly {', '.join(GROUPS)}; look at {unknown}")
        if self.max_grad_norm <= 0:
            raise ConfigError(f"max_grad_norm must be positive, got {self.max_grad_norm}")


def parameter_groups(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Every parameter in exactly one group, by the type of the module that owns it."""
    owner: dict[int, str] = {}
    for module in model.modules():
        if isinstance(module, SpatialTTTForConditionalGeneration):
            for parameter in module.model.visual.parameters():
                owner[id(parameter)] = "vision"
            for parameter in module.lm_head.parameters():  # the embeddings', where they are tied
                owner[id(parameter)] = "head"
        elif isinstance(module, TTTAttention):
            for parameter in added_parameters(module):
                owner[id(parameter)] = "ttt"
        elif isinstance(module, nn.Embedding):
            owner.setdefault(id(module.weight), "head")
    groups: dict[str, list[nn.Parameter]] = {name: [] for name in GROUPS}
    for parameter in model.parameters():
        groups[owner.get(id(parameter), "base")].append(parameter)
    return groups


def added_parameters(attention: TTTAttention) -> list[nn.Parameter]:
    """What a TTT layer holds beside the projections of plain attention."""
    plain = {"q_proj", "k_proj", "v_proj", "o_proj", "q_norm", "k_norm"}
    own = [
        p
        for name, child in attention.named_children()
        if name not in plain
        for p in child.parameters()
    ]
    return own + list(attention.parameters(recurse=False))


def matrices(model: nn.Module) -> set[int]:
    """Ids of the weights of linear layers inside blocks: what Muon may take."""
    found = set()
    for module in model.modules():
        if isinstance(module, SpatialTTTForConditionalGeneration):
            blocks = [*module.decoder.layers, *module.model.visual.blocks]
            for block in blocks:
                found |= {id(m.weight) for m in block.modules() if isinstance(m, nn.Linear)}
        if isinstance(module, TTTAttention):
            found -= {id(p) for p in added_parameters(module)}
    return found


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised by Newton-Schulz; matrices of one shape go through as one batch.

    Updates are scaled to the root mean square of AdamW's, so the two share learning rates.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of every matrix that has a gradient."""
        for group in self.param_groups:
            shapes: dict[torch.Size, list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    shapes.setdefault(parameter.shape, []).append(parameter)
            for shape, members in shapes.items():
                self._step_shape(shape, members, group)

    def _step_shape(
        self, shape: torch.Size, members: list[Tensor], group: dict[str, float]
    ) -> None:
        buffers = []
        for parameter in members:
            state = self.state[parameter]
            if "momentum" not in state:
                state["momentum"] = torch.zeros_like(parameter)
            buffers.append(state["momentum"])
        grads = [p.grad for p in members if p.grad is not None]
        torch._foreach_lerp_(buffers, grads, 1 - group["momentum"])
        looked_ahead = torch._foreach_lerp(grads, buffers, group["momentum"])
        update = plain_newton_schulz(torch.stack(list(looked_ahead)), "bfloat16")
        scale = 0.2 * math.sqrt(max(shape))
        torch._foreach_mul_(members, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(members, list((update * (-group["lr"] * scale)).unbind()))


class SlowWeights:
    """The trained weights in float32, their optimizers, and the copies the model computes with.

    A model in bfloat16 gets rounded copies after every step; a float32 model is its own master.
    """

    def __init__(
        self,
        modules: nn.Module,
        config: OptimConfig,
        compute_dtype: torch.dtype,
        average: Callable[[list[Tensor]], None] | None = None,
    ) -> None:
        """`average` replaces gradients by their mean over all processes, if there are several."""
        self.config, self.average = config, average
        groups = parameter_groups(modules)
        muon_ids = matrices(modules) if config.use_muon else set()
        self.live: list[Tensor] = []
        self.master: list[Tensor] = []
        chosen: dict[tuple[str, str], list[Tensor]] = {}
        for name, members in groups.items():
            for parameter in members:
                if config.learning_rate[name] == 0:
                    parameter.requires_grad_(False)
                    continue
                master = (
                    parameter
                    if compute_dtype == torch.float32
                    else parameter.detach().float().clone()
                )
                self.live.append(parameter)
                self.master.append(master)
                kind = (
                    "muon"
                    if id(parameter) in muon_ids
                    else "matrix"
                    if parameter.ndim > 1
                    else "vector"
                )
                chosen.setdefault((name, kind), []).append(master)
        self.shared = compute_dtype == torch.float32
        self.buffers = [] if self.shared else [torch.zeros_like(master) for master in self.master]
        if not self.shared:
            modules.to(compute_dtype)
        self.optimizers = list(self._make(chosen))
        self.peak = [[group["lr"] for group in o.param_groups] for o in self.optimizers]

    def _make(self, chosen: dict[tuple[str, str], list[Tensor]]) -> Iterable[torch.optim.Optimizer]:
        decay, rates = self.config.weight_decay, self.config.learning_rate
        plain = [
            {
                "params": members,
                "lr": rates[name],
                "weight_decay": decay if kind == "matrix" else 0.0,
            }
            for (name, kind), members in chosen.items()
            if kind != "muon"
        ]
        if plain:
            fused = self.master[0].is_cuda
            yield torch.optim.AdamW(plain, lr=1e-3, betas=self.config.betas, fused=fused)
        matrix = [
            {"params": members, "lr": rates[name], "weight_decay": decay}
            for (name, kind), members in chosen.items()
            if kind == "muon"
        ]
        if matrix:
            yield Muon(matrix, lr=1e-3)

    def step(self, scale: float) -> Tensor:
        """Clip, update at `scale` times the peak rates, refresh the copies; returns the gradient norm."""
        if not self.shared:
            self._fetch_gradients()
        if self.average is not None:
            self.average([master.grad for master in self.master if master.grad is not None])
        norm = nn.utils.clip_grad_norm_(self.master, self.config.max_grad_norm)
        for optimizer, peaks in zip(self.optimizers, self.peak, strict=True):
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * scale
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if not self.shared:
            with torch.no_grad():
                torch._foreach_copy_(self.live, self.master)
            for parameter in self.live:
                parameter.grad = None
        return norm

    def _fetch_gradients(self) -> None:
        """The masters' gradients in float32 from their copies' (none where a copy has none)."""
        pairs = [
            (parameter.grad, self.buffers[n])
            for n, parameter in enumerate(self.live)
            if parameter.grad is not None
        ]
        torch._foreach_copy_([buffer for _, buffer in pairs], [grad for grad, _ in pairs])
        for n, (parameter, master) in enumerate(zip(self.live, self.master, strict=True)):
            master.grad = None if parameter.grad is None else self.buffers[n]
