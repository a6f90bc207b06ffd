from pathlib import Path

import pytest

from dcae15.config import (
    Config,
    active_fields,
    autoencoder_spec,
    build,
    check,
    dump,
    field_type,
    fields_help,
    fingerprint,
    from_overrides,
    from_yaml,
    leaves,
    warnings_for,
)
from dcae15.errors import ConfigError
from dcae15.redaction import redact


def configured(*overrides):
    return build([from_overrides(overrides)])[0]


def refusal(*overrides, sections=None):
    with pytest.raises(ConfigError) as caught:
        check(configured(*overrides), sections)
    return str(caught.value)


def test_defaults_pass_without_warnings():
    check(configured())
    assert warnings_for(configured()) == []


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["data.resolution=36"], ["data.resolution is 36", "32 or 40"]),
        (["latents.resolution=20"], ["latents.resolution is 20, not a multiple", "8"]),
        (["latents.resolution=64"], ["latents.resolution is 64, larger than", "32 pixels"]),
        (["latents.resolution=8", "diffusion.denoiser.patch_size=2"], ["side 1 (latents.resolution 8 / 8)"]),
        (["data.resolution=4"], ["data.resolution is 4", "use 8"]),
        (
            ["autoencoder.encoder_widths=[24,24,48]"],
            ["autoencoder.encoder_widths has 3", "encoder_depths has 4", "one number for each stage"],
        ),
        (
            ["autoencoder.encoder_blocks=[ResBlock,EViTGLU]"],
            ["autoencoder.encoder_blocks", "has 2 stages", "widths has 4", "or one for all"],
        ),
        (
            ["autoencoder.decoder_blocks=[EViTGUL]"],
            ["autoencoder.decoder_blocks[0] is 'EViTGUL'", "did you mean 'EViTGLU'"],
        ),
        (["autoencoder.decoder_norms=[bn2d]"], ["autoencoder.decoder_norms[0] is 'bn2d'", "'batch_norm'"]),
        (["autoencoder.out_act=gelu"], ["autoencoder.out_act is 'gelu'", "'silu' or 'relu'"]),
        (
            ["autoencoder.latent_shortcuts=true", "autoencoder.latent_channels=24"],
            ["autoencoder.encoder_widths[3] = 64", "latent_channels = 24", "set latent_shortcuts to false"],
        ),
        (["autoencoder.prefix.choices=[8,4,32]"], ["autoencoder.prefix.choices", "ascending"]),
        (["autoencoder.prefix.choices=[4,16]"], ["autoencoder.prefix.choices", "all 32 channels"]),
        (["autoencoder.prefix.choices=[4,64]"], ["autoencoder.prefix.choices", "all 32 channels"]),
        (["autoencoder.prefix.first=40"], ["autoencoder.prefix.first is 40", "32 channels"]),
        (["autoencoder.prefix.step=0"], ["autoencoder.prefix.step is 0", "at least 1"]),
        (["diffusion.prefix.draws=0"], ["diffusion.prefix.draws is 0"]),
        (["diffusion.prefix.first=2"], ["diffusion.prefix draws [2, 6,", "autoencoder.prefix"]),
        (["diffusion.training.batch_size=0"], ["diffusion.training.batch_size is 0"]),
        (["autoencoder.training.warmup_images=64001"], ["autoencoder.training.warmup_images is 64001"]),
        (["autoencoder.training.images=10", "autoencoder.training.warmup_images=0"], ["less than one batch"]),
        (["data.val_fraction=1"], ["data.val_fraction is 1;", "below 1"]),
        (["autoencoder.training.learning_rate=.nan"], ["autoencoder.training.learning_rate", "finite"]),
        (["diffusion.denoiser.heads=3"], ["diffusion.denoiser.width = 128", "heads = 3", "change one of them"]),
        (["diffusion.denoiser.width=130"], ["diffusion.denoiser.width = 130", "divisible by 4", "128 or 132"]),
        (["diffusion.denoiser.patch_size=3"], ["diffusion.denoiser.patch_size 3", "side 4"]),
        (["sampling.guidance_end=0"], ["sampling.guidance_start 0.0", "sampling.guidance_end 0.0"]),
        (["sampling.prefix=33"], ["sampling.prefix is 33", "32"]),
        (["sampling.images=3"], ["sampling.images is 3", "evaluation.neighbours 3"]),
        (["evaluation.milestone_images=3"], ["evaluation.milestone_images is 3", "evaluation.neighbours 3"]),
        (["diffusion.denoiser.class_dropout=0"], ["sampling.guidance is 3.0", "class_dropout 0"]),
        (["scaling.encoders=[3,2]"], ["scaling.encoders is [3, 2]"]),
        (["scaling.encoders=[1]"], ["scaling.encoders is [1]"]),
        (["scaling.num_workers=65"], ["scaling.num_workers 65", "autoencoder.training.batch_size"]),
        (["autoencoder.training.schedule=cosin"], ["autoencoder.training.schedule", "did you mean 'cosine'?"]),
        (["autoencoder.preset=dc-ae"], ["autoencoder.preset is 'dc-ae'", "dc-ae-f32c128-1.5"]),
        (["data.shapes.resolution=8", "data.min_side=16"], ["data.shapes.resolution is 8", "data.min_side 16"]),
        (["data.crop=random", "data.store_side=16"], ["data.store_side is 16", "data.resolution 32"]),
        (["data.source="], ["data.source is empty"]),
        (["storage="], ["storage is empty"]),
        (["name=a b"], ["name is 'a b'"]),
        (["autoencoder.prefix.kind=weighted"], ["autoencoder.prefix.kind is 'weighted'", "diffusion.prefix.kind only"]),
        (["autoencoder.prefix.choice_weights=[1,2]"], ["autoencoder.prefix.choice_weights is [1.0, 2.0]", "8 choices"]),
        (["autoencoder.phases=[{parts: [decode]}]"], ["autoencoder.phases[0].parts has 'decode'", "'decoder'"]),
        (["autoencoder.losses.l1=0"], ["autoencoder.losses.l1", "nothing asks for the image"]),
        (["autoencoder.losses.perceptual.weight=1"], ["autoencoder.losses.perceptual.vgg is empty", "download"]),
        (["diffusion.milestones=[3,2]"], ["diffusion.milestones [3, 2]", "ascending"]),
        (["diffusion.milestones=[9999999]"], ["diffusion.milestones ends with 9,999,999", "train longer"]),
        (["arms=[baselin]"], ["arms[0] is 'baselin'", "'baseline' or 'random'", "did you mean 'baseline'?"]),
        (["arms=[random,random]"], ["arms is [random, random]", "once"]),
    ],
)
def test_each_contradiction_is_refused_by_name(overrides, named):
    message = refusal(*overrides)
    for part in named:
        assert part in message


