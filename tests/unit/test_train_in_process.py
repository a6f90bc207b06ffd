"""Training in the driver: what fails is tried again, and then said, as Ray Train does it with workers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dcae15.cluster import Cluster, Resources
from dcae15.config import Config, ScalingConfig
from dcae15.errors import ConfigError, StorageError, TrainingError
from dcae15.tracking import TrackerSpec


def train(function: Callable[..., None], config: Config) -> None:
    cluster = Cluster(config, Resources(2, 0, local=True))
    cluster.train(function, config, TrackerSpec(), uri="/nowhere", fingerprint="x")


def fit(errors: list[Exception], restarts: int = 3) -> int:
    """Train with a function that fails so often; return how often it was called."""
    calls = 0

    def function(config: Config, **stage: Any) -> None:
        nonlocal calls
        calls += 1
        if errors:
            raise errors.pop(0)

    config = Config(storage="/nowhere", scaling=ScalingConfig(max_failures=restarts))
    train(function, config)
    return calls


def test_what_passes_is_tried_again(capsys):
    assert fit([StorageError("the endpoint is away"), RuntimeError("odd")]) == 3
    assert "training stopped (the endpoint is away); restart 1 of 3" in capsys.readouterr().out


def test_what_stays_is_said():
    with pytest.raises(StorageError, match="away"):
        fit([StorageError("away")] * 2, restarts=1)
    with pytest.raises(TrainingError, match=r"training at /nowhere stopped: (.|\n)*RuntimeError: odd\n.*are kept"):
        fit([RuntimeError("odd")] * 2, restarts=1)


def test_what_cannot_get_better_is_not_tried_again():
    with pytest.raises(ConfigError, match="wrong"):
        fit([ConfigError("wrong"), AssertionError("tried again")])


def test_what_a_killed_attempt_with_workers_left_is_removed(tmp_path):
    left = tmp_path / ".ray" / "x" / "snapshot"
    left.parent.mkdir(parents=True)
    left.touch()
    config = Config(storage=str(tmp_path))
    train(lambda config, **stage: None, config)
    assert not left.parent.exists()
