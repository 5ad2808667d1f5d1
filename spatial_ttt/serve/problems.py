"""What a client did that cannot be done, as one shape of answer: {"error": {code, message, ...}}."""

from __future__ import annotations

from typing import Any

from spatial_ttt.errors import (
    BudgetError,
    CheckpointError,
    ConfigError,
    SessionClosed,
    SessionError,
    SpatialTTTError,
    VideoError,
)


class Problem(SpatialTTTError):
    """A refusal with an HTTP status, a code for programs, a sentence for people, and facts."""

    def __init__(self, status: int, code: str, message: str, **facts: Any) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.facts = facts

    def to_dict(self) -> dict[str, Any]:
        """The body of the answer."""
        return {"code": self.code, "type": self.code, "message": str(self), **self.facts}


_STATUS: tuple[tuple[type[SpatialTTTError], int, str], ...] = (
    (VideoError, 422, "bad_video"),
    (BudgetError, 413, "budget"),
    (SessionClosed, 410, "closed"),
    (SessionError, 409, "session"),
    (ConfigError, 422, "bad_setting"),
    (CheckpointError, 409, "snapshot"),
)


def as_problem(error: SpatialTTTError) -> Problem:
    """Any of our errors as a problem."""
    if isinstance(error, Problem):
        return error
    for kind, status, code in _STATUS:
        if isinstance(error, kind):
            return Problem(status, code, str(error))
    return Problem(400, "refused", str(error))


def defect(error: BaseException) -> Problem:
    """An error that nobody foresaw, told without its details; the log has them."""
    return Problem(500, "defect", f"the server failed ({type(error).__name__}); its log says why")


def not_found(what: str) -> Problem:
    """Also for what belongs to somebody else: nobody learns that it is there."""
    return Problem(404, "not_found", f"there is no such {what}; list yours to see what there is")