def test_all_problems_are_told_at_once():
    ranges = refusal("seed=-1", "sampling.steps=0")
    assert [line.split(" is ")[0] for line in ranges.splitlines()] == ["seed", "sampling.steps"]
    rules = refusal("name=a b", "autoencoder.preset=none", "sampling.guidance_end=0", "scaling.encoders=[1]")
    assert len(rules.splitlines()) == 4, "what does not ask the graph is checked beside a wrong graph"


def test_rules_between_sections_count_only_where_both_matter():
    overrides = ["data.resolution=36", "diffusion.prefix.first=2"]
    check(configured(*overrides), sections={"autoencoder"})
    assert "spatial compression" in refusal(*overrides, sections={"autoencoder", "data"})
    check(configured("diffusion.training.images=10"), sections={"data"})
    check(configured(*overrides[1:], "sampling.images=3", "diffusion.denoiser.width=130", "diffusion.enabled=false"))


def test_prefixes_of_the_diffusion_may_be_a_subset_or_free_when_the_autoencoder_has_none():
    check(configured("diffusion.prefix.choices=[8,32]"))
    arm = configured("autoencoder.prefix.kind=none", "diffusion.prefix.choices=[7,32]")
    check(arm)
    assert any("diffusion.prefix.kind" in warning for warning in warnings_for(arm))


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["sampling.prefix=5"], "sampling.prefix 5 is not among the prefixes"),
        (["sampling.images=100"], "sampling.images is 100: Fréchet distances"),
        (["data.limit=100"], "evaluation.reconstruction_images 1000 is more than the 100 validation images"),
        (["data.shapes.resolution=64"], "data.shapes.resolution 64 is not data.resolution 32"),
        (
            ["autoencoder.prefix.kind=random", "arms=[baseline,random]"],
            "arms names 'random', which is no other training",
        ),
    ],
)
def test_unusual_values_are_warned_about(overrides, words):
    config = configured(*overrides)
    check(config)
    assert any(words in warning for warning in warnings_for(config))


