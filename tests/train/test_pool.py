"""The pool's promise: it never blocks, loses nothing, and says what is wrong."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest
import torch

from spatial_ttt.errors import DataError
from spatial_ttt.scenes.raycast import RayCameras, RayLayers, RayScenes
from spatial_ttt.train.channel import Channel
from spatial_ttt.train.clip_types import MAX_OBJECTS, ClipSpec, Difficulty
from spatial_ttt.train.pool import ClipSource, Order
from spatial_ttt.train.ring import ClipRing
from tests.train import stub_workers

SPEC = ClipSpec(num_slots=14, fps=2.0, width=32, height=32)
LOOK = Difficulty(rooms=(1, 1), least_size=0.5, most_objects=8, walks=False)
CPU = torch.device("cpu")


def paint(scenes: RayScenes, cameras: RayCameras) -> RayLayers:
    """Pictures filled with the seed (mod 256); pixel counts as many as the seed."""
    batch, frames = cameras.poses.shape[:2]
    shape = (batch, frames, cameras.height, cameras.width)
    seed = scenes.records[:, 0, 0].long()
    rgb = (seed % 256).to(torch.uint8)[:, None, None, None, None].expand(*shape, 3)
    pixels = seed.int()[:, None, None].expand(batch, frames, MAX_OBJECTS)
    return RayLayers(rgb, torch.zeros(shape, dtype=torch.int32), torch.ones(shape), pixels)


@contextmanager
def source(workers: int, fault: str = "", **others: object) -> Iterator[ClipSource]:
    made = ClipSource(workers, (fault,), paint, **{"entry": stub_workers.run} | others)  # type: ignore[arg-type]
    try:
        yield made
    finally:
        made.close()


def order(ring: ClipRing, seeds: range, most: int | None = None, size: int = 16) -> Order:
    return Order(
        ring=ring,
        difficulty=LOOK,
        branch_length=96,
        next_seed=seeds.start,
        last_seed=seeds.stop,
        most_under_way=ring.capacity // 2 if most is None else most,
        task_size=size,
    )


def pump_until(pool: ClipSource, made: int, seconds: float = 25.0) -> None:
    end = time.monotonic() + seconds
    while pool.tally.made < made:
        assert time.monotonic() < end, pool.describe()
        if not pool.pump():
            time.sleep(0.001)


def check_clips(ring: ClipRing) -> set[int]:
    """Pictures, facts and answers of every ready clip belong together; returns their seeds."""
    seeds = set()
    assert len(set(ring.ready)) == len(ring.ready)
    for place in ring.ready:
        record = ring.records[place]
        assert record is not None
        assert record.exchanges.truth[0] == f"{record.seed} {record.seed}"
        assert (ring.frames[place] == record.seed % 256).all()
        assert (ring.pose[place] == record.seed).all()
        seeds.add(record.seed)
    return seeds


def test_many_workers_with_large_messages_never_block() -> None:
    """2 MB tasks and replies both ways through pipes of some 200 KB, the parent pausing as in a step."""
    ring = ClipRing(SPEC, 512, CPU)
    with source(14) as pool:
        pool.stream = order(ring, range(1, 1 << 30), size=32)
        slowest = 0.0
        end = time.monotonic() + 25
        while pool.tally.made < 2000:
            assert time.monotonic() < end, pool.describe()
            began = time.monotonic()
            pool.pump(limit=96)
            slowest = max(slowest, time.monotonic() - began)
            time.sleep(0.02)
        assert slowest < 5.0
        assert len(check_clips(ring)) >= ring.capacity // 2


@pytest.mark.parametrize("entry", [stub_workers.echo, stub_workers.echo_late])
def test_sending_ends_while_replies_lie_in_the_pipe(entry: Callable[..., None]) -> None:
    """The dead end of a bare pipe: both sides send more than it holds before either reads."""
    message = bytes(1 << 20)
    channel = Channel(0, entry, ())
    try:
        sender = Thread(target=lambda: [channel.send(message) for _ in range(20)], daemon=True)
        sender.start()
        sender.join(timeout=15)
        assert not sender.is_alive(), "send waits for replies to be fetched"
        assert [len(channel.receive()) for _ in range(20)] == [len(message)] * 20
    finally:
        channel.close()


def test_orders_come_first_and_end() -> None:
    held_out, ring = ClipRing(SPEC, 100, CPU), ClipRing(SPEC, 64, CPU)
    with source(3) as pool:
        finite = order(held_out, range(1, 101), most=100, size=7)
        pool.orders, pool.stream = [finite], order(ring, range(1000, 1 << 30), size=4)
        while not (finite.is_done and len(ring.ready) >= 32):
            pump_until(pool, pool.tally.made + 1)
        assert check_clips(held_out) == set(range(1, 101))
        assert min(check_clips(ring)) >= 1000


def test_a_small_ring_is_not_overrun() -> None:
    ring = ClipRing(SPEC, 12, CPU)
    with source(4) as pool:
        pool.stream = order(ring, range(1, 1 << 30), most=6, size=2)
        for goal in range(20, 200, 20):
            pump_until(pool, goal)
            assert len(ring.pending) <= 6
            check_clips(ring)


def test_a_new_ring_gets_none_of_the_old_ones_clips() -> None:
    first, second = ClipRing(SPEC, 64, CPU), ClipRing(SPEC, 64, CPU)
    with source(4) as pool:
        pool.stream = order(first, range(1, 1000), size=8)
        pump_until(pool, 64)
        pool.stream = order(second, range(5000, 1 << 30), size=8)
        pump_until(pool, 300)
        assert max(check_clips(first)) < 1000
        assert min(check_clips(second)) >= 5000


def test_a_dead_worker_is_an_error() -> None:
    ring = ClipRing(SPEC, 256, CPU)
    with source(3, "death") as pool:
        pool.stream = order(ring, range(1, 1 << 30), size=4)
        with pytest.raises(DataError, match=r"scene worker \d ended by signal 6"):
            pump_until(pool, 10_000)


def test_silence_is_an_error_that_describes_the_pipeline() -> None:
    ring = ClipRing(SPEC, 256, CPU)
    with source(2, "silence", patience=(0.2, 3.0)) as pool:
        pool.stream = order(ring, range(1, 1 << 30), size=4)
        with pytest.raises(DataError, match=r"anything for 3 s.*worker 1: alive, 3 tasks"):
            pump_until(pool, 1)


def test_pausing_for_longer_than_the_patience_is_no_silence() -> None:
    ring = ClipRing(SPEC, 256, CPU)
    with source(2, patience=(0.5, 20.0)) as pool:
        pool.stream = order(ring, range(1, 1 << 30), size=4)
        pump_until(pool, 20)
        time.sleep(0.8)
        pump_until(pool, 100)


def test_odd_homes_are_left_out() -> None:
    ring = ClipRing(SPEC, 256, CPU)
    with source(2, "odd") as pool:
        pool.stream = order(ring, range(1, 1 << 30), size=8)
        pump_until(pool, 200)
        assert pool.tally.failed >= 4
        assert all(seed % 40 for seed in check_clips(ring))


def test_many_odd_homes_are_an_error() -> None:
    with source(2, "all odd") as pool:
        pool.stream = order(ClipRing(SPEC, 64, CPU), range(1, 1 << 30), size=8)
        with pytest.raises(DataError, match="homes failed, 0 did not; the last: seed"):
            pump_until(pool, 10_000)


def test_closing_is_quick_while_all_are_busy() -> None:
    with source(6) as pool:
        pool.stream = order(ClipRing(SPEC, 512, CPU), range(1, 1 << 30))
        pump_until(pool, 100)
        began = time.monotonic()
        pool.close()
        assert time.monotonic() - began < 3.0
        assert not any(worker.channel.process.is_alive() for worker in pool.workers)


def test_workers_are_born_deaf_to_signals_of_the_group() -> None:
    ring = ClipRing(SPEC, 256, CPU)
    with source(2) as pool:
        for worker in pool.workers:
            assert worker.channel.process.pid is not None
            os.kill(worker.channel.process.pid, 15)
        pool.stream = order(ring, range(1, 1 << 30), size=8)
        pump_until(pool, 50)


def test_real_workers_make_clips(tmp_path: Path) -> None:
    from spatial_ttt.eval.profiles import load_profile
    from spatial_ttt.presets import TINY_VOCAB_SIZE
    from spatial_ttt.scenes.homes import home_seed
    from spatial_ttt.tokenizer import default_texts, train_tokenizer
    from spatial_ttt.train.draw import best_caster

    train_tokenizer(default_texts(), TINY_VOCAB_SIZE).save_pretrained(tmp_path)
    profile, first = load_profile("paper"), home_seed("train", 0)
    arguments = (str(tmp_path / "tokenizer.json"), (profile.number, profile.choice))
    spec = ClipSpec(num_slots=3, fps=2.0, width=64, height=32)
    ring = ClipRing(spec, 8, CPU)
    pool = ClipSource(2, arguments, best_caster(CPU)[0])
    try:
        wanted = order(ring, range(first, first + 6), most=8, size=2)
        pool.orders = [wanted]
        pump_until(pool, 6, seconds=40)
        assert wanted.is_done
        assert pool.tally.failed == 0
        assert all(record.exchanges.truth for record in ring.records if record is not None)
        assert ring.frames[ring.ready].float().std() > 5  # pictures, not one colour
    finally:
        pool.close()
