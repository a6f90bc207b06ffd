"""The records of trials, and the names that people read."""

import dataclasses
import json
from pathlib import Path

import pytest

from dcae15 import storage
from dcae15.errors import StorageError
from dcae15.sweep.file import Sweep
from dcae15.sweep.records import label, read_record, read_records, record_uri, write_record
from dcae15.sweep.trials import Trial, make_trial

FULL = Trial(
    "0123456789",
    "mine",
    arm="ours, larger",
    seed=3,
    values={"diffusion.prefix.choices": [4, 8], "autoencoder.prefix.first": 4, "baseline": False},
    status="failed",
    error="first line\nsecond: ß",
    seconds=12.5,
    metrics={"frechet_distance.generated": 1.25, "precision.generated": float("nan")},
    curve=[{"images": 64.0, "frechet_distance.generated": 2.0}],
    stages={"sample": {"uri": "s3://b/images/1", "fingerprint": "f", "ran": True, "seconds": 1.0, "state": "done"}},
    command="python pipelines/full.py 'name=a b'",
    report="/reports/1/report.html",
    run_id="abc",
)


def text(record):
    return json.dumps(dataclasses.asdict(record), sort_keys=True)  # a NaN equals only its own text


@pytest.mark.parametrize("changes", [{}, {"status": "finished", "error": ""}], ids=str)
def test_a_record_comes_back_as_it_was(tmp_path, changes):
    write_record(str(tmp_path), FULL)
    write_record(str(tmp_path), dataclasses.replace(FULL, **changes))
    assert text(read_record(str(tmp_path), FULL.id)) == text(dataclasses.replace(FULL, **changes))


def test_records_are_listed_by_id_and_nothing_else_is(tmp_path):
    folder = str(tmp_path / "sweep")
    assert read_records(folder) == []
    made = [Trial(name, "mine", values={"seed": i}) for i, name in enumerate(("b", "a", "c"))]
    for record in made:
        write_record(folder, record)
    Path(folder, "trials", "notes.txt").write_text("mine")
    assert read_records(folder) == sorted(made, key=lambda record: record.id)
    assert sorted(path.name for path in Path(folder, "trials").glob("*.json")) == ["a.json", "b.json", "c.json"]


def test_a_missing_record_is_none_and_a_damaged_one_is_an_error(tmp_path):
    assert read_record(str(tmp_path), "nobody") is None
    storage.write_bytes(record_uri(str(tmp_path), "half"), b'{"id": "ha')
    with pytest.raises(StorageError, match=r"half\.json"):
        read_record(str(tmp_path), "half")


@pytest.mark.parametrize(
    ("sweep", "arm", "values", "seed", "name"),
    [
        (Sweep("s"), "", {"a.prefix.first": 4, "b.rate": 1e-3}, 0, "first=4, rate=0.001"),
        (Sweep("s", arms={"ours": {}}), "ours", {}, 0, "ours"),
        (Sweep("s", arms={"ours": {}}, seeds=(0, 1)), "ours", {"a.b": "x"}, 1, "ours, b=x, seed=1"),
        (Sweep("s", seeds=(7,)), "", {}, 7, "seed=7"),
    ],
)
def test_a_label_says_what_tells_trials_apart(sweep, arm, values, seed, name):
    trial = make_trial(sweep, values, arm, seed)
    assert label(sweep, trial) == name


def test_values_are_named_in_the_order_of_the_space_also_when_the_record_was_read_again(tmp_path):
    sweep = Sweep("s", space={"b.first": (1, 2), "a.second": (3, 4)})
    values = {"b.first": 1, "a.second": 3, "a.rates": [0.1]}
    write_record(str(tmp_path), Trial("x", "s", values=values))
    found = read_record(str(tmp_path), "x")
    assert found
    assert label(sweep, found) == label(sweep, make_trial(sweep, values)) == "first=1, second=3, rates=[0.1]"
