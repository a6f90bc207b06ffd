"""prepare_images --validate-only: its exit codes."""

from __future__ import annotations

import contextlib

import pytest

from dcae15 import cli, cluster
from dcae15.errors import DataError
from dcae15.stages import image_check


def script(*words: str) -> int:
    return cli.script("prepare_images", ["--validate-only", *words])


def test_the_embedded_images_are_not_validated(capsys):
    assert script() == 2
    assert "embedded images need no validation; give data.source=" in capsys.readouterr().err


def test_a_dry_run_looks_at_nothing(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(cluster, "Cluster", None)
    monkeypatch.chdir(tmp_path)
    assert script("--dry-run", "data.source=/photos") == 0
    assert "would look at every image of /photos" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fails", [True, False])
def test_the_exit_code_says_whether_preparing_would_fail(capsys, monkeypatch, fails):
    asked = []

    def look(config, joined):
        asked.append((config.data.source, joined))
        if fails:
            raise DataError("prepare_images would fail: all bad")
        return "prepare_images would succeed"

    monkeypatch.setattr(cluster, "Cluster", lambda config: contextlib.nullcontext("cluster"))
    monkeypatch.setattr(image_check, "check_images", look)
    assert script("data.source=/photos") == int(fails)
    assert asked == [("/photos", "cluster")]
    told = capsys.readouterr()
    assert (told.err if fails else told.out).strip().endswith("would fail: all bad" if fails else "would succeed")
