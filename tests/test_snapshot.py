"""Snapshots: bit-exact, whole or not at all, of this model or refused."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from spatial_ttt import snapshot as snapshots
from spatial_ttt.checkpoint import load_model
from spatial_ttt.errors import CheckpointError
from spatial_ttt.model import kv_cache
from spatial_ttt.model.bounded_cache import AnchorPolicy
from spatial_ttt.session import StreamingSession
from spatial_ttt.snapshot import model_digest
from spatial_ttt.testing.small import small_model
from tests.model.streams import same_bits
from tests.scenery import answer, frames, model, processor, session, write_checkpoint


def watched(count: int = 9, **options) -> StreamingSession:
    opened = session(**options)
    opened.observe(frames(count))
    return opened


def restore(path: Path, own=None, **options) -> StreamingSession:
    return StreamingSession.restore(path, own or model(), processor(), **options)


@pytest.mark.parametrize("count", [0, 1, 2, 9, 24])
def test_restored_it_goes_on_bit_for_bit(tmp_path, count):
    first = watched(count)
    first.snapshot(tmp_path / "s.safetensors")
    second = restore(tmp_path / "s.safetensors")
    assert same_bits(second.state, first.state) and answer(second) == answer(first)
    for start in range(count, count + 12, 3):
        first.observe(frames(3, start=start))
        second.observe(frames(3, start=start))
    assert same_bits(second.state, first.state) and answer(second) == answer(first)


def test_a_hundred_slots_later_nothing_differs(tmp_path):
    first = watched(25, slots_per_piece=10)
    first.snapshot(tmp_path / "s.safetensors")
    second = restore(tmp_path / "s.safetensors", slots_per_piece=10)
    first.observe(frames(200, start=25))
    second.observe(frames(200, start=25))
    assert second.stats().num_slots == 112 and same_bits(second.state, first.state)


def test_pages_of_the_anchors_come_back_as_pages(tmp_path, monkeypatch):
    """Attention runs page by page on a GPU, so the bits depend on where pages end."""
    monkeypatch.setattr(kv_cache, "PAGE_TOKENS", 64)
    first = watched(24, slots_per_piece=1)
    cache = first.state.decoder.layers[-1]
    assert len(cache.pages) >= 2 and cache.tail
    first.snapshot(tmp_path / "s.safetensors")
    again = restore(tmp_path / "s.safetensors").state.decoder.layers[-1]
    assert [k.shape for k, _ in again.pages] == [k.shape for k, _ in cache.pages]
    assert again.tail == cache.tail and same_bits(again, cache)


@pytest.mark.parametrize(
    "rule", [{"norm_placement": "pre"}, {"convolution": "causal"}, {"use_momentum": False}]
)
def test_every_rule_can_be_saved(tmp_path, rule):
    own = small_model(chunk_size=40, window_size=40, **rule)
    first = StreamingSession(own, processor())
    first.observe(frames(9))
    first.snapshot(tmp_path / "s.safetensors")
    second = restore(tmp_path / "s.safetensors", own)
    first.observe(frames(4, start=9))
    second.observe(frames(4, start=9))
    assert same_bits(second.state, first.state)


@pytest.mark.parametrize("bits", [16, 8])
def test_bounded_anchors_can_be_saved(tmp_path, bits):
    first = session(anchors=AnchorPolicy(1, 1, 2, 16, bits))
    first.observe(frames(30))
    first.snapshot(tmp_path / "s.safetensors")
    second = restore(tmp_path / "s.safetensors")
    assert same_bits(second.state, first.state)
    first.observe(frames(20, start=30))
    second.observe(frames(20, start=30))
    assert same_bits(second.state, first.state)
    assert second.stats().anchor_bytes == first.stats().anchor_bytes


def test_a_bfloat16_model_keeps_its_precisions(tmp_path):
    own = small_model(chunk_size=40, window_size=40).bfloat16()
    first = StreamingSession(own, processor())
    first.observe(frames(9))
    first.snapshot(tmp_path / "s.safetensors")
    second = restore(tmp_path / "s.safetensors", own)
    state = second.state.decoder.layers[0]
    assert (
        state.window[0].dtype == torch.bfloat16 and state.fast.weights.gate.dtype == torch.float32
    )
    first.observe(frames(8, start=9))
    second.observe(frames(8, start=9))
    assert same_bits(second.state, first.state)


def test_another_process_with_the_saved_weights_may_restore(tmp_path):
    folder = write_checkpoint(tmp_path / "model")
    first = StreamingSession(small_model(chunk_size=40, window_size=40), processor())
    first.observe(frames(5))
    first.snapshot(tmp_path / "s.safetensors")
    assert same_bits(restore(tmp_path / "s.safetensors", load_model(folder)).state, first.state)


def test_the_file_says_what_it_is(tmp_path):
    watched(9).snapshot(tmp_path / "s.safetensors")
    with safe_open(tmp_path / "s.safetensors", "pt") as file:
        header = json.loads(file.metadata()["spatial_ttt_snapshot"])
    assert header["format"] == 2 and header["model"] == model_digest(model())
    assert (header["num_frames"], header["seconds_seen"]) == (9, 4.0)


def test_the_digest_follows_the_weights():
    own = small_model()
    first = model_digest(own)
    assert (
        model_digest(own)
        == first
        == model_digest(small_model())
        != model_digest(small_model(seed=1))
    )
    with torch.no_grad():
        own.lm_head.weight[0, 0] += 1
    changed = model_digest(own)
    assert changed != first
    assert model_digest(own.bfloat16()) not in (first, changed)
    assert model_digest(small_model(chunk_size=25)) != first, "the rule counts too"


def test_another_models_snapshot_is_refused(tmp_path):
    watched(5).snapshot(tmp_path / "s.safetensors")
    for other in (
        small_model(seed=3, chunk_size=40, window_size=40),
        small_model(norm_placement="pre"),
    ):
        with pytest.raises(CheckpointError, match="restore it with the model that made it"):
            restore(tmp_path / "s.safetensors", other)


def test_what_is_no_snapshot(tmp_path):
    with pytest.raises(CheckpointError, match="no readable snapshot"):
        restore(tmp_path / "missing.safetensors")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(CheckpointError, match="no readable snapshot"):
        restore(tmp_path / "text")
    save_file({"a": torch.zeros(2)}, tmp_path / "weights")
    with pytest.raises(CheckpointError, match="is it a file of weights"):
        restore(tmp_path / "weights")
    with pytest.raises(CheckpointError, match=r"the folder .* does not exist"):
        watched(1).snapshot(tmp_path / "no" / "s.safetensors")


def rewrite(path: Path, **changes) -> None:
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["spatial_ttt_snapshot"])
    text = json.dumps(header | changes)
    save_file(load_file(path), path, metadata={"spatial_ttt_snapshot": text})


def test_other_formats_and_edited_headers(tmp_path):
    path = tmp_path / "s.safetensors"
    watched(5).snapshot(path)
    rewrite(path, num_frames=6)
    with pytest.raises(CheckpointError, match="is damaged: its checksum"):
        restore(path)
    rewrite(path, format=1)
    with pytest.raises(CheckpointError, match="has snapshot format 1, this version reads 2"):
        restore(path)
    save_file(load_file(path), path, metadata={"spatial_ttt_snapshot": "{"})
    with pytest.raises(CheckpointError, match="its header is no JSON"):
        restore(path)


def test_no_damage_goes_unnoticed(tmp_path):
    """One byte flipped anywhere, or the end cut off: refused, never another state."""
    path, broken = tmp_path / "s.safetensors", tmp_path / "broken.safetensors"
    first = watched(5)
    first.snapshot(path)
    good = path.read_bytes()
    header = 8 + int.from_bytes(good[:8], "little")
    dice = random.Random(0)
    places = [*range(8), *(dice.randrange(8, header) for _ in range(40)),
              *(dice.randrange(header, len(good)) for _ in range(12))]  # fmt: skip
    for place in places:
        bad = bytearray(good)
        bad[place] ^= 1 << dice.randrange(8)
        broken.write_bytes(bad)
        with pytest.raises(CheckpointError):
            restore(broken)
    for length in (0, 7, 100, header, header + 1, len(good) - 1):
        broken.write_bytes(good[:length])
        with pytest.raises(CheckpointError):
            restore(broken)
    assert same_bits(restore(path).state, first.state)


def in_a_child(work) -> int:
    """Run `work` in a forked process, which never returns."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return child


