"""The runtime of a Ray Train worker."""

from __future__ import annotations

import ray.train
import ray.train.torch
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from dcae15.orchestration.console import Say


class RayRuntime:
    """One worker of a `ray.train.torch.TorchTrainer`; see `dcae15.runtime.Runtime`."""

    def __init__(self, say: Say) -> None:
        self.say = say
        context = ray.train.get_context()
        self.rank = context.get_world_rank()
        self.world = context.get_world_size()
        self.device = ray.train.torch.get_device()

    def barrier(self) -> None:
        """Wait until every worker is here."""
        if self.world > 1:
            dist.barrier()

    def distribute(self, module: nn.Module) -> nn.Module:
        """Average gradients over the workers."""
        if self.world == 1:
            return module
        devices = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(module, device_ids=devices)

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Return the sum over the workers."""
        if self.world > 1:
            values = values.clone()
            dist.all_reduce(values)
        return values

    def preempted(self) -> bool:
        """Ask Ray whether a node of this run will be taken away; a barrier of about 25 ms."""
        return ray.train.get_preemption_info() is not None
