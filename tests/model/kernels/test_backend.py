"""Which backend runs, and that a request is never quietly dropped."""

from __future__ import annotations

import logging

import pytest
import torch

from spatial_ttt.errors import ConfigError
from spatial_ttt.model import kernels
from spatial_ttt.model.kernels import request_backend, requested_backend, resolve_backend

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _forget_announcements() -> None:
    kernels._announce.cache_clear()


def test_cpu_takes_the_reference_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="spatial_ttt.model.kernels"):
        for _ in range(3):
            name, reason = resolve_backend("scan", CPU, torch.float32)
    assert (name, reason) == ("reference", "no kernels for device type cpu")
    assert [r.message for r in caplog.records] == [
        "scan: reference backend (no kernels for device type cpu)"
    ]


def test_float64_takes_the_reference() -> None:
    name, reason = resolve_backend("scan", CPU, torch.float64)
    assert name == "reference"
    assert "float64" in reason


def test_a_request_that_cannot_run_raises() -> None:
    with (
        request_backend("triton"),
        pytest.raises(ConfigError, match="scan was asked for and cannot run"),
    ):
        resolve_backend("scan", CPU, torch.float32)


def test_the_operations_own_problem_is_the_reason() -> None:
    assert resolve_backend("scan", CPU, torch.float32, "too wide") == ("reference", "too wide")
    with request_backend("triton"), pytest.raises(ConfigError, match="too wide"):
        resolve_backend("scan", CPU, torch.float32, "too wide")


def test_the_variable_counts_and_the_block_counts_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPATIAL_TTT_KERNELS", "reference")
    assert requested_backend() == "reference"
    with request_backend("auto"):
        assert requested_backend() == "auto"
    assert requested_backend() == "reference"


def test_what_was_answered_before_does_not_outlive_what_it_depends_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The answer is kept, never past a request, the variable, another type or another device."""
    for _ in range(2):
        monkeypatch.setenv("TRITON_INTERPRET", "0")
        monkeypatch.delenv("SPATIAL_TTT_KERNELS", raising=False)
        assert resolve_backend("scan", CPU, torch.float32)[1] == "no kernels for device type cpu"
        assert "meta" in resolve_backend("scan", torch.device("meta"), torch.float32)[1]
        assert "float16" in resolve_backend("scan", CPU, torch.float16)[1]
        monkeypatch.setenv("TRITON_INTERPRET", "1")
        expected = ("reference", "the interpreter is for tests")
        assert resolve_backend("scan", CPU, torch.float32) == expected
        with request_backend("triton"):
            assert resolve_backend("scan", CPU, torch.float32) == ("triton", "triton on cpu")
        monkeypatch.setenv("SPATIAL_TTT_KERNELS", "triton")
        assert resolve_backend("scan", CPU, torch.float32)[0] == "triton"
        monkeypatch.setenv("TRITON_INTERPRET", "0")
        with pytest.raises(ConfigError, match="no kernels for device type cpu"):
            resolve_backend("scan", CPU, torch.float32)


def test_a_gpu_is_asked_for_again_after_every_change(monkeypatch: pytest.MonkeyPatch) -> None:
    """There the answer is kept; what only the device itself knows is in place of it here."""
    gpu, old = torch.device("cuda:14"), torch.device("cuda:15")
    monkeypatch.setattr(kernels, "_has_triton", lambda: True)
    monkeypatch.setattr(kernels, "_capability", lambda device: (9 if device == gpu else 7, 0))
    monkeypatch.delenv("SPATIAL_TTT_KERNELS", raising=False)
    kernels._resolved.cache_clear()
    try:
        for _ in range(2):
            expected = ("triton", "auto on cuda")
            assert resolve_backend("scan", gpu, torch.float32) == expected
            assert resolve_backend("scan", gpu, torch.float64)[0] == "reference"
            assert resolve_backend("scan", gpu, torch.float32, "wide") == ("reference", "wide")
            assert "8.0 or newer" in resolve_backend("scan", old, torch.float32)[1]
            with request_backend("reference"):
                assert resolve_backend("scan", gpu, torch.float32)[0] == "reference"
            with request_backend("triton"):
                assert resolve_backend("scan", gpu, torch.float32)[0] == "triton"
                with pytest.raises(ConfigError, match="wide"):
                    resolve_backend("scan", gpu, torch.float32, "wide")
    finally:
        kernels._resolved.cache_clear()


def test_unknown_names_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="got 'fast'"), request_backend("fast"):
        pass
    monkeypatch.setenv("SPATIAL_TTT_KERNELS", "cuda")
    with pytest.raises(ConfigError, match="SPATIAL_TTT_KERNELS"):
        requested_backend()
