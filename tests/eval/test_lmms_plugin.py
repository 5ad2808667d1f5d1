"""The lmms-eval plugin: its own logic here, the wiring against lmms-eval's published interface."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from PIL import Image

from spatial_ttt.errors import ConfigError, DataError
from spatial_ttt.eval.benchmarks import FrameSampling
from spatial_ttt.eval.lmms_plugin import LmmsRequest, answer_requests
from tests.eval.clips import write_vsi_bench
from tests.eval.toy import ToyModel

ROOT = Path(__file__).parents[2]
SAMPLING = FrameSampling(num_frames=8)

INTERFACE = {
    "lmms_eval/__init__.py": "",
    "lmms_eval/api/__init__.py": "",
    "lmms_eval/models/__init__.py": "",
    "lmms_eval/api/model.py": """
import abc

class lmms(abc.ABC):
    is_simple = True

    def __init__(self):
        self.task_dict = {}

    @abc.abstractmethod
    def loglikelihood(self, requests): ...

    @abc.abstractmethod
    def generate_until(self, requests): ...

    @abc.abstractmethod
    def generate_until_multi_round(self, requests): ...
""",
    "lmms_eval/models/registry_v2.py": """
from dataclasses import dataclass

@dataclass(frozen=True)
class ModelManifest:
    model_id: str
    simple_class_path: str | None = None
    chat_class_path: str | None = None
    aliases: tuple = ()
""",
}
"""What the plugin uses of lmms-eval (0.5 to 0.7), reduced to its signatures."""

DRIVER = """
import importlib, sys
from types import SimpleNamespace
from spatial_ttt.eval.lmms_plugin import manifest

found = manifest()
module, name = found.simple_class_path.rsplit(".", 1)
model = getattr(importlib.import_module(module), name)(pretrained="prior", batch_size="1")
model.task_dict = {"vsibench": {"test": [{"video": sys.argv[1]}]}}
visual = lambda doc: [doc["video"]]
generation = {"max_new_tokens": 16, "temperature": 0, "until": ["."]}
request = SimpleNamespace(args=("Options:\\nA. x", generation, visual, 0, "vsibench", "test"))
print(found.model_id, model.generate_until([request]))
"""


@pytest.fixture
def video(tmp_path: Path) -> str:
    return str(write_vsi_bench(tmp_path / "vsi") / "arkitscenes/a.mp4")


def test_replies_keep_the_order_and_each_clip_is_watched_once(tmp_path: Path):
    folder = write_vsi_bench(tmp_path / "vsi") / "arkitscenes"
    requests = [
        LmmsRequest("How many?", [str(folder / f"{scene}.mp4")], {"max_new_tokens": 4})
        for scene in "abab"
    ]
    model = ToyModel()
    assert answer_requests(model, requests, SAMPLING) == ["4", "2", "4", "2"]
    assert len(model.opened) == 2


def test_pictures_fill_a_slot_each():
    pictures = [
        Image.new("RGB", size, (level,) * 3) for size, level in (((8, 6), 10), ((9, 9), 200))
    ]
    (reply,) = answer_requests(ToyModel(), [LmmsRequest("How many?", pictures, {})], SAMPLING)
    assert reply == "2"


def test_stops_cut_the_reply(video: str):
    request = LmmsRequest("Options:\nA. x", [video], {"until": ["."]})
    assert "." not in answer_requests(ToyModel(), [request], SAMPLING)[0]


def test_no_visuals_is_a_blind_question():
    assert answer_requests(ToyModel(), [LmmsRequest("How many?", [], {})], SAMPLING) == ["0"]


def test_what_it_cannot_do_is_refused(video: str):
    with pytest.raises(ConfigError, match="greedily"):
        answer_requests(ToyModel(), [LmmsRequest("?", [video], {"temperature": 0.7})], SAMPLING)
    with pytest.raises(DataError, match="one video"):
        answer_requests(ToyModel(), [LmmsRequest("?", [video, video], {})], SAMPLING)
    with pytest.raises(DataError, match="got int"):
        answer_requests(ToyModel(), [LmmsRequest("?", [3], {})], SAMPLING)


def test_the_entry_point_leads_to_the_manifest():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    target = project["entry-points"]["lmms_eval.models"]["spatial_ttt"]
    assert target == "spatial_ttt.eval.lmms_plugin:manifest"


def test_lmms_eval_finds_and_runs_the_model(tmp_path: Path, video: str):
    for name, content in INTERFACE.items():
        path = tmp_path / "site" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    result = subprocess.run(
        [sys.executable, "-c", DRIVER, video],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={"PYTHONPATH": f"{tmp_path / 'site'}:{ROOT}", "OMP_NUM_THREADS": "1"},
    )
    assert result.stdout.strip() == "spatial_ttt ['A']", result.stderr
