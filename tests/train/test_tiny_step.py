"""One step of the small model: what is trained, how parts add up, and what it reports."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import nn

from spatial_ttt.errors import DataError
from spatial_ttt.model.layout import text
from spatial_ttt.train.branches import ingest
from spatial_ttt.train.chained import Size, chain, chained_spec
from spatial_ttt.train.clip_text import blind_prefix, clip_prefix
from spatial_ttt.train.clip_types import DENSE_KINDS, KINDS, Chain, categories
from spatial_ttt.train.dense_heads import DenseHeads
from spatial_ttt.train.devices import HostCopy, Mark
from spatial_ttt.train.listening import before_anchors, middle
from spatial_ttt.train.optim import GROUPS, OptimConfig, SlowWeights
from spatial_ttt.train.ring import Batch
from spatial_ttt.train.tiny_step import DENSE_TOKEN_WEIGHT, Launched, Stepper, Work, by_kind
from tests.train import clips


def stepper(rate: float = 1e-3, dense: float = 0.5) -> Stepper:
    torch.manual_seed(0)
    model = clips.model().train()
    listened = len(before_anchors(model)), len(middle(model))
    heads = DenseHeads(model.config.text_config.hidden_size, len(categories()), *listened)
    config = OptimConfig(
        learning_rate=dict.fromkeys(GROUPS, rate),
        weight_decay=0.0,
        betas=(0.9, 0.95),
        max_grad_norm=1e9,
        use_muon=False,
    )
    slow = SlowWeights(nn.ModuleList([model, heads]), config, torch.float32)
    return Stepper(model, heads, slow, clips.CPU, dense, nullcontext)


def batch(rows: list[int], branches: int = 6) -> Batch:
    """Clips by number, the first exchanges of each, dense ones included."""
    ring = clips.ring()
    chosen = []
    for row in rows:
        record = ring.records[ring.ready[row]]
        assert record is not None
        chosen.append(np.linspace(0, len(record.exchanges) - 1, branches).astype(np.intp))
    return ring.collect([ring.ready[row] for row in rows], chosen)


def work(*batches: Batch, is_blind: bool = False) -> Work:
    prefix = blind_prefix(clips.tokenizer()) if is_blind else clips.prefix()
    return Work(list(batches), clips.SPEC, prefix, is_blind)


def gradients(made: Stepper, given: Work) -> tuple[dict[str, torch.Tensor], Launched]:
    """Of the slow weights, as the optimizers would see them."""
    found: dict[str, torch.Tensor] = {}
    step = made.slow.step

    def note(scale: float) -> torch.Tensor:
        found.update(
            {n: p.grad.clone() for n, p in made.model.named_parameters() if p.grad is not None}
        )
        return step(scale)

    made.slow.step = note  # type: ignore[method-assign]
    return found, made.step(given, 0.0, 1, "look")


def test_the_loss_is_the_weighted_mean_over_answer_tokens() -> None:
    made, some = stepper(), batch([0, 1])
    launched = made.step(work(some), 0.0, 1, "look")
    with torch.no_grad():
        ingested = ingest(made.model, clips.prefix(), some.frames, clips.SPEC)
        total = weights = 0.0
        for branch in range(6):
            ids = some.ids[:, branch]
            done, _ = made.model.decode_piece(ids, (text(ids.shape[1]),), None, ingested.state)
            log_p = made.model.lm_head(done.hidden).log_softmax(-1)
            for clip in range(2):
                dense = KINDS[some.kind[clip, branch]] in DENSE_KINDS
                weight = DENSE_TOKEN_WEIGHT if dense else 1.0
                for at in range(some.start[clip, branch], some.stop[clip, branch]):
                    total -= weight * log_p[clip, at - 1, ids[clip, at]].item()
                    weights += weight
    assert launched.scores["loss"] == pytest.approx(total / weights, rel=1e-4)
    assert {KINDS[k] in DENSE_KINDS for k in some.kind.flatten()} == {True, False}


def test_a_step_in_parts_is_the_step_as_one() -> None:
    """Gradients, losses and each kind's mean, whether the clips go through together or in turn."""
    together, one = gradients(stepper(dense=0.0), work(batch([0, 1])))
    apart, two = gradients(stepper(dense=0.0), work(batch([0]), batch([1])))
    assert together.keys() == apart.keys()
    for name, value in together.items():
        scale = float(value.abs().max()) + 1e-6
        assert float((apart[name] - value).abs().max()) < 2e-3 * scale, name
    assert two.scores == pytest.approx(one.scores, rel=1e-3)
    assert two.by_kind == pytest.approx(one.by_kind, rel=1e-3)
    assert len(one.by_kind) >= 3


