"""Choice questions: no sector, letter or instance is favoured, and ambiguous ones are not asked."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from spatial_ttt.scenes import rules
from spatial_ttt.scenes.questions import choices, observe, observe_all
from spatial_ttt.scenes.scene import OrientedBox, Scene, SceneObject
from tests.scenes.places import flat, walk


def scene_at(**places: list[tuple[float, float]]) -> Scene:
    spots = [(name, spot) for name, group in places.items() for spot in group]
    objects = tuple(
        SceneObject(n, name, OrientedBox(np.array([*spot, 0.5]), np.full(3, 0.2), np.eye(3)))
        for n, (name, spot) in enumerate(spots, 1)
    )
    return Scene("s", "test", objects, room_size=20.0)


@pytest.mark.parametrize("level", ["easy", "medium", "hard"])
def test_answers_and_letters_come_alike(level: str) -> None:
    kind = f"object_rel_direction_{level}"
    answers: Counter[str] = Counter()
    letters: Counter[str] = Counter()
    for seed in range(150):
        scene = flat(seed, 1, 11)
        camera, visibility = walk(scene, seed)
        seen = observe(scene, visibility, camera)
        for question in choices._directions(seen, np.random.default_rng(seed), 3, kind):
            answers[question.answer_text] += 1
            letters[question.ground_truth] += 1
    sectors = len(rules.DIRECTIONS[kind])
    for counts in (answers, letters):
        assert len(counts) == sectors
        assert max(counts.values()) / counts.total() < 1 / sectors + 0.08


def test_a_target_on_a_border_is_not_asked_about() -> None:
    # Facing north from the bed, the sofa lies 85 degrees to the right: fine for easy, not for hard.
    scene = scene_at(bed=[(0, 0)], tv=[(0, 3)], sofa=[(3.0, 0.26)])
    seen = observe_all(scene)
    names, triples, degrees = choices.direction_triples(seen, np.random.default_rng(0))
    (row,) = [n for n, t in enumerate(triples) if [names[k] for k in t] == ["bed", "tv", "sofa"]]
    assert degrees[row] == pytest.approx(275, abs=0.1)
    asked = [
        question.question
        for seed in range(40)
        for question in choices.object_rel_direction_hard(seen, np.random.default_rng(seed), 2)
    ]
    assert not any("by the bed and facing the tv" in words for words in asked)


def test_triples_leave_out_what_is_too_near_or_far_or_double() -> None:
    scene = scene_at(
        bed=[(0, 0)], tv=[(0, 0.4)], sofa=[(3, 1)], lamp=[(20, 0)], chair=[(2, 2), (1, 3)]
    )
    names, triples, _ = choices.direction_triples(observe_all(scene), np.random.default_rng(0))
    assert "chair" not in names
    assert not len(triples), "bed and tv nearly touch, the lamp is far from all"


def test_the_nearest_of_several_instances_decides_and_is_announced() -> None:
    scene = scene_at(
        bed=[(0, 0)], chair=[(9, 0), (1, 0)], tv=[(2, 0)], sofa=[(3, 0)], lamp=[(4, 0)]
    )
    seen = observe_all(scene)
    asked = [
        question
        for seed in range(20)
        for question in choices.object_rel_distance(seen, np.random.default_rng(seed), 4)
        if question.facts["categories"][0] == "bed"
    ]
    assert asked
    for question in asked:
        assert question.answer_text == "chair"
        assert question.question.endswith("measure to the closest.")
        listed = question.question.split("(")[1].split(")")[0].split(", ")
        assert [option[3:] for option in question.options or ()] == listed


def test_candidates_too_alike_are_not_asked_about() -> None:
    scene = scene_at(bed=[(0, 0)], chair=[(1, 0)], tv=[(-1.1, 0)], sofa=[(0, 3)], lamp=[(0, -4)])
    asked = [
        question.facts["categories"][0]
        for seed in range(20)
        for question in choices.object_rel_distance(
            observe_all(scene), np.random.default_rng(seed), 4
        )
    ]
    assert "bed" not in asked


def test_category_distances_are_those_of_the_rules() -> None:
    scene = flat(4, 2, 12)
    seen = observe_all(scene)
    names, singles = list(seen.stock.members), seen.stock.singles()
    matrix = choices.category_distances(seen, singles, names)
    for i, a in enumerate(singles):
        for j, b in enumerate(names):
            assert matrix[i, j] == pytest.approx(rules.category_distance(seen.stock, a, b))
