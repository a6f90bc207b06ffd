"""The command line of sweeps: one sweep is named, and what is wrong with it is said in a sentence."""

from pathlib import Path
from unittest.mock import Mock

import pytest

from dcae15.cli import script
from dcae15.errors import ConfigError, TrainingError
from dcae15.sweep import run
from dcae15.sweep.command import open_sweep, parse

CONFIGS = Path(__file__).parents[3] / "pipelines" / "configs"
FILE = """
name: mine
space: {autoencoder.training.learning_rate: [1.0e-3, 2.0e-3]}
default_scale: small
scales: {small: {seeds: [0]}, large: {seeds: [0, 1]}}
"""


def parsed(*words):
    return parse(words, "Sweep.", CONFIGS)


def refusal(*words):
    with pytest.raises(ConfigError) as caught:
        parsed(*words)
    return str(caught.value)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(FILE)
    return str(path)


def test_a_study_is_opened_by_its_name_and_others_beside_it_at_the_same_scale():
    command = parsed("--scale", "laptop", "seed=3", "--study", "sparsity_metrics", "storage=/x")
    assert (command.sweep.name, command.sweep.scale, command.dry_run) == ("sparsity_metrics", "laptop", False)
    assert command.overrides == ("seed=3", "storage=/x")
    assert command.sweep.include
    assert {command.open(name).scale for name in command.sweep.include} == {"laptop"}


def test_a_file_is_opened_at_its_default_scale_or_another(file):
    command = parsed("--sweep", file, "--dry-run")
    assert (command.sweep.name, command.sweep.seeds, command.dry_run) == ("mine", (0,), True)
    assert parsed("--sweep", file, "--scale", "large").sweep.seeds == (0, 1)


def test_every_sweep_that_comes_along_has_a_name():
    assert open_sweep("channels_cpu", CONFIGS).name == "channels_cpu"
    assert parsed("--sweep", "channels_cpu").sweep == parsed("--study", "channels_cpu").sweep


def test_the_sweeps_own_keys_may_be_given_for_it(tmp_path):
    given = parsed("--study", "channel_count", "seeds=[5]", "concurrent=3", "sampling.steps=2")
    assert (given.sweep.seeds, given.sweep.concurrent, given.overrides) == ((5,), 3, ("sampling.steps=2",))
    assert "concurrent is 'many'; it must be a whole number" in refusal("--study", "channel_count", "concurrent=many")


@pytest.mark.parametrize("words", [(), ("seed=1",), ("--study", "sparsity", "--sweep", "mine.yaml")])
def test_one_sweep_must_be_named(words):
    message = refusal(*words)
    assert message.startswith("name one sweep: --study NAME with channel_count, convergence, ")
    assert message.endswith("or --sweep FILE")


def test_files_that_cannot_be_read(tmp_path):
    binary, broken = tmp_path / "binary.yaml", tmp_path / "broken.yaml"
    binary.write_bytes(b"\xff\xfe\x00name")
    broken.write_text("name: [")
    assert refusal("--sweep", str(binary)) == f"{binary} is not a text file"
    assert refusal("--sweep", str(broken)).startswith(f"{broken} is not valid YAML")
    assert refusal("--sweep", str(tmp_path / "*.yaml")).startswith(f"{tmp_path}/*.yaml cannot be read: ")


def test_help_lists_every_sweep_with_its_question(capsys):
    with pytest.raises(SystemExit) as caught:
        parsed("--help")
    assert caught.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for path in [*CONFIGS.glob("studies/*.yaml"), *CONFIGS.glob("sweeps/*.yaml")]:
        assert f"{path.stem} {open_sweep(path.stem, CONFIGS).question}" in text
    assert "docs/sweeps.md" in text and "--scale NAME" in text


def test_a_broken_study_stops_neither_the_others_nor_the_help(tmp_path, capsys):
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "good.yaml").write_text(f"{FILE}question: Why?")
    (tmp_path / "studies" / "broken.yaml").write_text("name: [")
    assert parse(["--study", "good"], "Sweep.", tmp_path).sweep.name == "mine"
    with pytest.raises(SystemExit) as caught:
        parse(["--help"], "Sweep.", tmp_path)
    text = " ".join(capsys.readouterr().out.split())
    assert caught.value.code == 0 and "good Why?" in text and "broken cannot be started: " in text


def test_an_unknown_option_exits_with_usage(capsys):
    with pytest.raises(SystemExit) as caught:
        parsed("--study", "sparsity", "--resume")
    assert caught.value.code == 2
    assert "--resume" in capsys.readouterr().err


def test_exit_codes(file, monkeypatch, capsys, tmp_path):
    def code_of(*words):
        code = script("sweep", [*words, f"storage={tmp_path}"])
        return code, capsys.readouterr()

    code, said = code_of("--sweep", file, "--dry-run")
    assert code == 0 and said.out.startswith("mine: 2 trials, grid search") and said.err == ""
    monkeypatch.setattr(run, "run_sweep", Mock(side_effect=TrainingError("no trial finished")))
    assert code_of("--sweep", file) == (1, ("", "error: no trial finished\n"))
    Path(file).write_text(FILE.replace("learning_rate", "learnin_rate"))
    code, said = code_of("--sweep", file)
    assert code == 2 and "did you mean autoencoder.training.learning_rate" in said.err, "nothing is run"