def test_steps_learn_the_answers_and_the_dense_facts() -> None:
    made, given = stepper(rate=5e-3), work(batch([0, 1]))
    launched = [made.step(given, 1.0, n, "look") for n in range(1, 9)]
    first, last = launched[0].scores, launched[-1].scores
    assert last["loss"] < 0.6 * first["loss"]
    assert {name for name in first if name.startswith("dense_")} == {
        f"dense_{part}"
        for part in ("category", "depth", "pose", "counts", "place", "where", "names")
    }
    assert last["dense_category"] < first["dense_category"]
    assert [step.number for step in launched] == list(range(1, 9))


def test_a_blind_step_leaves_the_tower_alone() -> None:
    found, launched = gradients(stepper(), work(batch([0, 1]), is_blind=True))
    assert launched.is_blind and not any(name.startswith("dense") for name in launched.scores)
    assert not any(".visual." in name for name in found)
    seeing, _ = gradients(stepper(), work(batch([0, 1])))
    assert any(".visual." in name for name in seeing)


def test_the_shield_is_held_while_weights_change() -> None:
    made = stepper()
    events: list[str] = []

    class Shield:
        def __enter__(self) -> None:
            events.append("in")

        def __exit__(self, *_: object) -> None:
            events.append("out")

    step = made.slow.step
    made.shield = Shield
    made.slow.step = lambda scale: (events.append("step"), step(scale))[1]  # type: ignore[method-assign]
    made.step(work(batch([0], 2)), 1.0, 1, "look")
    assert events == ["in", "step", "out"]


def test_each_kind_has_the_sum_of_its_tokens_and_their_number() -> None:
    found = by_kind(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0, 3, 3]))
    assert found.shape == (2, len(KINDS))
    assert found[:, 0].tolist() == [1.0, 1.0] and found[:, 3].tolist() == [6.0, 2.0]
    assert found.sum() == 10.0


def launched(loss: float, norm: float = 1.0) -> Launched:
    values = torch.cat((torch.tensor([loss, norm]), torch.full((len(KINDS),), float("nan"))))
    marks = (Mark(clips.CPU), Mark(clips.CPU), Mark(clips.CPU))
    return Launched(3, "look", False, ("loss", "grad_norm"), HostCopy(values), marks, marks[0].time)


@pytest.mark.parametrize("wrong", [{"loss": float("nan")}, {"loss": 1.0, "norm": float("inf")}])
def test_a_step_gone_astray_is_an_error(wrong) -> None:
    assert launched(2.0).scores == {"loss": 2.0, "grad_norm": 1.0}
    assert launched(2.0).by_kind == {}
    with pytest.raises(DataError, match="step 3 went astray"):
        _ = launched(**wrong).scores


def test_times_of_a_step_are_those_between_its_marks() -> None:
    step = launched(1.0)
    step.wait(lambda: None)
    for mark, time in zip(step.marks, (10.0, 10.25, 11.0), strict=True):
        mark.time = time
    assert step.timing == pytest.approx((250.0, 750.0))


def test_a_stream_of_several_homes_is_trained_on_its_counts() -> None:
    ring = clips.ring()
    asker = clips.asker()
    spec = chained_spec(ring.spec, Chain(2))
    some = chain(ring, asker, np.random.default_rng(0), Size(2, 96), Chain(2))
    given = Work([some], spec, clip_prefix(clips.tokenizer(), spec), False, is_chained=True)
    made = stepper(rate=5e-3)
    launched = [made.step(given, 1.0, n, "look") for n in range(1, 9)]
    first, last = launched[0].scores, launched[-1].scores
    assert set(first) == {"loss", "dense_counts", "dense_names", "grad_norm"}
    assert set(launched[0].by_kind) == {"vsc"}
    assert last["dense_names"] < first["dense_names"]
    assert last["loss"] < 0.6 * first["loss"] and last["dense_counts"] < first["dense_counts"]


def test_every_step_with_a_video_gives_the_same_parameters_a_gradient() -> None:
    """Processes whose clips differ in kind add their gradients up: none may have one the other lacks."""
    ring = clips.ring()
    spec = chained_spec(ring.spec, Chain(2))
    asker = clips.asker()
    some = chain(ring, asker, np.random.default_rng(0), Size(2, 96), Chain(2))
    stream = Work([some], spec, clip_prefix(clips.tokenizer(), spec), False, is_chained=True)
    found = []
    for given in (stream, work(batch([0, 1]))):
        made, names = stepper(), set()
        step = made.slow.step

        def note(scale: float, made=made, names=names, step=step) -> torch.Tensor:
            both = (*made.model.named_parameters(), *made.heads.named_parameters())
            names.update(name for name, p in both if p.grad is not None)
            return step(scale)

        made.slow.step = note  # type: ignore[method-assign]
        made.step(given, 0.0, 1, "look")
        found.append(names)
    assert found[0] == found[1]
