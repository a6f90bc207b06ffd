"""What names a result: each field that can change it, and no other; and which stages a configuration has."""

import pytest
import torch
from safetensors.torch import save_file

from dcae15.config import Config, build, from_overrides
from dcae15.errors import ArtifactError
from dcae15.plan import Plan, describe, plan
from tests.latent_sets import make_autoencoder, make_images, make_latents

ALL = [
    "prepare_images",
    "train_autoencoder",
    "train_baseline",
    "cache_latents",
    "train_diffusion",
    "sample",
    "evaluate",
]


def plan_of(*words: str, **given: str) -> Plan:
    return plan(build([from_overrides(["storage=/nowhere", *words])])[0], given)


def planned(*words: str, **given: str) -> dict[str, str]:
    """Fingerprints by step."""
    return {step.name: step.output.fingerprint for step in plan_of(*words, **given).steps}


def changed(word: str, *base: str) -> list[str]:
    before, after = planned(*base), planned(*base, word)
    return [name for name in before if before[name] != after.get(name)]


@pytest.mark.parametrize(
    "word",
    [
        "autoencoder.training.compile=true",
        "autoencoder.training.channels_last=true",
        "autoencoder.training.activation_checkpointing=true",
        "autoencoder.training.accumulation=2",
        "autoencoder.training.parallel=fsdp",
        "autoencoder.training.checkpoint_images=100",
        "diffusion.training.compile=true",
        "data.random_crop_min_area=0.5",
        "data.store_side=64",
        "scaling.num_workers=4",
        "autoencoder.losses.perceptual.vgg=/vgg.pth",
        "autoencoder.losses.adversarial.layers=2",
    ],
)
def test_what_cannot_change_a_result_reuses_everything(word):
    assert changed(word) == []


def test_a_phase_said_in_two_ways_is_one_result():
    same = "autoencoder.phases=[{name: only}]"
    assert planned() == planned(same) == planned("autoencoder.prefix.choices=[4,8,12,16,20,24,28,32]")
    assert changed("diffusion.prefix.choices=[4,8,12,16,20,24,28,32]") == []
    assert changed("diffusion.prefix.step=8", "diffusion.prefix.kind=none") == []


@pytest.mark.parametrize(
    ("word", "first"),
    [
        ("data.limit=10", "prepare_images"),
        ("autoencoder.training.learning_rate=1e-5", "train_autoencoder"),
        ("autoencoder.phases=[{parts: [decoder]}]", "train_autoencoder"),
        ("autoencoder.phases=[{resolution: 16}]", "train_autoencoder"),
        ("autoencoder.losses.l1=2", "train_autoencoder"),
        ("diffusion.training.learning_rate=1e-5", "train_diffusion"),
        ("sampling.steps=3", "sample"),
    ],
)
def test_what_can_change_a_result_runs_it_and_what_follows_again(word, first):
    again = changed(word)
    assert again[0] == first
    assert again[-1] == "evaluate"
    assert not set(ALL[: ALL.index(first)]) & set(again)


@pytest.mark.parametrize("word", ["data.kind=list", "data.classes=[cat]", "data.upscale=false"])
def test_what_is_taken_of_a_source_names_the_image_set(word):
    assert changed(word, "data.source=/images")[0] == "prepare_images"


def test_the_order_of_classes_and_the_kind_of_the_embedded_images_change_nothing():
    assert planned("data.classes=[a,b]") == planned("data.classes=[b,a,a]")
    assert changed("data.kind=folder") == []


def test_masks_change_the_structured_autoencoder_and_not_its_baseline():
    again = changed("autoencoder.prefix.first=8")
    assert "train_autoencoder" in again
    assert "train_baseline" not in again


def test_crops_change_what_trains_on_them():
    assert changed("data.random_crop_min_area=0.5", "data.crop=random")[0] == "train_autoencoder"


def test_an_adaptive_weight_is_of_each_part_of_a_batch():
    gan = ("autoencoder.losses.adversarial.weight=1", "autoencoder.losses.adversarial.layers=2")
    assert changed("autoencoder.training.accumulation=2", *gan)[0] == "train_autoencoder"
    assert changed("autoencoder.training.accumulation=2", *gan, "autoencoder.losses.adversarial.adaptive=false") == []


def test_a_digest_names_the_weights_of_lpips_wherever_they_are():
    def words(vgg: str) -> list[str]:
        path = "autoencoder.losses.perceptual"
        return [
            f"{path}.weight=1",
            f"{path}.vgg={vgg}",
            f"{path}.vgg_sha256=00",
            f"{path}.heads=/h",
            f"{path}.heads_sha256=11",
        ]

    assert planned(*words("/a.pth")) == planned(*words("s3://b/a.pth"))


