"""The whole model: equal to transformers' Qwen3-VL where it must be, strict where it must not guess."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from spatial_ttt.errors import ConfigError, VideoError
from spatial_ttt.model.modeling import SpatialTTTForConditionalGeneration, next_token_loss
from spatial_ttt.testing.small import small_config, small_model
from tests.model.prompts import VIDEO, Prompt, kinds
from tests.model.streams import relative

PROMPTS = kinds()
SPECIAL = list(range(256, 264))


def stock_pair(**ttt):
    """Ours with closed gates and a window over everything, and transformers' model of the same weights."""
    ours = small_model(**({"chunk_size": 8, "window_size": 4096} | ttt))
    with torch.no_grad():
        for layer in ours.decoder.layers:
            gate = getattr(layer.self_attn, "ttt_scale_proj", None)
            if gate is not None:
                gate.weight.zero_()
                gate.bias.zero_()
    values = ours.config.to_dict()
    keep = ("text_config", "vision_config", "image_token_id", "video_token_id", "vision_start_token_id",
            "vision_end_token_id", "tie_word_embeddings")  # fmt: skip
    theirs = Qwen3VLForConditionalGeneration(Qwen3VLConfig(**{k: values[k] for k in keep})).eval()
    own = ours.state_dict()
    theirs.load_state_dict({k: own[k] for k in theirs.state_dict()}, strict=True)
    return ours, theirs


@pytest.mark.parametrize("rule", [{}, {"use_muon": False, "norm_placement": "pre"}, {"low_rank": 2}],
                         ids=["paper", "no muon, pre", "low rank"])  # fmt: skip
@pytest.mark.parametrize("kind", PROMPTS)
@torch.no_grad()
def test_closed_gates_give_qwen3_vl(kind, rule):
    ours, theirs = stock_pair(**rule)
    prompt = PROMPTS[kind]
    expected = theirs(**prompt.arguments(), mm_token_type_ids=prompt.mm_token_type_ids).logits
    got = ours(**prompt.arguments()).logits
    assert float((got - expected).abs().max()) <= 1e-4
    assert float(expected.std()) > 0.05, "logits that say nothing prove nothing"


@torch.no_grad()
def test_closed_gates_and_a_small_window_are_not_qwen3_vl():
    """The equality above is no accident of weights that do not matter."""
    ours, theirs = stock_pair(window_size=8)
    prompt = PROMPTS["video"]
    expected = theirs(**prompt.arguments(), mm_token_type_ids=prompt.mm_token_type_ids).logits
    assert float((ours(**prompt.arguments()).logits - expected).abs().max()) > 1e-3


@pytest.mark.parametrize("kind", PROMPTS)
@torch.no_grad()
def test_greedy_tokens_equal_qwen3_vls(kind):
    ours, theirs = stock_pair()
    prompt = PROMPTS[kind]
    arguments = prompt.arguments()
    ids = theirs.generate(
        **arguments,
        mm_token_type_ids=prompt.mm_token_type_ids,
        max_new_tokens=6,
        do_sample=False,
        pad_token_id=263,  # a token of no prompt: transformers takes it for padding
        suppress_tokens=SPECIAL,
    )
    mine = arguments["input_ids"]
    for _ in range(6):
        logits = ours(**(arguments | {"input_ids": mine})).logits[:, -1]
        logits[:, SPECIAL] = float("-inf")
        mine = torch.cat((mine, logits.argmax(-1, keepdim=True)), dim=1)
    assert torch.equal(mine, ids)


@pytest.mark.parametrize("low_rank", [0, 2])
@torch.no_grad()
def test_a_fresh_branch_adds_exactly_nothing(low_rank):
    torch.manual_seed(0)
    model = SpatialTTTForConditionalGeneration(small_config(chunk_size=4, low_rank=low_rank)).eval()
    arguments = PROMPTS["two videos"].arguments()
    before = model(**arguments).logits
    for layer in model.decoder.layers:
        for name, parameter in layer.self_attn.named_parameters():
            if name.startswith(
                ("fast_weights", "conv_", "lr_proj", "momentum", "q_scale", "k_offset")
            ):
                parameter.add_(1.0)
    assert torch.equal(model(**arguments).logits, before)


@torch.no_grad()
def test_an_open_branch_matters_and_its_rule_too():
    arguments = PROMPTS["video"].arguments()
    logits = {
        rule: small_model(chunk_size=5, window_size=8, use_muon=rule[0], norm_placement=rule[1])(
            **arguments
        ).logits
        for rule in ((True, "post"), (True, "pre"), (False, "post"))
    }
    paper = logits[True, "post"]
    # Nothing is written before token 5; post and pre differ from the second write on, seen from token 8
    # on, where the first slot reads the next.
    for other, first in (((True, "pre"), 8), ((False, "post"), 5)):
        assert torch.equal(logits[other][:, :first], paper[:, :first])
        assert relative(logits[other][:, first:], paper[:, first:]) > 1e-3


@torch.no_grad()
def test_low_rank_weights_are_left_times_right_plus_half():
    model = small_model(low_rank=3)
    fast = model.decoder.layers[0].self_attn.fast_weights
    initial = fast.initial()
    expected = fast.up_left @ fast.up_right + 0.5 * torch.eye(16)
    assert torch.equal(initial.up, expected) and initial.gate.shape == (2, 16, 16)
    logits = model(**PROMPTS["video"].arguments()).logits
    assert torch.isfinite(logits).all()


