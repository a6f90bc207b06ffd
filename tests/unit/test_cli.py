import pytest

from dcae15.command_line import parse, run_script
from dcae15.errors import ConfigError, DataError

INPUTS = {"images": "the image set", "autoencoder": "the trained autoencoder"}


def test_files_merge_in_order_and_words_win(tmp_path):
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text("seed: 1\nname: first\nsampling: {steps: 3}\n")
    second.write_text("seed: 2\n")
    command = parse(["--config", str(first), "sampling.steps=9", "--config", str(second), "--dry-run"], "Train.")
    assert (command.config.seed, command.config.name, command.config.sampling.steps) == (2, "first", 9)
    assert command.origins == {"seed": str(second), "name": str(first), "sampling.steps": "command line"}
    assert command.dry_run
    assert not parse([], "Train.").dry_run


def test_an_input_may_bear_a_sections_name():
    command = parse(
        ["images=s3://b/i", "autoencoder=/a=b", "autoencoder.flip=false", "seed=3"],
        "Cache.",
        inputs=INPUTS,
    )
    assert command.inputs == {"images": "s3://b/i", "autoencoder": "/a=b"}
    assert command.config.autoencoder.flip is False
    assert command.config.seed == 3


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
        parse(words, "Cache.", inputs=INPUTS)
    assert message in str(caught.value)


def test_optional_inputs_may_be_left_out():
    assert parse([], "Evaluate.", optional_inputs={"denoiser": "the denoiser"}).inputs == {}
    assert parse(["denoiser=x"], "Evaluate.", optional_inputs={"denoiser": "d"}).inputs == {"denoiser": "x"}


def test_only_relevant_sections_are_checked_and_others_warned_about():
    command = parse(["diffusion.prefix.first=2"], "Train.", sections=["data", "autoencoder"])
    assert any("diffusion.prefix.first has no effect in this script" in warning for warning in command.warnings)
    with pytest.raises(ConfigError):
        parse(["diffusion.prefix.first=2"], "Train.")


def test_help_shows_inputs_and_relevant_fields(capsys):
    with pytest.raises(SystemExit) as caught:
        parse(["--help"], "Cache the latents.", sections=["latents"], inputs=INPUTS)
    text = capsys.readouterr().out
    assert caught.value.code == 0
    for part in ("Cache the latents.", "images=URI  the image set", "--dry-run", 'latents.dtype="float16"', "seed=0"):
        assert part in text
    assert "diffusion.scaling" not in text


def test_print_config_shows_values_origins_and_no_secrets(capsys):
    with pytest.raises(SystemExit) as caught:
        parse(["--print-config", "seed=4", "storage=s3://key:secret@bucket/x"], "Train.", inputs=INPUTS)
    text = capsys.readouterr().out
    assert caught.value.code == 0
    assert "seed: 4  # command line" in text
    assert "baseline: true  # default" in text
    assert "secret" not in text


def outcome(run, argv, capsys):
    code = run_script(run, "Train.", argv=argv)
    return code, capsys.readouterr().err


def test_errors_are_one_message_and_an_exit_code(capsys):
    def fail(error):
        def run(command):
            raise error

        return run

    ran = []
    assert outcome(ran.append, ["seed=7"], capsys) == (0, "")
    assert ran[0].config.seed == 7
    code, text = outcome(ran.append, ["seed=-7"], capsys)
    assert (code, text) == (2, "error: seed is -7; it must be at least 0\n")
    assert len(ran) == 1
    code, text = outcome(fail(DataError("s3://key:secret@bucket is empty")), [], capsys)
    assert (code, text) == (1, "error: s3://***@bucket is empty\n")
    code, text = outcome(fail(KeyboardInterrupt()), [], capsys)
    assert code == 130
    assert "Traceback" not in text
    with pytest.raises(ZeroDivisionError):  # a bug keeps its traceback
        run_script(fail(ZeroDivisionError()), "Train.", argv=[])


def test_warnings_are_said_before_the_work(capsys):
    code, text = outcome(lambda command: None, ["data.store_side=64"], capsys)
    assert code == 0
    assert text.startswith("warning: data.store_side: no effect")


def test_an_unknown_option_exits_with_usage(capsys):
    with pytest.raises(SystemExit) as caught:
        parse(["--resume"], "Train.")
    assert caught.value.code == 2
    assert "--resume" in capsys.readouterr().err


def test_a_scripts_own_flags(capsys):
    flags = {"validate-only": "look at every image, write nothing"}
    assert parse(["--validate-only", "seed=1"], "Prepare.", flags=flags).flags == {"validate-only"}
    assert parse([], "Prepare.", flags=flags).flags == frozenset()
    with pytest.raises(SystemExit):
        parse(["--help"], "Prepare.", flags=flags)
    assert "look at every image" in capsys.readouterr().out


def test_what_is_given_need_not_fit_what_is_configured():
    """A stage that opens the artifacts checks them; the fields beside them speak of others."""
    size = "data.resolution=36"
    preset = "autoencoder.preset=dc-ae-f64c128-1.5"  # the default images have 32 pixels
    inputs = {**INPUTS, "latents": "the latents"}
    for words in ([size, "images=x"], [preset, "images=x"], [size, "autoencoder=x"], [size, "latents=x"]):
        parse(words, "Cache.", optional_inputs=inputs)
        with pytest.raises(ConfigError, match=r"data\.resolution is"):
            parse(words[:1], "Cache.", optional_inputs=inputs)
    choices = "diffusion.prefix.choices=[8,16]"
    parse([choices, "latents=x"], "Train.", optional_inputs=inputs)
    with pytest.raises(ConfigError, match=r"diffusion\.prefix\.choices"):
        parse([choices], "Train.", optional_inputs=inputs)
