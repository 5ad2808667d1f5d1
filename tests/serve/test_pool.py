"""Sleeping and waking against everything that may happen at the same time."""

from __future__ import annotations

import asyncio
import time

import pytest

from spatial_ttt.errors import SessionClosed
from spatial_ttt.generate import Decoding
from spatial_ttt.serve import budget
from spatial_ttt.serve.budget import session_budget
from spatial_ttt.serve.caretaker import Caretaker
from spatial_ttt.serve.metrics import Metrics
from spatial_ttt.serve.pool import SessionPool
from spatial_ttt.serve.problems import Problem
from spatial_ttt.serve.schemas import view_session
from spatial_ttt.serve.server import room_warning
from spatial_ttt.serve.steps import ModelSteps
from spatial_ttt.video import Frame
from tests.serve.parts import loaded, offline, opened, pixels, running, settings

SHORT = Decoding(max_new_tokens=12)


def with_pool(folder, work, **changes):
    """Run `work(pool)` and stop the pool as a server does."""

    async def run():
        pool = SessionPool(loaded(), settings(folder, **changes), ModelSteps(2), Metrics())
        try:
            return await work(pool)
        finally:
            await Caretaker(pool).drain()
            await asyncio.to_thread(pool.shutdown)

    return asyncio.run(run())


async def watch(hosted, index):
    return await hosted.watch_next(Frame(pixels(index), index / 2))


async def answer(hosted):
    return "".join([piece async for piece in (await hosted.ask("How many?", SHORT)).pieces])


def expected(count):
    return "".join(offline(count).ask("How many?", SHORT))


@pytest.mark.parametrize("holds_on", [True, False])
def test_a_frame_that_comes_while_a_session_falls_asleep_is_not_lost(tmp_path, holds_on):
    """The request has the session in hand, its frame arrives while the session is being put to sleep."""

    async def work(pool):
        hosted = await pool.create("ann")
        session_id = hosted.record.session_id
        for index in range(3):
            await watch(hosted, index)
        arrived = asyncio.Event()

        async def load():
            await arrived.wait()
            return pixels(3)

        async def request():
            if holds_on:
                with hosted.in_use():
                    return await hosted.watch(3, 1.5, load)
            await asyncio.sleep(0)
            return await hosted.watch(3, 1.5, load)

        pushing = asyncio.ensure_future(request())
        sleeping = asyncio.ensure_future(Caretaker(pool).put_to_sleep(hosted))
        await asyncio.sleep(0.05)
        arrived.set()
        try:
            was_watched = (await pushing).status == "watched"
        except SessionClosed:  # it came too late: told so, and to be sent again
            was_watched = False
        await sleeping
        again = await pool.get("ann", session_id)
        assert again.record.next_id == (4 if was_watched else 3)
        assert again.session.state.num_frames == again.record.next_id
        assert await answer(again) == expected(again.record.next_id)

    with_pool(tmp_path, work)


def test_whoever_looks_while_a_session_falls_asleep_never_finds_it_closed(tmp_path):
    """At every turn of the loop it is either open, with its figures, or asleep."""

    async def work(pool):
        hosted = await pool.create("ann")
        session_id = hosted.record.session_id
        await watch(hosted, 0)
        sleeping = asyncio.ensure_future(Caretaker(pool).put_to_sleep(hosted))
        states = []
        while not sleeping.done():
            record = pool.record_of("ann", session_id)
            states.append(view_session(record, pool.open.get(session_id), 0).state)
            await asyncio.sleep(0)
        assert await sleeping and states[0] == "open" and states[-1] == "asleep"
        assert states == sorted(states, reverse=True)

    with_pool(tmp_path, work)


def test_whoever_comes_while_a_session_wakes_gets_the_same_one(tmp_path):
    async def work(pool):
        hosted = await pool.create("ann")
        session_id = hosted.record.session_id
        await watch(hosted, 0)
        assert await Caretaker(pool).put_to_sleep(hosted)
        assert (pool.ledger.promised, pool.open) == (0, {})
        woken = await asyncio.gather(*(pool.get("ann", session_id) for _ in range(5)))
        assert len({id(w) for w in woken}) == 1
        with pytest.raises(Problem, match="no such session"):
            await pool.get("bob", session_id)

    with_pool(tmp_path, work)


def test_a_session_in_use_does_not_sleep(tmp_path):
    async def work(pool):
        hosted = await pool.create("ann")
        with hosted.in_use():
            assert not await Caretaker(pool).put_to_sleep(hosted)
            assert (await watch(hosted, 0)).status == "watched"
        hosted.feeder = "camera"
        assert not await Caretaker(pool).put_to_sleep(hosted)
        hosted.feeder = None
        assert await Caretaker(pool).put_to_sleep(hosted)

    with_pool(tmp_path, work)


