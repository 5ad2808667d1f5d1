"""All samples of a run: where they lie and how long they may get, without opening a video.

    files -> SampleIndex (every record checked once) -> index.pack(n) -> samples of one record

A JSONL file stays on disk and is read by offset, so millions of samples cost a few bytes each.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from spatial_ttt.data_format import Pack, parse_pack
from spatial_ttt.errors import DataError
from spatial_ttt.processor import VISION_END, VISION_START, Processor
from spatial_ttt.train.conversation import LONGEST_STAMP, most_tokens
from spatial_ttt.train.run_config import DataConfig
from spatial_ttt.train.watching import most_slots

EXAMPLES = "examples.jsonl"


class Place(NamedTuple):
    """Where a record stands: byte offset in a JSONL file, or number in a JSON list."""

    file: int
    at: int
    size: int  # bytes, 0 in a JSON list


@dataclass(frozen=True, slots=True)
class SampleIndex:
    """Every record that is trained on, in the order of the files."""

    paths: tuple[Path, ...]
    lists: dict[int, list[Pack]]  # the records of .json files
    places: NDArray[np.int64]  # [n, 3]
    most_tokens: NDArray[np.int64]  # [n] upper bound of each record's length
    num_samples: NDArray[np.int64]  # [n] samples of each record

    def __len__(self) -> int:
        return len(self.places)

    def pack(self, number: int) -> Pack:
        """The samples of one record."""
        place = Place(*(int(x) for x in self.places[number]))
        if not place.size:
            return self.lists[place.file][place.at]
        path = self.paths[place.file]
        with path.open("rb") as file:
            file.seek(place.at)
            line = file.read(place.size)
        return parse_pack(_parse(line, f"{path} at byte {place.at}"), f"{path} at byte {place.at}")

    def root(self, number: int) -> Path:
        """The folder of the file a record stands in."""
        return self.paths[int(self.places[number, 0])].parent

    @property
    def fingerprint(self) -> str:
        """Changes when the records or their order do."""
        digest = hashlib.sha256()
        for array in (self.places[:, 1:], self.most_tokens, self.num_samples):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:16]


def index_samples(config: DataConfig, processor: Processor, unit: int) -> SampleIndex:
    """Read and check every record once; `unit` is the side of a vision token in pixels.

    Raises DataError for a malformed record, and for one that might not fit `data.max_tokens`.
    """
    size = config.frames.size or processor.frames.size
    slot_tokens = (
        processor.frames.max_pixels // unit**2
        if size is None
        else (size[0] // unit) * (size[1] // unit)
    )
    stamp_tokens = len(processor.encode(LONGEST_STAMP + VISION_START + VISION_END))
    paths = tuple(_file_of(name) for name in config.files)
    lists: dict[int, list[Pack]] = {}
    places: list[Place] = []
    longest: list[int] = []
    counts: list[int] = []
    for number, path in enumerate(paths):
        if path.suffix != ".jsonl":
            lists[number] = []
        for place, pack in _records(path, number):
            if not _wanted(pack, config):
                continue
            bound = sum(
                most_tokens(
                    sample,
                    most_slots(config.frames, sample.visible_until_s),
                    slot_tokens,
                    stamp_tokens,
                )
                for sample in pack
            )
            if bound > config.max_tokens:
                raise DataError(
                    f"{path}, record {place.at}: up to {bound} tokens, data.max_tokens is "
                    f"{config.max_tokens}; raise it or lower data.frames.most"
                )
            if not place.size:
                place = place._replace(at=len(lists[number]))
                lists[number].append(pack)
            places.append(place)
            longest.append(bound)
            counts.append(len(pack))
    if not places:
        raise DataError(
            f"{', '.join(config.files)}: no sample is left to train on; look at data.only_types and skip_types"
        )
    table = np.array(places, np.int64).reshape(-1, 3)
    return SampleIndex(paths, lists, table, np.array(longest), np.array(counts))


def _file_of(name: str) -> Path:
    path = Path(name)
    path = path / EXAMPLES if path.is_dir() else path
    if not path.is_file():
        raise DataError(f"{path} does not exist; make data with `spatial-ttt data build`")
    return path


def _records(path: Path, number: int) -> Iterator[tuple[Place, Pack]]:
    if path.suffix == ".jsonl":
        at = 0
        with path.open("rb") as lines:
            for count, line in enumerate(lines, 1):
                if line.strip():
                    where = f"{path}:{count}"
                    yield Place(number, at, len(line)), parse_pack(_parse(line, where), where)
                at += len(line)
        return
    content = _parse(path.read_bytes(), str(path))
    for count, item in enumerate(content if isinstance(content, list) else [content]):
        yield Place(number, count, 0), parse_pack(item, f"{path}[{count}]")


def _parse(line: bytes, where: str) -> object:
    try:
        return json.loads(line)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{where} is not JSON: {error}") from error


def _wanted(pack: Pack, config: DataConfig) -> bool:
    kinds = {sample.question_type for sample in pack}
    if config.only_types and not kinds <= set(config.only_types):
        return False
    return not kinds & set(config.skip_types)
