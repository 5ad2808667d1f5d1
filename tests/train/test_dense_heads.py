"""Dense targets agree with the pictures and the facts; the heads learn them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from spatial_ttt.train.branches import ingest
from spatial_ttt.train.clip_types import ClipSpec, categories
from spatial_ttt.train.dense_facts import facts
from spatial_ttt.train.dense_heads import (
    METRE,
    SECOND,
    DenseHeads,
    Named,
    on_count_scale,
    place_targets,
    token_targets,
)
from spatial_ttt.train.listening import before_anchors, listening, middle
from spatial_ttt.train.ring import Batch
from tests.train import clips


@pytest.fixture(scope="module")
def batch() -> Batch:
    ring = clips.ring()
    return ring.collect(ring.ready, [np.arange(2), np.arange(2)])


def new_heads(model) -> DenseHeads:
    listened = len(before_anchors(model)), len(middle(model))
    return DenseHeads(model.config.text_config.hidden_size, len(categories()), *listened)


def test_words_that_say_what_is_known_have_no_loss(batch: Batch) -> None:
    """The head of the words, given the truth as its input, is right; given another's, wrong."""
    place = torch.tensor([[[math.nan, math.nan], [3.0, -6.0], [math.nan, math.nan]]])
    here = batch._replace(
        place=place, first=torch.tensor([[math.nan, 2.0, 8.0]]), counts=torch.tensor([[[0, 1, 3]]])
    )
    heads = DenseHeads(4, 3, 0, 1)
    with torch.no_grad():
        heads.words[0].weight.copy_(torch.eye(4))
    several = on_count_scale(torch.tensor([1, 3]))
    one = torch.tensor([3.0 / METRE, -6.0 / METRE, 2.0 / SECOND, several[0]])
    three = torch.tensor([9.0, 9.0, 8.0 / SECOND, several[1]])  # no place is known of three
    hidden = torch.stack((one, three))
    scale = hidden.pow(2).mean(-1, keepdim=True).rsqrt()  # the head reads normed states
    with torch.no_grad():
        for n, (category, expected) in enumerate(((1, True), (2, True), (1, False))):
            state = hidden[[0, 1, 1][n]][None, None]
            heads.words[0].weight.copy_(torch.eye(4) / scale[[0, 1, 1][n]])
            named = Named(torch.tensor([0]), torch.tensor([0]), torch.tensor([category]))
            loss = heads.names([state], here, named).item()
            assert (loss < 1e-4) == expected


def test_no_count_is_too_large_to_be_told_from_a_larger_one() -> None:
    counts = torch.arange(0, 1000, dtype=torch.int32)
    steps = on_count_scale(counts).diff()
    assert (steps > 0).all() and steps[0] > 2 and on_count_scale(counts)[-1] < 30
    tenth = on_count_scale(torch.tensor([22, 220])) - on_count_scale(torch.tensor([20, 200]))
    torch.testing.assert_close(tenth[0], tenth[1], rtol=0.1, atol=0)


