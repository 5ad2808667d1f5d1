"""Plans: their stages follow each other, and every question fits the chunk it is asked in."""

from __future__ import annotations

import pytest

from spatial_ttt.errors import ConfigError
from spatial_ttt.presets import test_preset, tiny
from spatial_ttt.scenes.questions.question import QUESTION_TYPES
from spatial_ttt.train.clip_text import check_room, clip_prefix
from spatial_ttt.train.clip_types import DENSE_KINDS
from spatial_ttt.train.curriculum import PLANS, plan, stage_at
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
    assert {stage.weights[kind] for kind in QUESTION_TYPES} == {1.0}
    assert {stage.weights[kind] for kind in DENSE_KINDS} == {2.0}


def test_an_unknown_plan_is_refused() -> None:
    with pytest.raises(ConfigError, match="no curriculum 'hard'; known: full"):
        plan("hard")
