"""Everything that can go wrong for a user, as one tree.

SpatialTTTError
├── ConfigError       a setting is missing, contradicts another, or is out of range
├── CheckpointError   weights or a snapshot do not fit, are damaged, or belong to another model
├── VideoError        a video, camera or frame cannot be read or does not fit the stream
├── SceneError        a scene, its annotations or a question about it is invalid
├── DataError         a training or benchmark sample is missing, malformed or contradicts its file
└── SessionError      a session cannot do what was asked
    ├── SessionClosed the session was closed before
    └── BudgetError   the session's state would not fit the byte budget

A message says what was got, what was wanted and what to do.
"""


class SpatialTTTError(Exception):
    """A mistake the user can mend; the command line prints it as one sentence and exits 1."""


class ConfigError(SpatialTTTError, ValueError):
    """A setting is missing, contradicts another, or is out of range."""


class CheckpointError(SpatialTTTError):
    """Weights or a snapshot do not fit, are damaged, or belong to another model."""


class VideoError(SpatialTTTError):
    """A video, camera or frame cannot be read or does not fit the stream."""


class SceneError(SpatialTTTError, ValueError):
    """A scene, its annotations or a question about it is invalid."""


class DataError(SpatialTTTError, ValueError):
    """A training or benchmark sample is missing, malformed or contradicts its file."""


class SessionError(SpatialTTTError):
    """A session cannot do what was asked."""


class SessionClosed(SessionError):
    """The session was closed before."""


class BudgetError(SessionError):
    """The session's state would not fit the byte budget."""
