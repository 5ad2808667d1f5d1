"""The loss of a pack: equal to the model's own, to Qwen3-VL's at the start, to that of each sample alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from spatial_ttt.data_format import Sample, Turn
from spatial_ttt.model.layout import RunKind, UnevenRows
from spatial_ttt.testing.small import small_model, small_processor
from spatial_ttt.train.dataset import LoadedSample, load_sample
from spatial_ttt.train.packed import Given, PackedModel, _in_places, make_rows
from spatial_ttt.train.run_config import DataConfig, FramesConfig
from tests.train import toy

SHAPES = ((4, "3"), (8, "chair, table and lamp"), (2, "B"), (8, "7"))


@pytest.fixture(scope="module")
def samples(tmp_path_factory) -> list[LoadedSample]:
    """Four clips of three lengths (two alike, so they share rows), and one of text alone."""
    folder = tmp_path_factory.mktemp("packed")
    config = DataConfig(files=("unused",), frames=FramesConfig(most=8))
    loaded = []
    for number, (frames, answer) in enumerate(SHAPES):
        toy.write_clip(folder / f"{number}.mp4", number, frames)
        turns = (Turn("human", f"<video>\nQuestion {number}?"), Turn("gpt", answer))
        sample = Sample(turns=turns, videos=(f"{number}.mp4",))
        loaded.append(load_sample(sample, folder, config, small_processor()))
    words = Sample(turns=(Turn("human", "Two and two?"), Turn("gpt", "4")))
    return [*loaded, load_sample(words, Path(), config, small_processor())]


@pytest.fixture(scope="module")
def uneven(tmp_path_factory) -> list[LoadedSample]:
    """Samples of five layouts and about one length: a video, two of two sizes, images, words alone, one slot."""
    folder = tmp_path_factory.mktemp("uneven")
    for frames in (2, 4, 8):
        toy.write_clip(folder / f"{frames}.mp4", frames, frames)
    Image.fromarray(toy.pictures(9, 1)[0]).save(folder / "a.png")
    small, wide = (
        DataConfig(files=("unused",), frames=FramesConfig(most=8, size=(32, w))) for w in (48, 64)
    )

    def load(question: str, answer: str, config: DataConfig = small, **media) -> LoadedSample:
        sample = Sample(turns=(Turn("human", question), Turn("gpt", answer)), **media)
        return load_sample(sample, folder, config, small_processor())

    return [
        load("<video>\nHow many?", "7", videos=("8.mp4",)),
        load("<video> or <video>" + "?" * 30, "chair", wide, videos=("4.mp4", "2.mp4")),
        load("<image>, <image>" + "?" * 80, "B", images=("a.png", "a.png")),
        load("Two and two?" * 9, "4"),
        load("<video>" + "?" * 70, "left", videos=("2.mp4",)),
    ]


def packed_model(checkpointed: int = 0, **ttt) -> PackedModel:
    model = small_model(**({"chunk_size": 16, "window_size": 16} | ttt))
    return PackedModel(model.double().train(), small_processor(), checkpointed)


def gradients(packed: PackedModel, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    packed.zero_grad()
    loss.backward()
    return {
        name: p.grad.clone() for name, p in packed.model.named_parameters() if p.grad is not None
    }


def assert_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        scale = max(1e-6, float(value.abs().max()))
        assert float((found[name] - value).abs().max()) <= 1e-8 * scale, name


def test_packed_equals_unpacked(samples):
    packed = packed_model()
    assert sorted(len(row.samples) for row in make_rows(samples, torch.device("cpu"))) == [
        1,
        1,
        1,
        2,
    ]
    together = packed(samples)
    found = gradients(packed, together.loss)
    alone = [packed([sample]) for sample in samples]
    separate = sum(a.loss.detach() for a in alone)
    assert float(together.loss.detach()) == pytest.approx(float(separate), rel=1e-12)
    assert torch.equal(together.counts, sum(a.counts for a in alone))
    assert together.counts[0] == sum(s.encoded.num_targets for s in samples)
    assert_equal(found, gradients(packed, sum(a.loss for a in alone)))


@pytest.mark.parametrize("how", ["centred", "causal"])
def test_samples_of_different_layouts_share_a_batch(uneven, how):
    (rows,) = make_rows(uneven, torch.device("cpu"))
    assert isinstance(rows.layout, UnevenRows)
    lengths = [len(s.encoded.ids) for s in uneven]
    assert len(set(lengths)) == 5 and rows.ids.shape == (5, max(lengths))
    packed = packed_model(convolution=how)
    together = packed(uneven)
    found = gradients(packed, together.loss)
    alone = [packed([sample]) for sample in uneven]
    separate = sum(a.loss.detach() for a in alone)
    assert float(together.loss.detach()) == pytest.approx(float(separate), rel=1e-12)
    assert torch.equal(together.counts, sum(a.counts for a in alone))
    assert_equal(found, gradients(packed, sum(a.loss for a in alone)))


def test_long_samples_are_padded_to_few_lengths(samples, uneven, monkeypatch):
    """Rows of one layout, with and without words after the video, and of several; nothing else changes."""
    pack, packed = [*samples, *uneven], packed_model()
    expected = packed(pack)
    before = gradients(packed, expected.loss)
    monkeypatch.setattr("spatial_ttt.train.packed.LONG_SAMPLE", 100)
    monkeypatch.setattr("spatial_ttt.train.packed.FEW_LENGTHS", 48)
    lengths = [rows.ids.shape[1] for rows in make_rows(pack, torch.device("cpu"))]
    assert sum(length % 48 == 0 for length in lengths) >= 2 and min(lengths) < 100
    found = packed(pack)
    assert float(found.loss.detach()) == pytest.approx(float(expected.loss.detach()), rel=1e-12)
    assert torch.equal(found.counts, expected.counts)
    assert_equal(gradients(packed, found.loss), before)


def test_only_what_is_about_as_long_shares_a_batch(uneven, samples):
    """Samples of one layout do, however many words follow it."""
    batches = make_rows([*samples, *uneven], torch.device("cpu"))
    assert sorted(len(rows.samples) for rows in batches) == [1, 2, 3, 4]
    for rows in batches:
        longest = max((s.encoded for s in rows.samples), key=lambda encoded: len(encoded.ids))
        for encoded in (s.encoded for s in rows.samples):
            has_its_layout = encoded.layout[:-1] == longest.layout[:-1]
            assert has_its_layout or len(encoded.ids) >= 7 / 8 * len(longest.ids)
    longer = samples[3].encoded
    words = longer._replace(
        ids=[*longer.ids, *[65] * 99],
        is_target=[*longer.is_target, *[True] * 99],
        layout=(
            *longer.layout[:-1],
            longer.layout[-1]._replace(length=longer.layout[-1].length + 99),
        ),
    )
    (rows,) = make_rows([samples[3], samples[3]._replace(encoded=words)], torch.device("cpu"))
    assert rows.layout == words.layout and words.layout[-1].kind == RunKind.TEXT


def arguments(sample: LoadedSample) -> dict[str, torch.Tensor]:
    """The same sample for a Hugging Face forward."""
    processor = small_processor()
    ids = torch.tensor([sample.encoded.ids])
    target = torch.tensor([sample.encoded.is_target])
    patches, grid = processor.patches(sample.frames[0])
    return {
        "input_ids": ids,
        "labels": ids.masked_fill(~target, -100),
        "pixel_values_videos": patches.flatten(0, 1),
        "video_grid_thw": torch.tensor([[patches.shape[0], *grid]]),
    }


def test_the_loss_is_the_models_own(samples):
    packed = packed_model()
    for sample in samples[:-1]:
        given = arguments(sample) | {"num_items_in_batch": 1}
        given["pixel_values_videos"] = given["pixel_values_videos"].double()
        expected = packed.model(**given).loss.detach()
        assert float(packed([sample]).loss.detach()) == pytest.approx(float(expected), rel=1e-6)


def close_gates(model) -> None:
    with torch.no_grad():
        for layer in model.decoder.layers:
            gate = getattr(layer.self_attn, "ttt_scale_proj", None)
            if gate is not None:
                gate.weight.zero_()
                gate.bias.zero_()


@pytest.mark.parametrize("window", [4096, 16])
def test_the_first_step_is_full_attentions(samples, window):
    """Gate zero and a window over everything: transformers' Qwen3-VL; a small window is not."""
    ours = small_model(chunk_size=16, window_size=window)
    close_gates(ours)
    values = ours.config.to_dict()
    keep = ("text_config", "vision_config", "image_token_id", "video_token_id", "vision_start_token_id",
            "vision_end_token_id", "tie_word_embeddings")  # fmt: skip
    theirs = Qwen3VLForConditionalGeneration(Qwen3VLConfig(**{k: values[k] for k in keep})).eval()
    own = ours.state_dict()
    theirs.load_state_dict({k: own[k] for k in theirs.state_dict()}, strict=True)
    packed = PackedModel(ours.train(), small_processor(), 0)
    expected = 0.0
    for sample in samples[:-1]:
        given = arguments(sample)
        labels = given.pop("labels")
        kinds = 2 * (given["input_ids"] == values["video_token_id"]).long()
        logits = theirs(**given, mm_token_type_ids=kinds).logits
        expected += F.cross_entropy(
            logits[0, :-1], labels[0, 1:], ignore_index=-100, reduction="sum"
        )
    found = packed(samples[:-1]).loss
    if window == 16:
        assert abs(float((found - expected).detach())) > 1e-3 * float(expected.detach())
        return
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-6)
    expected.backward()
    base = {n: p.grad for n, p in theirs.named_parameters() if p.grad is not None}
    mine = gradients(packed, found)
    for name, value in base.items():
        scale = max(1e-4, float(value.abs().max()))
        assert float((mine[name] - value).abs().max()) <= 2e-4 * scale, name
    gates = [v for n, v in mine.items() if "ttt_scale_proj" in n]
    assert gates and all(v.abs().max() > 0 for v in gates), "a closed gate must be able to open"