def test_stages_follow_from_the_configuration():
    assert list(planned()) == ALL
    assert list(planned("arms=[]")) == [name for name in ALL if name != "train_baseline"]
    only = planned("diffusion.enabled=false", "arms=[baseline,random]")
    assert list(only) == ["prepare_images", "train_autoencoder", "train_baseline", "train_random", "evaluate"]
    assert len(set(only.values())) == 5, "three autoencoders of different names"
    assert "train_random" not in planned("arms=[random]", "autoencoder.prefix.kind=random")
    left_out = plan_of("diffusion.enabled=false").left_out
    assert list(left_out) == ["cache_latents", "train_diffusion", "measure_milestones", "sample"]
    assert set(left_out.values()) == {"diffusion.enabled is false; set it to true"}
    assert plan_of().left_out["measure_milestones"].startswith("diffusion.milestones is empty; give")


def test_the_facts_of_each_phase_are_shown():
    length = "training: {images: 100, warmup_images: 0}"
    phases = f"[{{name: low, resolution: 16, {length}}}, {{name: high, parts: [decoder_head], {length}}}]"
    planned = plan_of(f"autoencoder.phases={phases}")
    facts = planned.steps[1].facts
    assert facts["phase 1"].startswith("low; 128 images in batches of 64; 16 pixels; trains all; prefix masks [4")
    assert facts["phase 2"].startswith("high; 128 images in batches of 64; 32 pixels; trains decoder_head")
    assert planned.steps[2].facts["phase 1"].endswith("no masks")
    text = describe(planned.steps, Config(storage="/nowhere"))
    for line in (
        "storage: /nowhere",
        "train_baseline     to run  ",
        "  reads images: /nowhere/images/",
        "  phase 2: high; 128",
    ):
        assert line in text


def test_given_weights_name_the_training_by_their_content(tmp_path):
    for name in ("a", "b"):
        save_file({"encoder.x": torch.zeros(1)}, tmp_path / f"{name}.safetensors")
    save_file({"encoder.x": torch.ones(1)}, tmp_path / "other.safetensors")
    first, second, other = (
        planned(f"autoencoder.initial={tmp_path / name}.safetensors") for name in ("a", "b", "other")
    )
    assert next(iter(first)) == "import_initial"
    assert first == second
    assert first["train_autoencoder"] != other["train_autoencoder"] != planned()["train_autoencoder"]
    assert first["prepare_images"] == planned()["prepare_images"]


@pytest.mark.parametrize("role", ["images", "autoencoder", "latents"])
def test_a_given_artifact_that_is_not_there_is_named_at_once(tmp_path, role):
    with pytest.raises(ArtifactError, match="nowhere does not exist"):
        plan_of(**{role: str(tmp_path / "nowhere")})


def test_the_resolution_of_latents_names_them_only_where_it_is_another():
    assert changed("latents.resolution=32") == []
    assert changed("latents.resolution=16") == ["cache_latents", "train_diffusion", "sample", "evaluate"]


@pytest.mark.parametrize(
    ("words", "evaluation"),
    [
        ([], "e200d0d28fed4e20"),
        (
            ["arms=[baseline,random]", "diffusion.prefix.kind=random", "sampling.prefix=8", "evaluation.neighbours=4"],
            "9fd70675fd3e4275",
        ),
        (["diffusion.prefix.kind=none", "autoencoder.prefix.kind=none"], "f32fb040bbb6b8bc"),
    ],
    ids=["default", "controls", "no masks"],
)
def test_results_that_are_there_are_found_again(words, evaluation):
    """The last stage's name follows from all others'. A change here makes everybody's trainings run again."""
    assert planned(*words)["evaluate"] == evaluation


MILESTONES = "diffusion.milestones=[64000,128000]"


def test_milestones_are_kept_by_the_training_and_measured_by_a_stage_of_their_own():
    at = ALL.index("sample")
    assert list(planned(MILESTONES)) == [*ALL[:at], "measure_milestones", *ALL[at:]]
    assert changed(MILESTONES) == ["train_diffusion", "sample", "evaluate"]
    assert "measure_milestones" not in planned(MILESTONES, "diffusion.enabled=false")


