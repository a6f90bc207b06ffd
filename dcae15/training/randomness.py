"""Random numbers of a training step: a pure function of (seed, purpose, images seen), the same for any number of workers."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor


def generator(seed: int, purpose: str, images_seen: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a private generator for one purpose at one point of the training."""
    digest = hashlib.blake2b(f"{seed}/{purpose}/{images_seen}".encode(), digest_size=8).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest, "little") >> 1)


@dataclass(frozen=True)
class StepRandomness:
    """Draws for the global batch, of which a rank takes its own rows: so 1, 2 or 8 workers see the same numbers."""

    seed: int  # the run's seed
    images_seen: int  # images seen before this step
    batch_size: int  # rows of the global batch
    rank: int  # this worker
    world: int  # all workers
    device: torch.device  # where the numbers are made

    @property
    def first(self) -> int:
        """First row of this rank."""
        return self.rank * (self.batch_size // self.world)

    @property
    def last(self) -> int:
        """Row after this rank's last."""
        return self.first + self.batch_size // self.world

    def generator(self, purpose: str, device: torch.device | str | None = None) -> torch.Generator:
        """Return the generator of one purpose in this step, on this worker's device unless another is given."""
        return generator(self.seed, purpose, self.images_seen, self.device if device is None else device)

    def normal(self, purpose: str, shape: tuple[int, ...] = ()) -> Tensor:
        """Return this rank's rows of standard normal draws of shape (batch_size, *shape)."""
        draws = torch.randn(self.batch_size, *shape, generator=self.generator(purpose), device=self.device)
        return draws[self.first : self.last]

    def uniform(self, purpose: str) -> Tensor:
        """Return this rank's rows of draws from [0, 1) of shape (batch_size,)."""
        draws = torch.rand(self.batch_size, generator=self.generator(purpose), device=self.device)
        return draws[self.first : self.last]
