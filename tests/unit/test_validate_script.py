"""prepare_images --validate-only: its exit codes."""

from __future__ import annotations

import contextlib
import importlib.util
from pathlib import Path

import pytest
from dcae15.command_line import run_script

from dcae15.errors import DataError
from dcae15.stages import image_check

SCRIPT = Path(__file__).parents[2] / "pipelines" / "prepare_images.py"


@pytest.fixture
def script():
    spec = importlib.util.spec_from_file_location("prepare_images_script", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return lambda *words: run_script(
        module.run, "Prepare.", sections=module.SECTIONS, flags=module.FLAGS, argv=["--validate-only", *words]
    )


def test_the_embedded_images_are_not_validated(script, capsys):
    assert script() == 2
    assert "embedded images need no validation; give data.source=" in capsys.readouterr().err


def test_a_dry_run_only_prints_the_plan(script, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(image_check, "Cluster", None)
    monkeypatch.chdir(tmp_path)
    assert script("--dry-run", "data.source=/photos") == 0
    assert "prepare_images" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fails", [True, False])
def test_the_exit_code_says_whether_preparing_would_fail(script, capsys, monkeypatch, fails):
    asked = []

    def look(config, cluster):
        asked.append((config.data.source, cluster))
        if fails:
            raise DataError("prepare_images would fail: all bad")
        return "prepare_images would succeed"

    monkeypatch.setattr(image_check, "Cluster", lambda config: contextlib.nullcontext("cluster"))
    monkeypatch.setattr(image_check, "validate", look)
    assert script("data.source=/photos") == int(fails)
    assert asked == [("/photos", "cluster")]
    told = capsys.readouterr()
    assert (told.err if fails else told.out).strip().endswith("would fail: all bad" if fails else "would succeed")
