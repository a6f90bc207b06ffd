"""Text is text: fields of texts hold what was written, whatever YAML takes it for, in words, files and sweeps."""

import shlex

import pytest

from dcae15.config import build, check, from_overrides, from_yaml
from dcae15.errors import ConfigError
from dcae15.sweep.reading import sweep_from_yaml
from dcae15.sweep.trials import check_trials, trial_command, trial_config

NAMES = ["no", "001", "1e3", "yes", "on", "null", "~", "1_000", "0x1F", "12:30", "2020-01-01", "off", ".nan", "+1", "N"]
WRITTEN = f"[{', '.join(NAMES)}]"


def from_file(text):
    return build([from_yaml(text, "f.yaml")])[0]


def from_words(*words):
    return build([from_overrides(words)])[0]


def test_class_names_stay_what_they_are_in_words_and_in_files():
    assert from_words(f"data.classes={WRITTEN}").data.classes == NAMES
    assert from_file(f"data: {{classes: {WRITTEN}}}").data.classes == NAMES
    lines = "".join(f"    - {name}\n" for name in NAMES)
    assert from_file(f"data:\n  classes:\n{lines}").data.classes == NAMES
    assert from_file(f"data.classes: {WRITTEN}").data.classes == NAMES


def test_quoted_texts_stay_quoted_and_interpolations_are_resolved(monkeypatch):
    monkeypatch.setenv("WHICH", "a cat")
    written = "['no', \"001\", '', ' x ', '${oc.env:WHICH}', \"${seed}\", !!str 3]"
    expected = ["no", "001", "", " x ", "a cat", "0", "3"]
    assert from_words(f"data.classes={written}").data.classes == expected
    assert from_file(f"data.classes: {written}").data.classes == expected
    assert from_file("name: ${seed}\nseed: 010").name == "10", "zeros before a number say nothing"


@pytest.mark.parametrize("text", ["001", "no", "1e3", "0x1F", "2020-01-01", "null", "1_000"])
def test_a_field_of_text_takes_what_was_typed(text):
    for path in ("name", "storage", "tracking.experiment", "data.source"):
        section, _, leaf = path.rpartition(".")
        for config in (from_words(f"{path}={text}"), from_file(f"{path}: {text}"), from_file(f"{path}: '{text}'")):
            assert getattr(getattr(config, section) if section else config, leaf) == text
    phases = f"[{{name: {text}, parts: [all]}}]"
    assert from_words(f"autoencoder.phases={phases}").autoencoder.phases[0].name == text
    assert from_file(f"autoencoder: {{phases: {phases}}}").autoencoder.phases[0].name == text


def test_an_empty_value_is_an_empty_text_and_no_number():
    assert from_file("tracking:\n  uri:\n").tracking.uri == ""
    with pytest.raises(ConfigError, match=r"seed is empty \(f\.yaml\)"):
        from_file("seed:\n")


def test_merged_and_repeated_parts_keep_their_spelling():
    text = (
        "data: &shared\n  classes: &names [no, 001]\nautoencoder.phases:\n- &one {name: 010}\n- {<<: *one, flip_: 1}\n"
    )
    with pytest.raises(ConfigError, match=r"autoencoder\.phases\[1\]\.flip_"):
        from_file(text)
    config = from_file(text.replace(", flip_: 1", ", resolution: 0x10"))
    assert [(phase.name, phase.resolution) for phase in config.autoencoder.phases] == [("010", 0), ("010", 16)]
    assert config.data.classes == ["no", "001"]


@pytest.mark.parametrize(("text", "expected"), [("no", "no"), ("yes", "yes"), ("false", "no"), ("true", "yes")])
def test_words_among_which_yes_and_no_are_may_be_said_by_true_and_false(text, expected):
    assert from_file(f"scaling.use_gpu: {text}").scaling.use_gpu == expected


def test_words_to_choose_from_are_shown_as_typed():
    with pytest.raises(ConfigError, match=r"sampling\.solver is '1e3'; it must be 'euler' or 'heun'"):
        from_file("sampling.solver: 1e3")
    with pytest.raises(ConfigError, match=r"arms\[0\] is 'no'; it must be"):
        from_words("arms=[no]")


SWEEP = """
name: 001
question: 1e3
set: {data.source: 1e3, data.classes: [no, 001, yes]}
arms: {no: {tracking.experiment: 1_0}, 007: {}}
space: {data.kind: [list, folder], autoencoder.initial: [010, on]}
default_scale: 1
scales: {1: {}, 2: {}}
figures: [{kind: per_arm, measures: psnr.no.all, title: 010}]
"""


def test_in_sweeps_too():
    sweep = sweep_from_yaml(SWEEP, "sweep.yaml")
    assert (sweep.name, sweep.question, sweep.scale, sweep.figures[0].title) == ("001", "1e3", "1", "010")
    assert list(sweep.arms) == ["no", "007"] and sweep.space["autoencoder.initial"] == ("010", "on")
    trials = check_trials(sweep, [])[0]
    assert len(trials) == 8
    for trial in trials:
        config = trial_config(sweep, trial, [])
        assert config.data.classes == ["no", "001", "yes"] and config.data.source == "1e3"
        assert config.tracking.experiment == {"no": "1_0", "007": "dcae15"}[trial.arm]
        assert config.autoencoder.initial == trial.values["autoencoder.initial"]
        check(config)
        words = [word for word in shlex.split(trial_command(sweep, trial, [])) if "=" in word]
        assert from_words(*words) == config, "its command says the same"


@pytest.mark.parametrize(("word", "limit"), [("010", 10), ("08", 8), ("1_000", 1000), ("0x20", 32), ("-0", 0)])
def test_numbers_are_read_as_people_read_them(word, limit):
    assert build([from_overrides((f"data.limit={word}",))])[0].data.limit == limit


def test_times_of_day_are_no_numbers():
    with pytest.raises(ConfigError, match=r"data\.limit"):
        build([from_overrides(("data.limit=1:30",))])
