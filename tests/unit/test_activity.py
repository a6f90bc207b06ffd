"""When a field has an effect: the rule stands with the field, advice and the names of results follow it; and the arms."""

import pytest

from dcae15.config import build, from_overrides, warnings_for, with_arm
from dcae15.plan import plan


def configured(*overrides):
    return build([from_overrides(overrides)])[0]


# What makes fields inactive, the reason that is given, the fields, and what else they need, so that they are active.
AE, GAN, LPIPS = "autoencoder.prefix", "autoencoder.losses.adversarial", "autoencoder.losses.perceptual"
DIFFUSION, PHASES = "diffusion.prefix", "autoencoder.phases=[{}, {training: {images: 6400}}]"
STEP = f"{AE}.per=step"
OWN_IMAGES = "data.source=/images"
RULES = [
    ("sampling.guidance=1", "sampling.guidance is 1", ["sampling.guidance_start=0.1", "sampling.guidance_end=0.5"], []),
    (
        f"{AE}.kind=none",
        f"{AE}.kind is 'none'",
        [
            f"{AE}.first=8",
            f"{AE}.step=8",
            f"{AE}.choices=[4,8,32]",
            STEP,
            f"{AE}.draws=2",
            f"{AE}.always_min_max=false",
        ],
        [],
    ),
    (f"{AE}.kind=none", f"{AE}.kind is 'none'", [f"{AE}.choice_weights=[1,1,1,1,1,1,1,2]"], []),
    (f"{AE}.kind=none", f"{AE}.kind is 'none'", [f"{AE}.draw_weights=[1,2]"], [f"{AE}.draws=2"]),
    (f"{AE}.draws=1", f"{AE}.draws is 1", [f"{AE}.draw_weights=[1]"], []),
    (f"{AE}.kind=none", f"{AE}.kind is 'none'", [f"{AE}.always_full=true"], [f"{AE}.always_min_max=false"]),
    (f"{AE}.choices=[4,32]", f"{AE}.choices is given", [f"{AE}.first=8", f"{AE}.step=8"], []),
    (f"{AE}.always_min_max=true", f"{AE}.always_min_max is true", [f"{AE}.always_full=true"], []),
    (STEP, f"{AE}.per is 'step' and {AE}.draws is 1", [f"{AE}.always_min_max=false"], []),
    (
        f"{AE}.draws=2",
        f"{AE}.always_min_max leaves none of 2 draws",
        [f"{AE}.choice_weights=[1,1,1,1,1,1,1,2]"],
        [STEP],
    ),
    (
        f"{DIFFUSION}.per=sample",
        f"{DIFFUSION}.kind is 'weighted', and all draws are alike",
        [f"{DIFFUSION}.draws=2"],
        [f"{DIFFUSION}.kind=weighted"],
    ),
    (f"{GAN}.weight=0", f"{GAN}.weight is 0", [f"{GAN}.layers=2", f"{GAN}.start_images=64", f"{GAN}.beta1=0.1"], []),
    (f"{LPIPS}.weight=0", f"{LPIPS}.weight is 0", [f"{LPIPS}.vgg=/v"], []),
    (
        "autoencoder.phases[1].prefix.kind=none",
        "autoencoder.phases[1].prefix.kind is 'none'",
        ["autoencoder.phases[1].prefix.first=8", "autoencoder.phases[1].prefix.draws=3"],
        [PHASES],
    ),
    (
        "autoencoder.phases[1].losses.adversarial.weight=0",
        "autoencoder.phases[1].losses.adversarial.weight is 0",
        ["autoencoder.phases[1].losses.adversarial.width=32"],
        [PHASES],
    ),
    (OWN_IMAGES, "data.source is '/images'", ["data.shapes.classes=3", "data.shapes.seed=1"], []),
    ("data.source=shapes", "data.source is 'shapes'", ["data.kind=list", "data.val_fraction=0.5"], []),
    ("data.crop=center", "data.crop is 'center'", ["data.store_side=64", "data.random_crop_min_area=0.5"], []),
    ("data.crop=random", "data.crop is 'random'", ["data.encoding=png"], []),
    (
        "autoencoder.preset=dc-ae-f64c128-1.5",
        "autoencoder.preset is 'dc-ae-f64c128-1.5'",
        ["autoencoder.encoder_widths=[8,8,16,32]", "autoencoder.out_act=relu", "autoencoder.latent_shortcuts=true"],
        ["data.resolution=64"],
    ),
    (
        "diffusion.enabled=false",
        "diffusion.enabled is false",
        ["latents.mirror=true", "sampling.steps=3", "diffusion.denoiser.depth=2", "diffusion.milestones=[64]"],
        [],
    ),
    (
        "diffusion.enabled=false",
        "diffusion.enabled is false",
        ["evaluation.neighbours=4", "diffusion.prefix.first=8"],
        [],
    ),
    ("diffusion.milestones=[]", "diffusion.milestones is []", ["evaluation.milestone_images=100"], []),
    ("arms=[random]", "no baseline is trained", ["evaluation.full_channel_gap_db=2"], []),
]
ACTIVE = {
    "sampling.guidance=1": "sampling.guidance=2",
    f"{AE}.kind=none": f"{AE}.kind=prefix",
    f"{AE}.draws=1": f"{AE}.draws=2",
    f"{AE}.choices=[4,32]": f"{AE}.choices=[]",
    f"{AE}.always_min_max=true": f"{AE}.always_min_max=false",
    f"{AE}.draws=2": f"{AE}.draws=3",
    STEP: f"{AE}.per=sample",
    f"{DIFFUSION}.per=sample": f"{DIFFUSION}.per=step",
    f"{GAN}.weight=0": f"{GAN}.weight=1",
    f"{LPIPS}.weight=0": f"{LPIPS}.weight=1",
    "autoencoder.phases[1].prefix.kind=none": "autoencoder.phases[1].prefix.kind=prefix",
    "autoencoder.phases[1].losses.adversarial.weight=0": "autoencoder.phases[1].losses.adversarial.weight=1",
    OWN_IMAGES: "data.source=shapes",
    "data.source=shapes": OWN_IMAGES,
    "data.crop=center": "data.crop=random",
    "data.crop=random": "data.crop=center",
    "autoencoder.preset=dc-ae-f64c128-1.5": "autoencoder.preset=custom",
    "diffusion.enabled=false": "diffusion.enabled=true",
    "diffusion.milestones=[]": "diffusion.milestones=[64]",
    "arms=[random]": "arms=[baseline]",
}


