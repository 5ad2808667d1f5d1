"""Who is asking: bearer tokens from a file, and where a browser's request may come from."""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from spatial_ttt.errors import ConfigError

log = logging.getLogger(__name__)

LOCAL_OWNER = "local"
"""Owner of every session where no tokens are used."""
SUBPROTOCOL = "spatial-ttt"
_TOKEN_PREFIX = "bearer."
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_TOKEN = re.compile(r"[A-Za-z0-9_~.+/=-]{16,256}")


@dataclass(frozen=True)
class Tokens:
    """Known tokens, kept as digests; an empty table lets everybody in as `LOCAL_OWNER`."""

    owners: Mapping[bytes, str]

    def owner_of(self, token: str | None) -> str | None:
        """Who holds `token`; None for nobody."""
        if not self.owners:
            return LOCAL_OWNER
        if token is None:
            return None
        digest = _digest(token)
        found = None
        for known, owner in self.owners.items():  # every one is compared, so time tells nothing
            if hmac.compare_digest(known, digest):
                found = owner
        return found


def read_tokens(path: Path | None) -> Tokens:
    """Tokens of a file with one `NAME TOKEN` per line; `#` begins a comment.

    Several tokens of one name open the same sessions, so that a token can be replaced without loss.
    """
    if path is None:
        return Tokens({})
    try:
        text = path.read_text()
        mode = path.stat().st_mode
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the token file {path}: {error}") from error
    if mode & (stat.S_IRGRP | stat.S_IROTH):
        log.warning("the token file %s can be read by others; chmod 600 it", path)
    owners: dict[bytes, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if len(words) != 2 or not _NAME.fullmatch(words[0]) or not _TOKEN.fullmatch(words[1]):
            raise ConfigError(
                f"{path}, line {number}: wanted NAME TOKEN, a token of 16 to 256 letters, digits or _~.+/=-"
            )
        owners[_digest(words[1])] = words[0]
    if not owners:
        raise ConfigError(f"{path} holds no token; write a line NAME TOKEN")
    return Tokens(owners)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def bearer(header: str | None) -> str | None:
    """The token of an Authorization header."""
    kind, _, token = (header or "").partition(" ")
    return token.strip() if kind.lower() == "bearer" and token.strip() else None


def socket_token(subprotocols: Iterable[str]) -> str | None:
    """The token of a WebSocket's subprotocols: a browser cannot send headers with one."""
    for name in subprotocols:
        if name.startswith(_TOKEN_PREFIX):
            return name.removeprefix(_TOKEN_PREFIX)
    return None


def host_name(host: str) -> str:
    """The name in a Host header or an Origin, without its port."""
    bare = host.partition("://")[2] or host
    if bare.startswith("["):
        return bare[1:].partition("]")[0].lower()
    return bare.partition(":")[0].lower()


def is_own_origin(origin: str | None, host: str | None) -> bool:
    """Whether a browser's request comes from this server's own page (or from no page at all)."""
    if origin is None:
        return True
    return origin.partition("://")[2].lower() == (host or "").lower()
