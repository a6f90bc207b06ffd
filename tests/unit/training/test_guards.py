import random

import pytest

from dcae15.training.guards import Guards


def row(i, **changes):
    """A healthy row of a phase with everything."""
    noise = random.Random(i).uniform(0.9, 1.1)
    return {
        "images": 100.0 * (i + 1),
        "loss": noise / (1 + i / 10),
        "l1": 0.1,
        "discriminator_loss": 0.7 * noise,
        "logits_real": 0.3 * noise,
        "logits_fake": -0.3 * noise,
        "generator_loss": 0.3,
        "adversarial_weight": 0.5,
        "dead_channels": 0.0,
        "rear_energy": 0.4,
        **changes,
    }


def messages(rows):
    guards = Guards()
    return [guards.observe(r) for r in rows]


def names(rows):
    """What is found at each row, told by the words of its message."""
    return [[name for m in found for name, word in WORDS.items() if word in m] for found in messages(rows)]


ILL = {
    "discriminator_wins": {"discriminator_loss": 0.05, "logits_real": 1.5, "logits_fake": -1.5},
    "discriminator_blind": {"discriminator_loss": 1.001, "logits_real": 0.101, "logits_fake": 0.1},
    "dead_rear_channels": {"dead_channels": 2.0},
}
WORDS = {
    "discriminator_wins": "always wins",
    "discriminator_blind": "is blind",
    "dead_rear_channels": "are constant",
    "loss_jump": "times its median",
}
FIELDS = {
    "discriminator_wins": ["adversarial.weight", "adversarial.learning_rate", "adversarial.start_images", "0.05"],
    "discriminator_blind": ["adversarial.learning_rate", "adversarial.start_images", "1"],
    "dead_rear_channels": ["prefix.choice_weights", "prefix.always_full", "2 latent channels"],
    "loss_jump": ["training.learning_rate", "training.clip_norm", "50"],
}


def test_healthy_rows_warn_of_nothing():
    assert not any(names([row(i) for i in range(100)]))
    only_l1 = [{"images": float(i), "loss": 1 / (i + 1), "l1": 1 / (i + 1)} for i in range(100)]
    assert not any(names(only_l1)), "a steep fall is no illness"


@pytest.mark.parametrize("name", list(ILL))
def test_an_illness_is_named_once_after_three_rows(name):
    rows = [row(0), *(row(i, **ILL[name]) for i in range(1, 10))]
    assert names(rows) == [[]] * 3 + [[name]] + [[]] * 6
    assert all(word in messages(rows)[3][0] for word in FIELDS[name])


@pytest.mark.parametrize("name", list(ILL))
def test_two_rows_are_not_enough(name):
    assert not any(names([row(i, **(ILL[name] if i % 3 else {})) for i in range(30)]))


@pytest.mark.parametrize("name", list(ILL))
def test_it_is_named_again_when_it_was_cured(name):
    def times(healthy):
        spells = [True] * 4 + [False] * healthy + [True] * 4
        return sum(map(len, names([row(i, **(ILL[name] if ill else {})) for i, ill in enumerate(spells)])))

    assert times(healthy=2) == 1
    assert times(healthy=3) == 2


@pytest.mark.parametrize("name", ["discriminator_wins", "discriminator_blind"])
def test_a_discriminator_that_is_not_heard_yet_may_win(name):
    unheard = {**ILL[name], "adversarial_weight": 0.0, "generator_loss": 0.0}
    assert names([row(i, **(unheard if i < 10 else ILL[name])) for i in range(13)]) == [[]] * 12 + [[name]]


def test_a_jump_of_the_loss_is_named_at_once():
    rows = [row(i, loss=1.0) for i in range(10)]
    assert names([*rows, row(10, loss=2.9)])[-1] == []
    found = names(
        [*rows, row(10, loss=50.0), row(11, loss=60.0), *(row(i, loss=1.0) for i in range(12, 15)), row(15, loss=9.0)]
    )
    assert [i for i, raised in enumerate(found) if raised] == [10, 15]
    assert all(word in messages([*rows, row(10, loss=50.0)])[-1][0] for word in FIELDS["loss_jump"])
    assert not any(names([row(0, loss=1.0), row(1, loss=50.0)])), "too few rows for a median"


def test_each_phase_is_watched_from_its_beginning():
    ill = ILL["dead_rear_channels"]
    rows = [row(i, **ill, phase=float(i >= 2), loss=100.0 if i >= 8 else 1.0) for i in range(10)]
    found = names(rows)
    assert found[:5] == [[], [], [], [], ["dead_rear_channels"]], (
        "two rows of one phase and one of the next are no three"
    )
    assert found[8] == ["loss_jump"]
    rows = [row(i, loss=100.0 if i >= 8 else 1.0, phase=float(i >= 8)) for i in range(10)]
    assert not any(names(rows)), "another phase has another loss"
