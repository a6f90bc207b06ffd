"""What names a result: each field that can change it, and no other; and which stages a configuration has."""

import re

import pytest
import torch
from safetensors.torch import save_file

from dcae15 import artifacts
from dcae15.config import Config, build, from_overrides
from dcae15.errors import ArtifactError, ConfigError
from dcae15.pipeline import dry_run
from dcae15.plan import Plan, describe, plan
from dcae15.stages import STAGES
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
    """Images of 16 pixels, an autoencoder f4c4, latents, a denoiser of them without weights, and samples without shards."""
    root = tmp_path_factory.mktemp("given")
    made = {"images": make_images(str(root / "images")), "autoencoder": make_autoencoder(str(root / "ae"))}
    made["latents"] = make_latents(str(root / "latents"), made["images"], made["autoencoder"])
    made["baseline"] = make_autoencoder(str(root / "plain"), 1)
    latents, zeros = artifacts.LatentSet.open(made["latents"]), (0.0,) * 4
    denoiser = artifacts.Denoiser(
        str(root / "denoiser"),
        "d" * 16,
        {},
        latents.spec,
        zeros,
        zeros,
        (4,),
        latents.class_names,
        0,
        latents.fingerprint,
        "",
    )
    denoiser.commit()
    splits = {"generated": artifacts.Split(())}
    samples = artifacts.ImageSet(str(root / "samples"), "5" * 16, ("a",), 16, "raw", "center", splits, {}, "test")
    samples.commit()
    return {**made, "denoiser": denoiser.uri, "samples": samples.uri}


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


@pytest.mark.parametrize(
    ("role", "other", "said"),
    [
        ("denoiser", "images", "holds 'images', but 'denoiser' is needed"),
        ("latents", "denoiser", "holds 'denoiser', but 'latents' is needed"),
        ("images", "latents", "holds 'latents', but 'images' is needed"),
        ("autoencoder", "images", "holds 'images', but 'autoencoder' is needed"),
        ("baseline", "images", "holds 'images', but 'autoencoder' is needed"),
        ("samples", "images", "with train and val images, but one with 'generated' images is needed"),
        ("images", "samples", "with generated images, but one with 'train' images is needed"),
    ],
)
def test_a_given_artifact_of_another_kind_is_refused_by_the_plan(given, role, other, said):
    with pytest.raises(ArtifactError, match=re.escape(said)) as caught:
        plan_of(**{role: given[other]})
    assert given[other] in str(caught.value)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("diffusion.prefix.first=8", "diffusion.prefix.first is 8"),
        ("diffusion.prefix.choices=[3,4]", "[3] channels that the autoencoder never saw"),
        ("diffusion.denoiser.patch_size=3", "patch_size"),
    ],
)
def test_a_dry_run_refuses_what_does_not_fit_given_latents(given, word, said):
    stage = next(stage for stage in STAGES if stage.name == "train_diffusion")
    config = build([from_overrides(["storage=/nowhere", word])])[0]
    with pytest.raises(ConfigError, match=re.escape(said)):
        dry_run(config, stage, {"latents": given["latents"]})


def notes_of(*words, **given):
    return {step.name: step.notes for step in plan_of(*words, **given).steps if step.notes}


def test_the_plan_says_what_will_be_left_out_for_want_of_images(given):
    assert notes_of() == {}, "the embedded images have enough of all"
    (curves, frechet, manifold), *others = notes_of("data.shapes.val_images=1").values()
    assert not others and "they need 2 validation images, and there is 1" in curves
    assert "2 of each" in frechet and "evaluation.neighbours 3 needs 4 images of each" in manifold
    few = notes_of("sampling.images=5", "evaluation.neighbours=9", "data.limit=30", MILESTONES)
    assert list(few) == ["measure_milestones", "evaluate"]
    assert all("raise sampling.images, and only what is generated is made again" in notes[0] for notes in few.values())
    assert "raise evaluation.reconstruction_images" in notes_of("evaluation.reconstruction_images=1")["evaluate"][0]
    assert notes_of("data.source=/somewhere", "data.shapes.val_images=1") == {}, "nobody knows yet"
    (note,) = notes_of("evaluation.neighbours=60", images=given["images"], autoencoder=given["autoencoder"])["evaluate"]
    assert (
        note.startswith("precision and recall of generated images are left out")
        and "lower evaluation.neighbours" in note
    )


def test_images_too_small_to_be_measured_are_refused_before_anything_is_trained():
    small = build([from_overrides(["storage=/nowhere", "data.resolution=8", "data.shapes.resolution=8"])])[0]
    with pytest.raises(ConfigError, match=r"data\.resolution is 8 pixels, but evaluate looks at images of 16"):
        dry_run(small)
    train = next(stage for stage in STAGES if stage.name == "train_autoencoder")
    assert "train_autoencoder" in dry_run(small, train), "which can be trained"
