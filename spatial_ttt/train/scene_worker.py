"""A worker process: homes and cameras first, then, once they were seen, questions and facts.

task -> homes, cameras -> (rendered elsewhere) -> sightings -> questions, tokenised -> records
"""

from __future__ import annotations

import gc
import os
import traceback
from collections import deque
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
from numpy.random import Generator, default_rng

from spatial_ttt.errors import SceneError
from spatial_ttt.scenes.chain import Spot
from spatial_ttt.scenes.dice import Dice
from spatial_ttt.scenes.homes import Home, make_home
from spatial_ttt.scenes.questions import templates
from spatial_ttt.scenes.questions.fair import generate_fair
from spatial_ttt.scenes.questions.question import LETTERS, Question, lettered
from spatial_ttt.scenes.questions.seen import observe
from spatial_ttt.scenes.scene import Camera, Visibility
from spatial_ttt.scenes.shading import pack_parts
from spatial_ttt.scenes.space import Placed
from spatial_ttt.scenes.views import pack_views
from spatial_ttt.scenes.walk import walk
from spatial_ttt.train import dense_facts, recall, route_words
from spatial_ttt.train.camera_paths import look_around
from spatial_ttt.train.channel import serve_connection
from spatial_ttt.train.clip_types import (
    KINDS,
    MAX_OBJECTS,
    AskedClips,
    ClipSpec,
    Difficulty,
    Exchanges,
    Filmed,
    FilmedHomes,
    Record,
    SceneTask,
    Sighting,
    categories,
)
from spatial_ttt.train.encoder import Encoder, encode_exchange
from spatial_ttt.train.named import NameFinder

QUESTION_LIMITS = {
    "object_counting": 3,
    "object_abs_distance": 4,
    "object_size_estimation": 3,
    "room_size_estimation": 1,
    "object_rel_distance": 4,
    "object_rel_direction_easy": 3,
    "object_rel_direction_medium": 3,
    "object_rel_direction_hard": 3,
    "obj_appearance_order": 3,
    "route_planning": 2,
}
"""How many of each type a clip carries at most."""
SAID = (
    "object_rel_distance",
    "object_rel_direction_easy",
    "object_rel_direction_medium",
    "object_rel_direction_hard",
)
"""Types with options that are asked without them too: a letter gives no gradient before its meaning is known.

Routes are too, in smaller steps (`route_words`)."""
LETTERED = 0.35  # share of the questions below that have options
OPTIONS = {"dense_side": ("left", "right"), "dense_leg": ("left", "right", "back")}
WALK_FIELD_OF_VIEW = (65.0, 80.0)  # degrees across
ONE_HOME = (ValueError, LookupError, ArithmeticError)
"""What may go wrong in one home among many thousands without ending a run; SceneError is a ValueError."""
NICENESS = 10  # homes can wait; the process that feeds the device, or compiles for it, cannot
ATTEMPTS = 8  # seeds tried in turn until one gives a home with a walk


@dataclass(frozen=True, slots=True)
class _Kept:
    seed: int
    home: Home
    camera: Camera
    task: SceneTask
    spot: Spot | None


