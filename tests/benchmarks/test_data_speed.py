"""The benchmark of latents runs; at these sizes its numbers mean nothing, but they must be those of all arms."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("data_speed.py")


def test_the_quick_run_measures_every_arm(tmp_path):
    out = tmp_path / "out.json"
    done = subprocess.run(
        [sys.executable, SCRIPT, "--quick", "--growth", "100", "300", "--json", out],
        env={**os.environ, "TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    assert result["quick"] and result["images"] == 64
    assert list(result["write"]) == ["shards, not synced", "npy, synced", "shards", "npy", "tar"]
    assert list(result["read"]) == list(result["read again"]) == ["shards", "npy", "tar"]
    for what in ("feed", "wait", "train"):
        assert list(result[what]) == ["shards", "npy, 0 workers", "npy, 2 workers"]
    for what in ("write", "read", "read again", "feed", "train"):
        assert all(rate["min"] > 0 for rate in result[what].values())
        for arm, found in result["ratios"].get(what, {}).items():
            assert found["median"] == pytest.approx(result[what]["shards"]["median"] / result[what][arm]["median"])
            assert f"| {what} | {arm} | {result[what][arm]['min']:,.0f}, " in done.stdout
    assert all(0 <= wait["min"] < 1 for wait in result["wait"].values())
    sizes = result["bytes_per_image"]
    assert sizes["npy"] >= 128 * 8 * 8 * 4 and 128 * 8 * 8 * 2 <= sizes["shards"] < sizes["tar"] < sizes["npy"]
    assert [(row["task"], row["images"]) for row in result["growth"]] == [
        (task, count) for count in (100, 300) for task in ("write", "read", "loader")
    ]
    assert all(row["memory_mib"] > 0 for row in result["growth"])
    assert not list(tmp_path.glob("dcae15-data-speed-*")), "its files are removed"
