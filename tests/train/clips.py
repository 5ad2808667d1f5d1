"""Real clips of furnished homes, tokenised, drawn and asked about, for the small model's tests."""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from spatial_ttt.eval.profiles import load_profile
from spatial_ttt.model.modeling import SpatialTTTForConditionalGeneration
from spatial_ttt.presets import TINY_VOCAB_SIZE, test_preset
from spatial_ttt.scenes.homes import home_seed
from spatial_ttt.scenes.questions.seen import observe
from spatial_ttt.scenes.scene import Visibility
from spatial_ttt.scenes.shading import pack_parts
from spatial_ttt.scenes.views import pack_views
from spatial_ttt.tokenizer import default_texts, token_ids, train_tokenizer
from spatial_ttt.train.clip_text import Prefix, clip_prefix
from spatial_ttt.train.clip_types import (
    MAX_OBJECTS,
    AskedClips,
    ClipSpec,
    Difficulty,
    Filmed,
    SceneTask,
    Sighting,
)
from spatial_ttt.train.dense_facts import View
from spatial_ttt.train.draw import best_caster, count_pixels, draw, on_device
from spatial_ttt.train.initialise import initialise
from spatial_ttt.train.ring import ClipRing
from spatial_ttt.train.scene_worker import SceneWorker, make_walk
from spatial_ttt.train.stream_asker import StreamAsker

CPU = torch.device("cpu")
SPEC = ClipSpec(num_slots=4, fps=2.0, width=64, height=32)
LOOK = Difficulty(rooms=(1, 1), least_size=0.5, most_objects=8, walks=False)
BRANCH = 96
SEEDS = tuple(home_seed("val", n) for n in range(2))


@cache
def tokenizer() -> Any:
    return train_tokenizer(default_texts(), TINY_VOCAB_SIZE)


def new_worker() -> SceneWorker:
    profile = load_profile("paper")
    with TemporaryDirectory() as folder:
        tokenizer().save_pretrained(folder)
        file = str(Path(folder) / "tokenizer.json")
        return SceneWorker(file, profile.number, profile.choice)


def task(number: int = 1, seeds: tuple[int, ...] = SEEDS) -> SceneTask:
    return SceneTask(number, seeds, SPEC, LOOK, BRANCH)


def make(worker: SceneWorker, ring: ClipRing, wanted: SceneTask) -> AskedClips:
    """The whole way of a task without processes: furnished, drawn, asked about."""
    filmed = worker.film(wanted)
    assert not filmed.failures
    drawn = draw(best_caster(CPU)[0], filmed.homes, ring)
    pairs = zip(filmed.homes, drawn.pixels.numpy(), strict=True)
    asked = worker.ask([Sighting(home.ticket, pixels) for home, pixels in pairs])
    assert not asked.failures
    ring.fill(drawn.places, asked.records)
    return asked


@cache
def ring() -> ClipRing:
    """Two clips; shared, so never drawn into."""
    filled = ClipRing(SPEC, 3, CPU)
    make(new_worker(), filled, task())
    return filled


@cache
def view(seed: int = SEEDS[0], difficulty: Difficulty = LOOK) -> View:
    """A home, its camera, and what the ray caster says the camera saw."""
    home, camera = make_walk(seed, SPEC, difficulty, np.random.default_rng(seed))
    packed = pack_views(camera, None, SPEC.width, SPEC.height)
    nothing = np.zeros(MAX_OBJECTS, np.uint8)
    filmed = Filmed(0, pack_parts(home.parts), packed.texels[:, 3:].copy(), packed.lens, nothing)
    layers = best_caster(CPU)[0](*on_device([filmed], SPEC, CPU))
    pixels = count_pixels(layers.object_id.long())[0].numpy()
    ids = np.array([item.object_id for item in home.scene.objects], np.int32)
    seen = Visibility(ids, pixels[:, ids], camera.times)
    return View(home.scene, seen, camera, observe(home.scene, seen, camera))


def asker() -> StreamAsker:
    profile = load_profile("paper")
    encode = partial(tokenizer().encode, add_special_tokens=False)
    return StreamAsker(encode, profile.number, profile.choice)


@cache
def prefix() -> Prefix:
    return clip_prefix(tokenizer(), SPEC)


def model(seed: int = 0, **ttt: Any) -> SpatialTTTForConditionalGeneration:
    """The test model, its gates open, with chunks of 128 tokens unless `ttt` says otherwise."""
    fields = {"newton_schulz_dtype": "float32"} | ttt
    made = SpatialTTTForConditionalGeneration(
        test_preset(token_ids=token_ids(tokenizer()), **fields)
    )
    initialise(made, seed, gate_bias=1.0)
    return made
