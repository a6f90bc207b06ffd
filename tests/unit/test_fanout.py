"""What is said when the workers of a task die again and again."""

from __future__ import annotations

import pickle

import pytest
import ray
from ray.exceptions import OutOfMemoryError, RayTaskError, WorkerCrashedError

from dcae15.data import sources
from dcae15.errors import DataError
from dcae15.orchestration import fanout, validate


class Task:
    """A remote function whose tasks end at once, and in an error where the item is bad."""

    def __init__(self, function, error):
        self.function, self.error = function, error

    def remote(self, item):
        return self.error if self.error and item == pickle.dumps("bad") else self.function(item)


@pytest.fixture
def cancelled():
    return []


@pytest.fixture
def results(monkeypatch, cancelled):
    """Call fan_out without Ray, with the error of the bad item."""

    def get(task):
        if isinstance(task, Exception):
            raise task
        return task

    def call(error):
        monkeypatch.setattr(ray, "remote", lambda **_: lambda function: Task(function, error))
        monkeypatch.setattr(ray, "wait", lambda tasks, num_returns: (tasks[:1], tasks[1:]))
        monkeypatch.setattr(ray, "get", get)
        monkeypatch.setattr(ray, "cancel", cancelled.append)
        return dict(fanout.fan_out("look", str.upper, ["good", "bad", "last"], 1, "files", lambda item: f"<{item}>"))

    return call


def test_results_come_with_their_places(results):
    assert results(None) == {0: "GOOD", 1: "BAD", 2: "LAST"}


@pytest.mark.parametrize("error", [WorkerCrashedError(), OutOfMemoryError("killed")])
def test_an_item_that_kills_its_workers_is_named(results, cancelled, error):
    with pytest.raises(DataError, match=rf"look: the worker of <bad> died each time \({type(error).__name__}\)"):
        results(error)
    assert cancelled == [pickle.dumps("LAST")]


def test_a_mistake_in_code_shows_its_trace(results):
    with pytest.raises(RayTaskError):
        results(RayTaskError("call", "trace", ValueError("x")))


def test_parts_are_named_by_their_ends():
    table = sources.rows(["a", "b", "c"], [0] * 3, "/x", [-1] * 3, [1] * 3)
    assert validate._between(table) == "the images from 'a' to 'c'"