@pytest.mark.parametrize(
    ("word", "again"),
    [
        ("sampling.steps=3", ["measure_milestones", "sample", "evaluate"]),
        ("evaluation.neighbours=4", ["measure_milestones", "evaluate"]),
        ("evaluation.feature_images=100", ["measure_milestones", "evaluate"]),
        ("evaluation.milestone_images=100", ["measure_milestones"]),
        ("evaluation.milestone_images=1000", []),  # as many as sampling.images
        ("evaluation.reconstruction_images=100", ["evaluate"]),
        ("sampling.batch_size=10", []),
    ],
)
def test_what_changes_the_measures_of_milestones_measures_them_again(word, again):
    assert changed(word, MILESTONES) == again


@pytest.fixture(scope="module")
def given(tmp_path_factory) -> dict[str, str]:
    """Images of 16 pixels, an autoencoder f4c4, latents, and what stands for a denoiser and samples: only their names are read."""
    root = tmp_path_factory.mktemp("given")
    made = {"images": make_images(str(root / "images")), "autoencoder": make_autoencoder(str(root / "ae"))}
    made["latents"] = make_latents(str(root / "latents"), made["images"], made["autoencoder"])
    return {
        **made,
        "baseline": make_autoencoder(str(root / "plain"), 1),
        "denoiser": made["latents"],
        "samples": made["images"],
    }


def test_milestones_of_given_artifacts_are_measured_where_all_that_it_needs_is_known(given):
    def of(*roles: str) -> tuple[dict[str, str], str]:
        """What the step reads, and why there is none."""
        found = plan_of(MILESTONES, **{role: given[role] for role in roles})
        inputs = next((dict(step.inputs) for step in found.steps if step.name == "measure_milestones"), {})
        return inputs, found.left_out.get("measure_milestones", "")

    whose = "the images and the autoencoder of given latents must be given, too: images=URI autoencoder=URI"
    assert of("latents") == of("latents", "images") == ({}, whose)
    assert of("images", "autoencoder")[0]["autoencoder"] == given["autoencoder"]
    known, why = of("images", "autoencoder", "latents")
    assert why == ""
    assert {role: known[role] for role in ("images", "autoencoder")} == {r: given[r] for r in ("images", "autoencoder")}
    assert of("denoiser")[1].startswith("a given denoiser has no milestones")


def test_given_artifacts_say_what_they_are(given):
    """The graph of a given autoencoder is that of its latents; the controls have the configured one, as they train with it."""
    steps = {step.name: step for step in plan_of(images=given["images"], autoencoder=given["autoencoder"]).steps}
    assert list(steps) == [name for name in ALL if name not in ("prepare_images", "train_autoencoder")]
    assert steps["cache_latents"].facts["each"] == "4x4x4 float16, 128 bytes"
    assert steps["train_baseline"].facts["latent"] == "32 channels, f8"
    of_latents = {name: given[name] for name in ("images", "autoencoder", "latents")}
    choices = "diffusion.prefix.choices=[2,4]"
    assert planned(choices, **of_latents) == planned(
        "diffusion.prefix.first=2", "diffusion.prefix.step=2", **of_latents
    )
    baseline = planned(images=given["images"])["train_baseline"]
    assert baseline == steps["train_baseline"].output.fingerprint


@pytest.mark.parametrize(
    ("word", "base", "roles"),
    [
        ("evaluation.neighbours=4", "diffusion.enabled=false", ["samples"]),
        ("evaluation.full_channel_gap_db=3", "arms=[]", ["baseline"]),
    ],
)
def test_what_is_only_given_is_measured_as_the_configuration_says(given, word, base, roles):
    chosen = {role: given[role] for role in roles}
    assert planned(base)["evaluate"] == planned(base, word)["evaluate"]
    assert planned(base, **chosen)["evaluate"] != planned(base, word, **chosen)["evaluate"]


def test_optional_inputs_may_be_absent():
    config = build([from_overrides(["storage=/nowhere"])])[0]
    evaluate = plan(config, absent=["baseline", "denoiser", "samples"]).steps[-1]
    assert list(evaluate.inputs) == ["images", "autoencoder"]
    assert list(plan(config).steps[-1].inputs) == ["images", "autoencoder", "baseline", "denoiser", "samples"]


def test_a_weighted_loss_is_named_by_the_prefixes_that_it_stands_for():
    weighted = "diffusion.prefix.kind=weighted"
    assert changed(weighted) == ["train_diffusion", "sample", "evaluate"]
    assert changed("diffusion.prefix.first=8", weighted)[0] == "train_diffusion"
    assert planned("diffusion.prefix.kind=none") != planned(weighted)