class SceneWorker:
    """Makes homes and asks about them; holds what waits for its sighting."""

    def __init__(self, tokenizer_file: str, number_prompt: str, choice_prompt: str) -> None:
        from tokenizers import Tokenizer

        self.encoder = Encoder(Tokenizer.from_file(tokenizer_file))
        self.prompts = {"number": number_prompt, "choice": choice_prompt}
        self.index = {name: n for n, name in enumerate(categories())}
        furniture = {name: n for name, n in self.index.items() if n}
        self.names = NameFinder(self.encoder.encode, furniture)
        self.kept: dict[int, _Kept] = {}
        self.tickets = 0

    def film(self, task: SceneTask) -> FilmedHomes:
        """Homes and cameras of a task."""
        reply = FilmedHomes(task.number, [], [])
        for seed in task.seeds:
            try:
                reply.homes.append(self._film(seed, task))
            except ONE_HOME as error:
                reply.failures.append(f"furnishing seed {seed}: {_where(error)}")
        return reply

    def _film(self, seed: int, task: SceneTask) -> Filmed:
        rng = default_rng((seed, 11))
        home, camera = make_walk(seed, task.spec, task.difficulty, rng)
        spot = None
        if task.difficulty.walks and rng.random() < recall.SHARE:
            home, camera, spot = with_unusual(home, camera, task, rng)
        self.tickets += 1
        self.kept[self.tickets] = _Kept(seed, home, camera, task, spot)
        lookup = np.zeros(MAX_OBJECTS, np.uint8)
        for item in home.scene.objects:
            lookup[item.object_id] = self.index[item.category]
        views = pack_views(camera, None, task.spec.width, task.spec.height)
        records = pack_parts(home.parts)
        return Filmed(self.tickets, records, views.texels[:, 3:].copy(), views.lens, lookup)

    def ask(self, sightings: list[Sighting]) -> AskedClips:
        """Questions and facts of homes that were seen."""
        reply = AskedClips([], [])
        for sighting in sightings:
            kept = self.kept.pop(sighting.ticket)
            try:
                reply.records.append(self._ask(sighting, kept))
            except ONE_HOME as error:
                text = f"asking about seed {kept.seed}: {_where(error)}"
                reply.failures.append((sighting.ticket, text))
        return reply

    def _ask(self, sighting: Sighting, kept: _Kept) -> Record:
        scene, camera = kept.home.scene, kept.camera
        ids = np.array([item.object_id for item in scene.objects], np.int32)
        visibility = Visibility(ids, sighting.pixels[:, ids], camera.times)
        seen = observe(scene, visibility, camera)
        rng = default_rng((kept.seed, 12))
        questions = generate_fair(seen, rng, QUESTION_LIMITS)
        asked = [(q.question_type, self._prompt(q), q.ground_truth) for q in questions]
        asked += [self._as_stream(q) for q in questions if q.question_type == "object_counting"]
        view = dense_facts.View(scene, visibility, camera, seen)
        asked += [self._in_words(q) for q in questions if q.question_type in SAID]
        routes = [q for q in questions if q.question_type == "route_planning"]
        routes = route_words.routes_of(seen, routes, rng)
        dense = dense_facts.exchanges(view, kept.task.spec, rng)
        dense += route_words.exchanges(routes, self._number_prompt, rng)
        needle = None
        if kept.spot is not None:
            needle = recall.needle(kept.spot, visibility, camera, self.index)
            dense += recall.spot_questions(kept.spot, seen.first_clear, rng) if needle else []
        asked += [self._lettered(row, rng) if rng.random() < LETTERED else row for row in dense]
        exchanges = self._pack(asked, kept.task.branch_length)
        facts = dense_facts.facts(scene, visibility, camera, self.index)
        dropped = len(asked) - len(exchanges.truth)
        return Record(sighting.ticket, kept.seed, exchanges, facts, dropped, needle)

    def _prompt(self, question: Question) -> str:
        if question.options is None:
            return self._number_prompt(question.question)
        return self.prompts["choice"].format(
            question=question.question, options="\n".join(question.options)
        )

    def _number_prompt(self, words: str) -> str:
        return self.prompts["number"].format(question=words)

    def _in_words(self, question: Question) -> tuple[str, str, str]:
        """A question with options asked without them: what is meant, apart from which letter says so."""
        return "dense_said", self._number_prompt(question.question), question.answer_text

    def _lettered(self, row: tuple[str, str, str], rng: Generator) -> tuple[str, str, str]:
        """A question of a side with options, as the benchmark asks; others as they are."""
        kind, question, answer = row
        if kind not in OPTIONS:
            return row
        sides = rng.permutation(OPTIONS[kind]).tolist()
        options = "\n".join(lettered(sides))
        words = self.prompts["choice"].format(question=question, options=options)
        return kind, words, LETTERS[sides.index(answer)]

    def _as_stream(self, question: Question) -> tuple[str, str, str]:
        """A question about a number in a room in the words that are used for streams."""
        words = templates.ask_stream_count(question.facts["categories"][0])
        return "vsc", self._number_prompt(words), question.ground_truth

    def _pack(self, asked: list[tuple[str, str, str]], length: int) -> Exchanges:
        rows = []
        for kind, prompt, answer in asked:
            head, tail = encode_exchange(self.encoder.encode, prompt, answer)
            if len(head) + len(tail) <= length:
                rows.append((head, tail, KINDS.index(kind), answer))
        ids = np.zeros((len(rows), length), np.int16)
        named = np.zeros((len(rows), length), np.uint8)
        for row, names, (head, tail, _, _) in zip(ids, named, rows, strict=True):
            row[: len(head) + len(tail)] = head + tail
            names[: len(head)] = self.names.ends(head)
        return Exchanges(
            ids,
            np.array([len(head) for head, *_ in rows], np.int16),
            np.array([len(head) + len(tail) for head, tail, *_ in rows], np.int16),
            np.array([kind for _, _, kind, _ in rows], np.uint8),
            named,
            tuple(answer for *_, answer in rows),
        )


