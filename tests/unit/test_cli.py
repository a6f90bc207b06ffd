import subprocess
import sys
from pathlib import Path

import pytest

from dcae15 import cli
from dcae15.cli import COMMANDS, Command, main, run_guarded, script
from dcae15.errors import ConfigError, DataError
from dcae15.stages import STAGES

ROOT = Path(__file__).parents[2]
INPUTS = {"images": "the image set", "autoencoder": "the trained autoencoder"}


def command(**fields):
    return Command("train", "Train.\n\nAt length.", lambda asked: None, **fields)


def parse(words, **fields):
    """What a command with these fields was asked to do."""
    return cli.parse(command(**fields), words)[0]


def test_files_merge_in_order_and_words_win(tmp_path):
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text("seed: 1\nname: first\nsampling: {steps: 3}\n")
    second.write_text("seed: 2\n")
    asked = parse(["--config", str(first), "sampling.steps=9", "--config", str(second), "--dry-run"])
    assert (asked.config.seed, asked.config.name, asked.config.sampling.steps) == (2, "first", 9)
    assert asked.dry_run
    assert not parse([]).dry_run


def test_an_input_may_bear_a_sections_name():
    asked = parse(
        ["images=s3://b/i", "autoencoder=/a=b", "autoencoder.flip=false", "seed=3"],
        required=INPUTS,
    )
    assert asked.inputs == {"images": "s3://b/i", "autoencoder": "/a=b"}
    assert asked.config.autoencoder.flip is False
    assert asked.config.seed == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["images=x"], "input 'autoencoder' is missing: the trained autoencoder"),
        (["images=", "autoencoder=x"], "input 'images' is empty"),
        (["imags=x", "autoencoder=x"], "did you mean 'images'"),
        (["images=x", "autoencoder=x", "go"], "'go' is not key=value"),
        (["images=x", "autoencoder=x", "data.val_fraction=2"], "data.val_fraction is 2"),
        (["images=x", "autoencoder=x", "--config", "nowhere.yaml"], "--config nowhere.yaml"),
    ],
)
def test_mistakes(words, message):
    with pytest.raises(ConfigError) as caught:
        parse(words, required=INPUTS)
    assert message in str(caught.value)


def test_optional_inputs_may_be_left_out():
    assert parse([], optional={"denoiser": "the denoiser"}).inputs == {}
    assert parse(["denoiser=x"], optional={"denoiser": "d"}).inputs == {"denoiser": "x"}


def test_only_relevant_sections_are_checked_and_others_warned_about():
    _, warnings = cli.parse(command(sections=("data", "autoencoder")), ["diffusion.prefix.first=2"])
    assert "diffusion.prefix.first has no effect in this script" in warnings
    with pytest.raises(ConfigError):
        parse(["diffusion.prefix.first=2"])


def test_help_shows_inputs_and_relevant_fields(capsys):
    with pytest.raises(SystemExit) as caught:
        parse(["--help"], sections=("latents",), required=INPUTS)
    text = capsys.readouterr().out
    assert caught.value.code == 0
    for part in ("Train.", "At length.", "images=URI  the image set", "--dry-run", 'latents.dtype="float16"', "seed=0"):
        assert part in text
    assert "diffusion.scaling" not in text


def test_print_config_shows_values_origins_and_no_secrets(capsys):
    with pytest.raises(SystemExit) as caught:
        parse(["--print-config", "seed=4", "storage=s3://key:secret@bucket/x"], required=INPUTS)
    text = capsys.readouterr().out
    assert caught.value.code == 0
    assert "seed: 4  # command line" in text
    assert 'arms: ["baseline"]  # default' in text
    assert "secret" not in text


