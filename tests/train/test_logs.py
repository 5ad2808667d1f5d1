"""metrics.jsonl and TensorBoard: one line a step, no line twice after a stop."""

from __future__ import annotations

import json

from spatial_ttt.train.logs import METRICS, RunLog, read_metrics
from spatial_ttt.train.training_curves import draw


def record(step: int) -> dict[str, float]:
    return {"step": step, "loss": 1.0 / step, "tokens_per_second": 5.0, "rate": 1.0}


def test_a_run_that_goes_on_drops_what_was_after_its_checkpoint(tmp_path):
    with RunLog(tmp_path, is_first=True, first_step=0, num_steps=9) as log:
        for step in range(1, 6):
            log.step(record(step), written=step != 4)
    with (tmp_path / METRICS).open("a") as file:
        file.write('{"step": 6, "lo')  # killed while it wrote
    with RunLog(tmp_path, is_first=True, first_step=3, num_steps=9) as log:
        log.step(record(4), written=True)
    assert [r["step"] for r in read_metrics(tmp_path / METRICS)] == [1, 2, 3, 4]


def test_other_processes_write_nothing(tmp_path):
    with RunLog(tmp_path / "run", is_first=False, first_step=0, num_steps=1) as log:
        log.step(record(1), written=True)
        log.text("config", "{}")
    assert not (tmp_path / "run").exists()


def test_the_board_holds_the_numbers(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with RunLog(tmp_path, is_first=True, first_step=0, num_steps=2) as log:
        log.write(record(1) | {"mfu": None})
        log.write(record(2))
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(1, 1.0), (2, 0.5)]
    assert "mfu" not in events.Tags()["scalars"]


def test_curves_of_validation_too(tmp_path):
    rows = [record(n) | {"val_loss": 2.0} for n in (1, 2)] + [{"step": 3, "mfu": None}]
    (tmp_path / METRICS).write_text("".join(json.dumps(r) + "\n" for r in rows))
    draw(tmp_path / METRICS, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 5000
