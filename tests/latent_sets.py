"""Small image sets, autoencoders and latent sets, made on the spot by the code that makes real ones, without Ray."""

from __future__ import annotations

import numpy as np
from safetensors.torch import save as to_safetensors

from dcae15 import artifacts, storage
from dcae15.config import LatentsConfig
from dcae15.data import shards
from dcae15.models.spec import AutoencoderSpec
from dcae15.stages.latent_caching import EncodeWriter, commit, latent_spec, plan_latents
from tests.families import randomised

SPEC = AutoencoderSpec(4, (8, 16, 16), (0, 1, 1), (8, 16, 16), (0, 1, 1))


def make_images(root: str, side: int = 16, fingerprint: str = "1" * 16) -> str:
    """Three shards of training images (4, 4, 3) and one of validation images (5), of three classes; return its URI."""
    generator, splits = np.random.default_rng(0), {}
    metadata = {"encoding": "raw", "crop": "center", "resolution": side}
    for split, counts in {"train": (4, 4, 3), "val": (5,)}.items():
        made, first = [], 0
        for i, count in enumerate(counts):
            ids = [f"{split}/n{(first + j) % 3}/{first + j}.png" for j in range(count)]
            images = [generator.integers(0, 255, (side, side, 3), np.uint8).tobytes() for _ in range(count)]
            table = shards.image_table(ids, [(first + j) % 3 for j in range(count)], images, metadata)
            made.append(shards.write_shard(root, f"{split}/{i:06d}.parquet", table).shard)
            first += count
        splits[split] = artifacts.Split(tuple(made))
    artifacts.ImageSet(root, fingerprint, ("a", "b", "c"), side, "raw", "center", splits, {}, "test").commit()
    return root


def make_autoencoder(root: str, seed: int = 0) -> str:
    """An autoencoder (f4c4) of random weights; return its URI."""
    network = randomised(SPEC, seed)
    storage.write_bytes(storage.join(root, "weights.safetensors"), to_safetensors(network.state_dict()))
    storage.write_bytes(storage.join(root, "weights_raw.safetensors"), to_safetensors(network.state_dict()))
    artifacts.Autoencoder(root, f"{seed}" * 16, SPEC.to_dict(), 16, (2, 4), "prefix", 100, "1" * 16).commit()
    return root


def make_latents(root: str, images: str, autoencoder: str, **settings: object) -> str:
    """Encode the images; ``settings`` are fields of `LatentsConfig`; return the URI."""
    config = LatentsConfig.model_validate(settings)
    image_set = artifacts.ImageSet.open(images)
    spec = latent_spec(image_set, autoencoder, config.resolution)
    writer = EncodeWriter(root, images, autoencoder, spec, config, "cpu")
    records = [writer.write(plan) for plan in plan_latents(image_set, config)]
    commit(config, image_set, spec, records, autoencoder=autoencoder, uri=root, fingerprint="2" * 16)
    return root
