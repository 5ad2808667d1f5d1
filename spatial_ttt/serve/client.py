"""A server's sessions from Python: no torch, two small dependencies (httpx, websockets).

server = Server("http://127.0.0.1:8000", token="...")
session = server.open("kitchen")
with session.stream() as frames:            # goes on over lost connections and server restarts
    frames.send(pixels, time=0.5)
for piece in session.ask("How many chairs?"):
    ...
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import httpx

from spatial_ttt.errors import SessionError
from spatial_ttt.serve.client_stream import FrameStream

Json = dict[str, Any]


class ServerError(SessionError):
    """A refusal: `status`, `code` and further facts as the server gave them."""

    def __init__(self, status: int, error: Json) -> None:
        super().__init__(str(error.get("message", f"the server answered {status}")))
        self.status = status
        self.code = str(error.get("code", "unknown"))
        self.facts = error


class Server:
    """A server, over one pool of connections."""

    def __init__(self, url: str, token: str | None = None, *, timeout_s: float = 60.0) -> None:
        self.url = url.rstrip("/")
        self.token = token
        headers = {"authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.Client(base_url=self.url, headers=headers, timeout=timeout_s)

    def call(self, method: str, path: str, **options: Any) -> Any:
        """One request; JSON in the answer is returned, a refusal raises ServerError."""
        try:
            answer = self._http.request(method, path, **options)
        except httpx.HTTPError as error:
            raise SessionError(
                f"{self.url} cannot be reached: {error}; is `spatial-ttt serve` running there?"
            ) from error
        return _checked(answer)

    def info(self) -> Json:
        """The model, its price per session, and what is free."""
        return dict(self.call("GET", "/v1/info"))

    def open(self, name: str = "", **body: Any) -> RemoteSession:
        """A new session; `max_frames` and `clock` as the server's documents say."""
        made = self.call("POST", "/v1/sessions", json={"name": name} | body)
        return RemoteSession(self, made["id"])

    def session(self, session_id: str) -> RemoteSession:
        """A session that is there already."""
        return RemoteSession(self, session_id)

    def sessions(self) -> list[Json]:
        """Your sessions, the newest first."""
        return list(self.call("GET", "/v1/sessions"))

    def snapshots(self) -> list[Json]:
        """Your snapshots, the newest first."""
        return list(self.call("GET", "/v1/snapshots"))

    def restore(self, snapshot_id: str, name: str = "") -> RemoteSession:
        """A new session that goes on where a snapshot was taken."""
        made = self.call("POST", f"/v1/snapshots/{snapshot_id}/restore", json={"name": name})
        return RemoteSession(self, made["id"])

    def events(self, path: str, body: Json) -> Iterator[Json]:
        """The events of a streamed answer; an error among them raises ServerError."""
        try:
            with self._http.stream("POST", path, json=body) as answer:
                if answer.is_error:
                    answer.read()
                    _checked(answer)
                for line in answer.iter_lines():
                    if line.startswith("data: "):
                        event = json.loads(line.removeprefix("data: "))
                        if event["type"] == "error":
                            raise ServerError(200, event["error"])
                        yield event
        except httpx.HTTPError as error:
            raise SessionError(f"the answer of {self.url} broke off: {error}") from error

    def close(self) -> None:
        """Close the connections; sessions stay."""
        self._http.close()

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class RemoteSession:
    """One session of a server."""

    def __init__(self, server: Server, session_id: str) -> None:
        self.server = server
        self.session_id = session_id
        self._path = f"/v1/sessions/{session_id}"

    def stats(self) -> Json:
        """What it holds and has done; which frames it saw and which are safe."""
        return dict(self.server.call("GET", self._path))

    def push_clip(self, content: bytes, fps: float = 2.0) -> Json:
        """Let it watch a video file's bytes."""
        return dict(
            self.server.call("POST", f"{self._path}/clips", params={"fps": fps}, content=content)
        )

    def stream(self, **options: Any) -> FrameStream:
        """A stream of frames into it (see `FrameStream`)."""
        socket = self.server.url.replace("http", "ws", 1) + f"{self._path}/stream"
        return FrameStream(socket, self.server.token, **options)

    def ask(self, question: str, **decoding: Any) -> Iterator[str]:
        """The answer, piece by piece."""
        for event in self.server.events(f"{self._path}/ask", {"question": question} | decoding):
            if event["type"] == "piece":
                yield event["text"]

    def answer(self, question: str, **decoding: Any) -> Json:
        """The whole answer with the moment it is about."""
        body = {"question": question, "stream": False} | decoding
        return dict(self.server.call("POST", f"{self._path}/ask", json=body))

    def fork(self, name: str = "") -> RemoteSession:
        """A second session that has seen the same and goes its own way."""
        made = self.server.call("POST", f"{self._path}/fork", json={"name": name})
        return RemoteSession(self.server, made["id"])

    def snapshot(self, name: str = "") -> str:
        """Keep this moment; the snapshot's id."""
        made = self.server.call("POST", f"{self._path}/snapshots", json={"name": name})
        return str(made["id"])

    def save(self) -> Json:
        """Make everything seen so far safe now."""
        return dict(self.server.call("POST", f"{self._path}/save"))

    def close(self) -> None:
        """Forget it, in memory and on disk."""
        self.server.call("DELETE", self._path)


def _checked(answer: httpx.Response) -> Any:
    if answer.is_error:
        try:
            error = answer.json()["error"]
        except (ValueError, KeyError, TypeError):
            error = {"message": f"the server answered {answer.status_code}: {answer.text[:200]}"}
        raise ServerError(answer.status_code, error)
    return answer.json() if answer.content else None
