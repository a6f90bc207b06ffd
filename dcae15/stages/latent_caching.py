"""cache_latents: an image set becomes a latent set."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from dcae15 import artifacts
from dcae15.cluster import Cluster
from dcae15.config import Config, LatentsConfig
from dcae15.data import encoding, latent_statistics, shards
from dcae15.data.shards import ShardRecord
from dcae15.errors import ConfigError
from dcae15.library import load_autoencoder
from dcae15.models.autoencoder import AutoencoderSpec
from dcae15.stages.shard_writing import ShardPlan, write_shards


class EncodeWriter:
    """Encodes the images of one image shard into one latent shard; runs anywhere, without Ray too."""

    def __init__(
        self, root: str, images: str, autoencoder: str, spec: artifacts.LatentSpec, config: LatentsConfig, device: str
    ) -> None:
        self.root, self.spec, self.config, self.device = root, spec, config, device
        self.image_set = artifacts.ImageSet.open(images)
        self.autoencoder = load_autoencoder(autoencoder).to(device)

    def write(self, plan: ShardPlan[tuple[artifacts.Shard, bool]]) -> ShardRecord:
        """Write one shard; ``plan.content`` is the image shard and whether to add mirrored copies."""
        shard, mirror = plan.content
        table = shards.read_shard(self.image_set.uri, shard)
        images = encoding.squares(table, self.image_set, self.spec.height * self.spec.compression)
        ids, labels = table.column("id").to_pylist(), shards.labels_of(table).tolist()
        flipped = [False] * len(ids)
        if mirror:
            images = np.concatenate([images, images[:, :, ::-1]])
            flipped += [True] * len(ids)
            ids, labels = ids + [i + encoding.MIRRORED for i in ids], labels * 2
        latents = encoding.encode(self.autoencoder, images, self.config.batch_size, self.device)
        digests = [encoding.digest(image) for image in images]
        rows = shards.latent_table(
            ids, labels, latents, flipped, digests, self.config.dtype, dataclasses.asdict(self.spec)
        )
        shape = (self.spec.channels, self.spec.height, self.spec.width)
        stored = shards.decode_latents(rows.column("latent"), shape, self.config.dtype)
        return shards.write_shard(self.root, plan.path, rows, statistics=latent_statistics.measure_latents(stored))


def plan_latents(image_set: artifacts.ImageSet, config: LatentsConfig) -> list[ShardPlan[tuple[artifacts.Shard, bool]]]:
    """One latent shard per image shard, of the same name; mirrored copies for training images only."""
    plans = []
    for split, content in image_set.splits.items():
        mirror = config.mirror and split == "train"
        plans += [ShardPlan(s.path, s.count * (2 if mirror else 1), (s, mirror)) for s in content.shards]
    return plans


def latent_spec(image_set: artifacts.ImageSet, autoencoder_uri: str, resolution: int = 0) -> artifacts.LatentSpec:
    """Return what an autoencoder makes of an image set's images, reduced to ``resolution`` pixels unless it is 0.

    Raises:
        ConfigError: the images are smaller than that, or it is no multiple of the autoencoder's compression.
    """
    made = artifacts.Autoencoder.open(autoencoder_uri)
    spec = AutoencoderSpec.from_dict(made.spec)
    compression = spec.spatial_compression
    if resolution > image_set.resolution:
        raise ConfigError(
            f"latents.resolution is {resolution}, larger than the images of {image_set.resolution} pixels at {image_set.uri}; "
            "prepare larger ones, or use 0 for the images' own"
        )
    pixels = resolution or image_set.resolution
    if pixels % compression:
        below = pixels // compression * compression
        smaller = f"latents.resolution={below}, or " if below else ""
        raise ConfigError(
            f"images of {pixels} pixels do not fit the autoencoder at {autoencoder_uri}, which compresses {compression}-fold; "
            f"use {smaller}images prepared with data.resolution a multiple of {compression}"
        )
    side = pixels // compression
    return artifacts.LatentSpec(
        channels=spec.latent_channels,
        height=side,
        width=side,
        compression=compression,
        prefix_choices=made.prefix_choices,
        autoencoder=made.fingerprint,
    )


def cache_latents(
    config: Config, cluster: Cluster, *, images: str, autoencoder: str, uri: str, fingerprint: str
) -> None:
    """Encode every image of the image set once and write the latent set to ``uri``."""
    image_set = artifacts.ImageSet.open(images)
    spec = latent_spec(image_set, autoencoder, config.latents.resolution)
    plans = plan_latents(image_set, config.latents)
    make = functools.partial(EncodeWriter, uri, images, autoencoder, spec, config.latents, cluster.device)
    records = write_shards(cluster, "cache_latents", uri, plans, make, cluster.encoders)
    commit(config.latents, image_set, spec, records, autoencoder=autoencoder, uri=uri, fingerprint=fingerprint)


def commit(
    config: LatentsConfig,
    image_set: artifacts.ImageSet,
    spec: artifacts.LatentSpec,
    records: Sequence[ShardRecord],
    *,
    autoencoder: str,
    uri: str,
    fingerprint: str,
) -> None:
    """Write the manifest of a latent set whose shards are all there."""
    splits = {
        split: artifacts.Split(tuple(r.shard for r in records if r.shard.path.startswith(split + "/")))
        for split in image_set.splits
    }
    measured = [r.statistics for r in records if r.shard.path.startswith("train/")]
    artifacts.LatentSet(
        uri,
        fingerprint,
        spec=spec,
        dtype=config.dtype,
        statistics=latent_statistics.merge_measured(measured),
        splits=splits,
        class_names=image_set.class_names,
        mirror=config.mirror,
        images=image_set.fingerprint,
        autoencoder_uri=autoencoder,
    ).commit()
