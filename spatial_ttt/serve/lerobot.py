"""Episodes of a LeRobot dataset as frames, straight from its files (formats v2.x and v3.0).

v2.x keeps one video file per episode and camera; v3.0 joins episodes in larger files and says in
meta/episodes/*.parquet where each begins, which needs pyarrow (extra `lerobot`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spatial_ttt.errors import CheckpointError, DataError
from spatial_ttt.files import read_json
from spatial_ttt.video import Frame, open_source
from spatial_ttt.video.sampling import sample_fps

_SLACK_S = 1e-4
"""Times of frames in a video file are rounded."""


@dataclass(frozen=True, slots=True)
class Clip:
    """Where an episode's pictures of one camera lie."""

    path: Path
    start_s: float
    stop_s: float | None  # None: to the end of the file


class LeRobotDataset:
    """A dataset's folder; raises DataError for anything that is none."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not (self.folder / "meta" / "info.json").is_file():
            raise DataError(
                f"{self.folder} is no LeRobot dataset: it has no meta/info.json; give a dataset's folder"
            )
        try:
            self._info = read_json(self.folder / "meta" / "info.json")
        except CheckpointError as error:
            raise DataError(f"{self.folder} is no LeRobot dataset: {error}") from error
        self.version = str(self._info.get("codebase_version", ""))
        if not self.version.startswith(("v2.", "v3.")):
            raise DataError(
                f"{self.folder} has the LeRobot format {self.version!r}; v2.x and v3.x are read"
            )
        features: dict[str, Any] = self._info.get("features", {})
        self.cameras = sorted(key for key, item in features.items() if item["dtype"] == "video")
        self.num_episodes = int(self._info["total_episodes"])

    def frames(
        self, episode: int, camera: str | None = None, fps: float | None = None
    ) -> Iterator[Frame]:
        """The pictures of one episode, times from its own beginning; `fps` samples them."""
        clip = self.clip(episode, camera)
        with open_source(clip.path) as source:
            frames = _cut(source, clip)
            yield from sample_fps(frames, fps, time=lambda frame: frame.time) if fps else frames

    def clip(self, episode: int, camera: str | None = None) -> Clip:
        """Where an episode lies; the first camera (in the order of names) unless one is named."""
        if not 0 <= episode < self.num_episodes:
            raise DataError(
                f"{self.folder} has the episodes 0 to {self.num_episodes - 1}, not {episode}"
            )
        if not self.cameras or camera not in (None, *self.cameras):
            raise DataError(
                f"{self.folder} has no camera {camera!r}; there are {', '.join(self.cameras) or 'none'}"
            )
        camera = camera or self.cameras[0]
        if self.version.startswith("v2."):
            chunk = episode // int(self._info["chunks_size"])
            return Clip(self._file(camera, episode_chunk=chunk, episode_index=episode), 0.0, None)
        row = self._episode(episode, camera)
        path = self._file(camera, chunk_index=row["chunk_index"], file_index=row["file_index"])
        return Clip(path, float(row["from_timestamp"]), float(row["to_timestamp"]))

    def _file(self, camera: str, **places: int) -> Path:
        name = str(self._info["video_path"]).format(video_key=camera, **places)
        return self.folder / name

    def _episode(self, episode: int, camera: str) -> dict[str, Any]:
        """What v3.0's table of episodes says about one."""
        from pyarrow import parquet

        names = ("chunk_index", "file_index", "from_timestamp", "to_timestamp")
        columns = {name: f"videos/{camera}/{name}" for name in names}
        for path in sorted((self.folder / "meta" / "episodes").rglob("*.parquet")):
            table = parquet.read_table(path, columns=["episode_index", *columns.values()])
            numbers = table["episode_index"].to_pylist()
            if episode in numbers:
                row = table.slice(numbers.index(episode), 1).to_pylist()[0]
                return {name: row[column] for name, column in columns.items()}
        raise DataError(f"{self.folder}/meta/episodes says nothing about episode {episode}")


def _cut(frames: Iterator[Frame], clip: Clip) -> Iterator[Frame]:
    for frame in frames:
        if clip.stop_s is not None and frame.time >= clip.stop_s - _SLACK_S:
            return
        if frame.time >= clip.start_s - _SLACK_S:
            yield Frame(frame.pixels, max(0.0, frame.time - clip.start_s))
