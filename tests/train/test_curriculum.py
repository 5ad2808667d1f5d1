"""Plans: their stages follow each other, and every question fits the chunk it is asked in."""

from __future__ import annotations

import pytest

from spatial_ttt.errors import ConfigError
from spatial_ttt.presets import test_preset, tiny
from spatial_ttt.scenes.questions.question import QUESTION_TYPES
from spatial_ttt.train.clip_text import check_room, clip_prefix
from spatial_ttt.train.clip_types import DENSE_KINDS
from spatial_ttt.train.curriculum import EMPHASIS, PLANS, plan, stage_at, stages_between
from tests.train import clips


@pytest.mark.parametrize("name", PLANS)
def test_the_branches_of_every_stage_fit_its_open_chunk(name: str) -> None:
    config = test_preset() if name == "smoke" else tiny()
    for stage in plan(name):
        check_room(
            clip_prefix(clips.tokenizer(), stage.spec),
            config.ttt_config.chunk_size,
            stage.branch_length,
        )


@pytest.mark.parametrize("name", PLANS)
def test_stages_follow_each_other_to_the_end(name: str) -> None:
    stages = plan(name)
    ends = [stage.until for stage in stages]
    assert ends == sorted(set(ends)) and ends[-1] == 1.0
    assert len({stage.name for stage in stages}) == len(stages)
    for before, stage in zip((None, *stages), stages, strict=False):
        assert stage_at(stages, before.until if before else 0.0) is stage
        assert stage_at(stages, stage.until - 1e-6) is stage
    assert stage_at(stages, 1.0) is stage_at(stages, 3.0) is stages[-1]


def test_every_question_type_is_asked_and_dense_facts_as_much_as_said() -> None:
    stage = plan("full")[0]
    assert {kind: stage.weights[kind] for kind in QUESTION_TYPES} == {
        kind: EMPHASIS.get(kind, 1.0) for kind in QUESTION_TYPES
    }
    dense = {kind: stage.weights[kind] for kind in DENSE_KINDS}
    assert dense == {kind: 2.0 * EMPHASIS.get(kind, 1.0) for kind in DENSE_KINDS}
    assert dense["dense_view"] == 2.0 and dense["dense_first"] == 4.0
    assert set(EMPHASIS) < {*QUESTION_TYPES, *DENSE_KINDS, "vsc"}


@pytest.mark.parametrize("name", PLANS)
def test_earlier_stages_are_rehearsed_by_their_shares(name: str) -> None:
    stages = plan(name)
    for number, stage in enumerate(stages):
        assert {earlier for earlier, _ in stage.rehearsed} <= {s.name for s in stages[:number]}
        drawn = [stage.pick((n + 0.5) / 1000) for n in range(1000)]
        for earlier, share in stage.rehearsed:
            assert drawn.count(earlier) / 1000 == pytest.approx(share, abs=0.002)
        own = 1 - sum(share for _, share in stage.rehearsed)
        assert drawn.count(stage.name) / 1000 == pytest.approx(own, abs=0.002)


def test_stages_between_are_those_that_run_and_those_they_rehearse() -> None:
    look, room, home = plan("full")
    between = stages_between(plan("full"), 0.0, 0.5)
    assert between == [look, room]
    assert stages_between(plan("full"), 0.0, 0.1) == [look]
    assert stages_between(plan("full"), 0.7, 1.0) == [look, room, home]
    assert stages_between(plan("easy"), 0.6, 1.0) == list(plan("easy"))
    assert stages_between(plan("home"), 0.9, 1.0) == list(plan("home"))


def test_an_unknown_plan_is_refused() -> None:
    with pytest.raises(ConfigError, match="no curriculum 'hard'; known: full"):
        plan("hard")
