"""Graphs other than that of 1.5 train like it."""

import numpy as np
import pytest
import torch

from dcae15 import artifacts
from dcae15.config import Config
from dcae15.data import shards
from dcae15.loading import load_autoencoder
from dcae15.models.presets import GRAPH_FIELDS
from dcae15.runtime import LocalRuntime
from dcae15.tracking import NullTracker
from dcae15.training import stages
from tests.families import FAMILIES


@pytest.mark.parametrize("family", ["1.0", "sana"])
def test_training_from_the_configuration_makes_an_artifact_of_that_graph(tmp_path, family):
    spec = FAMILIES[family]
    generator = np.random.default_rng(0)
    images = [generator.integers(0, 255, (16, 16, 3), np.uint8).tobytes() for _ in range(32)]
    root = str(tmp_path / "images")
    table = shards.image_table([str(i) for i in range(32)], [0] * 32, images, {})
    splits = {"train": artifacts.Split((shards.write_shard(root, "train/0.parquet", table).shard,))}
    artifacts.ImageSet(root, "images", ("a",), 16, "raw", "center", splits, {}, "test").commit()
    config = Config(storage=str(tmp_path))
    config.data.resolution = 16
    for name in GRAPH_FIELDS:
        value = getattr(spec, name)
        setattr(config.autoencoder, name, list(value) if isinstance(value, tuple) else value)
    training = config.autoencoder.training
    training.images, training.batch_size, training.warmup_images = 64, 8, 8
    uri = str(tmp_path / "autoencoder")
    stages.train_autoencoder(
        config, images=root, uri=uri, fingerprint="f", runtime=LocalRuntime(), tracker=NullTracker()
    )
    for averaged in (True, False):
        model = load_autoencoder(uri, averaged=averaged)
        assert model.spec == spec
        assert all(torch.isfinite(value).all() for value in model.state_dict().values())
    counters = [value for key, value in model.state_dict().items() if key.endswith("num_batches_tracked")]
    assert all(counter > 0 for counter in counters) and bool(counters) == (family == "1.0")
