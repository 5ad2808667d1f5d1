"""The tower of a steady stream says what the model's tower says, however often it is replayed."""

from __future__ import annotations

import torch

from spatial_ttt.model.kernels.captured import Graphs
from spatial_ttt.model.steady_vision import SteadyVision
from tests.model.streams import model_of


@torch.no_grad()
def test_every_number_of_slots_and_size_is_encoded_as_by_the_model() -> None:
    model = model_of(torch.float32)
    tower = SteadyVision(model, Graphs(torch.device("cpu")))
    vision = model.config.vision_config
    width = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    generator = torch.Generator().manual_seed(0)
    for turn in range(3):
        for slots, grid in ((1, (2, 2)), (3, (2, 2)), (1, (4, 2))):
            patches = torch.randn(slots, grid[0] * grid[1], width, generator=generator)
            found, wanted = tower.encode(patches, grid), model.encode(patches, grid)
            assert torch.equal(found.tokens, wanted.tokens), turn
            assert torch.equal(found.deepstack, wanted.deepstack), turn
