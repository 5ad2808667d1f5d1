"""Writing an imported checkpoint as one of ours: weights, rule, tokenizer, frame format."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, cast

from spatial_ttt.checkpoint import import_checkpoint
from spatial_ttt.errors import CheckpointError
from spatial_ttt.model.configuration import NormPlacement
from spatial_ttt.processor import Processor


def import_folder(
    source: Path, target: Path, *, use_muon: bool, norm_placement: str, **changes: Any
) -> str:
    """Import `source` under an explicit rule and save it to the new folder `target`; returns a summary.

    Written beside `target` and renamed, so that a kill leaves nothing half-written.
    """
    if target.exists():
        raise CheckpointError(f"{target} exists; name a new folder, nothing is overwritten")
    placement = cast(NormPlacement, norm_placement)
    model = import_checkpoint(source, use_muon=use_muon, norm_placement=placement, **changes)
    processor = Processor.from_pretrained(source)
    unfinished = target.with_name(f".{target.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    model.save_pretrained(str(unfinished))
    processor.save_pretrained(unfinished)
    unfinished.rename(target)
    layers = model.config.hybrid_layers
    count = sum(p.numel() for p in model.parameters())
    return (
        f"{target}: {count:,} parameters, {layers.count('ttt')} TTT layers and {layers.count('anchor')} anchors, "
        f"Muon {'on' if use_muon else 'off'}, {norm_placement}-norm"
    )
