"""Graphs other than that of 1.5 train like it."""

import numpy as np
import pytest
import torch

from dcae15 import artifacts
from dcae15.config import Config
from dcae15.data import shards
from dcae15.library import load_autoencoder
from dcae15.models.presets import GRAPH_FIELDS
from dcae15.runtime import LocalRuntime
from dcae15.tracking import Tracker
from dcae15.training.autoencoder import train_autoencoder
from tests.families import FAMILIES


def trained(folder, spec, **switches):
    """Train a graph, asked for by configuration, on noise; return where the artifact is."""
    generator = np.random.default_rng(0)
    images = [generator.integers(0, 255, (16, 16, 3), np.uint8).tobytes() for _ in range(32)]
    root, uri = str(folder / "images"), str(folder / "autoencoder")
    table = shards.image_table([str(i) for i in range(32)], [0] * 32, images, {})
    splits = {"train": artifacts.Split((shards.write_shard(root, "train/0.parquet", table).shard,))}
    artifacts.ImageSet(root, "images", ("a",), 16, "raw", "center", splits, {}, "test").commit()
    config = Config(storage=str(folder))
    config.data.resolution = 16
    for name in GRAPH_FIELDS:
        value = getattr(spec, name)
        setattr(config.autoencoder, name, list(value) if isinstance(value, tuple) else value)
    training = {"images": 64, "batch_size": 8, "warmup_images": 8, **switches}
    config.autoencoder.training = config.autoencoder.training.changed(**training)
    train_autoencoder(config, images=root, uri=uri, fingerprint="f", runtime=LocalRuntime(), tracker=Tracker())
    return uri


@pytest.fixture(scope="module", params=["1.0", "sana"])
def family(request, tmp_path_factory):
    """A family's graph, and where it was trained."""
    spec = FAMILIES[request.param]
    return request.param, spec, trained(tmp_path_factory.mktemp("plain"), spec)


def test_training_from_the_configuration_makes_an_artifact_of_that_graph(family):
    name, spec, uri = family
    for averaged in (True, False):
        model = load_autoencoder(uri, averaged=averaged)
        assert model.spec == spec
        assert all(torch.isfinite(value).all() for value in model.state_dict().values())
    counters = [value for key, value in model.state_dict().items() if key.endswith("num_batches_tracked")]
    assert all(counter > 0 for counter in counters) and bool(counters) == (name == "1.0")


def test_recomputed_activations_leave_running_statistics_as_they_are(tmp_path, family):
    name, spec, uri = family
    plain = load_autoencoder(uri, averaged=False).state_dict()
    recomputed = load_autoencoder(trained(tmp_path, spec, activation_checkpointing=True), averaged=False).state_dict()
    assert any(key.endswith("running_var") for key in plain) == (name == "1.0")
    for key, value in plain.items():
        torch.testing.assert_close(recomputed[key], value, msg=lambda text, key=key: f"{key}: {text}")
