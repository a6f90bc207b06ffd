import tracemalloc

import numpy as np
import pytest

from dcae15.config import EvaluationConfig
from dcae15.errors import DataError
from dcae15.evaluation.arms import ArmMeasures, Probes, look_at, measure_arm, prefix_ladders
from dcae15.evaluation.features import random_batches, train_features
from tests.unit.evaluation.codecs import CHANNELS, Held, ordered, scenes, spread

PREFIXES = [3, 12, CHANNELS]
SETTINGS = EvaluationConfig(grid_images=2, channel_images=8)


def probes_of(classes: int) -> Probes:
    images, labels = scenes(60, seed=1, classes=classes)
    train, train_labels = scenes(120, seed=2, classes=classes)
    network = train_features(
        random_batches(train, train_labels), resolution=32, num_classes=classes, images_seen=640, seed=0
    )
    return look_at(Held(images, labels), Held(train, train_labels), classes, network, shown=2)


@pytest.fixture(scope="module")
def probes() -> Probes:
    return probes_of(classes=3)


@pytest.fixture(scope="module")
def structured(probes: Probes) -> ArmMeasures:
    return measure_arm(ordered(), PREFIXES, probes, SETTINGS)


@pytest.fixture(scope="module")
def mixed(probes: Probes) -> ArmMeasures:
    return measure_arm(spread(), PREFIXES, probes, SETTINGS)


def test_every_measure_is_there_and_finite(structured: ArmMeasures):
    names = [set(rows[0]) for rows in (structured.reconstruction, structured.structure, structured.channels)]
    assert names == [
        {"prefix", "psnr", "ssim", "frechet_distance", "class_accuracy"},
        {
            "prefix",
            "explained_share",
            "low_frequency_share",
            "high_frequency_share",
            "effective_rank",
            "probe_accuracy",
        },
        {"channel", "mean", "std", "latent_low", "latent_high", "image_low", "image_high"},
    ]
    assert [row["prefix"] for row in structured.reconstruction] == PREFIXES
    assert [row["channel"] for row in structured.channels] == list(range(CHANNELS))
    rows = [*structured.reconstruction, *structured.structure, *structured.channels, structured.summary]
    assert all(np.isfinite(list(row.values())).all() for row in rows)


def test_a_structured_arm_is_told_from_a_mixed_one(structured: ArmMeasures, mixed: ArmMeasures):
    assert structured.reconstruction[0]["psnr"] > mixed.reconstruction[0]["psnr"] + 3
    assert structured.structure[0]["probe_accuracy"] >= mixed.structure[0]["probe_accuracy"]
    assert structured.structure[0]["probe_accuracy"] > 0.95
    for name in ("object_sparsity", "object_front_share"):
        assert structured.summary[name] > mixed.summary[name] + 0.3
    assert structured.reconstruction[-1]["psnr"] == pytest.approx(mixed.reconstruction[-1]["psnr"], abs=0.1)
    assert structured.summary["effective_rank"] == pytest.approx(mixed.summary["effective_rank"], rel=1e-3)


def test_all_channels_of_a_lossless_arm_are_the_images(structured: ArmMeasures, probes: Probes):
    assert structured.reconstruction[-1]["psnr"] > 60
    assert structured.reconstruction[-1]["frechet_distance"] == pytest.approx(0, abs=1e-3)
    assert structured.structure[-1]["explained_share"] == pytest.approx(1, abs=1e-3)
    np.testing.assert_allclose(structured.reconstructions[-1], probes.shown, atol=1)


def test_pictures_are_of_the_first_images(structured: ArmMeasures):
    assert structured.reconstructions.shape == (3, 2, 32, 32, 3)
    assert structured.channel_means is not None
    assert structured.channel_means.shape == (3, 2, 8, 8)


def test_lpips_is_measured_where_it_is_given(probes: Probes, structured: ArmMeasures):
    def stand_in(a, b):
        assert a.shape == b.shape and a.min() >= -1 and a.max() <= 1
        return (a - b).abs().mean(dim=(1, 2, 3))

    rows = measure_arm(ordered(), PREFIXES, probes, SETTINGS, perceptual=stand_in).reconstruction
    assert rows[0]["lpips"] > rows[1]["lpips"] > rows[2]["lpips"] == pytest.approx(0, abs=1e-2)
    assert "lpips" not in structured.reconstruction[0]


