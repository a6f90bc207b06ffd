"""The benchmark of the autoencoder runs; at these sizes its numbers mean nothing, but they must be those of both arms."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks import autoencoder_speed

SCRIPT = Path(__file__).with_name("autoencoder_speed.py")
SWITCHES = "bf16+channels_last+activation_checkpointing"


def test_the_quick_run_measures_both_arms_without_ray(tmp_path):
    (tmp_path / "ray.py").write_text("raise ImportError('no Ray here')")
    out = tmp_path / "out.json"
    operations = ["encode", "train_step"]
    words = ["--quick", "--device", "cpu", "--switches", SWITCHES, "--operations", *operations, "--rounds", "2"]
    done = subprocess.run(
        [sys.executable, SCRIPT, *words, "--json", out],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    assert result["arms"] == ["ours", "diffusers"]
    model = result["models"]["tiny"]
    assert model["latent_shape"] == [4, 8, 8]
    assert model["macs"]["ours"] == model["macs"]["diffusers"]
    assert list(model["runs"]) == [SWITCHES]
    assert list(model["runs"][SWITCHES]) == operations
    for operation, found in model["runs"][SWITCHES].items():
        rates = found["images_per_second"]
        assert [len(rates[arm]) for arm in result["arms"]] == [2, 2]
        ratios = [a / b for a, b in zip(rates["ours"], rates["diffusers"], strict=True)]
        assert found["ratio"]["min"] == pytest.approx(min(ratios))
        assert min(found["peak_bytes"].values()) > 0
        assert f"| tiny | {SWITCHES} | 2 | {operation} |" in done.stdout


def test_without_diffusers_its_arm_is_left_out(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert autoencoder_speed.main(["--quick", "--device", "cpu", "--operations", "encode"]) == 0
    printed = capsys.readouterr()
    assert "diffusers is not installed" in printed.err
    assert "| tiny | plain | 2 | encode |" in printed.out
    assert "diffusers" not in printed.out


def test_the_work_is_that_of_the_convolutions():
    block = 2 * 9  # two 3x3 convolutions
    expected = (
        9 * 3 * 2 * 32**2 + block * 8 * 8 * 16**2 + 9 * 8 * 4 * 16**2 + block * 16 * 16 * 8**2 + 9 * 16 * 4 * 8**2
    )
    assert autoencoder_speed.size("tiny", 32, ("ours",))["macs"]["ours"]["encode"] == expected


def test_sizes_of_a_published_model_need_no_computation():
    small, large = (autoencoder_speed.size("dc-ae-f64c128-1.5", side, ("ours",)) for side in (256, 512))
    assert (small["latent_shape"], large["latent_shape"]) == ((128, 4, 4), (128, 8, 8))
    assert small["parameters"] == large["parameters"] > 100e6
    assert large["macs"]["ours"]["decode"] == 4 * small["macs"]["ours"]["decode"]


def test_unknown_switches_are_named(capsys):
    with pytest.raises(SystemExit):
        autoencoder_speed.main(["--switches", "bf16+fast"])
    assert "fast: use plain, or bf16, channels_last" in capsys.readouterr().err