def test_a_vision_token_shows_what_its_pixels_show(batch: Batch) -> None:
    spec = ClipSpec(num_slots=4, fps=2.0, width=96, height=64)
    rows, cols = spec.grid
    generator = torch.Generator().manual_seed(0)
    category = torch.randint(0, len(categories()), (2, 8, 8, 12), generator=generator)
    depth = torch.rand(2, 8, 8, 12, generator=generator).half()
    here = batch._replace(category=category.byte(), depth=depth)
    shown, main, far = token_targets(here, spec, len(categories()))
    assert shown.shape == (2 * 4, rows * cols, len(categories()))
    for clip, slot, cell in np.ndindex(2, 4, rows * cols):
        top, left = 4 * (cell // cols), 4 * (cell % cols)
        times = slice(2 * slot, 2 * slot + 2)
        area = (clip, times, slice(top, top + 4), slice(left, left + 4))
        found = set(shown[4 * clip + slot, cell].nonzero().flatten().tolist())
        assert found == set(category[area].flatten().tolist())
        pixels = torch.bincount(category[area].flatten(), minlength=len(categories()))[1:]
        assert pixels[main[4 * clip + slot, cell] - 1] == pixels.max()
        torch.testing.assert_close(far[4 * clip + slot, cell], depth[area].float().mean())


def test_places_are_turned_into_the_frame_of_the_camera_now(batch: Batch) -> None:
    """After 2 m ahead and a turn to the left, what stood 2 m ahead and 1 m left is 1 m ahead."""
    here = batch._replace(
        pose=torch.tensor([[[0.0, 0.0, 0.0, 1.0], [0.0, 2.0, 1.0, 0.0]]]),
        counts=torch.tensor([[[0, 1, 0], [1, 1, 2]]], dtype=torch.uint8),
        place=torch.tensor([[[-1.0, 2.0], [3.0, 2.0], [math.nan, math.nan]]]),
    )
    seen, place = place_targets(here)
    assert seen.tolist() == [[[0, 1, 0], [1, 1, 0]]]
    expected = [[-1.0, 2.0], [3.0, 2.0]], [[0.0, 1.0], [0.0, -3.0]]
    torch.testing.assert_close(place[0, :, :2], torch.tensor(expected))
    assert torch.isfinite(place).all()


def test_places_agree_with_the_cameras_of_the_clip() -> None:
    """From the facts of a slot, straight to the boxes of the scene by that slot's own camera."""
    view = clips.view()
    index = {name: n for n, name in enumerate(categories())}
    found = facts(view.scene, view.visibility, view.camera, index)
    arrays = {
        name: torch.from_numpy(getattr(found, name))[None] for name in ("pose", "counts", "place")
    }
    ring = clips.ring()
    seen, place = place_targets(ring.collect(ring.ready[:1], [np.arange(1)])._replace(**arrays))
    checked = 0
    for name in view.seen.stock.singles():
        center = view.seen.stock.boxes.center[view.seen.stock.members[name][0]][:2]
        for slot in range(clips.SPEC.num_slots):
            if not seen[0, slot, index[name]]:
                continue
            poses = view.camera.camera_to_world[2 * slot : 2 * slot + 2]
            offset = center - poses[:, :2, 3].mean(0)
            # The mean of the slot's two views, as the facts give it, is no unit vector.
            ahead = np.stack([p[:2, 2] / np.linalg.norm(p[:2, 2]) for p in poses]).mean(0)
            right = np.array([ahead[1], -ahead[0]])
            expected = torch.tensor([right @ offset, ahead @ offset], dtype=torch.float32)
            torch.testing.assert_close(place[0, slot, index[name]], expected, atol=1e-4, rtol=0)
            checked += 1
    assert checked


def test_losses_are_finite_and_fall_when_trained(batch: Batch) -> None:
    torch.manual_seed(0)
    model = clips.model()
    heads = new_heads(model)
    with torch.no_grad(), listening(model, before_anchors(model)) as heard:
        ingested = ingest(model, clips.prefix(), batch.frames, clips.SPEC)
    optimizer = torch.optim.Adam(heads.parameters(), lr=0.05)
    totals = []
    for _ in range(12):
        losses = heads(ingested, heard, batch, (clips.prefix(), clips.SPEC))
        assert all(torch.isfinite(value) and value >= 0 for value in losses)
        total = losses.total()
        totals.append(total.item())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    assert totals[-1] < 0.7 * totals[0]


def test_gradients_reach_the_fast_weights(batch: Batch) -> None:
    model = clips.model(chunk_size=20)
    heads = new_heads(model)
    with listening(model, before_anchors(model)) as heard:
        ingested = ingest(model, clips.prefix(), batch.frames, clips.SPEC)
    heads(ingested, heard, batch, (clips.prefix(), clips.SPEC)).total().backward()
    for layer in model.decoder.layers[:3]:
        assert layer.self_attn.fast_weights.down.grad.abs().max() > 0