def test_a_preset_says_its_compression_and_channels():
    for words, expected in (["autoencoder.preset=dc-ae-f64c128-1.5"], (64, 128)), ([], (8, 32)):
        spec = autoencoder_spec(configured(*words).autoencoder)
        assert (spec.spatial_compression, spec.latent_channels) == expected


def test_later_layers_win_and_origins_tell_who():
    layers = [
        from_yaml("seed: 1\nname: file\nautoencoder:\n  training: {images: 1e4}\ndata:\n", "a.yaml"),
        from_yaml("autoencoder.prefix.choices: [8, 32]\nscaling: {use_gpu: no}\n", "b.yaml"),
        from_overrides(["seed=2", "name=007", "diffusion.prefix.choices=[32]", "tracking.uri="]),
    ]
    config, origins = build(layers)
    assert (config.seed, config.name, config.autoencoder.training.images) == (2, "007", 10_000)
    assert (config.autoencoder.prefix.choices, config.diffusion.prefix.choices) == ([8, 32], [32])
    assert (config.scaling.use_gpu, config.tracking.uri) == ("no", "")
    assert origins["autoencoder.training.images"] == "a.yaml"
    assert origins["scaling.use_gpu"] == "b.yaml"
    assert origins["seed"] == "command line"
    assert "data.resolution" not in origins


def test_interpolations_are_resolved(monkeypatch):
    monkeypatch.setenv("DCAE15_STORAGE", "/somewhere")
    assert configured().storage == "/somewhere"
    assert configured("data.shapes.resolution=${data.resolution}", "data.resolution=64").data.shapes.resolution == 64
    monkeypatch.delenv("DCAE15_STORAGE")
    assert configured().storage == "~/dcae15"
    with pytest.raises(ConfigError, match=r"storage .*NOT_THERE"):
        configured("storage=${oc.env:NOT_THERE}")
    with pytest.raises(ConfigError, match=r"data\.resolution"):
        configured("data.resolution=${data.resolution}")


def test_a_value_left_open_must_be_given():
    open_layer = from_yaml("data:\n  source: ???\n", "imagenet.yaml")
    with pytest.raises(ConfigError, match=r"data\.source must be given.*imagenet\.yaml"):
        build([open_layer])
    assert build([open_layer, from_overrides(["data.source=/images"])])[0].data.source == "/images"


@pytest.mark.parametrize(
    ("override", "hint"),
    [
        ("autoencoder.training.lr=1", "did you mean autoencoder.training.learning_rate?"),
        ("autoencoder.training.warmup=1", "did you mean autoencoder.training.warmup_images?"),
        ("autoencodr.training.batch_size=1", "did you mean autoencoder.training.batch_size?"),
        ("learning_rate=1", "autoencoder.training.learning_rate or diffusion.training.learning_rate"),
        ("guidance=1", "sampling.guidance"),
        ("qqqq=1", "--help"),
        ("autoencoder=1", "autoencoder (command line) is a section"),
        ("resume", "'resume' is not key=value"),
        ("baseline=false", "name the controls to train: arms=[baseline, random], or [] for none"),
        ("random_control=true", "arms=[baseline, random]"),
    ],
)
def test_unknown_keys_name_the_nearest(override, hint):
    with pytest.raises(ConfigError) as caught:
        from_overrides([override])
    assert hint in str(caught.value)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("data.resolution=big", "a whole number"),
        ("data.resolution=1.5", "a whole number"),
        ("data.resolution=true", "a whole number"),
        ("data.resolution=", "a whole number"),
        ("sampling.guidance=[1]", "a number"),
        ("latents.mirror=maybe", "true or false"),
        ("scaling.use_gpu=maybe", "'auto' or 'yes' or 'no'"),
        ("arms=baseline", "a list of words among [baseline, random]"),
        ("arms=[1]", "'baseline' or 'random'"),
        ("autoencoder.phases=3", "a list of phases"),
        ("autoencoder.encoder_widths=24", "a list of whole numbers"),
        ("autoencoder.encoder_widths=[a]", "a whole number"),
        ("autoencoder.prefix.choice_weights=[true]", "a list of numbers"),
    ],
)
def test_wrong_types_name_field_value_and_expectation(override, expected):
    path, _, value = override.partition("=")
    with pytest.raises(ConfigError) as caught:
        configured(override)
    message = str(caught.value)
    assert message.startswith((f"{path} is ", f"{path}[0] is "))
    assert f"it must be {expected}" in message
    assert value.strip("[]") in message.replace("True", "true")