def test_the_loss_is_that_of_the_next_token():
    model = small_model()
    prompt = PROMPTS["video"]
    labels = torch.tensor([prompt.ids])
    labels[:, :10] = -100
    out = model(**prompt.arguments(), labels=labels)
    chances = out.logits.log_softmax(-1)[0]
    picked = [float(chances[i - 1, labels[0, i]].detach()) for i in range(10, len(prompt.ids))]
    assert abs(float(out.loss.detach()) + sum(picked) / len(picked)) < 1e-5
    summed = model(**prompt.arguments(), labels=labels, num_items_in_batch=7).loss.detach()
    assert abs(float(summed) + sum(picked) / 7) < 1e-4


def test_a_bfloat16_loss_is_computed_in_float32():
    logits = torch.randn(1, 3, 9, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert next_token_loss(logits, torch.tensor([[1, 2]]), None).dtype == torch.float32


@pytest.mark.parametrize(
    "argument", ["position_ids", "inputs_embeds", "past_key_values", "output_attentions", "typo"]
)
def test_arguments_that_would_be_ignored_are_refused(argument):
    with pytest.raises(ConfigError, match=f"no use for {argument}"):
        small_model()(torch.tensor([[1, 2]]), **{argument: True})


def test_harmless_arguments_pass():
    ids = torch.tensor([[1, 2]])
    small_model()(ids, mm_token_type_ids=ids * 0, use_cache=False, position_ids=None)


@torch.no_grad()
def test_eager_equals_sdpa_with_windows_and_anchors():
    model = small_model(chunk_size=5, window_size=7, use_muon=False)
    prompt = PROMPTS["two videos"]
    sdpa = model(**prompt.arguments()).logits
    model.config._attn_implementation = "eager"
    assert {layer.self_attn.implementation for layer in model.decoder.layers} == {"eager"}
    eager = model(**prompt.arguments()).logits
    assert 0 < relative(eager, sdpa) <= 1e-5


@pytest.mark.parametrize("name", ["flex_attention", "flash_attention_3", "paged|sdpa", "nonsense"])
def test_other_attention_implementations_are_refused(name):
    config = small_config()
    config._attn_implementation = name
    with pytest.raises(ConfigError, match="attn_implementation must be one of sdpa, eager, flash"):
        SpatialTTTForConditionalGeneration(config)


@pytest.mark.skipif(importlib.util.find_spec("flash_attn") is not None, reason="flash-attn is here")
def test_flash_attention_needs_its_package():
    config = small_config()
    config._attn_implementation = "flash_attention_2"
    with pytest.raises(ConfigError, match="install it or use 'sdpa'"):
        SpatialTTTForConditionalGeneration(config)


def test_window_smaller_than_chunk():
    config = small_config(chunk_size=24, window_size=10)
    with pytest.raises(ConfigError, match="window_size 10 is smaller than"):
        SpatialTTTForConditionalGeneration(config)
    SpatialTTTForConditionalGeneration(config, allow_window_gap=True)


def test_transformers_checkpointing_switch_reaches_the_decoder():
    model = small_model().train()
    # transformers 5.23 renames the switch; both names must work as long as they exist.
    enable = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)
    prompt = PROMPTS["two videos"]
    arguments = prompt.arguments() | {"labels": torch.tensor([prompt.ids])}

    def gradients():
        model.zero_grad()
        model(**arguments).loss.backward()
        return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    plain = gradients()
    enable()
    assert model.decoder.gradient_checkpointing
    again = gradients()
    assert plain.keys() == again.keys()
    assert all(torch.equal(again[name], plain[name]) for name in plain)


def test_every_parameter_gets_a_gradient():
    model = small_model(chunk_size=5, window_size=8)
    prompt = Prompt(6).text(2).image(1, 2).video(4, 2, 2).text(9)
    model(**prompt.arguments(), labels=torch.tensor([prompt.ids])).loss.backward()
    silent = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


@torch.no_grad()
def test_embeddings_can_be_resized():
    import warnings

    model = small_model()
    before = model(torch.tensor([[1, 2, 3]])).logits
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.resize_token_embeddings(300)
    assert model.lm_head.weight is model.get_input_embeddings().weight
    assert model.config.text_config.vocab_size == 300
    after = model(torch.tensor([[1, 2, 3]])).logits
    assert after.shape[-1] == 300 and torch.equal(after[..., :264], before)


@torch.no_grad()
def test_what_inference_mode_caches_can_be_trained_with():
    model, prompt = small_model(seed=9), Prompt(7).video(5, 3, 1).text(2)
    with torch.inference_mode():
        model(**prompt.arguments())
    with torch.enable_grad():
        model(**prompt.arguments(), labels=torch.tensor([prompt.ids])).loss.backward()


def _drop_pixels(a):
    a.pop("pixel_values_videos")


def _one_slot_more(a):
    a["video_grid_thw"] = a["video_grid_thw"] + torch.tensor([[1, 0, 0]])


def _no_placeholder(a):
    a["input_ids"] = a["input_ids"][a["input_ids"] != VIDEO][None]


def _one_placeholder_more(a):
    a["input_ids"] = torch.cat((a["input_ids"], torch.tensor([[VIDEO]])), dim=1)


def _all_padding(a):
    a.pop("pixel_values_videos")
    a.pop("video_grid_thw")
    a["attention_mask"] = torch.zeros_like(a["input_ids"])


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (_drop_pixels, "the grids hold 48 patches, got 0"),
        (_one_slot_more, "the grids hold 64 patches, got 48"),
        (_no_placeholder, "1 video grids are left over"),
        (_one_placeholder_more, "more video placeholders than there are video grids"),
        (_all_padding, "attention_mask is zero everywhere"),
    ],
)
def test_prompts_and_pixels_that_disagree(change, complaint):
    arguments = PROMPTS["video"].arguments()
    change(arguments)
    with pytest.raises(VideoError, match=complaint):
        small_model()(**arguments)
