"""Loading: real clips to ready samples, in order, with every failure told."""

from __future__ import annotations

import logging
import tarfile
import time

import pytest
import torch

from spatial_ttt.data_format import read_samples
from spatial_ttt.errors import DataError
from spatial_ttt.testing.small import small_processor
from spatial_ttt.train.conversation import Medium, encode
from spatial_ttt.train.dataset import LoadedPack, LoadedSample, PackLoader, load_sample
from spatial_ttt.train.run_config import DataConfig, FramesConfig
from spatial_ttt.train.samples import index_samples
from tests.train import toy

PROCESSOR = small_processor((16, 32))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return toy.write_data(tmp_path_factory.mktemp("data"), count=5)


def loader(data, units, **changes) -> PackLoader:
    config = DataConfig(files=(str(data),), workers=2, frames=FramesConfig(most=6), **changes)
    return PackLoader(index_samples(config, PROCESSOR, 16), config, PROCESSOR, iter(units))


def when_ready(source: PackLoader) -> tuple[LoadedSample, ...]:
    deadline = time.monotonic() + 60
    while (samples := source.ready()) is None:
        assert time.monotonic() < deadline, "the next pack was never read"
        time.sleep(0.01)
    return samples


def test_a_sample_is_ready_for_the_model(data):
    config = DataConfig(files=(str(data),), frames=FramesConfig(most=6))
    sample = next(read_samples(data / "examples.jsonl"))
    loaded = load_sample(sample, data, config, PROCESSOR)
    assert loaded.name == "sample 'toy-0'" and loaded.grids == ((2, 16, 32),)
    assert loaded.frames[0].dtype == torch.uint8
    medium = Medium((0.25, 1.25), (1, 2), False)
    assert loaded.encoded == encode(sample, [medium], PROCESSOR)


def test_packs_come_in_order_and_end_empty(data):
    units = [(4, 0), (2,), (), (1, 3)]
    source = loader(data, units)
    names = [tuple(s.name for s in source.next_pack().samples) for _ in units]
    source.close()
    assert names == [tuple(f"sample 'toy-{n}'" for n in unit) for unit in units]
    assert source.next_pack() == LoadedPack((), 0)


def test_what_is_ready_is_the_next_pack_and_asks_for_nothing(data):
    source = loader(data, [(4, 0), (2,)])
    assert source.ready() is None, "nothing was asked for"
    source.next_pack()
    assert [s.name for s in when_ready(source)] == ["sample 'toy-2'"]
    assert source.ready() is not None and source.next_pack().samples[0].name == "sample 'toy-2'"
    assert source.ready() is None
    source.close()


def test_clips_inside_tar_shards(data, tmp_path):
    with tarfile.open(tmp_path / "shard.tar", "w") as tar:
        tar.add(data / "clip-0.mp4", "clip-0.mp4")
    text = (data / "examples.jsonl").read_text().splitlines()[0]
    (tmp_path / "examples.jsonl").write_text(text.replace("clip-0.mp4", "shard.tar/clip-0.mp4"))
    source = loader(tmp_path, [(0,)])
    from_tar = source.next_pack().samples[0]
    source.close()
    source = loader(data, [(0,)])
    assert bool((from_tar.frames[0] == source.next_pack().samples[0].frames[0]).all())
    source.close()


def test_another_root(data, tmp_path):
    (tmp_path / "examples.jsonl").write_text((data / "examples.jsonl").read_text())
    source = loader(tmp_path, [(0,)], root=str(data))
    assert source.next_pack().samples
    source.close()


@pytest.fixture
def damaged(tmp_path):
    toy.write_data(tmp_path, count=4)
    (tmp_path / "clip-1.mp4").unlink()
    (tmp_path / "clip-2.mp4").write_bytes(b"no video at all")
    return tmp_path


def test_bad_samples_end_the_run_by_name(damaged):
    for number, reason in ((1, "does not exist"), (2, "cannot open")):
        source = loader(damaged, [(0, number)])
        with pytest.raises(
            DataError, match=rf"sample 'toy-{number}' cannot be trained on: .*{reason}"
        ):
            source.next_pack()
        source.close()


def test_bad_samples_are_left_out_told_and_counted(damaged, caplog):
    source = loader(damaged, [(0, 1), (2, 3), (1,)], on_bad_sample="skip", max_bad_samples=3)
    with caplog.at_level(logging.ERROR):
        first = source.next_pack()
        told = caplog.text
        ready = when_ready(source)
        assert caplog.text == told and source.num_bad == 1, "told when it is asked for"
        second = source.next_pack()
    assert [s.name for s in ready] == [s.name for s in second.samples]
    assert [s.name for s in first.samples + second.samples] == ["sample 'toy-0'", "sample 'toy-3'"]
    assert (first.num_bad, second.num_bad) == (1, 1)
    assert "left out (2 so far" in caplog.text and "toy-2" in caplog.text
    with pytest.raises(DataError, match="3 samples could not be read"):
        source.next_pack()
    source.close()