@pytest.mark.parametrize(
    "text", ["- a\n", "words", "a: [", "seed: 1\nseed: 2\n", "data: 3", "name: ${oc.env", "sed: 3"]
)
def test_a_broken_file_is_named(text):
    with pytest.raises(ConfigError, match=r"f\.yaml"):
        from_yaml(text, "f.yaml")


CONFIGS = Path(__file__).parents[2] / "pipelines" / "configs"


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("*.yaml")), ids=lambda file: file.stem)
def test_the_shipped_files_are_valid_and_without_idle_values(file):
    shipped = from_yaml(file.read_text(), file.name)
    imagenet = "imagenet" in file.stem
    vgg, heads = (f"autoencoder.losses.perceptual.{name}" for name in ("vgg", "heads"))
    given = from_overrides(["data.source=/images", f"{vgg}=/vgg.pth", f"{heads}=/heads.pth"] if imagenet else [])
    config, _ = build([shipped, given])
    check(config)
    assert warnings_for(config) == []
    if imagenet:
        with pytest.raises(ConfigError, match=rf"data\.source must be given(.|\n)*{vgg} must be given(.|\n)*{heads}"):
            build([shipped])
        build([shipped, from_overrides(["data.source=/images"])], sections=["data"])  # others' values may stay open
        phases = config.autoencoder.phases
        assert phases[0].parts == ["all"]
        assert phases[-1].parts == ["decoder_head"]
        assert [bool(phase.losses.adversarial.weight) for phase in phases] == [False] * (len(phases) - 1) + [True]
        assert all(phase.losses.perceptual.vgg == "/vgg.pth" and phase.prefix.kind == "prefix" for phase in phases)


def test_an_empty_file_changes_nothing():
    assert build([from_yaml("# only a comment\n", "f.yaml")])[0] == configured()


def test_dump_can_be_read_again_and_hides_secrets():
    config, origins = build([from_overrides(["sampling.guidance=6.4e-5", "tracking.uri=http://me:pw@host/", "name=0"])])
    text = dump(config, origins)
    assert "pw" not in text
    assert "guidance: 6.4e-05  # command line" in text
    again = build([from_yaml(text, "dump.yaml")])[0]
    assert again.changed(tracking=config.tracking) == config


def test_help_lists_every_field_of_the_sections_within_the_width():
    text = fields_help(None, 90)
    for path, _, _ in leaves(Config(), Config()):
        assert f"  {path}=" in text
    assert "autoencoder.phases[i].resolution=0  (int, pixels, >= 0)" in text
    assert 'sampling.solver="heun"  (str, euler | heun)' in text
    assert "autoencoder.encoder_widths=[16, 16, 32, 64]  (list[int], >= 1)" in text
    partial = fields_help({"latents"}, 90)
    assert "latents.mirror=false" in partial
    assert "seed=0  (int, >= 0)" in partial
    assert "diffusion." not in partial
    prose = [line for line in text.splitlines() if line.startswith("      ")]
    assert max(map(len, prose)) <= 90


def test_only_what_can_change_a_result_is_in_its_name():
    def name(*overrides):
        return fingerprint("x", active_fields(configured(*overrides), configured(*overrides)))

    assert name("scaling.num_workers=3", "sampling.batch_size=2", "autoencoder.phases=[]") == name()
    assert name("sampling.steps=3") != name() != fingerprint("y", active_fields(Config(), Config()))
    assert name("autoencoder.phases=[{}]") != name("autoencoder.phases=[{resolution: 16}]")


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("seed", "int"),
        ("arms", "list[str]"),
        ("sampling.solver", "str"),
        ("autoencoder.encoder_depths", "list[int]"),
        ("autoencoder.prefix.choice_weights", "list[float]"),
        ("autoencoder.phases[3].training.bf16", "bool"),
    ],
)
def test_the_type_of_a_field_by_its_path(path, kind):
    assert field_type(path) == kind


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("http://me:pw@host:5000/x", "http://***@host:5000/x"),
        ("at s3://AKIA:ab/c+d@bucket/key now", "at s3://***@bucket/key now"),
        ("https://token@host/x", "https://***@host/x"),
        ("http://host/x?a=1&X-Amz-Signature=abc&b=2", "http://host/x?a=1&X-Amz-Signature=***&b=2"),
        ("http://host:5000/a@b", "http://host:5000/a@b"),
        ("s3://bucket/key and me@example.org", "s3://bucket/key and me@example.org"),
    ],
)
def test_redact(text, masked):
    assert redact(text) == masked
