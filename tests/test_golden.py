"""Golden vectors: the authors' (beside the repository, if there) and our own, from the formula alone."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from spatial_ttt.errors import DataError
from spatial_ttt.model.configuration import paper_ttt_config
from spatial_ttt.model.layout import END, cut, join_all, slot, text
from spatial_ttt.model.naming import from_official
from spatial_ttt.model.state import Tokens
from spatial_ttt.model.ttt import TTTAttention
from spatial_ttt.testing import golden
from tests.model.streams import relative

THEIRS = Path(__file__).parents[1] / "../shared/golden"
OWN = Path(__file__).parent / "golden" / "layer.safetensors"
FILES = sorted(THEIRS.glob("*.safetensors"))


@pytest.mark.skipif(not FILES, reason="the authors' golden vectors are not here")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_authors_vectors(path):
    checks = golden.check_file(path)
    missed = [f"{c.tensor}: {c.error:.1e} > {c.limit:.0e}" for c in checks if not c.passed]
    assert len(checks) > 10 and not missed, "\n".join(missed)


@pytest.mark.skipif(not FILES, reason="the authors' golden vectors are not here")
def test_the_command_fails_on_a_miss(tmp_path, capsys):
    name = "layer_A_short.safetensors"
    shutil.copy(THEIRS / name, tmp_path / name)
    assert golden.main([str(tmp_path)]) == 0
    assert ", 0 failed" in capsys.readouterr().out
    with safe_open(THEIRS / name, "pt") as file:
        meta = file.metadata()
    tensors = load_file(THEIRS / name)
    tensors["nsfp32/train_out"] = tensors["nsfp32/train_out"] + 0.01
    save_file(tensors, tmp_path / name, metadata=meta)
    assert golden.main([str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "MISS layer_A_short" in out and ", 1 failed" in out


def test_what_is_no_golden_file(tmp_path, capsys):
    assert golden.main([str(tmp_path)]) == 1
    assert "give the folder of golden vectors" in capsys.readouterr().err
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(DataError, match="no 'kind' in the metadata"):
        golden.check_file(tmp_path / "a.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors", metadata={"kind": '"other"'})
    with pytest.raises(DataError, match="kind 'other'; known: unit, layer, model"):
        golden.check_file(tmp_path / "a.safetensors")


def test_missing_values_are_misses():
    bad = torch.tensor([1.0, float("nan")])
    assert (
        golden.absolute(bad, torch.ones(2))
        == golden.absolute(torch.ones(3), torch.ones(2))
        == float("inf")
    )
    assert not golden.Check("f", "t", float("nan"), 1.0).passed


# ---- our own: tests/golden/make_golden.py, NumPy in float64

with safe_open(OWN, "pt") as file:
    META = json.loads(file.metadata()["settings"])
VECTORS = load_file(OWN)
RULES = META["rules"]


def own_layer(rule: dict) -> TTTAttention:
    sizes = META["sizes"]
    numbers = SimpleNamespace(hidden_size=sizes["hidden"], num_attention_heads=sizes["heads"],
                              num_key_value_heads=sizes["kv_heads"], head_dim=sizes["head_dim"],
                              attention_bias=False, rms_norm_eps=1e-6)  # fmt: skip
    config = paper_ttt_config(
        num_fast_heads=sizes["fast_heads"],
        chunk_size=META["chunk"],
        window_size=META["window"],
        **rule,
    )
    layer = TTTAttention(numbers, config).double()
    weights = {
        from_official(k.removeprefix("weights/")): v
        for k, v in VECTORS.items()
        if k.startswith("weights/") and (rule["use_momentum"] or "momentum" not in k)
    }
    layer.load_state_dict(weights, strict=True)
    return layer


def own_layout():
    runs, at = [], 0
    for video in META["videos"]:
        for start in video["starts"]:
            runs += [(text(start - at),)] if start > at else []
            runs.append((slot(*video["grid"]),))
            at = start + video["grid"][0] * video["grid"][1]
        runs.append((END,))
    return join_all([*runs, (text(META["length"] - at),)])


def own_tokens(start: int, stop: int) -> Tokens:
    rope = torch.cat((VECTORS["in/cos"], VECTORS["in/sin"]), dim=-1)[None, start:stop]
    return Tokens(
        VECTORS["in/hidden"][None, start:stop], rope, None, cut(own_layout(), start, stop)
    )


@pytest.mark.parametrize(
    "cuts", [[], [5, 10, 11, 22, 30], range(1, META["length"])], ids=["whole", "cut", "tokens"]
)
@pytest.mark.parametrize("name", RULES)
@torch.no_grad()
def test_the_formula_in_float64(name, cuts):
    layer, state, outputs = own_layer(RULES[name]), None, []
    for start, stop in pairwise([0, *cuts, META["length"]]):
        tokens = own_tokens(start, stop)
        _, out, state = layer(tokens.hidden, tokens, state)
        outputs.append(out[0])
    assert relative(torch.cat(outputs), VECTORS[f"{name}/out"]) <= 1e-10
    fast = state.fast.weights
    for number, got in enumerate((fast.gate, fast.down, fast.up)):
        assert relative(got[0], VECTORS[f"{name}/w{number}"]) <= 1e-10


def test_the_rules_differ():
    outs = [VECTORS[f"{name}/out"] for name in RULES]
    for i, a in enumerate(outs):
        for b in outs[i + 1 :]:
            assert relative(a, b) > 1e-3


def test_the_file_is_what_its_script_makes(tmp_path, monkeypatch):
    from tests.golden import make_golden

    monkeypatch.setattr(make_golden, "__file__", str(tmp_path / "make_golden.py"))
    make_golden.main()
    again = load_file(tmp_path / "layer.safetensors")
    assert again.keys() == VECTORS.keys()
    # Another machine's libraries may round the last bit otherwise.
    assert all(relative(again[k], VECTORS[k]) <= 1e-11 for k in VECTORS)
    assert OWN.stat().st_size < 200_000
