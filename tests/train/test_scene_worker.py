"""Workers: the same clips from the same seeds, in the processor's words."""

from __future__ import annotations

from functools import partial
from queue import SimpleQueue
from threading import Thread
from time import monotonic, sleep

import numpy as np
import pytest

from spatial_ttt.errors import SceneError
from spatial_ttt.loading import small_model_frames
from spatial_ttt.processor import Processor
from spatial_ttt.scenes.homes import home_seed, make_home
from spatial_ttt.scenes.questions.question import NUMBER_TYPES
from spatial_ttt.train.clip_types import (
    DENSE_KINDS,
    KINDS,
    MAX_OBJECTS,
    AskedClips,
    ClipSpec,
    Difficulty,
    FilmedHomes,
    Sighting,
    categories,
)
from spatial_ttt.train.ring import ClipRing
from spatial_ttt.train.scene_worker import OPTIONS, SAID, make_walk, serve, thin_out
from tests.train import clips

WALK = Difficulty(rooms=(1, 2), least_size=0.3, most_objects=40, walks=True)


def records() -> list:
    return [clips.ring().records[place] for place in clips.ring().ready]


def test_the_same_seeds_give_the_same_clips_in_any_worker_and_order() -> None:
    ring = ClipRing(clips.SPEC, 2, clips.CPU)
    worker = clips.new_worker()
    for number, seed in enumerate(reversed(clips.SEEDS)):
        clips.make(worker, ring, clips.task(number, (seed,)))
    again = {r.seed: (r, ring.frames[place]) for place in ring.ready if (r := ring.records[place])}
    assert set(again) == set(clips.SEEDS)
    for place in clips.ring().ready:
        first = clips.ring().records[place]
        assert first is not None
        second, frames = again[first.seed]
        assert (clips.ring().frames[place] == frames).all()
        assert first.exchanges.truth == second.exchanges.truth
        for part in ("exchanges", "facts"):
            for a, b in zip(getattr(first, part), getattr(second, part), strict=True):
                np.testing.assert_array_equal(a, b)


def test_exchanges_are_the_processors_questions_and_answers() -> None:
    processor = Processor(clips.tokenizer(), small_model_frames((32, 64)))
    seen = set()
    for record in records():
        exchanges = record.exchanges
        assert len(exchanges) >= 5
        for n in range(len(exchanges)):
            ids = exchanges.ids[n].tolist()
            start, stop = int(exchanges.start[n]), int(exchanges.stop[n])
            assert ids[start:stop] == processor.answer_ids(exchanges.truth[n])
            assert not any(ids[stop:])
            prompt = clips.tokenizer().decode(ids[:start])
            question, _, rest = prompt.partition("<|im_end|>")
            assert rest == "\n<|im_start|>assistant\n"
            assert ids[:start] == processor.question_ids(question)
            kind = KINDS[exchanges.kind[n]]
            seen.add(kind)
            has_options = kind not in (*NUMBER_TYPES, *DENSE_KINDS, "vsc")
            assert kind in OPTIONS or ("Options:" in question) == has_options
    assert seen & set(NUMBER_TYPES) and seen & set(DENSE_KINDS)


def test_questions_too_long_for_a_branch_are_dropped_and_counted() -> None:
    worker, ring = clips.new_worker(), ClipRing(clips.SPEC, 2, clips.CPU)
    asked = clips.make(worker, ring, clips.task()._replace(branch_length=24))
    long = {record.seed: record for record in records()}
    for record in asked.records:
        whole = long[record.seed]
        assert record.dropped > 0
        assert len(record.exchanges) + record.dropped == len(whole.exchanges) + whole.dropped
        assert record.exchanges.stop.max(initial=0) <= 24


def test_a_filmed_home_knows_the_category_of_every_object() -> None:
    filmed = clips.new_worker().film(clips.task()).homes[0]
    view_home, _ = make_walk(
        clips.SEEDS[0], clips.SPEC, clips.LOOK, np.random.default_rng((clips.SEEDS[0], 11))
    )
    names = {item.object_id: item.category for item in view_home.scene.objects}
    for number in range(MAX_OBJECTS):
        assert categories()[filmed.category[number]] == names.get(number, "building")


