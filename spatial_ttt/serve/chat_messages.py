"""Messages of the chat protocol: what they say, and what they show, taken from data URLs only."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from spatial_ttt.processor import ANSWER_END, ANSWER_PREFIX, USER_PREFIX
from spatial_ttt.serve.answers import plain_text
from spatial_ttt.serve.problems import Problem


class Loose(BaseModel):
    """A body whose further fields are ignored: clients of this protocol send many."""

    model_config = ConfigDict(extra="ignore")


class Part(Loose):
    """A piece of a message."""

    type: Literal["text", "image_url", "video_url", "file", "input_text"]
    text: str | None = None
    image_url: dict[str, Any] | str | None = None
    video_url: dict[str, Any] | str | None = None
    file: dict[str, Any] | None = None


class Message(Loose):
    """One turn."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Part]


Number = Annotated[float, Field(allow_inf_nan=False)]


class ChatRequest(Loose):
    """A request for a completion."""

    model: str = Field("spatial-ttt", max_length=200)
    messages: list[Message] = Field(min_length=1, max_length=200)
    stream: bool = False
    stream_options: dict[str, Any] | None = None
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: Number = Field(0.0, ge=0, le=100)
    top_p: Number = Field(1.0, gt=0, le=1)
    seed: int | None = Field(None, ge=0, lt=1 << 63)
    n: Literal[1] = 1
    session: str | None = Field(None, max_length=64, description="One of your open sessions.")
    fps: Number = Field(2.0, gt=0, le=60, description="Frames taken of a video per second.")
    max_frames: int = Field(512, ge=1, le=1 << 20, description="Most frames the messages show.")


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture or a video as it came."""

    content: bytes
    is_video: bool


def read_messages(messages: list[Message]) -> tuple[str, list[Shown]]:
    """The question, with the turns before it in the model's own format, and everything shown in order.

    Raises a 422 Problem for media that are not in the message itself: the server fetches nothing.
    """
    shown: list[Shown] = []
    turns: list[tuple[str, str]] = []
    for message in messages:
        words = []
        parts = (
            [Part(type="text", text=message.content)]
            if isinstance(message.content, str)
            else message.content
        )
        for part in parts:
            if part.type in ("text", "input_text"):
                words.append(plain_text(part.text or ""))
            else:
                shown.append(_media(part))
        turns.append((message.role, "\n".join(word for word in words if word)))
    if turns[-1][0] != "user" or not turns[-1][1].strip():
        raise Problem(422, "bad_request", "the last message must be a user's and say something")
    return _join(turns), shown


def _join(turns: list[tuple[str, str]]) -> str:
    """Turns as one text: answers between questions as the model itself writes them."""
    text = ""
    opened = True  # the stream begins inside a user's turn
    for role, words in turns:
        if role == "assistant":
            text += (ANSWER_PREFIX if opened else "") + words + ANSWER_END + "\n"
            opened = False
        else:
            text += ("\n" if text and opened else "" if opened else USER_PREFIX) + words
            opened = True
    return text


def _media(part: Part) -> Shown:
    if part.type == "file":
        found: Any = (part.file or {}).get("file_data")
    else:
        field = part.image_url if part.type == "image_url" else part.video_url
        found = field.get("url") if isinstance(field, dict) else field
    if not isinstance(found, str):
        raise Problem(422, "bad_request", f"a part of type {part.type} carries no data")
    kind, content = read_data_url(found)
    is_video = not kind.startswith("image/")
    if part.type == "image_url" and is_video:
        raise Problem(422, "bad_request", f"image_url carries {kind!r}; send videos as video_url")
    return Shown(content, is_video)


def read_data_url(url: str) -> tuple[str, bytes]:
    """(media type, bytes) of a data URL; raises a 422 Problem."""
    head, comma, body = url.partition(",")
    if not head.startswith("data:") or not comma:
        raise Problem(
            422,
            "bad_request",
            "media come as data URLs (data:video/mp4;base64,...); nothing is fetched",
        )
    kind, _, encoding = head.removeprefix("data:").partition(";")
    if not encoding.endswith("base64"):
        raise Problem(422, "bad_request", "a data URL must be base64")
    try:
        return kind.lower() or "application/octet-stream", base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Problem(422, "bad_request", f"a data URL is no base64: {error}") from error
