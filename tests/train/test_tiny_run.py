"""Parts of the small model's run; the run as a whole is in test_tiny."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from spatial_ttt.errors import ConfigError
from spatial_ttt.loading import open_model
from spatial_ttt.scenes.homes import home_seed, split_of
from spatial_ttt.train.annealing import Reach
from spatial_ttt.train.clip_types import DENSE_KINDS, KINDS, ClipSpec
from spatial_ttt.train.curriculum import Stage, stage_at
from spatial_ttt.train.ranks import Ranks
from spatial_ttt.train.tiny import parse
from spatial_ttt.train.tiny_clips import TRAIN_SPAN, Supply
from spatial_ttt.train.tiny_run import AskedToEnd, TinyRun
from tests.train import clips


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Iterator[TinyRun]:
    """A smoke run that has not begun; its one worker waits for tasks."""
    folder = tmp_path_factory.mktemp("run")
    where = ["--work", str(folder / "work"), "--publish", str(folder / "out"), "--seed", "2"]
    before = signal.getsignal(signal.SIGTERM)
    made = TinyRun(parse(["--smoke", *where]))
    yield made
    made.close()
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def stage() -> Stage:
    return Stage("own", 1.0, clips.SPEC, clips.LOOK, 1.0, 72)


def test_progress_is_by_steps_and_hurries_when_time_runs_out(run: TinyRun) -> None:
    run.began = time.monotonic()
    assert run.budget == pytest.approx(
        30 * 0.7
    )  # half, where less than a minute is left for the rest
    assert run.progress == pytest.approx(0.0, abs=0.05)
    run.step = run.chosen.max_steps // 2
    assert run.progress == pytest.approx(0.5)
    run.began -= 0.8 * run.budget
    assert run.progress == pytest.approx(0.5)
    run.began -= 0.125 * run.budget
    assert run.progress == pytest.approx(
        0.75, abs=0.03
    )  # half of what is left, in half of its time
    run.began -= 0.2 * run.budget
    assert run.progress >= 1
    run.began, run.step = time.monotonic(), 0


def test_the_plan_may_start_in_its_middle(run: TinyRun) -> None:
    run.began = time.monotonic()
    stages = [stage_at(run.stages, run._at(progress)).name for progress in (0.0, 0.4, 0.6, 5.0)]
    assert stages == ["look", "look", "room", "room"]
    run.chosen.begin = 0.6
    assert run._at(0.0) == 0.6 and run._at(1.0) == 1.0
    run.chosen.begin = 0.0


def test_runs_of_other_seeds_see_other_homes_and_never_held_out_ones(run: TinyRun) -> None:
    assert run.supply.next_seed == home_seed("train", 2 * TRAIN_SPAN)
    assert run.supply.last_seed - run.supply.next_seed == TRAIN_SPAN
    assert split_of(run.supply.last_seed - 1) == "train"


def test_a_stage_whose_questions_do_not_fit_is_refused(run: TinyRun) -> None:
    spec = ClipSpec(num_slots=8, fps=2.0, width=64, height=32)
    long = Stage("long", 1.0, spec, clips.LOOK, 1.0, 200)
    with pytest.raises(ConfigError, match="branches of 200 tokens would fill it"):
        run.supply.order(long, 4, range(10), 4)


def test_an_order_is_shared_among_workers(run: TinyRun, stage: Stage) -> None:
    order = run.supply.order(stage, 6, range(100, 104), 6)
    assert (order.next_seed, order.last_seed, order.task_size) == (100, 104, 4)
    assert run.supply.order(stage, 100, range(1000), 3).task_size == 3
    assert order.ring.capacity == 6 and order.branch_length == 72


def test_blind_steps_ask_no_dense_facts_and_have_no_video(run: TinyRun, stage: Stage) -> None:
    run.step = run.chosen.blind_every
    work = run._work(clips.ring(), stage, 3)
    assert work.is_blind and work.prefix is run.blind
    dense = [KINDS.index(kind) for kind in DENSE_KINDS]
    assert not np.isin(work.batches[0].kind, dense).any()
    run.step += 1
    batches = [run._work(clips.ring(), stage, 3).batches[0] for _ in range(10)]
    assert any(np.isin(batch.kind, dense).any() for batch in batches)
    run.step = 0


def test_a_step_may_go_through_in_parts(run: TinyRun, stage: Stage) -> None:
    run.chosen.micro, run.step = 2, 1
    work = run._work(clips.ring(), stage, 5)
    assert [batch.ids.shape[0] for batch in work.batches] == [2, 2, 1]
    assert not work.is_blind and work.prefix == clips.prefix()
    run.chosen.micro = run.step = 0


def test_the_window_shrinks_and_the_fast_weights_come_on_as_the_run_proceeds(run: TinyRun) -> None:
    attention = run.model.decoder.layers[0].self_attn
    # The longest context: a stream of twenty homes of the smoke plan.
    assert run.annealing.first == 512 and run.annealing.last == 128
    due = (
        (0.0, 512, False),
        (0.29, 512, False),
        (0.3, 512, True),
        (0.5, 320, True),
        (1.0, 128, True),
    )
    for progress, window, memory in due:
        run._set_reach(progress)
        assert attention.memory_is_on is memory and attention.config.window_size == window
        assert run.reach == Reach(window, memory)


def test_a_step_is_given_an_earlier_stages_clips_now_and_then(run: TinyRun, stage: Stage) -> None:
    look, room = run.stages
    assert {run._turn(room).name for _ in range(20)} == {"room"}  # the ring of look is not there
    run.supply.rings = {"look": clips.ring(), "room": clips.ring()}
    run._take_stock()
    names = [run._turn(room).name for _ in range(400)]
    assert names.count("look") / 400 == pytest.approx(0.25, abs=0.05)
    assert {run._turn(look).name for _ in range(20)} == {"look"}
    run.supply.rings = {}
    run._take_stock()


class WithoutLook(Ranks):
    """Of two processes, the other has no clips of the first stage yet."""

    def all_say(self, *flags: bool) -> tuple[bool, ...]:
        return (False, *flags[1:])


def test_no_process_turns_to_clips_that_another_lacks(run: TinyRun) -> None:
    """Else one had no gradient where the other has one, and averages would mix different weights."""
    look, room = run.stages
    run.supply.rings, run.ranks = {"look": clips.ring(), "room": clips.ring()}, WithoutLook()
    try:
        run._take_stock()
        assert {run._turn(room).name for _ in range(50)} == {"room"}
        assert run._switch(room, 0.0) is room and run._switch(look, 1.0) is room
    finally:
        run.supply.rings, run.ranks = {}, Ranks()
        run._take_stock()


def test_ranks_use_seeds_of_their_own(run: TinyRun) -> None:
    seeds = []
    for rank in range(3):
        supply = Supply(run.chosen, run.source, run.tokenizer, run.device, 128)
        supply.keep_to(rank)
        seeds.append(range(supply.next_seed, supply.last_seed))
    for one, two in pairwise(seeds):
        assert one.stop == two.start
    assert seeds[0].start == run.supply.next_seed and seeds[2].stop < run.supply.last_seed


def test_a_shield_puts_off_the_end_until_the_weights_are_whole(run: TinyRun) -> None:
    run.interruptible = True
    done = []
    with pytest.raises(AskedToEnd), run.shield():
        run._asked_to_end()
        done.append("all of it")
    assert done and run.stopped and not run.interruptible
    run._asked_to_end()  # a second time while saving: nothing more
    run.stopped, run.interruptible = False, True
    with pytest.raises(AskedToEnd):
        run._asked_to_end()
    run.stopped = run.interruptible = False


def test_a_shield_within_a_shield_ends_with_the_outer_one(run: TinyRun) -> None:
    run.interruptible = True
    steps = []
    with pytest.raises(AskedToEnd), run.shield():
        with run.shield():
            run._asked_to_end()
        steps.append("still inside")
    assert steps
    run.stopped = run.interruptible = False


def test_a_save_is_published_with_metrics_and_curves(run: TinyRun) -> None:
    run.reporter.write({"step": 1, "stage": "look", "loss": 2.0})
    run.save()
    opened = open_model(run.work / "model", device="cpu")
    assert opened.processor.frames.size == (32, 64)
    names: set[str] = {path.name for path in Path(run.chosen.publish).iterdir()}
    assert names == {"model.safetensors", "files.tar"}
    assert (run.work / "curves.png").stat().st_size > 1000


def test_held_out_homes_are_asked_with_and_without_video(run: TinyRun, stage: Stage) -> None:
    order = run.supply.order(stage, 2, range(2), 2)
    order.ring = clips.ring()
    run.supply.held_out = {"own": order}
    written: list[dict] = []
    run.reporter.write = written.append  # type: ignore[method-assign]
    run._probe_all(None)
    run._probe_all(stage)
    run._probe_all(Stage("other", 1.0, clips.SPEC, clips.LOOK, 1.0, 72))
    assert [record["probe"] for record in written] == ["own", "own"]
    full = written[0]["scores"]["full"]
    assert set(full) == set(written[0]["scores"]["blind"])
    assert "blind" not in written[1]["scores"]
    for score, constant, number in full.values():
        assert 0 <= score <= 1 and 0 < constant <= 1 and number > 0
    assert full == written[1]["scores"]["full"]
    assert not any(math.isnan(row[0]) for row in full.values())
    run.supply.held_out = {}