def test_without_classes_nothing_is_said_about_classes():
    rows = measure_arm(ordered(), [3, CHANNELS], probes_of(classes=1), SETTINGS)
    assert "class_accuracy" not in rows.reconstruction[0]
    assert "probe_accuracy" not in rows.structure[0]


def test_a_decoder_that_changes_the_size_is_refused(probes: Probes):
    class Half:
        def encode(self, pixels):
            return pixels

        def decode(self, latents):
            return latents[:, :3, ::2, ::2]

    with pytest.raises(DataError, match="come back with shape"):
        measure_arm(Half(), [3], probes, SETTINGS)


@pytest.mark.parametrize(
    ("trained", "channels", "ladders"),
    [
        ({"structured": (5, 9, 32), "baseline": (32,)}, (32, 32), ([4, 5, 8, 9, 16, 32], [4, 5, 8, 9, 16, 32])),
        ({"ours": (4, 8, 32), "theirs": ()}, (32, 128), ([4, 8, 16, 32], [4, 8, 16, 32, 64, 128])),
        ({"ours": (4, 8, 32), "small": ()}, (32, 6), ([4, 8, 16, 32], [1, 3, 4, 6])),
        ({"theirs": ()}, (128,), ([16, 32, 64, 128],)),
        ({"baseline": (4,), "tiny": ()}, (4, 1), ([1, 2, 4], [1])),
        ({"baseline": (32,), "structured": (6, 32)}, (32, 32), ([4, 6, 8, 16, 32], [4, 6, 8, 16, 32])),
    ],
)
def test_all_arms_are_measured_at_the_same_shares_and_at_the_prefixes_that_one_was_trained_with(
    trained, channels, ladders
):
    arms = dict(zip(trained, channels, strict=True))
    assert list(prefix_ladders(trained, arms).values()) == list(ladders)


def test_parts_give_the_same_numbers_and_memory_does_not_grow_with_the_prefixes(
    probes: Probes, structured: ArmMeasures
):
    def peak(prefixes: list[int]) -> int:
        tracemalloc.start()
        measured = measure_arm(ordered(), prefixes, probes, SETTINGS.changed(batch_size=4))
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        for row, whole in zip(measured.reconstruction[-1:], structured.reconstruction[-1:], strict=True):
            assert row == pytest.approx(whole)
        return most

    few, many = peak([CHANNELS]), peak([3, 6, 9, 12, 15, 18, CHANNELS])
    assert (many - few) / 6 < 60 * probes.shown[0].nbytes / 2, "a prefix costs its sums, not its reconstructions"


class Repeated(Held):
    """The same images again and again, without memory for more."""

    def __init__(self, held: Held, times: int) -> None:
        super().__init__(held.images, held.labels)
        self.times = times

    def __len__(self) -> int:
        return self.times * super().__len__()

    def batches(self, size: int):
        for _ in range(self.times):
            yield from super().batches(size)


def test_memory_does_not_grow_with_the_images_and_the_numbers_are_those_of_all(probes: Probes, structured: ArmMeasures):
    assert isinstance(probes.images, Held)

    def measured(times: int) -> tuple[ArmMeasures, int]:
        repeated = Repeated(probes.images, times)
        tracemalloc.start()
        seen = look_at(repeated, probes.train, probes.num_classes, probes.network, shown=2)
        found = measure_arm(ordered(), [CHANNELS], seen, SETTINGS.changed(batch_size=10))
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return found, most

    (once, little), (often, much) = measured(1), measured(6)
    assert much - little < 60 * probes.shown[0].nbytes / 2
    for rows, theirs in ((once.structure, often.structure), (once.channels, often.channels)):
        for row, their_row in zip(rows, theirs, strict=True):
            assert their_row == pytest.approx(row, rel=1e-6, abs=1e-6)
