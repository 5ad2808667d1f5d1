"""Times of frames from a clock that may jump: each session's own, rising, the same on every replay."""

from __future__ import annotations

from spatial_ttt.errors import VideoError

JUMP_S = 10.0
"""A clock that leaps further between two frames was reset."""
_LEAST_STEP_S = 1e-3


class StrictClock:
    """Times as they come; the session refuses those that go backwards."""

    state: tuple[float, float, float] | None = None

    def time(self, sent: float) -> float:
        """The frame's own time."""
        return sent


class MendingClock:
    """Times that go on where they were when the sender's clock jumps backwards, or far ahead.

    Depends on the times alone, not on when frames arrive: a stream that is sent again after a crash
    gets the same times.
    """

    def __init__(self, state: tuple[float, float, float] | None = None) -> None:
        self.state = state

    def time(self, sent: float) -> float:
        """The frame's time in the session, s."""
        if not (sent == sent and abs(sent) < 1e15):
            raise VideoError(f"frame at time {sent}: times are finite seconds")
        if self.state is None:
            self.state = (-sent, 0.0, 0.0)
            return 0.0
        offset, last, step = self.state
        mended = sent + offset
        if not last <= mended <= last + JUMP_S:
            mended = last + max(step, _LEAST_STEP_S)
            offset = mended - sent
        else:
            step = mended - last
        self.state = (offset, mended, step)
        return mended
