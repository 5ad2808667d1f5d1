"""What routes share: who calls, which refusals they may get, bodies that are not JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fastapi import Request
from fastapi.security import HTTPBearer
from starlette.requests import HTTPConnection

from spatial_ttt.serve.auth import bearer, socket_token
from spatial_ttt.serve.problems import Problem
from spatial_ttt.serve.schemas import ErrorAnswer
from spatial_ttt.serve.service import Service

SCHEME = HTTPBearer(auto_error=False, description="A token of the server's token file.")

_WHY = {
    400: "The request makes no sense",
    401: "No token, or an unknown one",
    403: "From a foreign page or under a foreign name",
    404: "Not there, or not yours",
    405: "Not this method",
    409: "Not possible in this state",
    410: "Closed",
    413: "Too large",
    415: "Not this type",
    422: "Does not fit the schema, or no picture",
    429: "Too often",
    503: "No room, or the server stops",
}
REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorAnswer, "description": why} for status, why in _WHY.items()
}
_EVENT = {"type": "object", "properties": {"data": {"type": "string"}}, "required": ["data"]}
EVENT_STREAM: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"schema": _EVENT}}}
}
"""An answer of server-sent events; `data` is JSON."""
_BINARY = {"schema": {"type": "string", "format": "binary"}}
FRAME_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            name: _BINARY for name in ("image/jpeg", "image/png", "application/octet-stream")
        },
    }
}
VIDEO_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"video/mp4": _BINARY, "application/octet-stream": _BINARY},
    }
}


@dataclass(frozen=True, slots=True)
class Access:
    """A caller who may come in."""

    service: Service
    owner: str


def service_of(connection: HTTPConnection) -> Service:
    """The running server's parts."""
    service: Service = connection.app.state.service
    return service


def owner_of(connection: HTTPConnection) -> str:
    """Who calls; raises a 401 Problem for nobody known."""
    service = service_of(connection)
    token = bearer(connection.headers.get("authorization"))
    if token is None:
        token = socket_token(connection.scope.get("subprotocols", ()))
    owner = service.tokens.owner_of(token)
    if owner is None:
        raise Problem(401, "no_token", "send a known token as `Authorization: Bearer TOKEN`")
    return owner


async def access(request: Request) -> Access:
    """Let a request in, or raise a 401 or 429 Problem."""
    owner = owner_of(request)
    service = service_of(request)
    service.requests.check(owner)
    return Access(service, owner)
