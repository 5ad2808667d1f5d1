"""Counted operations against those that torch sees in the products themselves."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from spatial_ttt.model.configuration import SpatialTTTConfig
from spatial_ttt.presets import spatial_ttt_2b
from spatial_ttt.testing.small import small_model, small_processor
from spatial_ttt.train.flops import FlopCounter, SampleShape, peak_flops


def counted(work) -> float:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        work()
    return float(counter.get_total_flops())


def test_the_decoder_is_counted_right():
    length, chunk = 96, 16
    model = small_model(chunk_size=chunk, window_size=4096)
    for layer in model.decoder.layers:
        layer.self_attn._text._attn_implementation = "eager"
    counter = FlopCounter(model.config, 4096, trains_vision=True)
    parts = counter.forward(SampleShape(length, length))
    found = counted(lambda: model(torch.arange(length)[None] % 200))
    # Torch counts the square of all pairs where attention is masked, and no element-wise work.
    square = length * length / (length * (length + 1) / 2)
    taps = 2 * length * 27 * 3 * model.config.text_config.hidden_size * 3
    expected = sum(parts.values()) - taps
    expected += (square - 1) * (parts["anchor_attention"] + parts["window_attention"])
    assert found == pytest.approx(expected, rel=0.02)


def test_the_tower_is_counted_right():
    model, processor = small_model(), small_processor((32, 48))
    frames = torch.zeros(6, 32, 48, 3, dtype=torch.uint8)
    patches, grid = processor.patches(frames)
    found = counted(lambda: model.encode(patches, grid))
    shape = SampleShape(0, 0, ((3, 32, 48),))
    if not found_attention():
        found += 3 * 4 * 24 * 24 * 16 * 2  # slots, products, patches squared, width, depth
    assert found == pytest.approx(FlopCounter(model.config, 8, True).vision(shape), rel=0.001)


def found_attention() -> bool:
    """Torch counts fused attention on some devices only."""
    q = torch.zeros(1, 1, 4, 4)
    return counted(lambda: torch.nn.functional.scaled_dot_product_attention(q, q, q)) > 0


def test_windows_and_writes_shape_the_cost():
    config: SpatialTTTConfig = spatial_ttt_2b()
    wide, narrow = (
        FlopCounter(config, w, False).forward(SampleShape(11_000, 4)) for w in (20_000, 2648)
    )
    assert wide["window_attention"] > 2 * narrow["window_attention"]
    types = config.hybrid_layers
    share = types.count("ttt") / types.count("anchor")
    assert wide["window_attention"] == pytest.approx(share * wide["anchor_attention"])
    without = FlopCounter(spatial_ttt_2b(use_muon=False), 2648, False).forward(
        SampleShape(11_000, 4)
    )
    writes, heads, dim = 4, 4, 512
    muon = writes * heads * 3 * 5 * 3 * 2 * dim**3 * 21
    assert narrow["fast_weights"] - without["fast_weights"] == pytest.approx(muon)
    # About two operations per weight and token, by the published size of the decoder.
    assert narrow["matrices"] == pytest.approx(2 * 11_000 * 1.4e9, rel=0.03)


def test_a_frozen_tower_has_no_backward_pass():
    config = spatial_ttt_2b()
    shape = SampleShape(5_600, 4, ((32, 352, 480),))
    trained, frozen = (FlopCounter(config, 2648, trains).step([shape]) for trains in (True, False))
    assert trained - frozen == pytest.approx(2 * FlopCounter(config, 2648, True).vision(shape))


def test_no_peak_is_invented():
    assert peak_flops(torch.device("cpu")) is None
