"""Switches of training, applied to a network from outside: recomputed activations, compilation, several workers.

The network's code knows nothing of them, and parameter names stay as they are. Under FSDP2 parameters are shards
(``DTensor``); `whole` and `put` convert between them and the whole tensors that checkpoints hold. What torch has for shards is
imported where it is used: it takes as long as torch itself, and a process that trains nothing needs none of it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, TypeGuard, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from dcae15.config import TrainingConfig
from dcae15.losses import LossTerms
from dcae15.models.autoencoder import Autoencoder
from dcae15.models.dit import DiT
from dcae15.runtime import Runtime

if TYPE_CHECKING:
    from torch.distributed.fsdp import FSDPModule
    from torch.distributed.tensor import DTensor


class Step:
    """Calls an objective with its gradients averaged over all workers.

    Args:
        objective: holds the network; moved to the runtime's device.
        config: the switches.
        runtime: this process among its peers.
        parallel: ``ddp`` or ``fsdp``, the first for networks that are small.
    """

    def __init__(self, objective: Any, config: TrainingConfig, runtime: Runtime, parallel: str = "") -> None:
        parallel = parallel or config.parallel
        network = objective.network
        sharded = runtime.world > 1 and parallel == "fsdp"
        objective.to(runtime.device)
        if config.channels_last and not sharded:
            objective.to(memory_format=torch.channels_last)
        blocks, roots = _blocks(network), _roots(network)
        if config.activation_checkpointing:
            for block in blocks:
                _recompute(block)
        if config.compile:
            for root in roots:
                root.compile()
        self.sharded: list[FSDPModule] = []
        self.call: Any = objective
        if sharded:
            from torch.distributed.device_mesh import init_device_mesh
            from torch.distributed.fsdp import fully_shard

            mesh = init_device_mesh(runtime.device.type, (runtime.world,))
            for module in (*blocks, *roots):
                fully_shard(module, mesh=mesh)
            self.sharded = [cast("FSDPModule", root) for root in roots]
            if config.channels_last:  # shards are contiguous; convolutions follow their inputs as well
                for root in roots:
                    root.register_forward_pre_hook(_channels_last)
        elif runtime.world > 1:
            devices = [runtime.device] if runtime.device.type == "cuda" else None
            self.call = DistributedDataParallel(
                objective, device_ids=devices, gradient_as_bucket_view=True, broadcast_buffers=False
            )

    def __call__(self, *arguments: Any) -> LossTerms:
        """Return the objective's terms."""
        return self.call(*arguments)

    @contextmanager
    def averaging(self, on: bool) -> Iterator[None]:
        """Average gradients over the workers in the backward passes within, or keep them for a later one."""
        for root in self.sharded:
            root.set_requires_gradient_sync(on)
        if on or not isinstance(self.call, DistributedDataParallel):
            yield
        else:
            with self.call.no_sync():
                yield


def _recompute(block: nn.Module) -> None:
    """Compute a block's activations again for its backward pass; batch norms take in each batch's statistics once."""
    norms = [module for module in block.modules() if isinstance(module, nn.BatchNorm2d)]
    again: dict[str, Any] = {"context_fn": lambda: (nullcontext(), _without_statistics(norms))} if norms else {}
    block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False, **again)


@contextmanager
def _without_statistics(norms: list[nn.BatchNorm2d]) -> Iterator[None]:
    """Let batch norms normalise by the batch and leave their running statistics as they are."""
    before = [(norm, norm.momentum, cast(Tensor, norm.num_batches_tracked).clone()) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum, count in before:
            norm.momentum = momentum
            cast(Tensor, norm.num_batches_tracked).copy_(count)


def _channels_last(module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(
        a.contiguous(memory_format=torch.channels_last) if isinstance(a, Tensor) and a.ndim == 4 else a
        for a in arguments
    )


def _blocks(network: nn.Module) -> list[nn.Module]:
    """Return what is computed again, and sharded, as a unit: residual blocks and resizing layers, transformer blocks."""
    if isinstance(network, Autoencoder):
        stages = [*network.encoder.down_blocks, *network.decoder.up_blocks]
        return [block for stage in stages for block in stage.children()]
    return list(network.blocks) if isinstance(network, DiT) else []


def _roots(network: nn.Module) -> list[nn.Module]:
    """Return the modules whose calls make up a step."""
    return [network.encoder, network.decoder] if isinstance(network, Autoencoder) else [network]


def is_shard(value: Tensor) -> TypeGuard[DTensor]:
    """Return whether a tensor is shared out over the workers."""
    from torch.distributed.tensor import DTensor

    return isinstance(value, DTensor)


def local(value: Tensor) -> Tensor:
    """Return this worker's part of a tensor, sharing memory."""
    return value.to_local() if is_shard(value) else value


def whole(tree: Any, keep: bool = True) -> Any:
    """Return nested containers with every tensor whole and on the CPU; all workers must call this together.

    With ``keep=False`` this worker only takes part, and gets None for every tensor.
    """
    if isinstance(tree, Tensor):
        value = tree.detach()
        value = value.full_tensor() if is_shard(value) else value
        return value.to("cpu", copy=True).contiguous() if keep else None
    if isinstance(tree, dict):
        return {key: whole(value, keep) for key, value in tree.items()}
    return [whole(item, keep) for item in tree] if isinstance(tree, list | tuple) else tree


def like(value: Tensor, target: Tensor) -> Tensor:
    """Return a whole tensor on the device of ``target``, sharded and laid out in memory as it is."""
    value = value.to(dtype=target.dtype)
    if is_shard(target):
        from torch.distributed.tensor import distribute_tensor

        return distribute_tensor(value.to(target.device), target.device_mesh, target.placements)
    return torch.empty_like(target).copy_(value)  # a fused optimizer needs the strides of its parameter


@torch.no_grad()
def put(values: dict[str, Tensor], into: dict[str, Tensor]) -> None:
    """Copy whole tensors into tensors of the same names, which may be sharded."""
    if values.keys() != into.keys():
        raise KeyError(f"names differ: {sorted(values.keys() ^ into.keys())[:3]}")
    for name, target in into.items():
        local(target).copy_(local(like(values[name], target)))


@torch.no_grad()
def put_optimizer(saved: dict[str, Any], optimizer: torch.optim.Optimizer) -> None:
    """Load an optimizer's whole state, whatever its parameters are sharded over and however they lie in memory."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    states = {
        index: {
            name: like(value, parameters[index]) if isinstance(value, Tensor) and value.ndim else value
            for name, value in state.items()
        }
        for index, state in saved["state"].items()
    }
    optimizer.load_state_dict({**saved, "state": states})
