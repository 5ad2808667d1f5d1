"""The builder with real processes: killed and resumed, one worker or two, split over machines."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from spatial_ttt.data_format import read_media, read_samples
from spatial_ttt.errors import DataError
from spatial_ttt.scenes.build import EXAMPLES_NAME, MANIFEST_NAME, build, read_part
from spatial_ttt.scenes.build_plan import BuildConfig
from spatial_ttt.scenes.homes import split_of
from spatial_ttt.scenes.make_scene import visibility_from_bytes
from spatial_ttt.scenes.scene_json import camera_from_json, scene_from_json
from spatial_ttt.scenes.shards import file_sha256
from spatial_ttt.video import open_source

ROOT = Path(__file__).parents[2]
CONFIG = BuildConfig(
    train_scenes=5,
    val_scenes=1,
    test_scenes=1,
    seed=3,
    fps=4.0,
    duration_s=12.0,
    max_rooms=2,
    width=96,
    height=64,
    small_sizes=((48, 32),),
    questions_per_type=2,
    scenes_per_shard=1,
)
COMMAND = [
    *(sys.executable, "-m", "spatial_ttt", "data", "build", "--scenes", "5", "--seed", "3"),
    *("--val-scenes", "1", "--test-scenes", "1", "--fps", "4", "--duration", "12"),
    *("--rooms", "1-2", "--size", "96x64", "--small-sizes", "48x32", "--questions-per-type", "2"),
    *("--scenes-per-shard", "1", "--workers", "2"),
]


def tree(folder: Path) -> dict[str, str]:
    """Checksum of every file below a folder."""
    return {
        str(path.relative_to(folder)): file_sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A build made by one worker without a stop."""
    out = tmp_path_factory.mktemp("whole")
    report = build(CONFIG, out, workers=1)
    assert (report.shards_made, report.shards_missing) == (7, 0)
    return out


def hit(folder: Path, strike: Callable[[subprocess.Popen[bytes]], None]) -> tuple[Path, int, bytes]:
    """Strike the same build, made by the command line, in its middle: folder, exit code, stderr.

    On a busy machine a build may end before it is struck; then another one is.
    """
    for attempt in range(5):
        out = folder / str(attempt)
        process = subprocess.Popen(
            [*COMMAND, "--out", str(out)],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        while process.poll() is None and not list(out.glob("parts/*.json")):
            time.sleep(0.002)
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):  # it ended already
            strike(process)
        _, errors = process.communicate(timeout=120)
        if not (out / MANIFEST_NAME).exists():
            return out, process.returncode, errors
    raise AssertionError("five builds ended before they could be struck")