def make_walk(
    seed: int, spec: ClipSpec, difficulty: Difficulty, rng: Generator
) -> tuple[Home, Camera]:
    """A home of this difficulty and a camera in it; homes without a walk are passed over."""
    last: SceneError | None = None
    for attempt in range(ATTEMPTS):
        rooms = int(rng.integers(difficulty.rooms[0], difficulty.rooms[1] + 1))
        try:
            home = make_home(
                seed + attempt * 7919, num_rooms=rooms, keep=partial(thin_out, difficulty)
            )
            return home, film_path(home, spec, difficulty, rng)
        except SceneError as error:
            last = error
    raise SceneError(f"no home near seed {seed} has a walk of {spec.num_frames} frames: {last}")


def with_unusual(
    home: Home, camera: Camera, task: SceneTask, rng: Generator
) -> tuple[Home, Camera, Spot | None]:
    """The home with something to remember and a new walk through it, or both as they are."""
    found = recall.hide(home, camera, Dice(home.seed, 23))
    if found is None:
        return home, camera, None
    try:  # the thing may stand in the old way
        return found[0], film_path(found[0], task.spec, task.difficulty, rng), found[1]
    except SceneError:
        return home, camera, None


def film_path(home: Home, spec: ClipSpec, difficulty: Difficulty, rng: Generator) -> Camera:
    """The camera of a difficulty."""
    if not difficulty.walks:
        return look_around(home, spec, rng)
    return walk(
        home,
        int(rng.integers(1 << 30)),
        duration_s=spec.num_frames / spec.fps,
        fps=spec.fps,
        width=spec.width,
        height=spec.height,
        fov_deg=float(rng.uniform(*WALK_FIELD_OF_VIEW)),
    )


def thin_out(difficulty: Difficulty, placed: list[Placed]) -> list[Placed]:
    """What stays of a home: no small things, none beyond the number allowed."""
    large = [p for p in placed if max(p.furniture.size) >= difficulty.least_size]
    return large[: min(difficulty.most_objects, MAX_OBJECTS - 1)]


def run_worker(connection: Connection, tokenizer_file: str, prompts: tuple[str, str]) -> None:
    """Serve tasks and sightings until the other end closes."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.nice(NICENESS)
    worker = SceneWorker(tokenizer_file, *prompts)
    gc.freeze()
    serve_connection(connection, partial(serve, worker))


def serve(worker: SceneWorker, inbox: SimpleQueue[Any], outbox: SimpleQueue[Any]) -> None:
    """Answer until None comes: sightings first, their clips are the nearest to being ready."""
    tasks: deque[SceneTask] = deque()
    while True:
        while not tasks or not inbox.empty():
            message = inbox.get()
            if message is None:
                return
            if isinstance(message, SceneTask):
                tasks.append(message)
            else:
                outbox.put(worker.ask(message))
        outbox.put(worker.film(tasks.popleft()))


def _where(error: Exception) -> str:
    """The error and the line it came from."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({Path(frame.filename).name}:{frame.lineno})"
