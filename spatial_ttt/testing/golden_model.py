"""Golden checks of the whole model: vision, positions, logits, loss, gradients, greedy tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from torch import Tensor

from spatial_ttt.model.batching import split_samples
from spatial_ttt.model.configuration import SpatialTTTConfig
from spatial_ttt.model.layout import num_tokens, positions, text
from spatial_ttt.model.modeling import SpatialTTTForConditionalGeneration
from spatial_ttt.model.naming import from_official
from spatial_ttt.testing.authors_decode import authors_decode
from spatial_ttt.testing.golden import Check, Golden, absolute, relative
from spatial_ttt.testing.golden_layer import ttt_config

LOGIT_LIMIT = {"main": 1e-3, "prenorm": 1e-3, "chunk_gt_prompt": 1e-3, "nomuon": 2e-4}
FEATURE_LIMIT = 1e-4
LOSS_LIMIT = 1e-4
GRAD_LIMIT = 3e-3
LAYER_LIMIT = 5e-4


def build_model(golden: Golden, variant: dict[str, Any]) -> SpatialTTTForConditionalGeneration:
    """Our model with a golden file's weights and one of its variants' rules."""
    lact = golden.meta["lact"] | {k: v for k, v in variant.items() if k in golden.meta["lact"]}
    ttt_layers = {int(i) for i in golden.meta["lact_layers"].split("/")}
    sizes = golden.meta["config"]
    pattern = tuple("ttt" if i in ttt_layers else "anchor" for i in range(sizes["layers"]))
    placement = "pre" if variant.get("ttt_prenorm") else "post"
    ttt = ttt_config(lact, layer_pattern=pattern, norm_placement=placement)
    stock = golden.meta["hf_config"]
    config = SpatialTTTConfig(
        text_config=_text_config(stock["text_config"], sizes),
        vision_config={k: v for k, v in stock["vision_config"].items() if k != "_name_or_path"},
        ttt=ttt.to_dict(),
        tie_word_embeddings=True,
        **{
            k: stock[k]
            for k in (
                "image_token_id",
                "video_token_id",
                "vision_start_token_id",
                "vision_end_token_id",
            )
        },
    )
    model = SpatialTTTForConditionalGeneration(config, allow_window_gap=True)
    weights = {from_official(k): v for k, v in golden.under("weights").items()}
    weights.setdefault("lm_head.weight", weights["model.language_model.embed_tokens.weight"])
    model.load_state_dict(weights, strict=True)
    model.tie_weights()
    return model.to(next(iter(weights.values())).device).eval()


def _text_config(stock: dict[str, Any], sizes: dict[str, Any]) -> dict[str, Any]:
    keep = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
            "num_key_value_heads", "head_dim", "rms_norm_eps", "attention_bias")  # fmt: skip
    rope = stock.get("rope_parameters") or {}
    theta = stock.get("rope_theta") or rope.get("rope_theta") or 5e6
    parameters = {"rope_type": "default", "rope_theta": theta, "mrope_section": sizes["mrope"]}
    return {k: stock[k] for k in keep} | {
        "rope_parameters": parameters | {"mrope_interleaved": True}
    }


def checks(golden: Golden) -> Iterator[Check]:
    """Features and positions once, then every variant the file holds."""
    variants = golden.meta["variants"]
    model = build_model(golden, variants["main"])
    for name, error, limit in _feature_checks(golden, model):
        yield Check(golden.name, name, error, limit)
    for variant, changes in variants.items():
        expected = golden.under(f"{variant}/nsfp32") or golden.under(f"{variant}/nomuon")
        if expected:
            model = build_model(golden, changes)
            limit = LOGIT_LIMIT.get(variant, 1e-3 if model.config.ttt_config.use_muon else 2e-4)
            for name, error, most in _variant_checks(golden, model, expected, limit):
                yield Check(golden.name, f"{variant}/{name}", error, most)


Row = tuple[str, float, float]


def _samples(golden: Golden, model: SpatialTTTForConditionalGeneration, ids: Tensor) -> Any:
    pixels = {
        "video": (golden.tensors["in/pixel_values_videos"], golden.tensors["in/video_grid_thw"])
    }
    pixels["image"] = (None, None)  # type: ignore[assignment]
    return split_samples(model, ids, torch.ones_like(ids), None, pixels)  # type: ignore[arg-type]


@torch.no_grad()
def _feature_checks(golden: Golden, model: SpatialTTTForConditionalGeneration) -> Iterator[Row]:
    expected = golden.under("mid")
    (sample,) = _samples(golden, model, golden.tensors["in/input_ids"])
    where, following = positions(sample.layout, 0, golden.tensors["in/input_ids"].device)
    yield "position_ids", absolute(where[:, None].float(), expected["position_ids"].float()), 0.0
    delta = following - num_tokens(sample.layout)
    yield "rope_deltas", float(abs(delta - int(expected["rope_deltas"]))), 0.0
    yield "video_embeds", absolute(sample.vision.tokens[0], expected["video_embeds"]), FEATURE_LIMIT
    for i, tap in enumerate(sample.vision.deepstack[:, 0]):
        yield f"deepstack_{i}", absolute(tap, expected[f"deepstack_{i}"]), FEATURE_LIMIT


def _variant_checks(
    golden: Golden,
    model: SpatialTTTForConditionalGeneration,
    expected: dict[str, Tensor],
    limit: float,
) -> Iterator[Row]:
    ids = golden.tensors["in/input_ids"]
    labels = golden.tensors["in/labels"] if "loss" in expected else None
    attention: dict[int, Tensor] = {}
    hooks = [
        cast(Any, model.decoder.layers[i]).self_attn.o_proj.register_forward_hook(
            _keep(attention, i)
        )
        for i in _layers_of(expected, "prefill_attn_out")
    ]
    out = _forward(golden, model, ids, labels)
    for hook in hooks:
        hook.remove()
    kept = expected["train_logits"].shape[1]
    yield "train_logits", absolute(out.logits[:, -kept:].detach(), expected["train_logits"]), limit
    for i, got in attention.items():
        yield f"prefill_attn_out/{i}", absolute(got, expected[f"prefill_attn_out/{i}"]), LAYER_LIMIT
    if "loss" in expected:
        yield "loss", absolute(out.loss.detach(), expected["loss"]), LOSS_LIMIT
        out.loss.backward()
        yield from _gradient_checks(golden, model, expected)
    if "tokens" in expected:
        yield from _decoding_checks(golden, model, expected, limit)


def _keep(kept: dict[int, Tensor], layer: int) -> Callable[[Any, Any, Tensor], None]:
    def hook(_module: Any, _inputs: Any, out: Tensor) -> None:
        kept[layer] = out.detach()

    return hook


def _layers_of(expected: dict[str, Tensor], prefix: str) -> list[int]:
    return [int(k.split("/")[1]) for k in expected if k.startswith(f"{prefix}/")]


def _forward(
    golden: Golden,
    model: SpatialTTTForConditionalGeneration,
    ids: Tensor,
    labels: Tensor | None = None,
) -> Any:
    return model(
        input_ids=ids,
        pixel_values_videos=golden.tensors["in/pixel_values_videos"],
        video_grid_thw=golden.tensors["in/video_grid_thw"],
        labels=labels,
    )


def _gradient_checks(
    golden: Golden, model: SpatialTTTForConditionalGeneration, expected: dict[str, Tensor]
) -> Iterator[Row]:
    parameters = dict(model.named_parameters())
    for key, value in expected.items():
        if key.startswith("grad/"):
            got = parameters[from_official(key.removeprefix("grad/"))].grad
            got = torch.zeros_like(value) if got is None else got
            yield key, relative(got, value), GRAD_LIMIT
    norms = []
    for name in golden.meta["grad_norm_names"]:
        grad = parameters[from_official(name)].grad
        norms.append(0.0 if grad is None else float(grad.norm()))
    got = torch.tensor(norms, device=expected["grad_norms"].device)
    yield "grad_norms", relative(got, expected["grad_norms"]), GRAD_LIMIT


@torch.no_grad()
def _decoding_checks(
    golden: Golden,
    model: SpatialTTTForConditionalGeneration,
    expected: dict[str, Tensor],
    limit: float,
) -> Iterator[Row]:
    """Ours against their training path on the generated tokens; their decoding, re-enacted, in full."""
    ids = expected["tokens"]
    start = golden.meta["S"] - 1
    if "train_logits_on_generated" in expected:
        want = expected["train_logits_on_generated"]
        stepped = _decode(golden, model, ids)[:, : want.shape[1]]
        yield "decode against train_logits_on_generated", absolute(stepped, want), limit
        whole = _forward(golden, model, ids).logits[:, start : start + want.shape[1]]
        yield "train_logits_on_generated", absolute(whole, want), limit
    with authors_decode(model):
        logits = _decode(golden, model, ids)
    kept = expected["step_logits"].shape[1]
    yield "step_logits", absolute(logits[:, :kept], expected["step_logits"]), limit
    yield "greedy tokens that differ", float((logits.argmax(-1) != ids[:, start + 1 :]).sum()), 0.0


def _decode(golden: Golden, model: SpatialTTTForConditionalGeneration, ids: Tensor) -> Tensor:
    """Prefill the prompt in one piece, then feed the generated tokens one by one; logits of each step."""
    prompt = golden.meta["S"]
    (sample,) = _samples(golden, model, ids[:, :prompt])
    done, state = model.decode_piece(
        ids[:, :prompt], sample.layout, sample.vision, model.decoder.start()
    )
    rows = [done.hidden[:, -1:]]
    for step in range(prompt, ids.shape[1] - 1):
        done, state = model.decode_piece(ids[:, step : step + 1], (text(1),), None, state)
        rows.append(done.hidden)
    return model.lm_head(torch.cat(rows, dim=1))
