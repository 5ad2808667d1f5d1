"""Between host and device, on the host alone; a GPU's part is in tests/gpu."""

from __future__ import annotations

import time

import numpy as np
import torch

from spatial_ttt.train.devices import HostCopy, Mark, constant, sent, to_device

CPU = torch.device("cpu")


def test_arrays_keep_their_values_and_types() -> None:
    for array in (np.arange(6, dtype=np.int16).reshape(2, 3), np.array([0.5, np.nan], np.float32)):
        tensor = to_device(array, CPU)
        np.testing.assert_array_equal(tensor.numpy(), array)
        assert tensor.numpy().dtype == array.dtype
        np.testing.assert_array_equal(sent(tensor, CPU).numpy(), array)


def test_a_constant_is_made_once() -> None:
    first = constant((3, 1, 2), CPU)
    assert first.tolist() == [3, 1, 2] and first.dtype == torch.int64
    assert constant((3, 1, 2), CPU) is first
    assert constant((3, 1, 4), CPU) is not first


def test_marks_measure_the_time_between_them() -> None:
    first = Mark(CPU)
    time.sleep(0.02)
    second = Mark(CPU)
    assert first.has_passed and second.has_passed
    assert 20 <= second.ms_since(first) < 2000


def test_numbers_on_their_way_are_those_of_the_moment_they_left() -> None:
    values = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    copy = HostCopy(values)
    with torch.no_grad():
        values.add_(1)
    assert copy.values.tolist() == [1.0, 2.0]
    assert copy.values.dtype == torch.float32 and not copy.values.requires_grad
