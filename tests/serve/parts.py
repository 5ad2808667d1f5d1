"""What the server's tests are made of: a small real model, frames, and a server in this process."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import uvicorn
from PIL import Image
from starlette.testclient import TestClient

from spatial_ttt.generate import Decoding
from spatial_ttt.loading import LoadedModel
from spatial_ttt.serve.app import create_app
from spatial_ttt.serve.frames import Encoding, WireFrame, pack
from spatial_ttt.serve.settings import Limits, ServeSettings
from spatial_ttt.session import StreamingSession
from spatial_ttt.testing.small import small_model, small_processor
from spatial_ttt.video import Frame

HEIGHT, WIDTH = 32, 48
SHORT = Decoding(max_new_tokens=12)
ANN, BOB = "ann-0123456789abcdef", "bob-0123456789abcdef"


@cache
def loaded() -> LoadedModel:
    """One small model for all tests."""
    return LoadedModel(small_model(), small_processor(), "small", False)


def pixels(index: int) -> np.ndarray:
    """A picture that tells its index."""
    return np.random.default_rng(index).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def png(index: int) -> bytes:
    """The same as a lossless file."""
    out = io.BytesIO()
    Image.fromarray(pixels(index)).save(out, "PNG")
    return out.getvalue()


def wire(index: int, **changes: Any) -> bytes:
    """Frame `index` as a WebSocket message, half a second after the one before."""
    values = {"frame_id": index, "time": index / 2, "encoding": Encoding.RAW,
              "content": pixels(index).tobytes(), "size": (HEIGHT, WIDTH)}  # fmt: skip
    return pack(WireFrame(**(values | changes)))


def offline(count: int) -> StreamingSession:
    """A session that watched frames 0..count-1 without any server."""
    session = StreamingSession(loaded().model, loaded().processor)
    session.observe(Frame(pixels(i), i / 2) for i in range(count))
    return session


def expected(count: int) -> str:
    """What such a session answers."""
    return "".join(offline(count).ask("How many?", SHORT))


def settings(folder: Path, **changes: Any) -> ServeSettings:
    """A server that saves only when told to."""
    values: dict[str, Any] = {"snapshot_dir": folder / "sessions", "snapshot_s": 1e6,
                              "model_threads": 2, "decoders": 1, "max_frames": 1000}  # fmt: skip
    limits = {"requests_per_s": 1e5, "frames_per_s": 1e5} | changes.pop("limits", {})
    return ServeSettings(limits=Limits(**limits), **(values | changes))


@contextmanager
def running(folder: Path, **changes: Any) -> Iterator[TestClient]:
    """A server in this process, started and stopped as a real one."""
    app = create_app(loaded(), settings(folder, **changes))
    with TestClient(app, base_url="http://localhost") as client:
        client.service = app.state.service  # type: ignore[attr-defined]
        yield client


def opened(client: TestClient, **body: Any) -> str:
    """The id of a new session."""
    answer = client.post("/v1/sessions", json=body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def push(client: TestClient, session: str, *indices: int) -> list[dict[str, Any]]:
    """Push frames over HTTP; their acknowledgements."""
    acks = []
    for index in indices:
        answer = client.put(
            f"/v1/sessions/{session}/frames/{index}",
            params={"time": index / 2},
            content=png(index),
            headers={"content-type": "image/png"},
        )
        assert answer.status_code == 200, answer.text
        acks.append(answer.json())
    return acks


def ask(
    client: TestClient, session: str, question: str = "How many?", **body: Any
) -> dict[str, Any]:
    """A whole answer."""
    body = {"question": question, "stream": False, "max_new_tokens": 12} | body
    answer = client.post(f"/v1/sessions/{session}/ask", json=body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def tokens_file(folder: Path) -> Path:
    """Two owners."""
    path = folder / "tokens"
    path.write_text(f"# owners\nann {ANN}\nbob {BOB}  # the other\n")
    path.chmod(0o600)
    return path


def as_owner(token: str) -> dict[str, str]:
    """Headers of an owner."""
    return {"authorization": f"Bearer {token}"}


@contextmanager
def live(folder: Path, **changes: Any) -> Iterator[Any]:
    """A server on a real port, in a thread of this process; has `.url` and `.service`."""
    app = create_app(loaded(), settings(folder, **changes))
    config = uvicorn.Config(
        app, port=0, log_level="error", ws="websockets-sansio", ws_per_message_deflate=False,
        timeout_graceful_shutdown=2,
    )  # fmt: skip
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield SimpleNamespace(url=f"http://127.0.0.1:{port}", port=port, service=app.state.service)
    finally:
        server.should_exit = True
        thread.join(timeout=30)
        assert not thread.is_alive()


def wait_for(ready: Callable[[], Any], seconds: float = 20.0) -> Any:
    """Poll until `ready()` is true; its value."""
    deadline = time.monotonic() + seconds
    while not (value := ready()):
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)
    return value
