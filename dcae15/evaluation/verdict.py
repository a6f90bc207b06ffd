"""What the measures say at a glance: warnings about what went wrong, the headline numbers that are tracked, and their names."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping

from dcae15.channels import IN_TABLES, landmarks
from dcae15.evaluation.latents import dead_channels

Rows = list[dict[str, float]]

FRECHET_FACTOR = 2.0
"""How many times the baseline's Fréchet distance, with all channels, the structured arm's may be."""

FRECHET_NOISE = 0.05
"""Differences of distances below this are sampling noise, whatever their ratio."""

MOST_NAMED = 12
"""Dead channels named in a warning; of more the number is given."""


def evaluation_warnings(
    reconstruction: Mapping[str, Rows], channels: Mapping[str, Rows], *, full_channel_gap_db: float
) -> list[str]:
    """Return one sentence for each sign that a training went wrong.

    - ``structure costs too much``: with all channels, the ``structured`` arm is more than ``full_channel_gap_db`` of PSNR behind
      ``baseline``, or has more than twice its Fréchet distance. Masks that are too aggressive ruin the reconstruction, and
      with it all that can be generated.
    - ``dead channels``: the standard deviation of a channel is below a thousandth of the latent's root mean square, in any arm.
    """
    return [*_too_costly(reconstruction, full_channel_gap_db), *_dead(channels)]


def _too_costly(reconstruction: Mapping[str, Rows], gap_db: float) -> Iterator[str]:
    if not (reconstruction.get("structured") and reconstruction.get("baseline")):
        return
    ours, baseline = (max(reconstruction[arm], key=lambda row: row["prefix"]) for arm in ("structured", "baseline"))
    mend = (
        "the masks are too aggressive or the training is too short: give all channels and long prefixes more weight "
        "(autoencoder.prefix.always_full, choice_weights), raise autoencoder.prefix.first, or train longer"
    )
    lost = baseline["psnr"] - ours["psnr"]
    if lost > gap_db:
        yield (
            f"structure costs too much: with all channels the structured autoencoder is {lost:.2f} dB PSNR behind the baseline "
            f"({ours['psnr']:.2f} against {baseline['psnr']:.2f} dB), more than evaluation.full_channel_gap_db "
            f"{gap_db:g}; {mend}"
        )
    distances = [row.get("frechet_distance", math.nan) for row in (ours, baseline)]  # of a single image there is none
    if distances[0] > FRECHET_FACTOR * distances[1] and distances[0] - distances[1] > FRECHET_NOISE:
        yield (
            f"structure costs too much: with all channels the Fréchet distance of the structured autoencoder is "
            f"{distances[0]:.3f}, more than {FRECHET_FACTOR:g} times the baseline's {distances[1]:.3f}; {mend}"
        )


def _dead(channels: Mapping[str, Rows]) -> Iterator[str]:
    for arm, rows in channels.items():
        dead = dead_channels(rows)
        if dead:
            named = ", ".join(map(str, dead[:MOST_NAMED])) + (", ..." if len(dead) > MOST_NAMED else "")
            yield (
                f"dead channels: {len(dead)} of {len(rows)} latent channels of the {arm} autoencoder hardly change ({named}): "
                "their standard deviation is below a thousandth of the latent's root mean square; use fewer latent channels, "
                "or train longer with all of them more often"
            )


def headline_scalars(
    reconstruction: Mapping[str, Rows],
    structure: Mapping[str, Rows],
    summary: Mapping[str, Mapping[str, float]],
    generation: Mapping[str, float],
) -> dict[str, float]:
    """Return the numbers worth tracking, by a name that says all: ``evaluation/psnr.structured.c4``.

    Curves give their measures at an eighth, a quarter and all of the channels; an arm's summary gives names such as
    ``evaluation/object_sparsity.structured``, generated images ``evaluation/frechet_distance.generated``.
    """
    scalars: dict[str, float] = {}
    for arms in (reconstruction, structure):
        for arm, rows in ((arm, rows) for arm, rows in arms.items() if rows):
            found = landmarks(int(row["prefix"]) for row in rows)
            for row in (row for row in rows if row["prefix"] in [found[word] for word in IN_TABLES]):
                for name, value in row.items():
                    if name != "prefix":
                        scalars[f"evaluation/{name}.{plain(arm)}.c{int(row['prefix'])}"] = value
    for arm, values in summary.items():
        scalars |= {f"evaluation/{name}.{plain(arm)}": value for name, value in values.items()}
    scalars |= {f"evaluation/{name}.generated": value for name, value in generation.items()}
    return scalars


def plain(arm: str) -> str:
    """Return the name of an arm in letters that MLflow takes."""
    return re.sub(r"[^\w-]", "_", arm, flags=re.ASCII)
