"""`ask`, `watch`, `inspect`, `import-checkpoint` through the command line, on real files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from spatial_ttt import loading
from spatial_ttt.cli import main
from spatial_ttt.video import write_mp4
from tests.scenery import REAL, SHORT, answer, frames, session, write_checkpoint
from tests.test_checkpoint import stock_config, stock_tensors, write

ROOT = Path(__file__).parents[2]
WALK = REAL / "kitchen_walk.mp4"
needs_walk = pytest.mark.skipif(not WALK.exists(), reason="the real video is not here")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> str:
    return str(write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "small"))


@pytest.fixture
def clip(tmp_path) -> str:
    path = tmp_path / "clip.mp4"
    write_mp4(path, [f.pixels for f in frames(12)], fps=2.0)
    return str(path)


@needs_walk
def test_a_real_video_from_file_to_answer(checkpoint, capfd):
    asked = ["How many chairs are there?", "What is next to the sink?"]
    code = main(
        [
            "ask",
            str(WALK),
            *asked,
            "--model",
            checkpoint,
            "--max-new-tokens",
            "8",
            "--profile",
            "--device",
            "cpu",
        ]
    )
    out, err = capfd.readouterr()
    assert code == 0
    assert out.endswith("\n") and len(out) > 2
    lines = err.splitlines()
    assert any(line.startswith("75 frames, 37 slots") for line in lines), err
    for part in ("decode", "preprocess", "vision", "decoder", "answer"):
        (line,) = [x for x in lines if x.startswith(part + " ")]
        assert float(line.split()[1]) > 0 and line.endswith("ms per frame")


@needs_walk
def test_json_for_machines(checkpoint, capfd):
    asked = ["How many?", "Where?", "How many?"]
    code = main(["ask", str(WALK), *asked, "--model", checkpoint, "--frames", "16", "--json", "--max-new-tokens", "6",
                 "--device", "cpu"])  # fmt: skip
    out, _ = capfd.readouterr()
    records = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and [r["question"] for r in records] == asked
    assert records[0]["answer"] == records[2]["answer"]
    assert {r["frames"] for r in records} == {16} and records[0]["model"] == "small"
    assert records[0]["seconds_seen"] > 30 and set(records[0]["seconds"]) >= {
        "decode",
        "vision",
        "decoder",
    }


def test_the_answer_is_the_sessions(checkpoint, clip, capfd):
    from spatial_ttt.video import open_source

    watched = session()
    with open_source(clip, fps=2.0) as source:
        watched.observe(source)
    arguments = [
        "ask",
        clip,
        "How many?",
        "--model",
        checkpoint,
        "--max-new-tokens",
        "8",
        "--device",
        "cpu",
    ]
    assert main(arguments) == 0
    assert capfd.readouterr().out == answer(watched, "How many?", SHORT) + "\n"
    sampled = [*arguments, "--temperature", "3", "--seed"]
    outs = []
    for seed in ("1", "1", "2"):
        assert main([*sampled, seed]) == 0
        outs.append(capfd.readouterr().out)
    assert outs[0] == outs[1] != outs[2]


def test_without_a_model_it_says_that_nothing_is_trained(clip, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(loading, "SHIPPED", tmp_path)
    assert main(["ask", clip, "How many?", "--max-new-tokens", "2", "--device", "cpu"]) == 0
    assert "random weights" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (["ask", "CLIP"], 2, "Missing argument 'questions'"),
        (["ask", "CLIP", "How many?", "--frame", "3"], 2, "--frames"),
        (["ask", "CLIP", "How many?", "--size", "tall"], 2, "write HEIGHTxWIDTH"),
        (["ask", "CLIP", "How many?", "--size", "100x100"], 1, "use multiples of 16"),
        (["ask", "CLIP", "How many?", "--temperature", "-1"], 1, "temperature"),
        (["ask", "CLIP", "How many?", "--device", "gpu"], 1, "no device 'gpu'"),
        (["ask", "CLIP", "How many?", "--dtype", "int8"], 1, "no precision 'int8'"),
        (["ask", "CLIP", "How many?", "--model", "/nowhere"], 1, "give the folder of a checkpoint"),
        (["ask", "CLIP", " "], 1, "the question is empty"),
        (["ask", "/nowhere.mp4", "How many?"], 1, "/nowhere.mp4"),
        (["ask", "BROKEN", "How many?"], 1, "broken.mp4"),
    ],
)
def test_mistakes_are_one_sentence(arguments, code, complaint, checkpoint, clip, tmp_path, capfd):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(Path(clip).read_bytes()[:300])
    words = {"CLIP": clip, "BROKEN": str(broken)}
    given = [words.get(a, a) for a in arguments]
    given += [] if "--model" in given else ["--model", checkpoint]
    assert main(given) == code
    out, err = capfd.readouterr()
    assert complaint in err and out == "" and "Traceback" not in err
    if code == 1:
        assert [line for line in err.splitlines() if line.startswith("error: ")] == [
            err.splitlines()[-1]
        ]


def test_ctrl_c_while_watching_ends_quietly(checkpoint, tmp_path):
    clip = tmp_path / "long.mp4"
    write_mp4(clip, [f.pixels for f in frames(40)] * 10, fps=20.0)
    command = [
        sys.executable,
        "-m",
        "spatial_ttt",
        "watch",
        str(clip),
        "--model",
        checkpoint,
        "--fps",
        "20",
        "--device",
        "cpu",
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT,
                               env=environment, text=True)  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:
        if "slots" in line and "bytes of state" in line:
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and out == "" and "Traceback" not in err


def test_watch_answers_what_is_typed(checkpoint, clip, monkeypatch, capfd):
    read, write_end = os.pipe()
    with os.fdopen(read) as stdin, os.fdopen(write_end, "w") as keyboard:
        keyboard.write("How many?\n\n")
        keyboard.flush()
        monkeypatch.setattr("sys.stdin", stdin)
        assert (
            main(["watch", clip, "--model", checkpoint, "--max-new-tokens", "4", "--device", "cpu"])
            == 0
        )
    out, _ = capfd.readouterr()
    assert out.count("\n") >= 1


def test_inspect(checkpoint, capfd):
    assert main(["inspect", checkpoint, "--json"]) == 0
    record = json.loads(capfd.readouterr().out)
    assert record["ttt"]["use_muon"] is True and record["frame_size"] == [32, 48]
    assert main(["inspect", checkpoint, "--size", "64x64"]) == 0
    assert "frames of 64x64 pixels" in capfd.readouterr().out
    assert main(["inspect", "/nowhere"]) == 1


def test_import_checkpoint(tmp_path, capfd):
    from spatial_ttt.testing.small import byte_tokenizer

    stock = write(tmp_path / "stock", stock_tensors(), stock_config())
    byte_tokenizer().save_pretrained(str(stock))
    target = str(tmp_path / "ours")
    base = ["import-checkpoint", str(stock), target]
    assert main(base) == 2, "the rule must be named"
    assert "--use-muon" in capfd.readouterr().err or "--norm-placement" in capfd.readouterr().err
    assert main([*base, "--use-muon", "--norm-placement", "sideways"]) == 1
    assert "norm_placement must be one of pre, post" in capfd.readouterr().err
    assert (
        main(
            [
                *base,
                "--use-muon",
                "--norm-placement",
                "pre",
                "--chunk-size",
                "30",
                "--window-size",
                "20",
            ]
        )
        == 1
    )
    assert "smaller than ttt.chunk_size" in capfd.readouterr().err
    assert main([*base, "--no-muon", "--norm-placement", "pre"]) == 0
    assert "Muon off, pre-norm" in capfd.readouterr().err
    assert main(["inspect", target, "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["ttt"]["use_muon"] is False