def test_a_kill_while_writing_leaves_the_old_or_the_new_file(tmp_path):
    path = tmp_path / "s.safetensors"
    old, new = watched(4), watched(12)
    old.snapshot(path)
    seen = set()
    for number in range(8):
        started, signalled = os.pipe()

        def work(signalled: int = signalled) -> None:
            os.write(signalled, b"x")
            while True:
                new.snapshot(path)
                old.snapshot(path)

        child = in_a_child(work)
        os.read(started, 1)
        time.sleep(0.002 * (number + 1))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(started)
        os.close(signalled)
        state = restore(path).state
        assert same_bits(state, old.state) or same_bits(state, new.state)
        seen.add(state.num_frames)
    assert seen <= {4, 12}


@pytest.mark.parametrize("place", ["save_file", "atomic_path"])
def test_a_kill_at_the_worst_moment_leaves_the_old_file(tmp_path, place, monkeypatch):
    """Killed with half of the new file written, or all of it but not renamed."""
    path = tmp_path / "s.safetensors"
    old, new = watched(4), watched(12)
    old.snapshot(path)
    before = path.read_bytes()

    def work() -> None:
        if place == "save_file":
            write = snapshots.save_file

            def half(tensors, target, metadata):
                write(tensors, target, metadata=metadata)
                os.truncate(target, target.stat().st_size // 2)
                os.kill(os.getpid(), signal.SIGKILL)

            monkeypatch.setattr(snapshots, "save_file", half)
        else:
            monkeypatch.setattr(Path, "replace", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        new.snapshot(path)

    _, status = os.waitpid(in_a_child(work), 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    assert path.read_bytes() == before
    assert same_bits(restore(path).state, old.state)


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "s.safetensors"
    old = watched(4)
    old.snapshot(path)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(snapshots, "save_file", full)
    with pytest.raises(CheckpointError, match="No space left on device; the old file"):
        watched(6).snapshot(path)
    assert same_bits(restore(path).state, old.state)
    assert [p.name for p in tmp_path.iterdir()] == ["s.safetensors"], "no half file is left lying"


def test_a_damaged_snapshot_leaves_no_session(tmp_path):
    path = tmp_path / "s.safetensors"
    watched(5).snapshot(path)
    path.write_bytes(path.read_bytes()[:-10])
    other = watched(3)
    before = other.state
    with pytest.raises(CheckpointError):
        restore(path)
    assert other.state is before
