"""What the small model sees when: from one room and a turning camera to walks through homes."""

from __future__ import annotations

from dataclasses import dataclass

from spatial_ttt.errors import ConfigError
from spatial_ttt.scenes.questions.question import QUESTION_TYPES
from spatial_ttt.train.clip_types import DENSE_KINDS, Chain, ClipSpec, Difficulty

EMPHASIS = {
    "obj_appearance_order": 2.0,
    "object_rel_distance": 2.0,
    "object_counting": 1.5,
    "dense_first": 2.0,
    "dense_sooner": 2.0,
    "dense_nearer": 2.0,
    "dense_side": 3.0,
    "dense_turn": 2.0,
    "dense_said": 5.0,
    "dense_leg": 4.0,
    "dense_route": 3.0,
    "dense_spot": 4.0,
    "route_planning": 1.5,
    "object_rel_direction_easy": 1.5,
    "vsc": 0.5,
}
"""Weights of kinds that are learned slowly, against 1."""


CHAINS = (Chain(2), Chain(6, 2), Chain(4), Chain(12, 2), Chain(8), Chain(20, 2))
"""Streams of up to twenty homes."""
LONG_CHAINS = (
    *(Chain(4), Chain(20, 2), Chain(40, 4), Chain(6, 2), Chain(30, 2), Chain(12, 2)),
    *(Chain(30, 3), Chain(8), Chain(60, 4), Chain(2), Chain(44, 2)),
)
"""Streams of up to sixty homes, half an hour of walking; as large as a step of clips, as far as that goes."""
TOUR_CHAINS = (
    *(Chain(6), Chain(36), Chain(3), Chain(20), Chain(16), Chain(8)),
    *(Chain(30), Chain(3), Chain(24), Chain(6), Chain(18)),
)
"""Streams of up to 36 tours, an hour of walking; of the longest only the end is learned from."""
SHORTEST_STAY = 0.3
"""Least share of a clip in streams of plan `hours`: else time would tell how many homes were seen."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One part of a plan, up to `until` (progress 0..1)."""

    name: str
    until: float
    spec: ClipSpec
    difficulty: Difficulty
    dense_weight: float
    """Share of dense exchanges against a question type's 1."""
    branch_length: int
    clip_share: float = 1.0
    """Clips of a step, as a share of the run's."""
    rehearsed: tuple[tuple[str, float], ...] = ()
    """Earlier stages and their shares of this one's steps, so that nothing is forgotten."""
    chained: float = 0.0
    """Share of the steps on this stage's clips that see streams of several of them, and count over all."""
    chains: tuple[Chain, ...] = CHAINS
    """How these streams are made, by turns."""

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each kind of exchange."""
        dense = {kind: self.dense_weight * EMPHASIS.get(kind, 1.0) for kind in DENSE_KINDS}
        asked = (*QUESTION_TYPES, "vsc")
        return {kind: EMPHASIS.get(kind, 1.0) for kind in asked} | dense

    def pick(self, at: float) -> str:
        """The stage whose clips a step is given; `at` (0..1) is drawn evenly."""
        for name, share in self.rehearsed:
            if at < share:
                return name
            at -= share
        return self.name


_LOOK = Difficulty(rooms=(1, 1), least_size=0.5, most_objects=8, walks=False)
_ROOM = Difficulty(rooms=(1, 1), least_size=0.3, most_objects=40, walks=True)
_HOME = Difficulty(rooms=(1, 3), least_size=0.0, most_objects=200, walks=True)
_TOUR = Difficulty(rooms=(1, 6), least_size=0.0, most_objects=200, walks=True)


def _varied(chains: tuple[Chain, ...]) -> tuple[Chain, ...]:
    return tuple(made._replace(shortest=SHORTEST_STAY) for made in chains)


def _clip(slots: int, width: int = 128, height: int = 96, fps: float = 2.0) -> ClipSpec:
    return ClipSpec(num_slots=slots, fps=fps, width=width, height=height)


PLANS: dict[str, tuple[Stage, ...]] = {
    "full": (
        Stage("look", 0.25, _clip(14), _LOOK, 2.0, 96),
        Stage("room", 0.6, _clip(14), _ROOM, 1.0, 96, 1.0, (("look", 0.25),)),
        Stage("home", 1.0, _clip(32), _HOME, 0.5, 96, 0.5, (("look", 0.1), ("room", 0.3))),
    ),
    "easy": (
        Stage("look", 0.6, _clip(14), _LOOK, 2.0, 96),
        Stage("room", 1.0, _clip(14), _ROOM, 1.0, 96, 1.0, (("look", 0.25),)),
    ),
    "plain": (
        Stage("look", 0.6, _clip(14), _LOOK, 0.0, 96),
        Stage("room", 1.0, _clip(14), _ROOM, 0.0, 96, 1.0, (("look", 0.25),)),
    ),
    "look": (Stage("look", 1.0, _clip(14), _LOOK, 1.5, 96),),
    "home": (Stage("home", 1.0, _clip(32), _HOME, 0.5, 96),),
    "mixed": (
        Stage("look", 0.01, _clip(14), _LOOK, 1.0, 96),
        Stage("room", 0.02, _clip(14), _ROOM, 1.0, 96, 1.0, (("look", 0.5),)),
        Stage("home", 1.0, _clip(32), _HOME, 1.0, 96, 0.5, (("look", 0.15), ("room", 0.4))),
    ),
    "relations": (
        Stage("look", 0.15, _clip(14), _LOOK, 2.0, 96),
        Stage("room", 0.5, _clip(14), _ROOM, 1.5, 96, 1.0, (("look", 0.3),)),
        Stage("home", 1.0, _clip(32), _HOME, 1.0, 96, 0.5, (("look", 0.1), ("room", 0.35)), 0.25),
    ),
    "homes": (
        Stage("look", 0.02, _clip(14), _LOOK, 1.5, 96),
        Stage("room", 0.3, _clip(14), _ROOM, 1.5, 96, 1.0, (("look", 0.2),)),
        Stage("home", 1.0, _clip(32), _HOME, 0.8, 96, 0.5, (("look", 0.05), ("room", 0.25)), 0.2),
    ),
    "routes": (
        Stage("look", 0.02, _clip(14), _LOOK, 1.5, 96),
        Stage("room", 0.25, _clip(14), _ROOM, 1.5, 96, 1.0, (("look", 0.1),)),
        Stage(
            *("home", 1.0, _clip(32), _HOME, 0.8, 96, 0.5, (("look", 0.03), ("room", 0.2))),
            chained=0.35,
            chains=LONG_CHAINS,
        ),
    ),
    "hours": (
        Stage("look", 0.02, _clip(14), _LOOK, 1.5, 96),
        Stage("room", 0.1, _clip(14), _ROOM, 1.5, 96, 1.0, (("look", 0.1),)),
        Stage(
            *("home", 0.3, _clip(32), _HOME, 0.8, 96, 0.5, (("look", 0.03), ("room", 0.2))),
            chained=0.3,
            chains=_varied(LONG_CHAINS),
        ),
        Stage(
            *("tour", 1.0, _clip(50, fps=1.0), _TOUR, 0.8, 96, 0.34),
            rehearsed=(("look", 0.03), ("room", 0.12), ("home", 0.4)),
            chained=0.5,
            chains=_varied(TOUR_CHAINS),
        ),
    ),
    "smoke": (
        Stage("look", 0.5, _clip(3, 64, 32), _LOOK, 2.0, 72),
        Stage("room", 1.0, _clip(4, 64, 32), _ROOM, 1.0, 72, 1.0, (("look", 0.25),), 0.5),
    ),
}


def plan(name: str) -> tuple[Stage, ...]:
    """The stages of a plan."""
    if name not in PLANS:
        raise ConfigError(f"no curriculum {name!r}; known: {', '.join(PLANS)}")
    return PLANS[name]


def stage_at(stages: tuple[Stage, ...], progress: float) -> Stage:
    """The stage that runs at this progress."""
    return next((stage for stage in stages if progress < stage.until), stages[-1])


def stages_between(stages: tuple[Stage, ...], start: float, stop: float) -> list[Stage]:
    """The stages that run between two progresses, rehearsed ones included."""
    begins = dict(
        zip((stage.name for stage in stages), (0.0, *(s.until for s in stages)), strict=False)
    )
    run = [
        s
        for s in stages
        if s.until > start and (begins[s.name] < stop or s is stage_at(stages, start))
    ]
    names = {stage.name for stage in run} | {name for stage in run for name, _ in stage.rehearsed}
    return [stage for stage in stages if stage.name in names]
