"""Runs the Triton ray caster beside the reference and prints how far apart they are, as JSON.

TRITON_INTERPRET=1 python -m tests.scenes.compare_triton cpu 1
"""

from __future__ import annotations

import json
import sys

import torch

from spatial_ttt.scenes.raycast import RayLayers, pack_cameras, pack_scenes, raycast, raycast_triton
from tests.scenes.solids import random_camera, random_parts


def compare(device: str, samples: int, size: tuple[int, int], counts: tuple[int, ...]) -> dict:
    """Largest and mean differences between the two ray casters on random scenes."""
    scenes = pack_scenes([random_parts(s, n, 7) for s, n in enumerate(counts)], device)
    cameras = pack_cameras(
        [random_camera(s, 2, *size) for s in range(len(counts))], size, device=device
    )
    wanted = raycast(scenes, cameras, samples, torch.float64)
    actual = raycast_triton(scenes, cameras, samples, num_objects=8)
    short = raycast_triton(
        scenes, cameras, samples, num_objects=5, dtypes=(torch.int16, torch.float16)
    )
    return {**_apart(actual, wanted), **_counting(actual, short)}


def _apart(actual: RayLayers, wanted: RayLayers) -> dict:
    agree = actual.object_id == wanted.object_id
    depth = (actual.depth - wanted.depth).abs() / wanted.depth.clamp(min=0.05)
    color = (actual.rgb.int() - wanted.rgb.int()).abs().amax(-1)
    return {
        "pixels": actual.object_id.numel(),
        "objects": len(wanted.object_id.unique()),
        "ids_differ": 1.0 - agree.double().mean().item(),
        "depth_differs": (depth[agree] > 1e-4).double().mean().item(),
        "color_differs": (color[agree] > 2).double().mean().item(),
    }


def _counting(actual: RayLayers, short: RayLayers) -> dict:
    counted = torch.stack([(actual.object_id == o).sum((-1, -2)) for o in range(8)], -1)
    return {
        "counts_differ": int((actual.pixels - counted).abs().max()),
        "few_counts_differ": int((short.pixels - counted[..., :5]).abs().max()),
        "short_ids_differ": int((short.object_id != actual.object_id).sum()),
        "short_depth_differs": ((short.depth - actual.depth).abs() / (actual.depth + 1.0))
        .max()
        .item(),
    }


if __name__ == "__main__":
    where, samples_text = sys.argv[1:3]
    if where == "cpu":
        import tests.model.kernels.interpreter  # noqa: F401 - which is much faster than Triton's own
    samples = int(samples_text)
    size = (32 // samples + 1, 21 // samples)
    print(json.dumps(compare(where, samples, size, (40, 7))))
