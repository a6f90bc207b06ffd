"""Quality over training: the denoiser as it was at each milestone generates images, which are compared with real ones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dcae15 import artifacts, storage
from dcae15.config import Config
from dcae15.data.disk_cache import disk_cache
from dcae15.data.stream import ImageStream
from dcae15.evaluation.evaluate_run import features_of
from dcae15.evaluation.generation import compare_with_real, generate, require_decoder, require_size
from dcae15.library import load_autoencoder, load_denoiser

Row = dict[str, float]

METRICS = ("frechet_distance", "precision", "recall", "class_accuracy")
"""What is measured at a milestone; in rows with ``.generated`` behind, as in the evaluation's headline numbers."""


def row_uri(uri: str, images: int) -> str:
    """Return where the row of a milestone is, below the milestones' artifact."""
    return storage.join(uri, "rows", f"{images:012d}.json")


def measure_milestone(
    config: Config,
    *,
    images: str,
    autoencoder: str,
    denoiser: str,
    uri: str,
    device: str = "cpu",
    say: Callable[[str], None] = print,
) -> Row:
    """Measure a denoiser as it was at a milestone, unless that was done before.

    ``denoiser`` is the URI of the snapshot, ``uri`` that of the milestones' artifact, below which the row is written.

    Returns:
        ``images`` (seen), and ``frechet_distance.generated`` and the others of `METRICS` for which there are images enough.

    Raises:
        ConfigError: the autoencoder or the images are not those of the denoiser's latents.
    """
    made = artifacts.Denoiser.open(denoiser)
    path = row_uri(uri, made.images_seen)
    if storage.exists(path):
        return storage.read_json(path)
    image_set, decoder = artifacts.ImageSet.open(images), load_autoencoder(autoencoder).to(device)
    require_decoder(made, decoder, autoencoder)
    require_size(made.latents.height * made.latents.compression, image_set)
    snapshot = load_denoiser(denoiser)
    snapshot.network.to(device)
    network = features_of(config, image_set, device, say)
    count = min(config.evaluation.milestone_images or config.sampling.images, image_set.splits["val"].count)
    measured: dict[str, float] = {}
    if count:
        stream = ImageStream(image_set, "val", count, disk_cache(config.scaling, image_set.uri))
        real = np.concatenate([network.features(batch) for batch, _ in stream.by_shard()])
        generated = generate(snapshot, decoder, config.sampling, 0, count)
        measured = compare_with_real(network, generated, real, config.evaluation.neighbours)
    row = {"images": float(made.images_seen), **{f"{k}.generated": v for k, v in measured.items()}}
    storage.write_json(path, row)
    return row


def commit_milestones(uri: str, fingerprint: str, images: list[int]) -> artifacts.Milestones:
    """Collect the rows of all milestones into the finished artifact."""
    rows = tuple(storage.read_json(row_uri(uri, count)) for count in images)
    made = artifacts.Milestones(uri, fingerprint, rows)
    made.commit()
    return made
