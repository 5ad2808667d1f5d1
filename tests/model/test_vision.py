"""Vision slot by slot equals transformers' tower, in any grouping of slots."""

from __future__ import annotations

import pytest
import torch

from spatial_ttt.model import vision
from spatial_ttt.model.vision import encode_slots
from spatial_ttt.testing.small import small_model
from tests.model.prompts import PATCH_VALUES
from tests.model.streams import relative


@pytest.mark.parametrize("grid", [(2, 2), (4, 6), (6, 2), (10, 14)])
@torch.no_grad()
def test_tokens_and_taps_equal_transformers(grid):
    visual = small_model().model.visual
    g = torch.Generator().manual_seed(0)
    patches = torch.randn(3, grid[0] * grid[1], PATCH_VALUES, generator=g)
    theirs = visual(patches.flatten(0, 1), grid_thw=torch.tensor([[3, *grid]]))
    ours = encode_slots(visual, patches, grid)
    assert relative(ours.tokens.flatten(0, 1), theirs.pooler_output) <= 1e-5
    assert ours.deepstack.shape[0] == 1
    for got, expected in zip(ours.deepstack, theirs.deepstack_features, strict=True):
        assert relative(got.flatten(0, 1), expected) <= 1e-5


@torch.no_grad()
def test_a_slot_does_not_see_its_neighbours():
    visual = small_model().double().model.visual
    patches = torch.randn(4, 24, PATCH_VALUES, generator=torch.Generator().manual_seed(0)).double()
    whole = encode_slots(visual, patches, (4, 6))
    for number in range(4):
        alone = encode_slots(visual, patches[number : number + 1], (4, 6))
        assert relative(alone.tokens[0], whole.tokens[number]) <= 1e-10
        assert relative(alone.deepstack[:, 0], whole.deepstack[:, number]) <= 1e-10


@torch.no_grad()
def test_a_tower_without_taps():
    visual = small_model().model.visual
    visual.config.deepstack_visual_indexes = []
    out = encode_slots(visual, torch.zeros(2, 4, PATCH_VALUES), (2, 2))
    assert out.tokens.shape == (2, 1, 32) and out.deepstack.shape == (0, 2, 1, 32)


def test_gradients_reach_the_tower():
    visual = small_model().model.visual
    out = encode_slots(visual, torch.ones(2, 4, PATCH_VALUES), (2, 2))
    (out.tokens.square().sum() + out.deepstack.square().sum()).backward()
    assert all(p.grad is not None for p in visual.parameters())


@torch.no_grad()
def test_batches_and_patches_given_away_change_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    visual = small_model().double().model.visual
    patches = torch.randn(8, 24, PATCH_VALUES, generator=torch.Generator().manual_seed(0)).double()
    whole = encode_slots(visual, patches, (4, 6))
    monkeypatch.setattr(vision, "BATCH_SLOTS", 3)
    assert [vision.batch_slots(count) for count in (8, 7, 4, 3)] == [3, 3, 2, 3]
    given = [patches]
    found = encode_slots(visual, given, (4, 6))
    assert not given
    for a, b in zip(found, whole, strict=True):
        assert a.shape == b.shape and relative(a, b) <= 1e-10