def test_small_and_surplus_things_are_left_out() -> None:
    home = make_home(home_seed("val", 1), num_rooms=2)
    few = Difficulty(rooms=(2, 2), least_size=0.5, most_objects=6, walks=False)
    thin = make_home(home_seed("val", 1), num_rooms=2, keep=partial(thin_out, few))
    assert len(home.placed) > len(thin.placed) == len(thin.scene.objects) == 6
    assert all(max(placed.furniture.size) >= 0.5 for placed in thin.placed)
    ids = [item.object_id for item in thin.scene.objects]
    assert len(set(ids)) == 6 and min(ids) > 0 and max(ids) < MAX_OBJECTS
    everything = Difficulty(rooms=(2, 2), least_size=0.0, most_objects=500, walks=False)
    assert thin_out(everything, list(home.placed)) == list(home.placed)


def test_a_walk_has_the_clips_frames() -> None:
    spec = ClipSpec(num_slots=5, fps=2.0, width=64, height=32)
    home, camera = make_walk(home_seed("val", 4), spec, WALK, np.random.default_rng(0))
    np.testing.assert_allclose(camera.times, spec.times)
    assert (camera.width, camera.height) == (64, 32)
    assert 1 <= len(home.plan.rooms) <= 2
    again, same = make_walk(home_seed("val", 4), spec, WALK, np.random.default_rng(0))
    assert (same.camera_to_world == camera.camera_to_world).all() and again.seed == home.seed


def test_where_no_walk_exists_the_error_names_the_seed() -> None:
    palace = Difficulty(rooms=(30, 30), least_size=0.3, most_objects=40, walks=True)
    with pytest.raises(SceneError, match="no home near seed 5 has a walk of 8 frames: num_rooms"):
        make_walk(5, clips.SPEC, palace, np.random.default_rng(0))


def test_a_home_that_cannot_be_made_is_left_out_and_named() -> None:
    worker = clips.new_worker()
    reply = worker.film(clips.task(seeds=(-1, clips.SEEDS[0])))
    assert len(reply.homes) == 1
    assert len(reply.failures) == 1
    assert reply.failures[0].startswith("furnishing seed -1: ValueError")


def test_a_sighting_of_another_shape_is_a_failure_of_that_home_alone() -> None:
    worker = clips.new_worker()
    homes = worker.film(clips.task()).homes
    good = np.zeros((clips.SPEC.num_frames, MAX_OBJECTS), np.int32)
    bad = Sighting(homes[0].ticket, good[:3])
    reply = worker.ask([bad, Sighting(homes[1].ticket, good)])
    assert [ticket for ticket, _ in reply.failures] == [homes[0].ticket]
    assert f"asking about seed {clips.SEEDS[0]}: SceneError" in reply.failures[0][1]
    assert [record.ticket for record in reply.records] == [homes[1].ticket]
    assert not worker.kept  # nothing is held for homes that are done


def test_sightings_are_answered_before_tasks_and_none_ends() -> None:
    worker = clips.new_worker()
    ticket = worker.film(clips.task(seeds=clips.SEEDS[:1])).homes[0].ticket
    inbox: SimpleQueue = SimpleQueue()
    outbox: SimpleQueue = SimpleQueue()
    pixels = np.zeros((clips.SPEC.num_frames, MAX_OBJECTS), np.int32)
    inbox.put(clips.task(7, clips.SEEDS[1:]))
    inbox.put([Sighting(ticket, pixels)])
    inbox.put(clips.task(8, ()))
    serve_three(worker, inbox, outbox)
    assert [type(outbox.get()) for _ in range(3)] == [AskedClips, FilmedHomes, FilmedHomes]
    assert outbox.empty()


