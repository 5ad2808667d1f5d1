"""The bodies of requests and answers; FastAPI checks them and writes them into the OpenAPI document."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from spatial_ttt.generate import Decoding
from spatial_ttt.serve.hosted import HostedSession
from spatial_ttt.serve.records import SessionRecord

Name = Annotated[str, Field(max_length=80, description="For people; need not be unique.")]
FrameId = Annotated[int, Field(ge=0, lt=1 << 63)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Strict(BaseModel):
    """A body with no other fields than these."""

    model_config = ConfigDict(extra="forbid")


class ErrorBody(BaseModel):
    """What went wrong; some codes come with facts beside."""

    model_config = ConfigDict(extra="allow")
    code: str
    type: str
    message: str


class ErrorAnswer(BaseModel):
    """Every refusal looks like this."""

    error: ErrorBody


class NewSession(Strict):
    """A session to open."""

    name: Name = ""
    max_frames: int | None = Field(
        None, ge=1, le=1 << 31, description="Frames to be promised room for."
    )
    clock: Literal["strict", "mend"] = Field(
        "strict", description="Frame times that jump: refuse the frame, or go on where they were."
    )


class Named(Strict):
    """A name for what is made."""

    name: Name = ""


class Question(Strict):
    """A question about everything seen so far."""

    question: str = Field(min_length=1)
    stream: bool = Field(True, description="Server-sent events; false: one JSON object at the end.")
    max_new_tokens: int = Field(128, ge=1)
    temperature: Finite = Field(0.0, ge=0, le=100)
    top_p: Finite = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=0, le=1 << 31)
    seed: int = Field(0, ge=0, lt=1 << 63)

    def decoding(self, most_tokens: int) -> Decoding:
        """How the answer is chosen."""
        return Decoding(
            max_new_tokens=min(self.max_new_tokens, most_tokens),
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            seed=self.seed,
        )


class Skip(Strict):
    """Frames declared lost."""

    to: FrameId = Field(description="The next frame id that will come.")


class CameraSource(Strict):
    """A camera that the operator named."""

    camera: str = Field(max_length=80)
    fps: Finite = Field(2.0, gt=0, le=60)


class WalkSource(Strict):
    """A walk through a procedural home."""

    walk: int = Field(ge=0, lt=3 << 40, description="The home's seed.")
    fps: Finite = Field(2.0, gt=0, le=30)
    seconds: Finite = Field(60.0, ge=1, le=3600)
    pace: Finite = Field(0.0, ge=0, le=100, description="Times real time; 0: as fast as it goes.")


class SessionView(BaseModel):
    """A session as its owner sees it."""

    id: str
    name: str
    state: Literal["open", "asleep"]
    created_at: float
    next: int = Field(description="The next frame id.")
    seen: int = Field(description="The last frame id handled; -1: none.")
    saved: int = Field(description="The last frame id that survives a crash; -1: none.")
    saved_at: float | None
    num_frames: int
    refused: int
    skipped: int
    seconds_seen: float
    max_frames: int
    promised_bytes: int
    origin: str | None
    source: str | None = Field(description="What the server itself feeds it from now.")
    walk: dict[str, Any] | None
    warning: str | None
    stats: dict[str, Any] | None = Field(description="Of an open session.")


class SnapshotView(BaseModel):
    """A point to begin sessions from."""

    id: str
    name: str
    session: str | None
    created_at: float
    next: int
    num_frames: int
    seconds_seen: float


class AckView(BaseModel):
    """What became of a frame, and which are safe."""

    id: int
    status: Literal["watched", "duplicate", "refused", "skipped"]
    seen: int
    saved: int
    slots: int
    error: str | None = None
    note: dict[str, Any] | None = None


class ClipView(BaseModel):
    """What became of a clip's frames."""

    watched: int
    refused: int
    next: int
    seen: int
    saved: int
    seconds_seen: float


class AnswerView(BaseModel):
    """A whole answer."""

    answer: str
    seen: int
    seconds_seen: float
    seconds: float


def view_session(record: SessionRecord, hosted: HostedSession | None, promised: int) -> SessionView:
    """A session for its owner."""
    return SessionView(
        id=record.session_id,
        name=record.name,
        state="open" if hosted else "asleep",
        created_at=record.created_at,
        next=record.next_id,
        seen=record.next_id - 1,
        saved=record.saved_id,
        saved_at=record.saved_at,
        num_frames=record.num_frames,
        refused=record.refused,
        skipped=record.skipped,
        seconds_seen=record.seconds_seen,
        max_frames=record.max_frames,
        promised_bytes=promised,
        origin=record.origin,
        source=hosted.feeder if hosted else None,
        walk=record.walk,
        warning=hosted.warning if hosted else None,
        stats=hosted.figures() if hosted else None,
    )


def view_snapshot(record: SessionRecord) -> SnapshotView:
    """A snapshot for its owner."""
    return SnapshotView(
        id=record.session_id,
        name=record.name,
        session=record.origin,
        created_at=record.created_at,
        next=record.next_id,
        num_frames=record.num_frames,
        seconds_seen=record.seconds_seen,
    )
