"""Compiling the token-wise parts: refused without a GPU, equal answers on one."""

from __future__ import annotations

import numpy as np
import pytest

from spatial_ttt.engine import compile_model
from spatial_ttt.errors import ConfigError
from spatial_ttt.generate import Decoding
from spatial_ttt.session import StreamingSession
from spatial_ttt.testing.small import small_model, small_processor
from spatial_ttt.video.frame import Frame


def test_compiling_wants_a_gpu():
    with pytest.raises(ConfigError, match="on cpu"):
        compile_model(small_model())


@pytest.mark.gpu
def test_compiled_answers_are_the_same():
    rng = np.random.default_rng(0)
    frames = [Frame(rng.integers(0, 256, (32, 48, 3), dtype=np.uint8), i / 2) for i in range(24)]

    def answer(model):
        session = StreamingSession(model, small_processor())
        session.observe(frames)
        return "".join(session.ask("how many?", Decoding(max_new_tokens=8)))

    model = small_model().to("cuda")
    expected = answer(model)
    compile_model(model)
    assert answer(model) == expected
