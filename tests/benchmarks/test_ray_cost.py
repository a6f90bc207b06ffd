"""The benchmark of Ray's cost runs; at these sizes its numbers mean nothing, but they must be those of both arms."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.scripts import workplace

SCRIPT = Path(__file__).with_name("ray_cost.py")


@pytest.mark.ray
@pytest.mark.timeout(1200)
def test_the_quick_run_measures_both_arms_of_every_stage(tmp_path):
    out = tmp_path / "out.json"
    stages = ["train_autoencoder", "cache_latents", "train_diffusion"]
    with workplace(tmp_path, {"TMPDIR": str(tmp_path)}) as place:
        done = subprocess.run(
            [sys.executable, SCRIPT, "--quick", "--stages", *stages, "--json", out],
            env=place.environment(),
            capture_output=True,
            text=True,
            timeout=580,
        )
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    assert result["quick"]
    assert result["cpus"] == os.cpu_count()
    assert list(result["stages"]) == stages
    for name, stage in result["stages"].items():
        rates = {arm: stage["images_per_second"][arm]["median"] for arm in ("bare", "ray")}
        assert stage["ratio"] == pytest.approx(rates["ray"] / rates["bare"])
        assert min(rates.values()) > 0
        assert f"| {name} | ray |" in done.stdout
    assert not list(tmp_path.glob("dcae15-ray-cost-*")), "its images and artifacts are removed"
