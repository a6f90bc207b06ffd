"""Every benchmark runs; at these sizes its numbers mean nothing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.scripts import workplace

SCRIPTS = {
    "autoencoder_speed": "--quick --device cpu --operations encode train_step --switches bf16+channels_last",
    "data_speed": "--quick",
    "decoding_speed": "--quick",
    "storage_speed": "--images 256 --rounds 1",
    "ray_cost": "--quick --stages cache_latents",
    "busy_neighbour": "--quick",
    "growth": "--images 64 --shard-images 16",
}
MARKS = {"storage_speed": pytest.mark.s3, "ray_cost": pytest.mark.ray, "growth": pytest.mark.ray}


@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", [pytest.param(name, marks=MARKS.get(name, ())) for name in SCRIPTS])
def test_a_benchmark_runs(name, tmp_path, request):
    if name == "storage_speed":
        request.getfixturevalue("s3_server")  # it is installed, or the test is skipped
    script, out = Path(__file__).with_name(f"{name}.py"), tmp_path / "out.json"
    with workplace(tmp_path / "cwd") as place:
        words = [*SCRIPTS[name].split(), "--json", str(out)]
        done = subprocess.run(
            [sys.executable, script, *words], env=place.environment(), capture_output=True, text=True, cwd=place.folder
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("| ") and len(done.stdout.splitlines()) >= 3, "a table with a row"
    assert json.loads(out.read_text())["numbers"]