def serve_three(worker, inbox: SimpleQueue, outbox: SimpleQueue) -> None:
    """Serve in a thread until three replies came, then end it."""
    thread = Thread(target=serve, args=(worker, inbox, outbox), daemon=True)
    thread.start()
    end = monotonic() + 30
    while outbox.qsize() < 3 and monotonic() < end:
        sleep(0.005)
    inbox.put(None)
    thread.join(timeout=10)
    assert not thread.is_alive()


def test_questions_with_options_are_asked_in_words_too() -> None:
    """The same words without options, answered by what the right option says."""
    worker, ring = clips.new_worker(), clips.ring()
    decode = clips.tokenizer().decode
    choice, words = worker.prompts["choice"], worker.prompts["number"]
    seen = 0
    for place in ring.ready:
        exchanges = ring.records[place].exchanges
        said, options = {}, {}
        for ids, start, kind, truth in zip(
            exchanges.ids, exchanges.start, exchanges.kind, exchanges.truth, strict=True
        ):
            text = decode(ids[:start]).split("<|im_end|>")[0]
            if KINDS[kind] == "dense_said":
                said[text] = truth
            elif KINDS[kind] in SAID:
                options[text] = truth
        for text, letter in options.items():
            question, rest = text.split(choice.split("{question}")[1].split("{options}")[0])
            right = next(line for line in rest.splitlines() if line.startswith(f"{letter}. "))
            plain = words.format(question=question)
            if plain in said:  # else it was too long for a branch
                assert said[plain] == right.removeprefix(f"{letter}. ")
                seen += 1
    assert seen >= 3


def test_some_questions_of_left_or_right_have_options() -> None:
    worker = clips.new_worker()
    rng = np.random.default_rng(0)
    row = ("dense_side", "At the bed, facing the desk: is the lamp left or right?", "left")
    letters = set()
    for _ in range(8):
        kind, words, answer = worker._lettered(row, rng)
        assert kind == "dense_side" and f"{answer}. left\n" in words + "\n"
        letters.add(answer)
    assert letters == {"A", "B"}
    assert worker._lettered(("dense_turn", "Where?", "left 1.0"), rng)[1] == "Where?"


def test_turns_of_a_route_may_have_three_options() -> None:
    worker = clips.new_worker()
    words = "At the bed, facing the desk: to go to the lamp, turn left, right or back?"
    rng = np.random.default_rng(0)
    letters = set()
    for _ in range(30):
        _, asked, answer = worker._lettered(("dense_leg", words, "back"), rng)
        assert f"{answer}. back\n" in asked and asked.count("\n") == 5
        letters.add(answer)
    assert letters == {"A", "B", "C"}


def test_some_homes_walked_through_have_something_to_remember() -> None:
    """What the record says is what the question says and what the pictures show."""
    worker = clips.new_worker()
    ring = ClipRing(clips.SPEC, 24, clips.CPU)
    seeds = tuple(home_seed("val", 300 + n) for n in range(24))
    wanted = clips.task(1, seeds)._replace(difficulty=WALK)
    asked = clips.make(worker, ring, wanted)
    spots = [KINDS.index("dense_spot") in record.exchanges.kind for record in asked.records]
    assert 2 <= sum(spots) < 12
    decode = clips.tokenizer().decode
    for place, record in enumerate(asked.records):
        assert spots[place] == (record.needle is not None)
        if record.needle is None:
            continue
        exchanges = record.exchanges
        row = exchanges.kind.tolist().index(KINDS.index("dense_spot"))
        names = categories()[record.needle.item], categories()[record.needle.place]
        words = decode(exchanges.ids[row][: exchanges.start[row]])
        assert words.startswith(f"Next to what is the {names[0]}?")
        assert exchanges.truth[row] == names[1]
        assert record.facts.counted[0, record.needle.item] == 1
        assert np.isfinite(record.facts.place[record.needle.item]).all()
        at = next(p for p in ring.ready if ring.records[p] is record)
        shown = (ring.category[at] == record.needle.item).flatten(1).any(1).numpy()
        assert record.needle.clear.any() and (shown <= record.needle.clear).all()


def test_a_clip_on_the_spot_has_nothing_to_remember() -> None:
    assert all(record.needle is None for record in records())
