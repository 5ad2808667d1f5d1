"""Before any route: hosts, origins, sizes; after it: headers and counts. Plain ASGI, so streams stay streams."""

from __future__ import annotations

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from spatial_ttt.serve.auth import host_name, is_own_origin
from spatial_ttt.serve.metrics import Metrics
from spatial_ttt.serve.settings import LOOPBACK, ServeSettings

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}


class Guard:
    """The outermost layer of the application."""

    def __init__(self, app: ASGIApp, settings: ServeSettings, metrics: Metrics) -> None:
        self._app = app
        self._settings = settings
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request pass, or answer it here."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if scope["type"] == "websocket":
            if refusal is None:
                await self._app(scope, receive, send)
            else:
                await send({"type": "websocket.close", "code": 1008, "reason": refusal})
            return
        send = self._watched(scope, send)
        if refusal is not None:
            error = {"code": "forbidden", "type": "forbidden", "message": refusal}
            await JSONResponse({"error": error}, 403)(scope, receive, send)
            return
        await self._app(scope, self._measured(scope, receive), send)

    def _refusal(self, scope: Scope) -> str | None:
        """Why a request may not pass. A foreign page must not use a visitor's access to this server."""
        if scope["path"] == "/healthz":  # probes come under any name, and it tells nothing
            return None
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not self._knows(host_name(host)):
            return f"this server is not called {host_name(host)!r}; add it with --allow-host"
        risky = scope["type"] == "websocket" or scope["method"] not in _SAFE
        if risky and not is_own_origin(headers.get("origin"), host):
            return "requests of other pages are not taken"
        return None

    def _knows(self, name: str) -> bool:
        """Whether the server goes by this name; a rebound DNS name is another one."""
        allowed = self._settings.allowed_hosts
        if not self._settings.is_loopback and not allowed:
            return True  # reachable under names that only the operator's network knows
        return name in (*LOOPBACK, self._settings.host, "testserver", *allowed) or "*" in allowed

    def _measured(self, scope: Scope, receive: Receive) -> Receive:
        """Count a body as it comes and stop at the limit."""
        most = self._settings.limits.max_clip_bytes
        declared = Headers(scope=scope).get("content-length", "0")
        is_declared_too_large = declared.isdigit() and (len(declared) > 18 or int(declared) > most)
        seen = most + 1 if is_declared_too_large else 0

        async def receive_measured() -> Message:
            nonlocal seen
            message = await receive() if seen <= most else {"type": "http.request"}
            seen += len(message.get("body", b""))
            if seen > most:
                raise HTTPException(413, f"the body is larger than {most} bytes")
            return message

        return receive_measured

    def _watched(self, scope: Scope, send: Send) -> Send:
        """Add headers to the answer and count it."""

        async def send_watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                self._metrics.requests.labels(scope["method"], str(message["status"])).inc()
            await send(message)

        return send_watched
