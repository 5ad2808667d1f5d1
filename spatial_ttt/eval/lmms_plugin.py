"""Spatial-TTT as a model of lmms-eval, registered from outside through its entry-point group.

    lmms-eval --model spatial_ttt --model_args pretrained=CHECKPOINT --tasks vsibench --log_samples

lmms-eval is imported only when it asks for the model. Prompts are its task's own; frames are ours,
with true times. One process: for several GPUs use `torchrun ... -m spatial_ttt eval`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from spatial_ttt.errors import ConfigError, DataError
from spatial_ttt.eval.benchmarks.item import Clip, FrameSampling
from spatial_ttt.eval.frames import open_clip
from spatial_ttt.eval.interface import SessionOptions, SpatialModel

MODEL_ID = "spatial_ttt"
VIDEO_FRAMES = 128
MAX_NEW_TOKENS = 16
IMAGE_SIZE = (352, 480)
"""(height, width): images of one question may differ in size, a stream may not."""


def manifest() -> Any:
    """What the entry point gives lmms-eval's registry: where the model's class is."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(model_id=MODEL_ID, simple_class_path=f"{__name__}.SpatialTTT")


def __getattr__(name: str) -> Any:
    """`SpatialTTT`, made when lmms-eval looks it up: only then is its base class at hand."""
    if name == "SpatialTTT":
        return _model_class()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@dataclass(frozen=True, slots=True)
class LmmsRequest:
    """One `generate_until` request with its document looked up."""

    prompt: str
    visuals: Sequence[Any]
    """Paths of videos, or PIL images."""
    generation: Mapping[str, Any]


def answer_requests(
    model: SpatialModel, requests: Sequence[LmmsRequest], sampling: FrameSampling
) -> list[str]:
    """Replies in the order of the requests; each clip is watched once, whatever their order."""
    by_clip: dict[tuple[Any, ...], list[int]] = {}
    for index, request in enumerate(requests):
        _check_greedy(request.generation)
        by_clip.setdefault(_clip_key(request.visuals), []).append(index)
    replies = [""] * len(requests)
    for indices in by_clip.values():
        session = model.open_session(SessionOptions())
        with TemporaryDirectory() as folder:
            clip = _clip(requests[indices[0]].visuals, Path(folder))
            if clip is not None:
                session.observe(open_clip(clip, _sampling(clip, sampling), "true"))
        for index in indices:
            fork = session.fork()
            tokens = int(requests[index].generation.get("max_new_tokens", MAX_NEW_TOKENS))
            reply = "".join(fork.ask(requests[index].prompt, max_new_tokens=tokens))
            replies[index] = _until(reply, requests[index].generation.get("until"))
            fork.close()
        session.close()
    return replies


def _clip_key(visuals: Sequence[Any]) -> tuple[Any, ...]:
    """Equal paths are one clip; pictures in memory are compared by identity."""
    return tuple(visual if isinstance(visual, str) else id(visual) for visual in visuals)


def _clip(visuals: Sequence[Any], folder: Path) -> Clip | None:
    """The visuals as a clip; pictures in memory are written to `folder` first."""
    if not visuals:
        return None
    if all(isinstance(visual, str) for visual in visuals):
        if len(visuals) > 1:
            raise DataError(f"a question is about one video, got {len(visuals)}: {visuals[0]}, ...")
        return Clip((Path(visuals[0]),))
    if not all(hasattr(visual, "save") for visual in visuals):
        kinds = sorted({type(visual).__name__ for visual in visuals})
        raise DataError(f"visuals must be one video path or PIL images, got {', '.join(kinds)}")
    paths = []
    for index, picture in enumerate(visuals):
        paths.append(folder / f"{index:04d}.png")
        picture.convert("RGB").save(paths[-1])
    return Clip(tuple(paths), is_images=True)


def _sampling(clip: Clip, sampling: FrameSampling) -> FrameSampling:
    if not clip.is_images:
        return sampling
    height, width = sampling.size or IMAGE_SIZE
    return FrameSampling(doubled=True, height=height, width=width)


def _check_greedy(generation: Mapping[str, Any]) -> None:
    if generation.get("do_sample") or float(generation.get("temperature") or 0) > 0:
        raise ConfigError(
            "spatial_ttt answers greedily; set temperature to 0 and do_sample to false"
        )


def _until(reply: str, stops: str | Sequence[str] | None) -> str:
    """The reply up to the first stop text."""
    for stop in [stops] if isinstance(stops, str) else stops or []:
        reply = reply.split(stop, 1)[0]
    return reply


@cache
def _model_class() -> type:
    from lmms_eval.api.model import lmms

    class SpatialTTT(lmms):  # type: ignore[misc]  # lmms-eval ships no types
        """See the module."""

        is_simple = True

        def __init__(
            self,
            pretrained: str | None = None,
            device: str | None = None,
            dtype: str = "auto",
            num_frames: int = VIDEO_FRAMES,
            batch_size: int | str = 1,
            max_batch_size: int | None = None,
            **unknown: Any,
        ) -> None:
            super().__init__()
            if unknown:
                raise ConfigError(
                    f"spatial_ttt knows no model argument {', '.join(sorted(unknown))}"
                )
            from spatial_ttt.eval.models import open_model

            self._model = open_model(pretrained, device=device or "auto", dtype=dtype)
            self._sampling = FrameSampling(num_frames=int(num_frames))

        def generate_until(self, requests: Sequence[Any]) -> list[str]:
            """Replies to lmms-eval's requests, in their order."""
            return answer_requests(
                self._model, [_lookup(self.task_dict, one) for one in requests], self._sampling
            )

        def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
            """Not offered: the tasks this model is for ask once."""
            raise ConfigError("spatial_ttt answers single questions, not rounds of them")

        def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
            """Not offered: the tasks this model is for generate."""
            raise ConfigError("spatial_ttt generates answers; it offers no loglikelihood tasks")

    SpatialTTT.__module__ = __name__
    return SpatialTTT


def _lookup(task_dict: Mapping[str, Any], request: Any) -> LmmsRequest:
    """lmms-eval's (context, generation, doc_to_visual, doc_id, task, split) with its document."""
    prompt, generation, doc_to_visual, doc_id, task, split = request.args
    visual_of: Callable[[Any], Sequence[Any] | None] = doc_to_visual
    return LmmsRequest(prompt, visual_of(task_dict[task][split][doc_id]) or [], generation)
