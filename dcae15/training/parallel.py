"""Switches of training, applied to a network from outside: memory format, recomputing, compiling, several workers.

The network's code knows nothing of them, and its parameters keep their names. Under FSDP2 a parameter is a shard (``DTensor``)
on each worker; checkpoints hold whole tensors, which torch gathers and shares out again, on any number of workers. What torch
has for that is imported where it is used: a process that trains nothing does not wait for it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from dcae15.config import TrainingConfig
from dcae15.models.autoencoder import Autoencoder
from dcae15.models.dit import DiT
from dcae15.runtime import Runtime

T = TypeVar("T")


def parallelise(objective: Any, config: TrainingConfig, runtime: Runtime) -> nn.Module:
    """Apply the switches to an objective's network, in this order.

    Both the objective and its network are changed in place.

    Returns:
        What to call in the objective's place: it averages gradients over the workers, see `averaging`.
    """
    network, sharded = objective.network, _is_sharded(config, runtime)
    place(objective, config, runtime)
    if config.activation_checkpointing:
        recompute(network)
    if config.compile:
        for root in _roots(network):
            root.compile()
    if sharded:
        shard(network, config, runtime)
    if runtime.world == 1 or sharded:
        return objective
    devices = [runtime.device] if runtime.device.type == "cuda" else None
    return DistributedDataParallel(objective, device_ids=devices, gradient_as_bucket_view=True, broadcast_buffers=False)


def beside(network: nn.Module, config: TrainingConfig, runtime: Runtime) -> None:
    """Lay out and share out a copy of a network in training as that one is; nobody calls the copy."""
    place(network, config, runtime)
    if _is_sharded(config, runtime):
        shard(network, config, runtime)


def place(module: nn.Module, config: TrainingConfig, runtime: Runtime) -> None:
    """Move weights to the worker's device and into the memory format; shards are contiguous."""
    module.to(runtime.device)
    if config.channels_last and not _is_sharded(config, runtime):
        module.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def recompute(network: nn.Module) -> None:
    """Compute each block's activations again for its backward pass; batch norms take in each batch's statistics once."""
    for block in _blocks(network):
        norms = [module for module in block.modules() if isinstance(module, nn.BatchNorm2d)]
        again = {"context_fn": functools.partial(_first_and_second_pass, norms)} if norms else {}
        block.forward = functools.partial(
            checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False, **again
        )


def shard(network: nn.Module, config: TrainingConfig, runtime: Runtime) -> None:
    """Share out parameters, gradients and optimizer state over the workers (FSDP2)."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(runtime.device.type, (runtime.world,))
    for module in (*_blocks(network), *_roots(network)):
        fully_shard(module, mesh=mesh)
    if config.channels_last:  # shards are contiguous; convolutions follow their inputs as well
        for root in _roots(network):
            root.register_forward_pre_hook(_channels_last_inputs)


def averaging(step: nn.Module, on: bool) -> AbstractContextManager[None]:
    """Average gradients over the workers in the backward pass within, or keep them for a later one.

    ``step`` is what `parallelise` returned.
    """
    if isinstance(step, DistributedDataParallel):
        return nullcontext() if on else step.no_sync()
    for root in _roots(cast(nn.Module, step.network)):
        if hasattr(root, "set_requires_gradient_sync"):  # it is sharded
            cast(Any, root).set_requires_gradient_sync(on)
    return nullcontext()


def from_first_worker(value: T, runtime: Runtime) -> T:
    """Return the first worker's value on every worker; all must call this together."""
    if runtime.world == 1:
        return value
    values = [value]
    torch.distributed.broadcast_object_list(values, src=0, device=runtime.device)
    return values[0]


# States. All workers must call each of these together.


def weights_of(network: nn.Module) -> dict[str, Tensor]:
    """Return a network's weights as whole tensors on the CPU of the first worker, and nothing on the others.

    Where the network itself is whole and on the CPU, the tensors share its memory.
    """
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    return _contiguous(get_model_state_dict(network, options=options))


def optimizer_state_of(network: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return an optimizer's state by the names of its network's parameters; see `weights_of`."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict

    options = StateDictOptions(full_state_dict=True, cpu_offload=True, flatten_optimizer_state_dict=True)
    return _contiguous(get_optimizer_state_dict(network, optimizer, options=options))


def load_weights(network: nn.Module, weights: dict[str, Tensor], runtime: Runtime) -> None:
    """Load what `weights_of` returned, here or on another number of workers; only the first worker's are read."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=runtime.world > 1)
    set_model_state_dict(network, dict(weights), options=options)  # which changes the dictionary


@torch.no_grad()
def load_optimizer(
    network: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any], runtime: Runtime
) -> None:
    """Load what `optimizer_state_of` returned, before the network's weights; see `load_weights`.

    torch makes the state's tensors first by a step with a rate and gradients of 0: it moves no weight, but may turn a -0 into 0.
    """
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_optimizer_state_dict

    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=runtime.world > 1)
    set_optimizer_state_dict(network, optimizer, dict(state), options=options)
    # torch leaves them contiguous, and a fused optimizer takes for granted that they lie in memory as their parameter does
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            if value.ndim and value.stride() != parameter.stride():
                values[name] = torch.empty_like(parameter).copy_(value)


def _is_sharded(config: TrainingConfig, runtime: Runtime) -> bool:
    return runtime.world > 1 and config.parallel == "fsdp"


def _contiguous(state: dict[str, Any]) -> dict[str, Any]:
    """Return a state for safetensors and for broadcasts, neither of which knows memory formats."""
    return {name: value.contiguous() if isinstance(value, Tensor) else value for name, value in state.items()}


def _first_and_second_pass(norms: list[nn.BatchNorm2d]) -> tuple[Any, Any]:
    return nullcontext(), _without_statistics(norms)


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


def _channels_last_inputs(module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
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
