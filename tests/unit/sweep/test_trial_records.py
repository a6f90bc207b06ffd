"""The records of trials: what is written is read again, and what is not there is nothing."""

import pytest

from dcae15.errors import StorageError
from dcae15.sweep.records import TrialRecord, read_record, record_uri, write_record


def test_a_record_is_read_as_it_was_written_and_the_last_one_counts(tmp_path):
    folder = str(tmp_path / "sweeps" / "one")
    assert read_record(folder, "0123456789") is None
    first = TrialRecord("0123456789", "one", "arm", 3, {"autoencoder.prefix.first": 4}, status="running")
    write_record(folder, first)
    assert read_record(folder, first.id) == first
    last = TrialRecord(
        "0123456789",
        "one",
        status="finished",
        metrics={"psnr.structured.quarter": 20.5},
        curve=[{"images": 64.0, "frechet_distance.generated": 1.5}],
        stages={"train_diffusion": {"uri": "s3://b/d", "fingerprint": "x", "ran": True, "seconds": 1.5}},
    )
    write_record(folder, last)
    assert read_record(folder, first.id) == last
    assert read_record(folder, "another") is None


def test_a_record_that_is_damaged_is_said_not_taken_for_none(tmp_path):
    path = record_uri(str(tmp_path), "0123456789")
    (tmp_path / "trials").mkdir()
    (tmp_path / "trials" / "0123456789.json").write_text("{")
    with pytest.raises(StorageError, match=f"{path} is not valid JSON"):
        read_record(str(tmp_path), "0123456789")
