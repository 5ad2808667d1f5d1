"""Golden checks of the pure functions: Newton-Schulz and the fast-weight scan with its gradients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from spatial_ttt.model import fast_weights as fw
from spatial_ttt.model.configuration import paper_ttt_config
from spatial_ttt.model.newton_schulz import newton_schulz
from spatial_ttt.testing.golden import Check, Golden, relative

OUT_LIMIT = {"nsfp32": 1e-4, "nomuon": 1e-5}
GRAD_LIMIT = {"nsfp32": 1e-3, "nomuon": 2e-5}


def checks(golden: Golden) -> Iterator[Check]:
    """Outputs and gradients of every case and tag."""
    for case, settings in golden.meta["cases"].items():
        inputs = golden.under(f"{case}/in")
        for tag in OUT_LIMIT:
            expected = golden.under(f"{case}/out_{tag}")
            gradients = golden.under(f"{case}/grad_{tag}")
            if not expected and not gradients:
                continue
            leaves = {k: v.clone().requires_grad_() for k, v in inputs.items() if k != "gout"}
            run = _newton_schulz if settings["kind"] == "ns5" else _scan
            out = run(leaves, settings)
            for name, value in expected.items():
                yield Check(
                    golden.name,
                    f"{case}/{tag}/{name}",
                    relative(out.detach(), value),
                    OUT_LIMIT[tag],
                )
            if gradients:
                (out * inputs["gout"]).sum().backward()
            for name, value in gradients.items():
                got = leaves[name].grad
                got = torch.zeros_like(value) if got is None else got
                yield Check(
                    golden.name, f"{case}/{tag}/grad/{name}", relative(got, value), GRAD_LIMIT[tag]
                )


def _newton_schulz(leaves: dict[str, Tensor], settings: dict[str, Any]) -> Tensor:
    (matrix,) = leaves.values()
    return newton_schulz(matrix, "float32")


def _scan(leaves: dict[str, Tensor], settings: dict[str, Any]) -> Tensor:
    config = paper_ttt_config(
        chunk_size=settings["chunk_size"],
        use_muon=settings["use_muon"],
        use_momentum=settings["momentum"],
        norm_placement=settings.get("norm", "post"),
        newton_schulz_dtype="float32",
    )
    initial = fw.FastWeights(leaves["w0"], leaves["w2"], leaves["w1"])
    query, key, value = (leaves[name][None] for name in ("q", "k", "v"))
    lr = torch.cat([leaves[f"lr{i}"] for i in range(3)], dim=-1)[None]
    momentum = (
        leaves["momentum"][None, :, :, 0] if "momentum" in leaves else torch.ones_like(lr[..., 0])
    )
    inputs = fw.FastInputs(query, key, value, lr, momentum)
    out, _ = fw.scan(fw.initial_state(initial, 1), inputs, initial, config, keep_state=False)
    return out[0]
