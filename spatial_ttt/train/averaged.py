"""The mean of several models' weights, as a model.

Runs that went on from one another and were given different clips err in different directions; the mean of their
weights is often better than each (Wortsman et al., "Model soups", arXiv 2203.05482).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from spatial_ttt.errors import CheckpointError
from spatial_ttt.files import read_json
from spatial_ttt.train.publish import unpack

Shards = Mapping[str, Any]
"""For each weight the open file it lies in."""


def average(folders: Sequence[Path], out: Path) -> None:
    """Write the mean of models, each a folder or what a run published, with the first one's shards and other files.

    Sums are float32. Raises CheckpointError if `out` exists, or if configurations, tokenizers, names, shapes or
    precisions differ; then nothing is written.
    """
    if len(folders) < 2:
        raise CheckpointError(f"a mean takes two models or more, got {len(folders)}")
    if out.exists():
        raise CheckpointError(f"{out} is there already; give a folder that is not")
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=out.parent) as beside, ExitStack() as opened:
        models = [unpack(one, Path(beside) / str(n)) for n, one in enumerate(folders)]
        first, fresh = models[0], Path(beside) / "mean"
        for name in ("config.json", "tokenizer.json"):
            _check_alike(name, {folder: read_json(folder / name) for folder in models})
        files = [_open(folder, opened) for folder in models]
        _check_alike("names of weights", {f: set(by) for f, by in zip(models, files, strict=True)})
        shutil.copytree(first, fresh, ignore=shutil.ignore_patterns("*.safetensors"))
        for path in sorted(first.glob("*.safetensors")):
            with safe_open(path, framework="pt") as shard:
                names = list(shard.keys())
            mean = {name: _mean(name, files) for name in names}
            save_file(mean, fresh / path.name, metadata={"format": "pt"})
        fresh.rename(out)


def _open(folder: Path, opened: ExitStack) -> Shards:
    """The weights of a model, none of them read yet: several large models do not fit into memory together."""
    found: dict[str, Any] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            shard = opened.enter_context(safe_open(path, framework="pt"))
        except SafetensorError as error:
            raise CheckpointError(f"{path} is no whole safetensors file ({error})") from error
        found |= dict.fromkeys(shard.keys(), shard)
    return found


def _check_alike(what: str, by_folder: Mapping[Path, object]) -> None:
    (first, wanted), *others = by_folder.items()
    for folder, got in others:
        if got != wanted:
            raise CheckpointError(
                f"{what}: {folder} has others than {first}; only runs of one model have a mean"
            )


def _mean(name: str, files: Iterable[Shards]) -> Tensor:
    parts = [shards[name].get_tensor(name) for shards in files]
    kinds = {(tuple(part.shape), part.dtype) for part in parts}
    if len(kinds) > 1:
        raise CheckpointError(f"{name} has other shapes or precisions in other models: {kinds}")
    total = torch.stack([part.float() for part in parts]).mean(0)
    return total.to(parts[0].dtype)
