"""Worker processes that answer at once with messages as large as real ones; free of torch."""

from __future__ import annotations

import os
import time
from functools import partial
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

import numpy as np

from spatial_ttt.train.channel import serve_connection
from spatial_ttt.train.clip_types import (
    MAX_OBJECTS,
    AskedClips,
    Exchanges,
    Facts,
    Filmed,
    FilmedHomes,
    Record,
    SceneTask,
    Sighting,
    categories,
)

PARTS = 300  # of a large home: 38 KB a clip
QUESTIONS = 40


def film(task: SceneTask, seed: int, ticket: int) -> Filmed:
    """A home of which only the size is right; its parts carry the seed."""
    return Filmed(
        ticket,
        np.full((PARTS, 32), seed, np.float32),
        np.zeros((task.spec.num_frames, 3, 4), np.float32),
        (1.0, 1.0, 0.0, 0.0),
        np.zeros(MAX_OBJECTS, np.uint8),
    )


def ask(task: SceneTask, seed: int, sighting: Sighting) -> Record:
    """Questions whose answer is the seed and what was seen of object 1."""
    truth = (f"{seed} {sighting.pixels[0, 1]}",) * QUESTIONS
    rows = np.ones((QUESTIONS, task.branch_length), np.int16)
    one, kinds = np.ones(QUESTIONS, np.int16), len(categories())
    kind, named = np.zeros(QUESTIONS, np.uint8), np.zeros(rows.shape, np.uint8)
    exchanges = Exchanges(rows, one, one + 1, kind, named, truth)
    slots = task.spec.num_slots
    facts = Facts(
        np.full((slots, 4), seed, np.float32),
        np.zeros((slots, kinds), np.uint8),
        np.zeros((kinds, 2), np.float32),
        np.zeros(kinds, np.float32),
        np.zeros((4, kinds), np.uint8),
        np.zeros((4, kinds), np.uint8),
    )
    return Record(sighting.ticket, seed, exchanges, facts, 1)


def serve(fault: str, inbox: SimpleQueue[Any], outbox: SimpleQueue[Any]) -> None:
    """Answer everything; at seed 40, or (silence) from the start, do what `fault` says."""
    kept: dict[int, tuple[SceneTask, int]] = {}
    while (message := inbox.get()) is not None:
        if fault == "silence":
            continue
        if not isinstance(message, SceneTask):
            outbox.put(AskedClips([ask(*kept.pop(s.ticket), s) for s in message], []))
            continue
        if fault == "death" and 40 in message.seeds:
            os.abort()
        reply = FilmedHomes(message.number, [], [])
        for seed in message.seeds:
            if (fault == "odd" and seed % 40 == 0) or fault == "all odd":
                reply.failures.append(f"seed {seed} is odd")
                continue
            ticket = len(kept) + 1000 * message.number
            kept[ticket] = (message, seed)
            reply.homes.append(film(message, seed, ticket))
        outbox.put(reply)


def run(connection: Connection, fault: str) -> None:
    """The entry of a worker process."""
    serve_connection(connection, partial(serve, fault))


def echo(connection: Connection) -> None:
    """A worker that says what it hears."""

    def serve(inbox: SimpleQueue[Any], outbox: SimpleQueue[Any]) -> None:
        while (message := inbox.get()) is not None:
            outbox.put(message)

    serve_connection(connection, serve)


def echo_late(connection: Connection) -> None:
    """The same, but it begins to listen late."""
    time.sleep(0.5)
    echo(connection)


def leave(connection: Connection) -> None:
    """A worker that has nothing to say."""
    connection.close()
