"""Drawing homes into a ring."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from spatial_ttt.scenes.raycast import RayCameras, RayLayers, RayScenes
from spatial_ttt.train.clip_types import MAX_OBJECTS, categories
from spatial_ttt.train.draw import best_caster, count_pixels, draw, on_device, warm_up
from spatial_ttt.train.ring import ClipRing
from tests.train import clips


@pytest.fixture(scope="module")
def homes():
    return clips.new_worker().film(clips.task()).homes


def test_pixels_are_counted_per_object() -> None:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, MAX_OBJECTS, (2, 3, 8, 16), generator=generator)
    found = count_pixels(ids)
    assert found.shape == (2, 3, MAX_OBJECTS) and found.dtype == torch.int32
    for row, frame in np.ndindex(2, 3):
        expected = torch.bincount(ids[row, frame].flatten(), minlength=MAX_OBJECTS)
        assert (found[row, frame] == expected).all()


def test_a_ring_holds_what_the_caster_drew(homes) -> None:
    caster, name = best_caster(clips.CPU)
    assert name == "reference"
    ring = ClipRing(clips.SPEC, 3, clips.CPU)
    drawn = draw(caster, homes, ring)
    assert drawn.has_arrived and set(drawn.places) == ring.pending
    layers = caster(*on_device(homes, clips.SPEC, clips.CPU))
    assert (ring.frames[drawn.places] == layers.rgb).all()
    assert (drawn.pixels == count_pixels(layers.object_id.long())).all()
    assert (drawn.pixels.sum(-1) == 64 * 32).all()
    for row, place in enumerate(drawn.places):
        ids = layers.object_id[row, :, 4::8, 4::8].long()
        names = homes[row].category[ids.numpy()]
        assert (ring.category[place].numpy() == names).all()
        depth = layers.depth[row, :, 4::8, 4::8]
        torch.testing.assert_close(ring.depth[place].float(), depth, rtol=1e-3, atol=1e-3)
    assert ring.category.max() < len(categories()) and ring.category.any()


def test_homes_drawn_together_or_alone_look_the_same(homes) -> None:
    """Scenes are padded to the largest; padding must not be seen."""
    caster = best_caster(clips.CPU)[0]
    together = caster(*on_device(homes, clips.SPEC, clips.CPU))
    scenes, _ = on_device(homes, clips.SPEC, clips.CPU)
    assert scenes.counts.tolist() == [len(home.records) for home in homes]
    assert len(set(scenes.counts.tolist())) == 2
    for row, home in enumerate(homes):
        alone = caster(*on_device([home], clips.SPEC, clips.CPU))
        assert (alone.object_id[0] == together.object_id[row]).all()
        assert (alone.rgb[0] == together.rgb[row]).all()


def test_counts_the_caster_made_are_taken_as_they_are(homes) -> None:
    caster = best_caster(clips.CPU)[0]

    def counting(scenes: RayScenes, cameras: RayCameras) -> RayLayers:
        layers = caster(scenes, cameras)
        pixels = torch.full((len(homes), clips.SPEC.num_frames, MAX_OBJECTS), 7, dtype=torch.int32)
        return RayLayers(layers.rgb, layers.object_id, layers.depth, pixels)

    assert (draw(counting, homes, ClipRing(clips.SPEC, 2, clips.CPU)).pixels == 7).all()


def test_warming_up_draws_the_clips_size() -> None:
    sizes = []

    def note(scenes: RayScenes, cameras: RayCameras) -> RayLayers:
        layers = best_caster(clips.CPU)[0](scenes, cameras)
        sizes.append(tuple(layers.rgb.shape))
        return layers

    warm_up(note, clips.SPEC, clips.CPU)
    assert sizes == [(1, 8, 32, 64, 3)]
