"""The seam between training and whatever starts its processes: who am I, how many are we, where do I compute."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import nn


class Runtime(Protocol):
    """One training process among ``world``."""

    rank: int
    world: int
    device: torch.device

    def barrier(self) -> None:
        """Wait until every process is here."""
        ...

    def distribute(self, module: nn.Module) -> nn.Module:
        """Return the module with gradients averaged over all processes."""
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

    def distribute(self, module: nn.Module) -> nn.Module:
        """Return the module as it is."""
        return module

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Return the values as they are."""
        return values

    def say(self, line: str) -> None:
        """Print the line."""
        print(line, flush=True)

    def preempted(self) -> bool:
        """Never."""
        return False
