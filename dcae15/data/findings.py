"""What a check of a latent set finds, kept so that a report stays short however much is wrong."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

SHOWN = 10
"""LatentFindings of a kind that are shown; all are counted."""

_AGAIN = (
    "delete these shards, their .json files and manifest.json, and run the cache_latents that made them: it fills gaps"
)
ADVICE = {
    "manifest": "delete manifest.json and run the cache_latents that made the set",
    "missing": "copy the set again, or delete manifest.json and run the cache_latents that made it: it fills gaps",
    "stray": "delete them if nobody needs them: plain readers of the whole folder would read them too",
    "damaged": f"copy them again, or {_AGAIN}",
    "schema": f"something else wrote here; {_AGAIN}",
    "count": _AGAIN,
    "metadata": f"they are of another latent set; {_AGAIN}",
    "side file": "copy the set again: .json files belong to it; or delete these shards and manifest.json, and cache them again",
    "not finite": f"{_AGAIN}; if it stays so, use latents.dtype=bfloat16 or float32",
    "id twice": f"{_AGAIN}",
    "label": _AGAIN,
    "mirror": _AGAIN,
    "statistics": _AGAIN,
    "image set": "pass the image set that the latents were made of; a damaged one is made again by prepare_images",
    "not encoded": _AGAIN,
    "not an image": f"pass the image set that the latents were made of; or {_AGAIN}",
    "pixels": f"pass the image set that the latents were made of; or {_AGAIN}",
    "autoencoder": "pass the autoencoder that made the latents, or cache them with this one; if it is the right one, verify on the "
    "kind of device that encoded (scaling.use_gpu)",
}
"""What a user can do, by kind of finding."""


@dataclass
class LatentFindings:
    """LatentFindings by kind: all counted, the first ones kept."""

    counts: Counter[str] = field(default_factory=Counter)  # number by kind
    examples: dict[str, list[str]] = field(default_factory=dict)  # the first ones by kind, each with its shard and id

    def add(self, kind: str, text: str) -> None:
        """Add a finding; ``kind`` is one of `ADVICE`."""
        self.counts[kind] += 1
        if len(kept := self.examples.setdefault(kind, [])) < SHOWN:
            kept.append(text)

    def merge(self, other: LatentFindings) -> None:
        """Add the findings of another part of the set."""
        self.counts.update(other.counts)
        for kind, texts in other.examples.items():
            kept = self.examples.setdefault(kind, [])
            kept += texts[: SHOWN - len(kept)]

    def report(self, uri: str) -> str:
        """Return all findings as text: of each kind how many, the first ones, and what to do."""
        lines = [f"the latent set {uri} is not what it should be ({sum(self.counts.values()):,} findings)"]
        for kind, count in self.counts.items():
            lines.append(f"{kind} ({count:,}):")
            lines += [f"  {text}" for text in self.examples[kind]]
            lines += [f"  ... and {count - SHOWN:,} more"] if count > SHOWN else []
            lines.append(f"  to do: {ADVICE[kind]}")
        return "\n".join(lines)
