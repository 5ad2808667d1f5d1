"""A pipe to a worker: in order, whole, and with a clear end. How it never blocks is in test_pool."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import numpy as np
import pytest

from spatial_ttt.errors import DataError
from spatial_ttt.train.channel import Channel
from tests.train import stub_workers


@pytest.fixture
def channel() -> Iterator[Channel]:
    made = Channel(3, stub_workers.echo, ())
    yield made
    made.close()


def test_messages_come_back_in_order_and_whole(channel: Channel) -> None:
    assert not channel.has_message
    sent = [np.arange(n, dtype=np.int32) for n in (0, 1, 100_000)]
    for message in sent:
        channel.send(message)
    for message in sent:
        np.testing.assert_array_equal(channel.receive(), message)
    assert not channel.has_message


def test_a_dead_worker_is_named_with_the_signal_that_ended_it(channel: Channel) -> None:
    channel.send("ready?")
    assert channel.receive() == "ready?"
    pid = channel.process.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(DataError, match=r"scene worker 3 ended by signal 9 .*memory ran out"):
        channel.receive()
    with pytest.raises(DataError, match="scene worker 3 ended by signal 9"):
        for _ in range(100):  # the pipe may take a few before it breaks
            channel.send(bytes(1 << 16))
            time.sleep(0.01)


def test_a_worker_that_ends_by_itself_is_told_from_one_that_was_killed() -> None:
    made = Channel(0, stub_workers.leave, ())
    try:
        with pytest.raises(DataError, match=r"ended by itself \(exit code 0\)"):
            made.receive()
    finally:
        made.close()


def test_closing_ends_the_process(channel: Channel) -> None:
    channel.close()
    assert channel.process.exitcode == -signal.SIGKILL
