"""Running the application: one process, uvicorn, a loud word where others can reach it."""

from __future__ import annotations

import logging
import socket
import ssl
import sys
from collections.abc import Callable
from types import FrameType

import uvicorn

from spatial_ttt.errors import ConfigError
from spatial_ttt.loading import LoadedModel
from spatial_ttt.serve.app import create_app
from spatial_ttt.serve.auth import read_tokens
from spatial_ttt.serve.service import Service
from spatial_ttt.serve.settings import ServeSettings

log = logging.getLogger(__name__)


class DrainingServer(uvicorn.Server):
    """Says when it serves; tells sessions of the coming end the moment the signal arrives."""

    def __init__(self, config: uvicorn.Config, service: Service, address: str) -> None:
        super().__init__(config)
        self._service = service
        self._address = address

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to serve."""
        await super().startup(sockets)
        if self.started:
            pool = self._service.pool
            _say(
                f"spatial-ttt serves {pool.loaded.name} on {self._address}  (Ctrl-C saves and stops)"
            )
            _say(
                f"sessions outlive it in {pool.settings.snapshot_dir}: {len(pool.asleep)} there now"
            )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End, with every open session saved."""
        await super().shutdown(sockets)
        saved = self._service.num_saved
        folder = self._service.settings.snapshot_dir
        _say(f"stopped: {saved} session{'' if saved == 1 else 's'} saved in {folder}")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM or Ctrl-C: nothing new is opened from here on."""
        self._service.pool.is_draining = True
        super().handle_exit(sig, frame)


def run_server(open_model: Callable[[], LoadedModel], settings: ServeSettings) -> None:
    """Serve until SIGTERM or Ctrl-C; every open session is saved before this returns.

    The model is opened after everything that fails sooner; raises ConfigError for what cannot be served.
    """
    for warning in warnings_of(settings):
        log.warning("%s", warning)
    check_tls(settings)
    read_tokens(settings.token_file)
    with bind(settings.host, settings.port) as line:
        loaded = open_model()
        app = create_app(loaded, settings)
        service: Service = app.state.service
        if (tight := room_warning(service)) is not None:
            log.warning("%s", tight)
        limits = settings.limits
        config = uvicorn.Config(
            app,
            log_level="info" if log.isEnabledFor(logging.INFO) else "warning",
            ws="websockets-sansio",
            ws_max_size=limits.max_frame_bytes + 64,
            ws_per_message_deflate=False,  # frames are compressed already
            # A client that is slowed down is not read, so its pong may be late for as long as it takes.
            ws_ping_timeout=None,
            # A client that sends something every few seconds must not find its line closed as it writes.
            timeout_keep_alive=75,
            timeout_graceful_shutdown=max(1, round(settings.drain_s)),
            ssl_certfile=settings.tls_certificate,
            ssl_keyfile=str(settings.tls_key) if settings.tls_key else None,
            server_header=False,
        )
        server = DrainingServer(config, service, _address(settings, line.getsockname()[1]))
        server.run(sockets=[line])


def bind(host: str, port: int) -> socket.socket:
    """A socket of that address, which does not listen yet; raises ConfigError where it cannot be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        line = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError(f"{host} is no address of this machine: {error.strerror}") from error
    try:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        line.bind(address)
    except OSError as error:
        line.close()
        raise ConfigError(
            f"cannot listen on {host} port {port}: {error.strerror}; "
            f"choose another with --port (0 takes a free one) or --host"
        ) from error
    return line


def check_tls(settings: ServeSettings) -> None:
    """Raises ConfigError for a certificate and key that do not work."""
    if settings.tls_certificate is None:
        return
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(
            settings.tls_certificate, settings.tls_key
        )
    except OSError as error:  # SSLError is one
        raise ConfigError(
            f"cannot serve with the certificate {settings.tls_certificate} and the key "
            f"{settings.tls_key}: {error.strerror or error}; both are PEM files that belong together"
        ) from error


def room_warning(service: Service) -> str | None:
    """What an operator should be told whose budget has no room for a single session."""
    pool = service.pool
    price, room = pool.budget.bytes_for(pool.settings.max_frames), max(0, pool.ledger.room)
    if price <= room:
        return None
    return (
        f"NO SESSION FITS: one of {pool.settings.max_frames} frames needs {price} bytes and all together have "
        f"{room}; raise --max-state-bytes, lower --max-frames, or bound the anchors with --anchor-bytes"
    )


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def _address(settings: ServeSettings, port: int) -> str:
    scheme = "https" if settings.has_tls else "http"
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"{scheme}://{host}:{port}"


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
