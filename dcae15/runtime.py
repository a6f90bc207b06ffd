"""The seam between training and whatever starts its processes: who am I, how many are we, where do I compute."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import torch
import torch.distributed as dist


class Runtime(Protocol):
    """One training process among ``world``; with more than one, a process group of torch is there."""

    rank: int
    world: int
    device: torch.device

    def barrier(self) -> None:
        """Wait until every process is here."""
        ...

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Return the sum of a tensor over all processes."""
        ...

    def say(self, line: str) -> None:
        """Show a line to the user."""
        ...

    def preempted(self) -> bool:
        """Tell whether this process will be taken away soon; every process must ask at the same point."""
        ...


@dataclass
class LocalRuntime:
    """A single process without any launcher."""

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cuda" if torch.cuda.is_available() else "cpu"))

    def barrier(self) -> None:
        """Return at once."""

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Return the values as they are."""
        return values

    def say(self, line: str) -> None:
        """Print the line."""
        print(line, flush=True)

    def preempted(self) -> bool:
        """Never."""
        return False


class ProcessGroupRuntime:
    """One process of torch's process group, which a launcher (torchrun, Ray Train) has started."""

    def __init__(self, device: torch.device) -> None:
        self.rank = dist.get_rank() if dist.is_initialized() else 0
        self.world = dist.get_world_size() if dist.is_initialized() else 1
        self.device = device

    def barrier(self) -> None:
        """Wait until every process is here."""
        if self.world > 1:
            dist.barrier()

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Return the sum over the processes."""
        if self.world > 1:
            values = values.clone()
            dist.all_reduce(values)
        return values

    def say(self, line: str) -> None:
        """Print the line."""
        print(line, flush=True)

    def preempted(self) -> bool:
        """Never: torch's launchers do not know."""
        return False
