"""Frames into a session that outlive connections and servers.

Every frame is kept until the server says that it is safe on disk. When a connection breaks, the next one
goes on where the server is; frames that it forgot are sent again. What was thrown away because the buffer
was full is declared lost and listed in `lost`.
"""

from __future__ import annotations

import io
import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Any

import numpy as np
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from spatial_ttt.errors import SessionClosed, SessionError, VideoError
from spatial_ttt.serve.frames import Encoding, WireFrame, pack
from spatial_ttt.video.frame import check_pixels

log = logging.getLogger(__name__)

_DEFECT = 1011
"""Close code of a server that failed."""
_MAX_DEFECTS = 5
"""Failures in a row, without a frame watched in between, after which trying again is no use."""
_FINAL = frozenset({400, 401, 403, 404, 409, 410, 422})
"""Answers that another attempt would not change."""


class FrameStream:
    """Send frames with `send`; one thread per stream reads what comes back.

    `quality` is JPEG's (None: PNG, without loss). `buffer_bytes` bounds what is kept for a server that
    forgets; `give_up_s` is how long to try to reach it again. `on_message` hears all that the server says
    (acks, slots with what the memory did, saves), on the reading thread.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        quality: int | None = 90,
        frames_ahead: int = 16,
        buffer_bytes: int = 256 << 20,
        give_up_s: float = 120.0,
        on_message: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        self.lost: list[tuple[int, int]] = []
        """Ranges of frame ids (first, last) that no session has seen or will see."""
        self.refused: dict[int, str] = {}
        """Frames that could not be watched, and why."""
        self.seen = -1
        self.saved = -1
        self._url, self._token = url, token
        self._quality, self._ahead, self._buffer_bytes = quality, frames_ahead, buffer_bytes
        self._give_up_s = give_up_s
        self._on_message = on_message
        self._kept: deque[tuple[int, bytes]] = deque()
        self._kept_bytes = 0
        self._changed = threading.Condition()
        self._order = threading.Lock()  # frames leave in the order of their ids
        self._error: SessionError | None = None
        self._closing = False
        self._defects = 0
        self._seen_before = -1  # when the connection was lost the last time
        self._open = ExitStack()
        self._connection: ClientConnection | None = None
        self._connection, hello = self._connect()
        self._next = int(hello["next"])
        self._adopt(hello)
        self._thread = threading.Thread(target=self._read, name="frame stream", daemon=True)
        self._thread.start()

    # --- Sending ---------------------------------------------------------------------------------

    def send(self, picture: Any, time: float | None = None) -> int:
        """Send a picture (uint8 [H, W, 3], or the bytes of a JPEG or PNG file); its frame id.

        `time` is in seconds since the stream began; None lets the server take the time of arrival. Waits
        while too many frames are on their way. Raises SessionError when the stream cannot go on.
        """
        encoding, content = encode(picture, self._quality)
        self._wait(lambda: self._next - 1 - self.seen < self._ahead)
        with self._order:
            with self._changed:
                frame_id = self._next
                self._next += 1
                message = pack(WireFrame(frame_id, time, encoding, content))
                self._kept.append((frame_id, message))
                self._kept_bytes += len(message)
                while self._kept_bytes > self._buffer_bytes and len(self._kept) > 1:
                    self._kept_bytes -= len(self._kept.popleft()[1])
                connection = self._connection
            if connection is not None:
                self._try_send(connection, message)
        return frame_id

    def _try_send(self, connection: ClientConnection, message: bytes | str) -> None:
        # The reader connects again and sends what is kept.
        with suppress(ConnectionClosed, OSError):
            connection.send(message)

    def flush(self, *, saved: bool = False, timeout_s: float = 60.0) -> None:
        """Wait until everything sent was seen, or (`saved`) is safe on disk."""
        if saved:
            self._wait(lambda: self.seen >= self._next - 1, timeout_s)
            if (connection := self._connection) is not None:
                self._try_send(connection, json.dumps({"type": "save"}))
        self._wait(lambda: (self.saved if saved else self.seen) >= self._next - 1, timeout_s)

    def _wait(self, ready: Callable[[], bool], timeout_s: float | None = None) -> None:
        with self._changed:
            if not self._changed.wait_for(lambda: self._error is not None or ready(), timeout_s):
                raise SessionError(
                    f"the server did not keep up within {timeout_s} s; {self._progress()}"
                )
            if self._error is not None:
                raise self._error

    def _progress(self) -> str:
        return f"frames to {self._next - 1} were sent, to {self.seen} seen, to {self.saved} saved"

    # --- Reading ---------------------------------------------------------------------------------

    def _read(self) -> None:
        while True:
            connection = self._connection
            assert connection is not None  # only this thread changes it
            try:
                for message in connection:
                    self._hear(json.loads(message))
            except (ConnectionClosed, OSError):
                pass
            if self._closing:
                return
            self._count_defects(connection)
            with self._order:
                self._connection = None
            log.warning("the connection to %s was lost; %s", self._url, self._progress())
            try:
                self._check_worth()
                self._resume()
            except SessionError as error:
                with self._changed:
                    self._error = error
                    self._changed.notify_all()
                return

    def _count_defects(self, connection: ClientConnection) -> None:
        """Whether the server itself failed, again and again, over the same frame."""
        if self.seen > self._seen_before:
            self._defects = 0
        self._seen_before = self.seen
        self._defects += connection.close_code == _DEFECT

    def _check_worth(self) -> None:
        """Waits longer after each failure; raises SessionError where there is no hope."""
        if self._defects >= _MAX_DEFECTS:
            raise SessionError(
                f"the server failed {self._defects} times over frame {self.seen + 1}; its log says why. "
                f"{self._progress()}"
            )
        if self._defects:
            time.sleep(0.1 * 2**self._defects)

    def _hear(self, message: dict[str, Any]) -> None:
        if self._on_message is not None:
            self._on_message(message)
        with self._changed:
            kind = message["type"]
            if kind == "ack":
                self.seen = max(self.seen, message["seen"])
                if message["status"] == "refused":
                    self.refused[message["id"]] = message.get("error", "")
            elif kind == "refused":
                error = message["error"]
                what = SessionError(f"frame {message['id']}: {error['message']}")
                self._error = self._error or what  # those after it only miss the first
            if "saved" in message:
                self._forget(message["saved"])
            self._changed.notify_all()

    def _forget(self, saved: int) -> None:
        """Frames up to `saved` need not be kept."""
        self.saved = saved
        while self._kept and self._kept[0][0] <= saved:
            self._kept_bytes -= len(self._kept.popleft()[1])

    # --- Connecting ------------------------------------------------------------------------------

    def _connect(self) -> tuple[ClientConnection, dict[str, Any]]:
        """Open a connection; the server's first message says where it stands."""
        protocols = [Subprotocol("spatial-ttt")]
        if self._token:
            protocols.append(Subprotocol(f"bearer.{self._token}"))
        try:
            self._open.close()
            connection = self._open.enter_context(
                connect(
                    self._url,
                    subprotocols=protocols,
                    max_size=1 << 24,
                    max_queue=None,
                    ping_timeout=None,  # a busy server reads late, which is no reason to leave it
                    compression=None,
                )
            )
            hello = json.loads(connection.recv(timeout=30))
        except InvalidStatus as error:
            kind = SessionClosed if error.response.status_code in _FINAL else SessionError
            raise kind(f"{self._url} refused: {error}") from error
        except (OSError, TimeoutError, InvalidHandshake, ConnectionClosed) as error:
            raise SessionError(f"{self._url} cannot be reached: {error}") from error
        return connection, hello

    def _adopt(self, hello: dict[str, Any]) -> None:
        """Take over what the server knows, also where it knows less than before."""
        with self._changed:
            self.seen = hello["seen"]
            self._forget(hello["saved"])
            self._changed.notify_all()

    def _resume(self) -> None:
        """Connect again and send what the server has not seen; raises SessionError after `give_up_s`."""
        deadline = time.monotonic() + self._give_up_s
        wait = 0.1
        while True:
            try:
                connection, hello = self._connect()
                break
            except SessionClosed:
                raise
            except SessionError:
                if self._closing or time.monotonic() + wait > deadline:
                    raise
            time.sleep(wait)
            wait = min(2 * wait, 5.0)
        with self._order:
            self._adopt(hello)
            expected = int(hello["next"])
            kept = [(i, message) for i, message in self._kept if i >= expected]
            first = kept[0][0] if kept else self._next
            if first > expected:
                self.lost.append((expected, first - 1))
                log.warning("frames %d to %d are lost", expected, first - 1)
                self._try_send(connection, json.dumps({"type": "skip", "to": first}))
            for _, message in kept:
                self._try_send(connection, message)
            self._connection = connection

    def close(self) -> None:
        """Wait until everything sent was seen, then close the connection; the session stays open."""
        try:
            if self._error is None:
                self.flush()
        finally:
            self._closing = True
            self._open.close()
            self._thread.join(timeout=5)

    def __enter__(self) -> FrameStream:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def encode(picture: Any, quality: int | None) -> tuple[Encoding, bytes]:
    """A picture as it travels: files as they are, arrays as JPEG or (`quality` None) PNG."""
    if isinstance(picture, bytes):
        if picture.startswith(b"\xff\xd8"):
            return Encoding.JPEG, picture
        if picture.startswith(b"\x89PNG"):
            return Encoding.PNG, picture
        raise VideoError(
            "these bytes are no JPEG or PNG file; send an array uint8 [H, W, 3] instead"
        )
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(check_pixels(picture)))
    out = io.BytesIO()
    if quality is None:
        image.save(out, "PNG", compress_level=1)
        return Encoding.PNG, out.getvalue()
    image.save(out, "JPEG", quality=quality)
    return Encoding.JPEG, out.getvalue()
