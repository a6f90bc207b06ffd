"""The runtime of a Ray Train worker."""

from __future__ import annotations

import ray.train
import ray.train.torch

from dcae15.orchestration.console import Say
from dcae15.runtime import ProcessGroupRuntime


class RayRuntime(ProcessGroupRuntime):
    """One worker of a `ray.train.torch.TorchTrainer`; see `dcae15.runtime.Runtime`.

    Args:
        say: sends a line to the driver's console.
        alone: whether this is the driver's own process, or a trial's of a sweep; Ray takes no node away from under it.
    """

    def __init__(self, say: Say, *, alone: bool = False) -> None:
        super().__init__(ray.train.torch.get_device())
        self._say, self._alone = say, alone

    def say(self, line: str) -> None:
        """Send the line to the driver's console."""
        self._say(line)

    def preempted(self) -> bool:
        """Ask Ray whether a node of this run will be taken away; a barrier of about 25 ms."""
        return not self._alone and ray.train.get_preemption_info() is not None
