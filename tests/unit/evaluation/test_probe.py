import numpy as np
import pytest
import torch

from dcae15.evaluation.probe import fit_probe


def latents(count: int, seed: int) -> tuple[torch.Tensor, np.ndarray]:
    """Noise in 6 channels; channel 1 tells the class (of 3) by the row that is bright, channel 4 repeats it."""
    generator = torch.Generator().manual_seed(seed)
    labels = np.arange(count) % 3
    values = torch.randn(count, 6, 4, 4, generator=generator)
    for channel in (1, 4):
        values[torch.arange(count), channel, torch.from_numpy(labels)] += 4
    return values, labels


def probe_accuracies(train, train_labels, test, test_labels, prefixes, *, num_classes: int) -> list[float]:
    parts = (
        [(train[:100], train_labels[:100]), (train[100:], train_labels[100:])]
        if len(train) > 100
        else [(train, train_labels)]
    )
    probe = fit_probe(parts, prefixes, num_classes=num_classes)
    return [right / len(test) for right in probe.right(test, test_labels)]


TRAIN, TEST = latents(300, 0), latents(150, 1)


def test_the_class_appears_with_the_channel_that_holds_it():
    first, second, rest = probe_accuracies(*TRAIN, *TEST, [1, 2, 6], num_classes=3)
    assert first < 0.5
    assert second > 0.98
    assert rest > 0.98


def test_labels_without_relation_are_guessed_by_chance():
    shuffled = np.random.default_rng(0).permutation(TEST[1])
    assert probe_accuracies(*TRAIN, TEST[0], shuffled, [6], num_classes=3)[0] == pytest.approx(1 / 3, abs=0.12)


def test_scale_and_offset_of_channels_do_not_matter():
    gain, offset = torch.logspace(-3, 3, 6)[:, None, None], torch.linspace(-50, 50, 6)[:, None, None]
    moved = [(values * gain + offset, labels) for values, labels in (TRAIN, TEST)]
    expected = probe_accuracies(*TRAIN, *TEST, [1, 3, 6], num_classes=3)
    assert probe_accuracies(*moved[0], *moved[1], [1, 3, 6], num_classes=3) == pytest.approx(expected, abs=0.01)


def test_it_is_deterministic_and_the_prefixes_do_not_meddle():
    alone = [probe_accuracies(*TRAIN, *TEST, [c], num_classes=3)[0] for c in (1, 4, 6)]
    assert probe_accuracies(*TRAIN, *TEST, [1, 4, 6], num_classes=3) == alone


def test_more_features_than_images_are_no_trouble():
    few = (TRAIN[0][:12], TRAIN[1][:12])
    assert probe_accuracies(*few, *TEST, [2, 6], num_classes=3)[0] > 0.6


def test_large_maps_are_pooled_and_constant_channels_say_nothing():
    big = [(values.repeat_interleave(8, 2).repeat_interleave(8, 3), labels) for values, labels in (TRAIN, TEST)]
    for values, _ in big:
        values[:, 0] = 5.0
    accuracies = probe_accuracies(*big[0], *big[1], [1, 2], num_classes=3)
    assert accuracies[0] == pytest.approx(1 / 3, abs=0.01)
    assert accuracies[1] > 0.98


def test_a_class_without_training_images_is_no_error():
    assert probe_accuracies(*TRAIN, *TEST, [6], num_classes=5)[0] > 0.98
