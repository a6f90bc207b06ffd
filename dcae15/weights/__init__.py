"""Named tensors from files that others wrote, without unpickling anything else."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from dcae15 import storage
from dcae15.errors import WeightsError
from dcae15.weights.choice import Wanted, choose, inventory
from dcae15.weights.contents import values_of

_log = logging.getLogger(__name__)


def read_state_dict(
    uri: str | Sequence[str],
    ema: float | bool | None = None,
    *,
    entry: str = "",
    wanted: Wanted | None = None,
    name: str = "",
) -> dict[str, Tensor]:
    """Read named tensors onto the CPU, from a safetensors or a torch file (.pt, .pth, .ckpt, .bin); its content says which it is.

    A file may hold several: under names such as ``state_dict``, ``model`` and ``ema``, or side by side with other beginnings of
    their keys. Then one is taken, see `dcae15.weights.choice.choose`, and a logged warning says which and how to get another.
    Pickled objects other than tensors are refused.

    Args:
        uri: the file; or the files of one state dict that was cut into shards.
        ema: the moving average to take: the decay of one of several, or True for the only one. None takes the last weights.
        entry: the name of what to take, as warnings and errors give it; ``ema`` and ``ema=0.999`` are names, too.
        wanted: what is looked for; None takes any names.
        name: what the user gave, where it is not the file itself but its folder; for messages on how to ask for others.

    Raises:
        StorageError: a file cannot be read.
        WeightsError: a file is of another type, truncated, holds something else, or has no such average or entry.
    """
    if isinstance(uri, str):
        return _chosen(values_of(storage.read_bytes(uri), uri), name or uri, ema, entry, wanted)
    merged: dict[str, Tensor] = {}
    for file in uri:
        shard = values_of(storage.read_bytes(file), file)
        if not isinstance(shard, dict) or not all(isinstance(value, Tensor) for value in shard.values()):
            raise WeightsError(f"{file} is no shard of a state dict: it has {inventory(shard)}")
        merged |= shard
    return _chosen(merged, name or uri[0], ema, entry, wanted)


def parse_state_dict(
    data: bytes, uri: str, ema: float | bool | None = None, *, entry: str = "", wanted: Wanted | None = None
) -> dict[str, Tensor]:
    """Read named tensors from the content of the file ``uri``, see `read_state_dict`."""
    return _chosen(values_of(data, uri), uri, ema, entry, wanted)


def _chosen(values: object, uri: str, ema: float | bool | None, entry: str, wanted: Wanted | None) -> dict[str, Tensor]:
    if ema is not None and ema is not False:
        if entry:
            raise WeightsError(
                f"{uri}#{entry} asks for one of its state dicts, and ema={ema} for another; give one of them"
            )
        entry = "ema" if ema is True else f"ema={ema:g}"
    weights, notes = choose(values, uri, entry, wanted)
    for note in notes:
        _log.warning("%s: %s", uri, note)
    return weights


def require_finite(weights: dict[str, Tensor], uri: str) -> None:
    """Raise WeightsError where a value is NaN or infinite; the message names the first tensor and counts, and tells overflow."""
    bad: list[tuple[str, Tensor, int, int]] = []
    for name, tensor in weights.items():
        if tensor.is_floating_point() or tensor.is_complex():
            # torch cannot ask this of float8, and float64 is opened as float32
            values = tensor if tensor.is_complex() or tensor.element_size() in (2, 4) else tensor.float()
            if not bool(torch.isfinite(values).all()):
                bad.append((name, tensor, int(values.isnan().sum()), int(values.isinf().sum())))
    if not bad:
        return
    name, tensor, nans, infinite = bad[0]
    kind = str(tensor.dtype).removeprefix("torch.")
    counts = [f"{count:,} {what}" for count, what in ((nans, "NaN"), (infinite, "infinite values")) if count]
    others = f", and {len(bad) - 1:,} more of {len(weights):,} tensors have some" if len(bad) > 1 else ""
    if any(count for _, _, count, _ in bad):
        mending = "the training that wrote them diverged, or the file is damaged; give weights of an earlier checkpoint"
    elif all(tensor.dtype == torch.float16 for _, tensor, _, _ in bad):
        mending = (
            f"values above {torch.finfo(torch.float16).max:,.0f} overflow where float32 is stored as float16; give the float32 or "
            "bfloat16 weights (a file without .fp16 in its name)"
        )
    elif all(tensor.dtype == torch.float64 for _, tensor, _, _ in bad):
        mending = f"values above {torch.finfo(torch.float32).max:.2g} overflow in float32, in which weights are opened"
    else:
        mending = "they overflowed in training or when they were written; give weights of an earlier checkpoint"
    raise WeightsError(
        f"{uri} holds weights that are not finite: {' and '.join(counts)} among the {tensor.numel():,} values of '{name}' "
        f"({kind}){others}; {mending}"
    )
