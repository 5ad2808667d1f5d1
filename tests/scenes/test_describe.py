"""Descriptions: every fact comes back from the text, and every fact is true of the scene."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from spatial_ttt.errors import SceneError
from spatial_ttt.scenes import describe as D
from spatial_ttt.scenes.facts import all_facts
from spatial_ttt.scenes.homes import make_home
from spatial_ttt.scenes.questions import observe, observe_all
from spatial_ttt.scenes.scene import Scene
from tests.scenes.places import flat, walk


@pytest.mark.parametrize("seed", range(25))
def test_the_facts_come_back_and_are_the_scenes(seed: int) -> None:
    scene = flat(seed, 1 + seed % 5, 7)
    camera, visibility = walk(scene, seed)
    seen = observe(scene, visibility, camera)
    description = D.describe(seen, np.random.default_rng(seed))
    read = D.parse_description(description.text)
    assert read == description.facts
    true = all_facts(seen)  # checked against the scene itself in test_facts
    assert read.counts == true.counts and read.rooms == true.rooms and read.order == true.order
    assert read.relations <= true.relations
    assert read.distances.items() <= true.distances.items()
    assert read.layout == (true.layout if len(true.rooms) > 1 else {})
    assert read.room_size == true.room_size


@pytest.mark.parametrize("seed", range(4))
def test_furnished_homes_are_described_and_read(seed: int) -> None:
    seen = observe_all(make_home(seed).scene)
    for words in range(5):
        description = D.describe(seen, np.random.default_rng(words))
        assert D.parse_description(description.text) == description.facts
    assert "\n" in description.text and len(description.text) > 400


def test_only_what_was_seen_is_said() -> None:
    scene = flat(4, 3, 9)
    camera, visibility = walk(scene)
    early = observe(scene, visibility, camera, 6.0)
    text = D.describe(early, np.random.default_rng(0)).text
    unseen = {item.category for item in scene.objects} - set(early.stock.members)
    assert unseen, "the test needs something not yet seen"
    for name in unseen:
        assert f" {name}" not in text and f" {name}s" not in text
    assert "square meters" not in text, "not every room was entered"
    assert "office" not in text


def test_wording_varies_and_the_seed_fixes_it() -> None:
    seen = observe_all(flat(6, 2))
    texts = [D.describe(seen, np.random.default_rng(seed)).text for seed in range(20)]
    assert len(set(texts)) == 20
    assert texts[3] == D.describe(seen, np.random.default_rng(3)).text
    openings = {text.split()[0] + text.split()[1] for text in texts}
    assert len(openings) >= 3


def test_no_two_kinds_of_sentence_fit_the_same_words() -> None:
    slots = {
        "room": "a kitchen", "rooms": "the kitchen and the hall", "number": "two rooms",
        "purpose": "cooking", "area": "31.2", "counts": "a bed and two lamps", "meters": "2.5",
        "a": "sofa", "b": "range hood", "order": "the sofa, the tv and the bed",
    }  # fmt: skip
    for kind, wordings in D.WORDINGS.items():
        assert len(set(wordings)) >= 2
        for wording in wordings:
            sentence = wording.format(**slots)
            fitting = {k for k, pattern in D._patterns() if pattern.fullmatch(sentence)}
            assert kind in fitting
            assert D._read(sentence)[0] == kind, sentence
            named = {slot: slots[slot] for slot in D._read(sentence)[1]}
            assert D._read(sentence)[1] == named, sentence


def test_every_wording_is_used() -> None:
    homes = [observe_all(make_home(seed).scene) for seed in range(6)]
    text = " ".join(
        D.describe(seen, np.random.default_rng(n)).text for seen in homes for n in range(15)
    )
    for kind in ("rooms", "use", "area", "counts", "layout", "on", "next to", "distance"):
        for wording in D.WORDINGS[kind]:
            longest = max(wording.replace("{", "}").split("}")[::2], key=len)
            assert longest.strip() in text, wording


def test_text_of_others_is_refused() -> None:
    with pytest.raises(SceneError, match="fits the sentence 'What a lovely home'"):
        D.parse_description("What a lovely home.")
    with pytest.raises(SceneError, match="nothing was clearly seen"):
        D.describe(observe_all(Scene("s", "test", ())), np.random.default_rng(0))


def test_pairs_are_said_once() -> None:
    for seed in range(10):
        seen = observe_all(flat(seed, 2, 8))
        facts = D.describe(seen, np.random.default_rng(seed)).facts
        assert len(facts.relations) + len(facts.distances) <= D.MAX_RELATIONS
        for (a, b), (c, d) in itertools.combinations(facts.distances, 2):
            assert {a, b} != {c, d}