@pytest.mark.parametrize("checkpointed", [2, 4])
def test_activation_checkpointing_changes_nothing(samples, uneven, checkpointed):
    plain = packed_model()
    other = packed_model(checkpointed)
    pack = [*samples, *uneven]
    expected = gradients(plain, plain(pack).loss)
    assert_equal(gradients(other, other(pack).loss), expected)


def test_an_empty_pack_gives_every_parameter_a_gradient_of_zero():
    packed = packed_model()
    packed.touch_all = True
    out = packed([])
    assert float(out.loss.detach()) == 0.0 and not out.counts.any()
    found = gradients(packed, out.loss)
    assert set(found) == {name for name, _ in packed.model.named_parameters()}
    assert all(not value.any() for value in found.values())


def test_a_pack_without_frames_is_a_step_for_a_tower_that_is_trained_alone(samples):
    packed = packed_model()
    for name, parameter in packed.model.named_parameters():
        parameter.requires_grad_(".visual." in name)
    for pack in ([], [samples[-1]]):
        assert not any(value.any() for value in gradients(packed, packed(pack).loss).values())
    assert any(value.any() for value in gradients(packed, packed(samples).loss).values())


def test_touching_changes_no_gradient(samples):
    packed = packed_model()
    expected = gradients(packed, packed(samples).loss)
    packed.touch_all = True
    found = gradients(packed, packed(samples).loss)
    assert_equal({name: found[name] for name in expected}, expected)


