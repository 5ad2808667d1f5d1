"""Running the application: one process, uvicorn, a loud word where others can reach it."""

from __future__ import annotations

import logging
import sys
from types import FrameType

import uvicorn

from spatial_ttt.loading import LoadedModel
from spatial_ttt.serve.app import create_app
from spatial_ttt.serve.service import Service
from spatial_ttt.serve.settings import ServeSettings

log = logging.getLogger(__name__)


class DrainingServer(uvicorn.Server):
    """Tells sessions of the coming end the moment the signal arrives."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM or Ctrl-C: nothing new is opened from here on."""
        self._service.pool.is_draining = True
        super().handle_exit(sig, frame)


def run_server(loaded: LoadedModel, settings: ServeSettings) -> None:
    """Serve until SIGTERM or Ctrl-C; every open session is saved before this returns."""
    for line in warnings_of(settings):
        log.warning("%s", line)
    app = create_app(loaded, settings)
    limits = settings.limits
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_level="info" if log.isEnabledFor(logging.INFO) else "warning",
        ws="websockets-sansio",
        ws_max_size=limits.max_frame_bytes + 64,
        ws_per_message_deflate=False,  # frames are compressed already
        # A client that is slowed down is not read, so its pong may be late for as long as it takes.
        ws_ping_timeout=None,
        timeout_graceful_shutdown=max(1, round(settings.drain_s)),
        ssl_certfile=settings.tls_certificate,
        ssl_keyfile=str(settings.tls_key) if settings.tls_key else None,
        server_header=False,
    )
    server = DrainingServer(config, app.state.service)
    sys.stderr.write(f"spatial-ttt serves {loaded.name} on {_address(settings)}\n")
    server.run()


def _address(settings: ServeSettings) -> str:
    scheme = "https" if settings.has_tls else "http"
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"{scheme}://{host}:{settings.port}"


def warnings_of(settings: ServeSettings) -> list[str]:
    """What an operator should be told before others can reach the server."""
    if settings.is_loopback:
        return []
    lines = [f"THIS SERVER CAN BE REACHED FROM OTHER MACHINES ({settings.host}:{settings.port})"]
    if settings.token_file is None:
        lines.append("ANYBODY WHO REACHES IT SEES AND CHANGES EVERY SESSION: no tokens were given")
    if not settings.has_tls:
        lines.append(
            "tokens, frames and answers travel unencrypted; use --tls-cert, or a proxy with TLS"
        )
    return lines