def outcome(words, capsys, run=lambda asked: None):
    """Exit code and messages of a command by its name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(COMMANDS, "train", Command("train", "Train.", run))
        return script("train", words), capsys.readouterr().err


def test_errors_are_one_message_and_an_exit_code(capsys):
    def fail(error):
        def run(asked=None):
            raise error

        return run

    ran = []
    assert outcome(["seed=7"], capsys, ran.append) == (0, "")
    assert ran[0].config.seed == 7
    assert outcome(["seed=-7"], capsys, ran.append) == (2, "error: seed is -7; it must be at least 0\n")
    assert len(ran) == 1
    code, text = outcome([], capsys, fail(DataError("s3://key:secret@bucket is empty")))
    assert (code, text) == (1, "error: s3://***@bucket is empty\n")
    code, text = outcome([], capsys, fail(KeyboardInterrupt()))
    assert code == 130
    assert "Traceback" not in text
    with pytest.raises(ZeroDivisionError):  # a bug keeps its traceback
        run_guarded(fail(ZeroDivisionError()))


def test_warnings_are_said_before_the_work(capsys):
    said = []
    code, text = outcome(["data.store_side=64"], capsys, lambda asked: said.append(capsys.readouterr().err))
    assert (code, text) == (0, "")
    assert said[0].startswith("warning: data.store_side: no effect")


def test_an_unknown_option_exits_with_usage(capsys):
    with pytest.raises(SystemExit) as caught:
        parse(["--resume"])
    assert caught.value.code == 2
    assert "--resume" in capsys.readouterr().err


def test_a_scripts_own_flags(capsys):
    flags = {"validate-only": "look at every image, write nothing"}
    assert parse(["--validate-only", "seed=1"], flags=flags).flags == {"validate-only"}
    assert parse([], flags=flags).flags == frozenset()
    with pytest.raises(SystemExit):
        parse(["--help"], flags=flags)
    assert "look at every image" in capsys.readouterr().out


def test_what_is_given_need_not_fit_what_is_configured():
    """A stage that opens the artifacts checks them; the fields beside them speak of others."""
    size = "data.resolution=36"
    preset = "autoencoder.preset=dc-ae-f64c128-1.5"  # the default images have 32 pixels
    inputs = {**INPUTS, "latents": "the latents"}
    for words in ([size, "images=x"], [preset, "images=x"], [size, "autoencoder=x"], [size, "latents=x"]):
        parse(words, optional=inputs)
        with pytest.raises(ConfigError, match=r"data\.resolution is"):
            parse(words[:1], optional=inputs)
    choices = "diffusion.prefix.choices=[8,16]"
    parse([choices, "latents=x"], optional=inputs)
    with pytest.raises(ConfigError, match=r"diffusion\.prefix\.choices"):
        parse([choices], optional=inputs)


def test_one_command_line_for_all(capsys):
    assert main(["--help"]) == 0
    listed = capsys.readouterr().out
    assert [line.split()[0] for line in listed.splitlines()[3:] if line[2] != " "] == [
        "full",
        *(s.name for s in STAGES),
        "export",
        "sweep",
    ]
    assert main([]) == 2
    assert capsys.readouterr().out == listed
    assert main(["smaple"]) == 2
    assert capsys.readouterr().err.startswith("error: there is no command 'smaple'; did you mean 'sample'?")
    assert main(["sample", "seed=-1"]) == 2
    assert capsys.readouterr().err == "error: seed is -1; it must be at least 0\n"


@pytest.mark.parametrize("name", [*COMMANDS, "sweep"])
def test_every_command_has_a_script(name):
    assert (ROOT / "pipelines" / f"{name}.py").exists()


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("cache_latents", ["latents=x"], "latents=URI is for --verify; leave it out, or add --verify"),
        ("prepare_images", ["--validate-only"], "the embedded images need no validation; give data.source=..."),
        ("export", [], "the input 'to' is missing: folder to write"),
    ],
)
def test_variants_take_what_is_theirs(name, words, message, capsys):
    assert script(name, words) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code"), [(["full", "--help"], 0), (["full", "data.resolution=36", "autoencoder.prefix.first=40"], 2)]
)
def test_help_and_wrong_inputs_are_quick(words, code):
    """They load neither torch nor Ray, MLflow or pyarrow."""
    heavy = "{'torch', 'ray', 'mlflow', 'pyarrow'} & set(sys.modules)"
    program = (
        f"import atexit, sys\natexit.register(lambda: print({heavy}))\nfrom dcae15.cli import main\nsys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == code
    assert done.stdout.endswith("set()\n")


@pytest.mark.parametrize(
    ("called", "shown"), [("/env/bin/dcae15", "dcae15 sample"), ("x.py", "python pipelines/sample.py")]
)
def test_commands_are_named_as_the_user_called_them(called, shown, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", [called])
    with pytest.raises(SystemExit):
        cli.script("sample", ["--help"])
    assert capsys.readouterr().out.startswith(f"usage: {shown} [--config FILE]")
