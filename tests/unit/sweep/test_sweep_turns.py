"""Two drivers of the same sweep: one runs it, the other waits and then runs only what is left."""

import posixpath
import re
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from dcae15.artifacts import claims
from dcae15.artifacts.claims import claim
from dcae15.sweep import run
from dcae15.sweep.reading import sweep_from_yaml
from dcae15.sweep.records import write_record
from dcae15.sweep.run import dry_run, run_sweep
from dcae15.sweep.trials import Trial, make_trial

TEXT = """
name: mine
space: {autoencoder.training.learning_rate: [1.0e-3, 2.0e-3]}
metric: psnr.structured.all
mode: max
set: {arms: [], diffusion.enabled: false}
"""
SWEEP = sweep_from_yaml(TEXT, "")


def nothing_included(name):
    raise AssertionError(name)


def finished(rate, psnr):
    trial = make_trial(SWEEP, {"autoencoder.training.learning_rate": rate})
    metrics = {"psnr.structured.all": psnr}
    return Trial(trial.id, "mine", values=dict(trial.values), status="finished", metrics=metrics, command=f"at {rate}")


def test_the_second_waits_and_finds_what_the_first_did(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "POLL_SECONDS", 0.01)
    words, told, holds, let_go = [f"storage={tmp_path}"], [], threading.Event(), threading.Event()
    (folder,) = re.findall(r"^records: (.*)$", dry_run(SWEEP, words, nothing_included), re.MULTILINE)

    def hold():
        with claim(str(tmp_path), f"sweep-{posixpath.basename(folder)}"):
            holds.set()
            let_go.wait(60)

    def say_and_finish(line, **options):
        told.append(line)
        if "waits: " in line:  # only now the other driver ends its trials
            for record in (finished(1e-3, 20.0), finished(2e-3, 21.0)):
                write_record(folder, record)
            let_go.set()

    monkeypatch.setattr(run, "print", say_and_finish, raising=False)
    monkeypatch.setattr(run, "require_ready", lambda config: pytest.fail("there is nothing left to run"))
    with ThreadPoolExecutor(1) as other_driver:
        other_driver.submit(hold)
        try:
            assert holds.wait(60)
            assert run_sweep(SWEEP, words, nothing_included) == f"{folder}/sweep.html"
        finally:
            let_go.set()
    assert re.fullmatch(r"mine-\w{8}: waits: process \d+ on \S+ makes it now", told[0])
    assert "rerun it: at 0.002" in told