def names_of_results(*overrides):
    return {step.name: step.output.fingerprint for step in plan(configured("storage=/nowhere", *overrides)).steps}


@pytest.mark.parametrize(
    ("idle", "reason", "word", "needs"),
    [(idle, why, word, needs) for idle, why, words, needs in RULES for word in words],
)
def test_a_field_without_effect_is_named_and_names_no_result(idle, reason, word, needs):
    """The rule stands once, with the field; advice and fingerprints follow it."""
    path, active = word.partition("=")[0], ACTIVE[idle]

    def advice(*words):
        return [w for w in warnings_for(configured(*needs, *words)) if ": no effect, because " in w and path in w]

    (warning,) = advice(idle, word)
    assert f"no effect, because {reason}" in warning
    assert names_of_results(*needs, idle) == names_of_results(*needs, idle, word)
    assert not advice(active, word)
    assert names_of_results(*needs, active) != names_of_results(*needs, active, word)


@pytest.mark.parametrize(
    ("idle", "word"),
    [
        ("tracking.enabled=false", "tracking.uri=http://x"),
        ("tracking.enabled=false", "tracking.experiment=x"),
        ("scaling.cache_gib=0", "scaling.cache_folder=/tmp/x"),
    ],
)
def test_advice_on_fields_that_never_name_a_result(idle, word):
    path = word.partition("=")[0]
    reason = idle.replace("=", " is ")
    assert warnings_for(configured(idle, word)) == [f"{path}: no effect, because {reason}"]
    assert not warnings_for(configured(word))


def test_what_phases_take_over_has_an_effect_where_one_does():
    phases = "autoencoder.phases=[{}, {losses: {adversarial: {weight: 1}}, training: {images: 6400}}]"
    assert not warnings_for(configured(phases, f"{GAN}.width=32", "autoencoder.training.images=9600"))
    both = configured(phases, "autoencoder.training.images=9600", "autoencoder.phases[0].training.images=12800")
    assert warnings_for(both) == [
        "autoencoder.training.images: no effect, because each of autoencoder.phases says otherwise"
    ]
    none = configured("autoencoder.phases=[{}]", f"{GAN}.width=32")
    assert warnings_for(none) == [
        f"{GAN}.width: no effect, because autoencoder.phases[0].losses.adversarial.weight is 0"
    ]


def test_lpips_that_only_evaluate_uses_names_the_evaluation_alone():
    files = [f"{LPIPS}.vgg=/v", f"{LPIPS}.heads=/h"]
    assert not warnings_for(configured(*files))
    before, after = names_of_results(), names_of_results(*files)
    assert [name for name in before if before[name] != after[name]] == ["evaluate"]


@pytest.mark.parametrize(
    ("words", "arms"),
    [
        ([], ["structured", "baseline"]),
        (["arms=[random,baseline]"], ["structured", "baseline", "random"]),
        (["arms=[]"], ["structured"]),
        (["arms=[random,baseline]", f"{AE}.kind=none"], ["structured"]),
        (["arms=[random,baseline]", f"{AE}.kind=random"], ["structured", "baseline"]),
        (["arms=[random,baseline]", "autoencoder.phases=[{prefix: {kind: none}}]"], ["structured"]),
        (["arms=[baseline]", "autoencoder.phases=[{prefix: {kind: none}}, {}]"], ["structured", "baseline"]),
    ],
)
def test_arms_are_trained_in_reading_order_where_they_change_something(words, arms):
    assert configured(*words).trained_arms == arms


def test_an_arm_changes_every_phase_that_has_masks():
    config = configured("autoencoder.phases=[{prefix: {kind: none}}, {prefix: {first: 8}}]")
    changed = with_arm(config.autoencoder, "random")
    assert [phase.prefix.kind for phase in changed.phases] == ["none", "random"]
    assert changed.phases[1].prefix.first == 8
    assert [phase.prefix.kind for phase in config.autoencoder.phases] == ["none", "prefix"], "the given one stays"
