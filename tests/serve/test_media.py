"""Decoding in processes that may die, and must not reach anything beyond the bytes they were given."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import subprocess
import sys
from contextlib import aclosing

import numpy as np
import pytest
from PIL import Image

from spatial_ttt.errors import VideoError
from spatial_ttt.serve.frames import Encoding, WireFrame
from spatial_ttt.serve.media import Decoders
from spatial_ttt.serve.media_worker import read_message, write_message
from spatial_ttt.serve.metrics import Metrics
from spatial_ttt.serve.settings import Limits
from spatial_ttt.video import Frame
from spatial_ttt.video.writing import EncodeOptions, write_mp4
from tests.serve.parts import pixels, png


def decode(work, **limits):
    """Run `work(decoders)` with one decoder process."""

    async def run():
        decoders = Decoders(1, Limits(**limits), Metrics())
        try:
            return await work(decoders)
        finally:
            await decoders.close()
            await asyncio.sleep(0)

    return asyncio.run(run())


def test_pictures_of_every_kind():
    async def work(decoders):
        lossless = await decoders.image(png(3))
        np.testing.assert_array_equal(lossless, pixels(3))
        raw = WireFrame(0, 0.0, Encoding.RAW, pixels(4).tobytes(), (32, 48))
        np.testing.assert_array_equal(await decoders.pixels(raw), pixels(4))
        smooth = np.tile(np.linspace(0, 255, 48, dtype=np.uint8)[None, :, None], (32, 1, 3))
        out = io.BytesIO()
        Image.fromarray(smooth).save(out, "JPEG", quality=95)
        assert np.abs((await decoders.image(out.getvalue())).astype(int) - smooth).max() < 8
        out = io.BytesIO()
        Image.new("L", (5, 4), 7).save(out, "PNG")
        assert (await decoders.image(out.getvalue())).tolist() == [[[7, 7, 7]] * 5] * 4

    decode(work)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "no JPEG, PNG"),
        (b"GIF89a" + bytes(100), "no JPEG, PNG"),
        (png(0)[:-30], "damaged"),
        (png(0)[:40] + bytes(60) + png(0)[100:], "damaged|no JPEG"),
    ],
)
def test_what_is_no_picture_is_refused_by_a_worker_that_lives(content, what):
    async def work(decoders):
        with pytest.raises(VideoError, match=what):
            await decoders.image(content)
        first = next(iter(decoders.workers)).pid
        await decoders.image(png(1))
        assert next(iter(decoders.workers)).pid == first

    decode(work)


def test_a_picture_that_unfolds_to_far_too_much_is_refused_before_it_does():
    out = io.BytesIO()
    Image.new("1", (12_000, 12_000)).save(out, "PNG")
    assert len(out.getvalue()) < 1_000_000

    async def work(decoders):
        with pytest.raises(VideoError, match="at most"):
            await decoders.image(out.getvalue())

    decode(work)


def test_a_worker_that_is_killed_costs_one_frame():
    async def work(decoders):
        await decoders.image(png(1))
        (worker,) = decoders.workers
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(VideoError, match="decoder died"):
            await decoders.image(png(1))
        np.testing.assert_array_equal(await decoders.image(png(2)), pixels(2))
        assert worker not in decoders.workers

    decode(work)


def test_a_worker_that_hangs_is_replaced():
    async def work(decoders):
        await decoders.image(png(1))
        (worker,) = decoders.workers
        os.kill(worker.pid, signal.SIGSTOP)
        with pytest.raises(VideoError, match="took longer than 2"):
            await decoders.image(png(1))
        np.testing.assert_array_equal(await decoders.image(png(2)), pixels(2))

    decode(work, decode_timeout_s=2.0)


def test_a_caller_that_leaves_does_not_get_its_picture_to_somebody_else():
    async def work(decoders):
        await decoders.image(png(1))
        task = asyncio.ensure_future(decoders.image(png(2)))
        await asyncio.sleep(0)
        task.cancel()
        np.testing.assert_array_equal(await decoders.image(png(3)), pixels(3))

    decode(work)


def clip(count=12):
    out = io.BytesIO()
    frames = [Frame(np.full((48, 64, 3), 20 * i, np.uint8), i / 4) for i in range(count)]
    write_mp4(out, frames, options=EncodeOptions())
    return out.getvalue()


def test_a_clip_is_decoded_frame_by_frame_and_sampled():
    async def work(decoders):
        async with aclosing(decoders.clip(clip(), fps=2)) as frames:
            seen = [frame async for frame in frames]
        assert [f.time for f in seen] == pytest.approx([0, 0.5, 1, 1.5, 2, 2.5])
        assert seen[3].pixels.mean() == pytest.approx(120, abs=4)
        with pytest.raises(VideoError, match="cannot open"):
            async with aclosing(decoders.clip(b"no video at all", fps=2)) as frames:
                [frame async for frame in frames]

    decode(work)


@pytest.mark.parametrize("kind", ["hls", "concat", "sdp"])
def test_a_clip_cannot_make_the_decoder_open_anything_else(tmp_path, kind):
    secret = tmp_path / "secret.mp4"
    secret.write_bytes(clip())
    text = {
        "hls": f"#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\nfile://{secret}\n#EXT-X-ENDLIST\n",
        "concat": f"ffconcat version 1.0\nfile '{secret}'\n",
        "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
        "m=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    }[kind]

    async def work(decoders):
        with pytest.raises(VideoError, match="cannot open"):
            async with aclosing(decoders.clip(text.encode(), fps=2)) as frames:
                [frame async for frame in frames]

    decode(work)


def test_a_decoder_may_write_no_file_and_take_no_more_memory_than_its_share(tmp_path):
    script = (
        "import sys; from spatial_ttt.serve.media_worker import limit_process; limit_process()\n"
        f"try:\n    open({str(tmp_path / 'x')!r}, 'wb', buffering=0).write(b'hello'); print('wrote')\n"
        "except OSError as error: print('no file:', error.errno)\n"
        "try:\n    bytearray(7 << 30); print('got it')\n"
        "except MemoryError: print('no memory')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.split("\n")[:2] == ["no file: 27", "no memory"]


def test_messages_between_processes_survive_the_way():
    stream = io.BytesIO()
    array = np.arange(6, dtype=np.uint8)
    write_message(stream, {"a": 1}, array)
    write_message(stream, {})
    stream.seek(0)
    assert read_message(stream) == ({"a": 1}, array.tobytes())
    assert read_message(stream) == ({}, b"")
    assert read_message(stream) is None