def test_a_session_that_is_closed_stays_closed(tmp_path):
    """The folder is looked through while a session is being deleted from it."""

    async def work(pool):
        for _ in range(20):
            hosted = await pool.create("ann")
            session_id = hosted.record.session_id
            await asyncio.gather(
                Caretaker(pool).look_for_moved(),
                pool.close("ann", session_id),
                Caretaker(pool).look_for_moved(),
            )
            assert session_id not in pool.asleep
            assert session_id not in pool.open
        assert pool.ledger.promised == 0

    with_pool(tmp_path, work)


def test_sleeping_waking_and_watching_at_random_lose_nothing(tmp_path):
    async def work(pool):
        session_id = (await pool.create("ann")).record.session_id
        done = asyncio.Event()

        async def nightfall():
            while not done.is_set():
                hosted = pool.open.get(session_id)
                if hosted is not None:
                    await Caretaker(pool).put_to_sleep(hosted)
                await asyncio.sleep(0)

        night = asyncio.ensure_future(nightfall())
        index = 0
        while index < 12:
            hosted = await pool.get("ann", session_id)
            try:
                index += (await watch(hosted, index)).status == "watched"
            except SessionClosed:
                continue
        done.set()
        await night
        hosted = await pool.get("ann", session_id)
        assert hosted.record.next_id == hosted.session.state.num_frames == 12
        assert await answer(hosted) == expected(12)

    with_pool(tmp_path, work)


def test_sessions_that_were_opened_together_are_not_saved_together(tmp_path):
    with running(tmp_path, snapshot_s=1000.0) as client:
        sessions = [opened(client) for _ in range(12)]
        last = [client.service.pool.open[session].last_save for session in sessions]
        now = time.monotonic()
    assert all(now - 1030 < moment <= now for moment in last)
    assert max(last) - min(last) > 100  # of the 1000 s between two saves


def test_sessions_share_one_engine_as_on_a_gpu(tmp_path):
    """Two sessions and a fork in turn, one of them put to sleep and woken on the way."""

    async def work(pool):
        assert pool.engine is None  # a CPU gains nothing
        pool.share_engine()
        first, second = await pool.create("ann"), await pool.create("ben")
        for index in range(8):
            await watch(first, index)
            await watch(second, index)
        answers = await asyncio.gather(answer(first), answer(second))
        assert await Caretaker(pool).put_to_sleep(first)
        await watch(second, 8)
        woken = await pool.get("ann", first.record.session_id)
        assert woken is not first and woken.session._steady is pool.engine
        await watch(woken, 8)
        twin = await pool.fork("ben", second.record.session_id, "twin")
        await watch(twin, 9)
        assert twin.session._steady is pool.engine
        return answers, await answer(woken), await answer(second), await answer(twin)

    early, woken, second, twin = with_pool(tmp_path, work)
    assert set(early) == {expected(8)}
    assert woken == second == expected(9) and twin == expected(10)


def test_a_shared_engine_takes_its_part_of_the_budget(tmp_path):
    """Of room for two sessions and an engine, less a byte, only one session is left."""
    price = session_budget(loaded())
    one, engine = price.bytes_for(1000), price.engine_bytes
    assert engine == 2 * price.state.fixed
    total = 2 * one + engine - 1

    async def work(pool):
        pool.share_engine()
        await pool.create("ann")
        with pytest.raises(Problem, match=f"{one - 1} of {total} are free"):
            await pool.create("ann")

    with_pool(tmp_path, work, max_state_bytes=total)


def test_an_engine_that_turns_out_larger_leaves_less_to_promise(tmp_path, monkeypatch):
    """Whoever is in keeps what was promised; who comes next finds less room."""
    one = session_budget(loaded()).bytes_for(1000)
    monkeypatch.setattr(budget, "_ENGINE_STATES", 0)  # nobody knew what it would need

    async def work(pool):
        pool.share_engine()
        first, second = await pool.create("ann"), await pool.create("ann")
        for index in range(8):
            await watch(first, index)
        await pool.close("ann", second.record.session_id)
        again = await pool.create("ann")  # not measured yet
        await pool.close("ann", again.record.session_id)
        await Caretaker(pool).look_after()
        assert pool.ledger.aside == pool.engine.num_bytes > 0
        with pytest.raises(Problem, match=f"of {2 * one} are free"):
            await pool.create("ann")
        assert (await watch(first, 8)).status == "watched"
        assert pool.ledger.promised == one

    with_pool(tmp_path, work, max_state_bytes=2 * one)


def test_a_budget_that_an_engine_takes_whole_is_told(tmp_path):
    one = session_budget(loaded()).bytes_for(1000)
    with running(tmp_path, max_state_bytes=one) as client:
        assert room_warning(client.service) is None
        client.service.pool.share_engine()
        assert "NO SESSION FITS" in room_warning(client.service)
        assert client.post("/v1/sessions", json={}).status_code == 503
        told = client.get("/metrics").text.splitlines()
        aside = session_budget(loaded()).engine_bytes
        assert any(
            line.startswith("spatial_ttt_engine_bytes ") and float(line.split()[1]) == aside
            for line in told
        )
        assert client.get("/v1/info").json()["engine_bytes"] == aside