def test_killed_and_resumed_gives_the_same_bytes(whole, tmp_path):
    # Only the parent is killed; the workers notice by themselves.
    out, code, _ = hit(tmp_path, lambda process: os.kill(process.pid, signal.SIGKILL))
    assert code == -signal.SIGKILL
    done = subprocess.run([*COMMAND, "--out", str(out)], cwd=ROOT, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert b" 0 kept" not in done.stdout
    # A worker of the killed build may live a moment longer and leave an empty temporary file behind; the next
    # build takes it away, and nobody reads it.
    made = {name: digest for name, digest in tree(out).items() if not name.endswith(".tmp")}
    assert made == tree(whole)


def test_ctrl_c_leaves_whole_shards_only(tmp_path):
    # As a terminal does: to the workers too.
    out, code, errors = hit(tmp_path, lambda process: os.killpg(process.pid, signal.SIGINT))
    assert code == 130
    assert b"Traceback" not in errors
    assert not list(out.rglob("*.tmp"))
    shards = list(out.rglob("*.tar"))
    for path in shards:
        with tarfile.open(path) as archive:
            assert len(archive.getnames()) >= 2
    assert 2 <= len(shards) < 14


def test_machines_share_the_work_and_any_of_them_finishes(whole, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    report = build(CONFIG, first, workers=1, part=(0, 2))
    assert (report.shards_made, report.shards_missing) == (4, 3)
    assert not (first / MANIFEST_NAME).exists()
    report = build(CONFIG, second, workers=2, part=(1, 2))
    assert (report.shards_made, report.shards_missing) == (3, 4)
    shutil.copytree(second, first, dirs_exist_ok=True)
    report = build(CONFIG, first)
    assert (report.shards_made, report.shards_kept, report.shards_missing) == (0, 7, 0)
    assert tree(first) == tree(whole)


def test_a_damaged_shard_is_made_again(whole, tmp_path):
    out = tmp_path / "copy"
    shutil.copytree(whole, out)
    shard = next((out / "96x64" / "train").glob("*.tar"))
    shard.write_bytes(shard.read_bytes()[:-512])
    report = build(CONFIG, out)
    assert (report.shards_made, report.shards_kept) == (1, 6)
    assert tree(out) == tree(whole)


def test_other_settings_are_refused(whole):
    other = BuildConfig(train_scenes=6, val_scenes=1, test_scenes=1)
    with pytest.raises(DataError, match=r"train_scenes: 5 there, 6 now"):
        build(other, whole)


def test_the_manifest_lists_every_file_with_its_checksum(whole):
    manifest = json.loads((whole / MANIFEST_NAME).read_text())
    found = tree(whole)
    listed = {name: facts["sha256"] for name, facts in manifest["files"].items()}
    beside = {"build.json", MANIFEST_NAME} | {n for n in found if n.endswith(".json")}
    assert listed == {name: digest for name, digest in found.items() if name not in beside}
    assert manifest["settings"] == CONFIG.to_json()
    assert set(manifest["versions"]) == {"spatial_ttt", "av", "moderngl", "numpy"}
    splits = [split_of(scene["seed"]) for scene in manifest["scenes"]]
    assert splits == ["train"] * 5 + ["val", "test"]
    assert len({scene["seed"] for scene in manifest["scenes"]}) == 7


@pytest.mark.parametrize("size", ["96x64", "48x32"])
@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_every_example_is_valid_and_its_clip_plays(whole, size, split):
    folder = whole / size / split
    width, height = map(int, size.split("x"))
    samples = list(read_samples(folder / EXAMPLES_NAME))
    assert samples
    clips: dict[str, list[float]] = {}
    for sample in samples:
        (video,) = sample.videos
        if video not in clips:
            with open_source(read_media(folder, video)) as source:
                frames = list(source)
            assert {frame.pixels.shape for frame in frames} == {(height, width, 3)}
            clips[video] = [frame.time for frame in frames]
        times = clips[video]
        assert times == pytest.approx(np.arange(48) / 4, abs=1e-4)
        assert sample.visible_until_s is not None and sample.question_type is not None
        assert min(abs(time - sample.visible_until_s) for time in times) < 1e-3
        if sample.options is not None:
            assert sample.ground_truth in "ABCD"[: len(sample.options)]
            assert all(option in sample.turns[0].text for option in sample.options)
    assert {sample.question_type for sample in samples} >= {"scene_description"}


def test_scene_camera_and_visibility_lie_beside_the_clip(whole):
    with tarfile.open(whole / "96x64" / "val" / "val-000000.tar") as archive:
        members = {name: archive.extractfile(name).read() for name in archive.getnames()}
    key = "val-0000000"
    scene = scene_from_json(json.loads(members[f"{key}.scene.json"]))
    camera = camera_from_json(json.loads(members[f"{key}.camera.json"]))
    visibility = visibility_from_bytes(members[f"{key}.visibility.npy.gz"], scene, camera)
    assert visibility.pixels.shape == (48, len(scene.objects))
    assert 0 < visibility.pixels.sum() <= 48 * 96 * 64
    assert json.loads(members[f"{key}.json"])["scene_id"] == scene.scene_id
    with open_source(members[f"{key}.mp4"]) as source:
        assert sum(1 for _ in source) == len(camera.times)
    with tarfile.open(whole / "48x32" / "val" / "val-000000.tar") as archive:
        assert archive.getnames() == [f"{key}.mp4", f"{key}.json"]


def test_a_part_counts_only_with_all_its_files(whole, tmp_path):
    assert read_part(whole, "train-000000") is not None
    assert read_part(tmp_path, "train-000000") is None
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "train-000000.json").write_text("{half")
    assert read_part(tmp_path, "train-000000") is None


def test_a_lost_worker_is_told(tmp_path):
    def kill_a_worker(process: subprocess.Popen[bytes]) -> None:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for pid in children:
            if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(int(pid), signal.SIGKILL)
                return

    _, code, errors = hit(tmp_path, kill_a_worker)
    assert code == 1
    assert b"a worker ended unexpectedly (exit code -9)" in errors


def test_shards_have_neither_times_nor_owners(whole):
    content = (whole / "48x32" / "test" / "test-000000.tar").read_bytes()
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        assert {(member.mtime, member.uid, member.uname) for member in archive} == {(0, 0, "")}
