"""A session in one file: safetensors with a JSON header, no pickle.

The header names the format, the model (a digest of its weights and configuration) and the shape of the
nest of tuples that the state is; the tensors are its leaves, in order. A checksum over the header and
all leaves finds damage that the container's own checks let pass.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from spatial_ttt.errors import CheckpointError
from spatial_ttt.files import atomic_path
from spatial_ttt.model.bounded_cache import AnchorPolicy, Block, BoundedCache
from spatial_ttt.model.fast_weights import FastState, FastWeights
from spatial_ttt.model.kv_cache import KVCache
from spatial_ttt.model.layout import Run, RunKind
from spatial_ttt.model.modeling import SpatialTTTForConditionalGeneration
from spatial_ttt.model.state import Context, DecoderState, Held, Raw, Tokens, TTTState
from spatial_ttt.stream_state import StreamState
from spatial_ttt.video.frame import Frame

SNAPSHOT_FORMAT = 2

_TYPES: dict[str, Any] = {
    t.__name__: t
    for t in (
        AnchorPolicy, Block, BoundedCache, Context, DecoderState, FastState, FastWeights, Held,
        KVCache, Raw, Run, StreamState, Tokens, TTTState,
    )
}  # fmt: skip


def model_digest(model: SpatialTTTForConditionalGeneration) -> str:
    """SHA-256 of the configuration and every weight; kept on the model until a weight changes."""
    stamp = [(v.data_ptr(), 0 if v.is_inference() else v._version) for v in model.parameters()]
    known = model.__dict__.get("_digest")
    if known is not None and known[0] == stamp:
        return str(known[1])
    config = _related(model.config.to_dict())
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(_bytes(value))
    model.__dict__["_digest"] = (stamp, digest.hexdigest())
    return digest.hexdigest()


_UNRELATED = ("transformers_version", "_name_or_path", "architectures", "dtype")


def _related(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration without what a library writes about where and when it was saved."""
    return {
        k: _related(v) if isinstance(v, dict) else v
        for k, v in config.items()
        if k not in _UNRELATED
    }


def _bytes(value: Tensor) -> bytes:
    flat = value.detach().contiguous().cpu().flatten().view(torch.uint8)
    return flat.numpy().tobytes()


def save_snapshot(
    path: Path, state: StreamState, model: SpatialTTTForConditionalGeneration
) -> None:
    """Write a session's state to `path`: to a temporary name, flushed, renamed."""
    if not path.parent.is_dir():
        raise CheckpointError(
            f"cannot write {path}: the folder {path.parent} does not exist; create it"
        )
    leaves: list[Tensor] = []
    tree = _flatten(state, leaves)
    tensors = {f"{i:06d}": leaf.detach().contiguous().cpu() for i, leaf in enumerate(leaves)}
    header = {
        "format": SNAPSHOT_FORMAT,
        "model": model_digest(model),
        "seconds_seen": state.last_time or 0.0,
        "num_frames": state.num_frames,
        "position": state.decoder.position,
        "tree": tree,
    }
    header["checksum"] = _checksum(header, tensors)
    try:
        with atomic_path(path) as temporary:
            save_file(tensors, temporary, metadata={"spatial_ttt_snapshot": json.dumps(header)})
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"cannot write the snapshot {path}: {error}; the old file, if any, is intact"
        ) from error


def load_snapshot(path: Path, model: SpatialTTTForConditionalGeneration) -> StreamState:
    """Read a session's state; raises CheckpointError for a damaged file or another model's."""
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} is no readable snapshot: {error}") from error
    if "spatial_ttt_snapshot" not in metadata:
        raise CheckpointError(f"{path} holds no snapshot header; is it a file of weights?")
    header = _read_header(path, metadata["spatial_ttt_snapshot"])
    if header.get("format") != SNAPSHOT_FORMAT:
        raise CheckpointError(
            f"{path} has snapshot format {header.get('format')!r}, this version reads {SNAPSHOT_FORMAT}; "
            f"use the version of spatial-ttt that wrote it"
        )
    if header.pop("checksum", None) != _checksum(header, tensors):
        raise CheckpointError(
            f"{path} is damaged: its checksum does not match; use an older snapshot"
        )
    if header["model"] != model_digest(model):
        raise CheckpointError(
            f"{path} was made by model {header['model'][:12]}, this one is {model_digest(model)[:12]}; "
            f"restore it with the model that made it"
        )
    device = model.device
    state = _unflatten(header["tree"], {k: v.to(device, copy=True) for k, v in tensors.items()})
    assert isinstance(state, StreamState)  # the checksum says that we wrote it
    return state


def _read_header(path: Path, text: str) -> dict[str, Any]:
    try:
        header = json.loads(text)
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{path} is damaged: its header is no JSON ({error})") from error
    if not isinstance(header, dict):
        raise CheckpointError(f"{path} is damaged: its header is a {type(header).__name__}")
    return header


def _checksum(header: dict[str, Any], tensors: dict[str, Tensor]) -> str:
    """SHA-256 of the header without its checksum, and of every tensor with its name and type."""
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        digest.update(_bytes(value))
    return digest.hexdigest()


def _flatten(value: Any, leaves: list[Tensor]) -> Any:
    """A JSON tree of a state; tensors go to `leaves`."""
    if isinstance(value, Tensor):
        leaves.append(value)
        return {"tensor": len(leaves) - 1}
    if isinstance(value, KVCache):
        # Page by page: attention runs page by page, so the next bits depend on where pages end.
        pairs = (*value.pages, (value.keys[:, :, : value.tail], value.values[:, :, : value.tail]))
        first = len(leaves)
        leaves.extend(tensor for pair in pairs for tensor in pair)
        return {"cache": [first, len(pairs)]}
    if isinstance(value, Frame):
        leaves.append(torch.from_numpy(np.ascontiguousarray(value.pixels)))
        return {"frame": [len(leaves) - 1, value.time]}
    if isinstance(value, RunKind):
        return {"kind": int(value)}
    if isinstance(value, tuple):
        items = [_flatten(item, leaves) for item in value]
        return {"type": type(value).__name__, "items": items}
    return {"value": value}


def _unflatten(tree: Any, tensors: dict[str, Tensor]) -> Any:
    def tensor(index: int) -> Tensor:
        return tensors[f"{index:06d}"]

    if "tensor" in tree:
        return tensor(tree["tensor"])
    if "cache" in tree:
        first, count = tree["cache"]
        *pages, (keys, values) = (
            (tensor(i), tensor(i + 1)) for i in range(first, first + 2 * count, 2)
        )
        return KVCache(tuple(pages), keys, values, keys.shape[2], [keys.shape[2]])
    if "frame" in tree:
        index, seconds = tree["frame"]
        return Frame(tensor(index).cpu().numpy(), seconds)
    if "kind" in tree:
        return RunKind(tree["kind"])
    if "items" in tree:
        items = [_unflatten(item, tensors) for item in tree["items"]]
        return tuple(items) if tree["type"] == "tuple" else _TYPES[tree["type"]](*items)
    return tree["value"]
