"""evaluate on a real Ray with autoencoders alone: the arms by role, and the numbers in MLflow."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.scripts import REPOSITORY, workplace
from tests.unit.evaluation.test_evaluate_run import autoencoder, image_set

pytestmark = [pytest.mark.ray, pytest.mark.timeout(1200)]

SCRIPT = """
import sys
from dcae15 import tracking
from dcae15.config import build, from_overrides
from dcae15.cluster import Cluster
from dcae15.stages.base import Context, Output
from dcae15.stages.evaluation import STAGE

root = sys.argv[1]
config = build([from_overrides([f"storage={root}", "evaluation.feature_images=64", "evaluation.channel_images=4"])])[0]
parent = tracking.start_pipeline_run(config, root, "test")
child = tracking.start_stage_run(parent, "evaluate", "f" * 16, {})
inputs = {"images": f"{root}/i", "autoencoder": f"{root}/a", "baseline": f"{root}/b", "random": f"{root}/c"}
with Cluster(config) as cluster:
    STAGE.run(Context(config, cluster, child), inputs, Output(f"{root}/evaluation", "f" * 16))
"""


def test_arms_without_a_denoiser_are_measured_and_tracked(tmp_path: Path):
    from mlflow import MlflowClient

    image_set(tmp_path / "i", {"train": 40, "val": 24})
    for name, choices in (("a", (2, 8)), ("b", (8,)), ("c", (8,))):
        autoencoder(tmp_path / name, 8, choices)
    with workplace(tmp_path / "cwd", {"PYTHONPATH": str(REPOSITORY)}) as place:
        command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
        done = subprocess.run(
            command, cwd=place.folder, env=place.environment(), capture_output=True, text=True, timeout=400
        )
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "evaluation" / "manifest.json").read_text())
    assert set(manifest["reconstruction"]) == {"structured", "baseline", "random"}
    assert manifest["prefixes"]["random"] == [1, 2, 4, 8], "measured where the structured arm is"
    assert manifest["generation"] == {}
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (run,) = client.search_runs(["1"], "tags.mlflow.runName = 'evaluate'")
    full = manifest["reconstruction"]["structured"][-1]
    assert run.data.metrics["evaluation/psnr.structured.c8"] == pytest.approx(full["psnr"])
    assert {"evaluation/psnr.random.c2", "evaluation/object_sparsity.baseline"} <= set(run.data.metrics)