def test_many_targets_are_scored_in_pieces(samples, monkeypatch):
    packed = packed_model()
    whole = packed(samples)
    expected = gradients(packed, whole.loss)
    monkeypatch.setattr("spatial_ttt.train.packed.LOGIT_ROWS", 3)
    pieces = packed(samples)
    assert torch.equal(pieces.counts, whole.counts)
    assert_equal(gradients(packed, pieces.loss), expected)


def test_a_frozen_tower_keeps_no_graph(samples):
    packed = packed_model()
    packed.model.model.visual.requires_grad_(False)
    found = gradients(packed, packed(samples).loss)
    assert not any("visual" in name for name in found) and found


def test_what_is_given_beforehand_is_used_once(samples):
    packed = packed_model()
    given = packed.given(samples)
    held = {id(x): x for row in given.rows for x in tree_leaves(vars(row)) if torch.is_tensor(x)}
    unmade = {id(row.rope) for row in given.rows}
    assert {id(tensor) for tensor in given.tensors()} == held.keys() - unmade
    assert sum(tensor.dtype == torch.uint8 for tensor in held.values()) == len(SHAPES)
    assert float(packed(given).loss.detach()) == float(packed(samples).loss.detach())
    with pytest.raises(AssertionError, match="given once"):
        packed(given)


def test_features_of_the_tower_stand_at_its_tokens(uneven, samples):
    """Of rows of several layouts and sizes, and their gradients; zero at all other tokens."""
    for rows in make_rows([*uneven, *samples], torch.device("cpu")):
        grids = [slot for row in rows.runs for slot in row if slot.kind == RunKind.SLOT]
        parts = [torch.randn(1, slot.length, 3).requires_grad_() for slot in grids]
        if not parts:
            continue
        features = torch.cat([part.flatten(0, 1) for part in parts])
        expected = torch.zeros(rows.ids.numel(), 3).index_copy(0, rows.vision_at, features)
        found = _in_places(parts, rows)
        assert torch.equal(found, expected.view(*rows.ids.shape, 3))
        weight = torch.randn(found.shape)
        wanted = torch.autograd.grad((expected.view_as(found) * weight).sum(), parts)
        got = torch.autograd.grad((found * weight).sum(), parts)
        assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))


def test_who_looks_for_tensors_among_the_arguments_finds_one_thing(samples):
    """FSDP does at every step, and would look at every token id."""
    packed, seen = packed_model(), []
    packed.register_forward_pre_hook(lambda _, inputs: seen.extend(tree_leaves(inputs)))
    packed(samples)
    assert [type(x) for x in seen] == [Given]
