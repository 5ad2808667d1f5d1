"""Training on a GPU: windows through FlashAttention with gradients, a step in bfloat16 against float32."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from spatial_ttt.model.attention import attend
from spatial_ttt.train.logs import read_metrics
from spatial_ttt.train.trainer import train
from tests.train import toy

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.mark.parametrize(
    ("length", "past", "window"), [(300, 0, 128), (1000, 200, 257), (64, 0, 500)]
)
def test_windows_have_gradients(length, past, window):
    generator = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.randn(*shape, generator=generator).cuda().bfloat16().requires_grad_()

    q, k, v = (
        random(2, 8, length, 64),
        random(2, 4, past + length, 64),
        random(2, 4, past + length, 64),
    )
    weight = torch.randn(q.shape, generator=generator).cuda()
    found = attend(q, k, v, window=window)
    grads = torch.autograd.grad((found.float() * weight).sum(), (q, k, v))
    exact = [t.detach().float().requires_grad_() for t in (q, k, v)]
    expected = attend(*exact, window=window, implementation="eager")
    wanted = torch.autograd.grad((expected * weight).sum(), exact)
    for got, want in zip((found, *grads), (expected, *wanted), strict=True):
        error = (got.detach().float() - want.detach()).norm() / want.detach().norm()
        assert float(error) < 1e-2, float(error)


def test_a_run_in_bfloat16_follows_one_in_float32(tmp_path):
    data = toy.write_data(tmp_path / "data")
    found = {}
    for precision in ("float32", "bfloat16"):
        recipe = toy.recipe(data, tmp_path / precision, precision=precision, checkpointed_layers=2)
        outcome = train(dataclasses.replace(recipe, device="cuda"), 1)
        found[precision] = [r["loss"] for r in read_metrics(outcome.folder / "metrics.jsonl")]
    assert found["bfloat16"] == pytest.approx(found["float32"], rel=2e-2)
