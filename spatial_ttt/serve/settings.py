"""Everything about a server that its operator may choose, in one place."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from spatial_ttt.errors import ConfigError

LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What one client may ask for."""

    max_frame_bytes: int = 8 << 20
    """One frame as it comes, JPEG, PNG or raw."""
    max_clip_bytes: int = 256 << 20
    """A clip sent in one request, and any request's body."""
    max_pixels: int = 4096 * 2304
    """One frame, decoded."""
    max_question_chars: int = 8000
    max_new_tokens: int = 512
    sessions_per_token: int = 64
    """Open at the same time."""
    requests_per_s: float = 50.0
    """Per token, over a few seconds; frames over a WebSocket count as `frames_per_s`."""
    frames_per_s: float = 240.0
    decode_timeout_s: float = 10.0
    """One frame in the decoder process."""
    send_timeout_s: float = 30.0
    """A client that reads nothing for so long is dropped."""
    asks_per_connection: int = 4
    """Questions of one WebSocket that are answered at the same time."""

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if not value > 0:
                raise ConfigError(f"limit {name} must be above 0, got {value}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ServeSettings:
    """One server."""

    snapshot_dir: Path
    """Folder of its own; sessions survive the process here."""
    host: str = "127.0.0.1"
    port: int = 8000
    max_state_bytes: int = 4 << 30
    """All sessions' states together, and the engine they share on a GPU; of states what was promised counts,
    not what is in use."""
    max_frames: int = 7200
    """Frames that a session is promised room for unless it asks for another number."""
    anchor_bytes: int | None = None
    """Bound the anchors' memory of each session to so many bytes; None keeps them exact and growing."""
    max_snapshot_bytes: int = 64 << 30
    """All files in `snapshot_dir`."""
    snapshot_s: float = 10.0
    """A session that saw frames is saved so often."""
    idle_s: float = 900.0
    """A session that nobody touched for so long is saved and leaves memory."""
    drain_s: float = 10.0
    """Time that answers get to finish when the server is told to stop."""
    model_threads: int = 0
    """Model steps at the same time; 0: one on a GPU, one per core on a CPU."""
    decoders: int = 2
    """Processes that decode frames."""
    token_file: Path | None = None
    insecure: bool = False
    """Allow another address than loopback without tokens."""
    cameras: dict[str, str] = field(default_factory=dict)
    """Names that clients may use -> rtsp:// addresses, or camera:N, that only the operator sees."""
    allowed_hosts: tuple[str, ...] = ()
    """Further names under which the server is reached (behind a proxy); `*` allows all."""
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if self.max_state_bytes < 1 or self.max_snapshot_bytes < 1:
            raise ConfigError("byte budgets must be at least 1")
        if self.max_frames < 1 or self.decoders < 1 or self.model_threads < 0:
            raise ConfigError("max_frames and decoders are at least 1, model_threads at least 0")
        if not (self.snapshot_s > 0 and self.idle_s > 0 and self.drain_s >= 0):
            raise ConfigError("snapshot_s and idle_s are above 0, drain_s is at least 0 seconds")
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ConfigError(
                "TLS needs both a certificate and a key; give --tls-cert and --tls-key"
            )
        if not self.is_loopback and self.token_file is None and not self.insecure:
            raise ConfigError(
                f"host {self.host} can be reached from other machines, and no tokens were given; "
                f"use --token-file, or --insecure to let everybody in"
            )

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        return self.host in LOOPBACK

    @property
    def has_tls(self) -> bool:
        """Whether traffic is encrypted."""
        return self.tls_certificate is not None


def default_snapshot_dir() -> Path:
    """Where sessions are kept unless the operator says otherwise."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "spatial-ttt" / "sessions"
