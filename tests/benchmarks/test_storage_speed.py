import json

import pytest

from tests.benchmarks import storage_speed


@pytest.mark.s3
def test_every_operation_of_both_storages_gets_a_number(s3_server, tmp_path, monkeypatch, capsys):
    for name, value in s3_server.variables().items():
        monkeypatch.setenv(name, value)  # restored afterwards: the script sets those of a server of its own
    assert storage_speed.main(["--images", "256", "--rounds", "1", "--json", str(tmp_path / "numbers.json")]) == 0
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    assert {place: sorted(runs[0]) for place, runs in numbers.items()} == {
        place: sorted(storage_speed.OPERATIONS) for place in ("local", "s3")
    }
    assert all(rate > 0 for runs in numbers.values() for rate in runs[0].values())
    assert capsys.readouterr().out.count("\n") == 2 + len(storage_speed.OPERATIONS)
