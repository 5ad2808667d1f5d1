"""A short long stream: chained, revisited, whole, asked about; the same for any number of workers."""

from __future__ import annotations

import json

import numpy as np
import pytest

from spatial_ttt.data_format import read_samples
from spatial_ttt.scenes.long import build_long, itinerary
from spatial_ttt.scenes.long_plan import LongConfig, stream_tasks
from spatial_ttt.video import open_source
from tests.scenes.test_build import tree

CONFIG = LongConfig(
    streams=2, minutes=10, fps=0.5, width=96, height=64, small_sizes=((48, 32),), split="val"
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("long")
    heard = []
    build_long(CONFIG, out, workers=1, on_progress=heard.append)
    assert (heard[-1].done, heard[-1].total) == (600, 600)
    return out


def test_two_workers_make_the_same_bytes(whole, tmp_path):
    build_long(CONFIG, tmp_path, workers=2)
    assert tree(tmp_path) == tree(whole)


def test_the_streams_play_from_start_to_end(whole):
    for size, shape in (("96x64", (64, 96, 3)), ("48x32", (32, 48, 3))):
        with open_source(whole / size / "val" / "stream-val-000001.mp4") as source:
            frames = list(source)
        assert [frame.time for frame in frames] == pytest.approx(np.arange(300) * 2, abs=1e-4)
        assert frames[0].pixels.shape == shape


def test_examples_are_valid_and_counts_only_grow(whole):
    samples = list(read_samples(whole / "48x32" / "val" / "examples.jsonl"))
    assert {sample.question_type for sample in samples} == {"vsr", "vsc"}
    for sample in samples:
        assert (whole / "48x32" / "val" / sample.videos[0]).exists()
        assert sample.visible_until_s == 598.0
    streaming = [sample for sample in samples if "query_times" in sample.extra]
    assert streaming
    for sample in streaming:
        counts = [int(answer) for answer in sample.extra["query_answers"]]
        assert counts == sorted(counts) and str(counts[-1]) == sample.ground_truth
        assert sample.extra["query_times"] == sorted(sample.extra["query_times"])


def test_recall_follows_the_order_of_the_places(whole):
    for sample in read_samples(whole / "96x64" / "val" / "examples.jsonl"):
        if sample.question_type != "vsr":
            continue
        record = json.loads(
            (whole / "96x64" / "val" / sample.videos[0]).with_suffix(".json").read_text()
        )
        places = [visit["spot"]["landmark"] for visit in record["visits"] if visit["spot"]]
        right = sample.options["ABCD".index(sample.ground_truth)]
        assert right[3:].lower().split(", ") == places


def test_an_itinerary_fills_the_time_and_revisits():
    for task in stream_tasks(CONFIG):
        visits = itinerary(CONFIG, task)
        starts = np.cumsum([0] + [len(visit.camera.times) for visit in visits])
        assert [visit.start_s for visit in visits] == (starts[:-1] * 2).tolist()
        assert starts[-1] == CONFIG.num_frames
        met: set[int] = set()
        for visit in visits:
            assert visit.is_revisit == (visit.home.seed in met)
            met.add(visit.home.seed)
        assert any(visit.is_revisit for visit in visits)
        spots = [visit.spot for visit in visits if visit.spot is not None]
        assert len({spot.landmark for spot in spots}) == len(spots) == 4
