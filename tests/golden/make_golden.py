"""Make `layer.safetensors`: one TTT layer in float64, from the written equations and NumPy alone.

    python tests/golden/make_golden.py

Nothing of `spatial_ttt` is imported. The equations are those of the paper (arXiv 2603.12255, section 3)
and LaCT's update; weights have the authors' names. The layer sees text, a video of three 2 x 2 slots,
a video of two 1 x 3 slots and text; chunk borders fall inside slots, and the window is not the chunk.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

HIDDEN, HEADS, KV_HEADS, HEAD_DIM, FAST_HEADS = 16, 4, 2, 4, 2
FAST_DIM = HIDDEN // FAST_HEADS
CHUNK, WINDOW = 7, 9
VIDEOS = [{"starts": [3, 9, 15], "grid": [2, 2]}, {"starts": [21, 24], "grid": [1, 3]}]
LENGTH = 38
NS = [(4.0848, -6.8946, 2.9270), (3.9505, -6.3029, 2.6377), (3.7418, -5.5913, 2.3037),
      (2.8769, -3.1427, 1.2046), (2.8366, -3.0525, 1.2012)]  # fmt: skip
RULES = {
    "muon_post": {"use_muon": True, "norm_placement": "post", "use_momentum": True},
    "muon_pre": {"use_muon": True, "norm_placement": "pre", "use_momentum": True},
    "plain_post": {"use_muon": False, "norm_placement": "post", "use_momentum": True},
    "plain_pre_without_momentum": {
        "use_muon": False,
        "norm_placement": "pre",
        "use_momentum": False,
    },
}

Array = np.ndarray


def make_weights(rng: np.random.Generator) -> dict[str, Array]:
    def normal(*shape: int, scale: float = 1.0, shift: float = 0.0) -> Array:
        return shift + scale * rng.standard_normal(shape)

    kv = KV_HEADS * HEAD_DIM
    d = HIDDEN**-0.5
    dirac = np.zeros((HIDDEN, 1, 3, 3, 3))
    dirac[:, 0, 1, 1, 1] = 1.0
    return {
        "attn_layer.q_proj.weight": normal(HIDDEN, HIDDEN, scale=d),
        "attn_layer.k_proj.weight": normal(kv, HIDDEN, scale=d),
        "attn_layer.v_proj.weight": normal(kv, HIDDEN, scale=d),
        "attn_layer.o_proj.weight": normal(HIDDEN, HIDDEN, scale=d),
        "attn_layer.q_norm.weight": normal(HEAD_DIM, scale=0.2, shift=1),
        "attn_layer.k_norm.weight": normal(HEAD_DIM, scale=0.2, shift=1),
        **{f"w{i}": normal(FAST_HEADS, FAST_DIM, FAST_DIM, scale=FAST_DIM**-0.5) for i in range(3)},
        "q_scale": normal(HIDDEN, scale=0.2, shift=1),
        "k_scale": normal(HIDDEN, scale=0.2, shift=1),
        "q_offset": normal(HIDDEN, scale=0.2),
        "k_offset": normal(HIDDEN, scale=0.2),
        "lr_proj.weight": normal(3 * FAST_HEADS, HIDDEN, scale=d),
        "lr_proj.bias": normal(3 * FAST_HEADS, shift=3),
        "ttt_scale_proj.weight": normal(FAST_HEADS, HIDDEN, scale=d),
        "ttt_scale_proj.bias": normal(FAST_HEADS, shift=1),
        "ttt_norm.weight": normal(FAST_DIM, scale=0.2, shift=1),
        "momentum_proj.0.weight": normal(FAST_HEADS, HIDDEN, scale=d),
        "momentum_proj.0.bias": normal(FAST_HEADS),
        **{f"conv_{c}.weight": dirac + normal(HIDDEN, 1, 3, 3, 3, scale=0.1) for c in "qkv"},
    }


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def silu(x: Array) -> Array:
    return x * sigmoid(x)


def rms_norm(x: Array, weight: Array, eps: float) -> Array:
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * weight


def turn(x: Array, cos: Array, sin: Array) -> Array:
    """Rotate the first HEAD_DIM channels of x [L, heads, >= HEAD_DIM], half against half."""
    half = HEAD_DIM // 2
    a, b = x[..., :half], x[..., half:HEAD_DIM]
    c, s = cos[:, None, :half], sin[:, None, :half]
    return np.concatenate((a * c - b * s, b * c + a * s, x[..., HEAD_DIM:]), axis=-1)


def window_attention(q: Array, k: Array, v: Array) -> Array:
    """q [L, HEADS, Dh], k and v [L, KV_HEADS, Dh]; token p sees keys p - WINDOW + 1 .. p."""
    out = np.zeros_like(q)
    for p in range(len(q)):
        first = max(0, p - WINDOW + 1)
        for h in range(HEADS):
            g = h // (HEADS // KV_HEADS)
            scores = k[first : p + 1, g] @ q[p, h] / np.sqrt(HEAD_DIM)
            share = np.exp(scores - scores.max())
            out[p, h] = share / share.sum() @ v[first : p + 1, g]
    return out


def convolve(x: Array, kernel: Array) -> Array:
    """Depthwise 3 x 3 x 3 over every video of x [L, C], replicate padding, centred in time."""
    out = x.copy()
    for video in VIDEOS:
        h, w = video["grid"]
        index = np.array([[s + i for i in range(h * w)] for s in video["starts"]])
        block = np.pad(
            x[index].reshape(len(index), h, w, -1), ((1, 1), (1, 1), (1, 1), (0, 0)), mode="edge"
        )
        for t in range(len(index)):
            for i in range(h):
                for j in range(w):
                    cube = block[t : t + 3, i : i + 3, j : j + 3]  # [3, 3, 3, C]
                    out[index[t, i * w + j]] = (cube * kernel[:, 0].transpose(1, 2, 3, 0)).sum(
                        (0, 1, 2)
                    )
    return out


def newton_schulz(g: Array) -> Array:
    x = g / (np.linalg.norm(g) + 1e-7)
    for a, b, c in NS:
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


def row_normalise(total: Array, initial: Array) -> Array:
    norms = np.linalg.norm(initial, axis=-1, keepdims=True)
    return total / (np.linalg.norm(total, axis=-1, keepdims=True) + 1e-5) * norms


def memory(
    q: Array, k: Array, v: Array, lr: Array, beta: Array, initial: list[Array], rule: dict
) -> tuple[Array, list[Array]]:
    """One fast head: q, k, v [L, d], lr [L, 3] of w0, w1, w2, beta [L]. Outputs and last weights."""
    w, total, moment = list(initial), list(initial), [np.zeros_like(x) for x in initial]
    out = np.zeros_like(q)
    for start in range(0, LENGTH, CHUNK):
        stop = min(start + CHUNK, LENGTH)
        for t in range(start, stop):
            out[t] = w[1] @ (silu(w[0] @ q[t]) * (w[2] @ q[t]))
        if stop == LENGTH:
            break  # the last chunk is never written
        grad = [np.zeros_like(x) for x in initial]
        for t in range(start, stop):
            a, u, e = w[0] @ k[t], w[2] @ k[t], w[1].T @ v[t]
            s = sigmoid(a)
            grad[0] += lr[t, 0] * np.outer(e * u * s * (1 + a * (1 - s)), k[t])
            grad[1] += lr[t, 1] * np.outer(v[t], silu(a) * u)
            grad[2] += lr[t, 2] * np.outer(e * silu(a), k[t])
        if rule["use_momentum"]:
            grad = [g + beta[start:stop].mean() * m for g, m in zip(grad, moment, strict=True)]
            moment = grad
        step = [newton_schulz(g) for g in grad] if rule["use_muon"] else grad
        base = total if rule["norm_placement"] == "pre" else w
        total = [b + s for b, s in zip(base, step, strict=True)]
        w = [row_normalise(x, x0) for x, x0 in zip(total, initial, strict=True)]
    return out, w


def layer(
    x: Array, cos: Array, sin: Array, w: dict[str, Array], rule: dict
) -> tuple[Array, list[list[Array]]]:
    """The layer's output [L, HIDDEN] and every fast head's last w0, w1, w2."""
    q = rms_norm(
        (x @ w["attn_layer.q_proj.weight"].T).reshape(LENGTH, HEADS, -1),
        w["attn_layer.q_norm.weight"],
        1e-6,
    )
    k = rms_norm(
        (x @ w["attn_layer.k_proj.weight"].T).reshape(LENGTH, KV_HEADS, -1),
        w["attn_layer.k_norm.weight"],
        1e-6,
    )
    v = (x @ w["attn_layer.v_proj.weight"].T).reshape(LENGTH, KV_HEADS, -1)
    attended = window_attention(turn(q, cos, sin), turn(k, cos, sin), v).reshape(LENGTH, HIDDEN)

    groups = HEADS // KV_HEADS
    flat_q = q.reshape(LENGTH, HIDDEN) * w["q_scale"] + w["q_offset"]
    flat_k = k.repeat(groups, axis=1).reshape(LENGTH, HIDDEN) * w["k_scale"] + w["k_offset"]
    flat_v = v.repeat(groups, axis=1).reshape(LENGTH, HIDDEN)
    fast = [
        silu(convolve(t, w[f"conv_{c}.weight"]).reshape(LENGTH, FAST_HEADS, FAST_DIM))
        for t, c in ((flat_q, "q"), (flat_k, "k"), (flat_v, "v"))
    ]
    for i in (0, 1):
        unit = fast[i] / (np.linalg.norm(fast[i], axis=-1, keepdims=True) + 1e-5)
        fast[i] = turn(unit, cos, sin)
    lr = np.log1p(np.exp(x @ w["lr_proj.weight"].T + w["lr_proj.bias"] + np.log(np.expm1(0.001))))
    beta = sigmoid(x @ w["momentum_proj.0.weight"].T + w["momentum_proj.0.bias"])
    gate = silu(x @ w["ttt_scale_proj.weight"].T + w["ttt_scale_proj.bias"])
    read, last = np.zeros((LENGTH, FAST_HEADS, FAST_DIM)), []
    for h in range(FAST_HEADS):
        initial = [w[f"w{i}"][h] for i in range(3)]
        out, weights = memory(
            *(f[:, h] for f in fast), lr[:, 3 * h : 3 * h + 3], beta[:, h], initial, rule
        )
        read[:, h] = rms_norm(out, w["ttt_norm.weight"], 1e-5) * gate[:, h, None]
        last.append(weights)
    return (attended + read.reshape(LENGTH, HIDDEN)) @ w["attn_layer.o_proj.weight"].T, last


def main() -> None:
    rng = np.random.default_rng(20)
    weights = make_weights(rng)
    x = rng.standard_normal((LENGTH, HIDDEN))
    angle = rng.uniform(0, 6, (LENGTH, HEAD_DIM // 2))
    cos, sin = np.cos(angle), np.sin(angle)
    tensors = {f"weights/{k}": v for k, v in weights.items()}
    tensors |= {"in/hidden": x, "in/cos": cos, "in/sin": sin}
    for name, rule in RULES.items():
        own = (
            weights
            if rule["use_momentum"]
            else {k: v for k, v in weights.items() if "momentum" not in k}
        )
        out, last = layer(x, cos, sin, weights | own, rule)
        tensors[f"{name}/out"] = out
        for i in range(3):
            tensors[f"{name}/w{i}"] = np.stack([head[i] for head in last])
    meta = {"videos": VIDEOS, "length": LENGTH, "chunk": CHUNK, "window": WINDOW, "rules": RULES,
            "sizes": {"hidden": HIDDEN, "heads": HEADS, "kv_heads": KV_HEADS, "head_dim": HEAD_DIM,
                      "fast_heads": FAST_HEADS}}  # fmt: skip
    path = Path(__file__).parent / "layer.safetensors"
    save_file(tensors, path, metadata={"settings": json.dumps(meta)})
    print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
