"""The protocol of a distance: everything that must agree before two numbers are compared."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass


@dataclass(frozen=True)
class Protocol:
    """How generated images were made and compared. Published beside every distance.

    Attributes:
        count: generated images.
        reference_count: reference images.
        reference_digest: what the reference set is, e.g. its fingerprint.
        extractor: name of the feature network.
        extractor_digest: digest of its weights.
        resize: how images are resized for the extractor; 'none' when they are not.
        solver: ODE solver.
        steps: steps of the solver.
        guidance: classifier-free guidance scale; 1 means none.
        guidance_start: time, 0 (noise) to 1 (data), from which guidance acts.
        guidance_end: time until which guidance acts.
        prefix: latent channels generated.
        seed: seed of the noise.
        ema_decay: decay of the averaged weights that were sampled; 0 means the trained weights themselves.
    """

    count: int
    reference_count: int
    reference_digest: str
    extractor: str
    extractor_digest: str
    resize: str
    solver: str
    steps: int
    guidance: float
    guidance_start: float
    guidance_end: float
    prefix: int
    seed: int
    ema_decay: float

    def to_dict(self) -> dict[str, int | float | str]:
        """Return plain values; ``Protocol(**values)`` undoes it."""
        return dataclasses.asdict(self)

    def differences(self, other: Protocol) -> list[str]:
        """Return the names of the fields that differ; two distances compare when only the field under study does."""
        return [f.name for f in dataclasses.fields(self) if getattr(self, f.name) != getattr(other, f.name)]

    def line(self) -> str:
        """Return the protocol as one line of text."""
        guidance = "no guidance"
        if self.guidance != 1.0:
            guidance = f"guidance {self.guidance:g} on t {self.guidance_start:g}-{self.guidance_end:g}"
        weights = f"EMA {self.ema_decay:g}" if self.ema_decay else "no EMA"
        return (
            f"{self.count} images vs {self.reference_count} of {self.reference_digest[:12]}, "
            f"{self.extractor} {self.extractor_digest[:12]}, resize {self.resize}, "
            f"{self.solver} {self.steps} steps, {guidance}, first {self.prefix} channels, {weights}, seed {self.seed}"
        )
