"""Exponential moving average of a network's weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dcae15.training.parallel import local, put


class MovingAverage:
    """The average of the parameters over optimizer steps; its decay ramps up as (1 + n) / (10 + n) over the first n steps.

    With ``decay`` 0 it is the weights themselves. Buffers are copied, not averaged. Each worker averages what it holds.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = network
        self.decay = decay
        self.average = {name: value.detach().clone() for name, value in network.state_dict().items()}
        self._averaged = [name for name, _ in network.named_parameters()]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after optimizer step ``step`` (1, 2, ...)."""
        decay = min(self.decay, (1 + step) / (10 + step)) if self.decay else 0.0
        current = self.network.state_dict()
        names = self._averaged
        torch._foreach_lerp_([local(self.average[n]) for n in names], [local(current[n]) for n in names], 1 - decay)
        for name in current.keys() - set(names):
            local(self.average[name]).copy_(local(current[name]))

    def state_dict(self) -> dict[str, Tensor]:
        """Return the averaged weights by parameter name."""
        return self.average

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from saved averages, whole tensors."""
        put(state, self.average)
