"""What names a result: each field that can change it, and no other; and which stages a configuration has."""

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dcae15 import storage
from dcae15.artifacts import MANIFEST
from dcae15.command_line import Command
from dcae15.config import Config, PhaseConfig, build, from_overrides
from dcae15.errors import ArtifactError, ConfigError
from dcae15.orchestration.fold import set_metrics
from dcae15.orchestration.pipeline import run_command, run_pipeline, run_stages
from dcae15.orchestration.plan import CONTROLS, STAGES, plan
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


def planned(*words: str) -> dict[str, str]:
    """Fingerprints by stage."""
    config, _ = build([from_overrides(["storage=/nowhere", *words])])
    return {stage.name: stage.fingerprint for stage in plan(config)}


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
    assert list(planned("baseline=false")) == [name for name in ALL if name != "train_baseline"]
    only = planned("diffusion.enabled=false", "random_control=true")
    assert list(only) == ["prepare_images", "train_autoencoder", "train_baseline", "train_random", "evaluate"]
    assert len(set(only.values())) == 5, "three autoencoders of different names"
    assert "train_random" not in planned("random_control=true", "autoencoder.prefix.kind=random")


def test_the_facts_of_each_phase_are_shown():
    config = Config(storage="/nowhere")
    training = dataclasses.replace(config.autoencoder.training, images=100, batch_size=64, warmup_images=0)
    config.autoencoder.phases = [
        PhaseConfig("low", 16, training=training),
        PhaseConfig("high", parts=["decoder_head"], training=training),
    ]
    facts = plan(config)[1].facts
    assert facts["phase 1"].startswith("low; 128 images in batches of 64; 16 pixels; trains all; prefix masks [4")
    assert facts["phase 2"].startswith("high; 128 images in batches of 64; 32 pixels; trains decoder_head")


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
        plan(Config(storage="/nowhere"), {role: str(tmp_path / "nowhere")})


def test_the_resolution_of_latents_names_them_only_where_it_is_another():
    assert changed("latents.resolution=32") == []
    assert changed("latents.resolution=16") == ["cache_latents", "train_diffusion", "sample", "evaluate"]


def test_what_is_tracked_of_a_finished_set():
    shards = [{"path": "a", "count": 30, "bytes": 100}, {"path": "b", "count": 10, "bytes": 60}]
    manifest = {"splits": {"train": {"shards": shards}, "val": {"shards": shards[1:]}}, "rejected": {"truncated": 2}}
    counts = {"images": 50, "images.train": 40, "images.val": 10, "shards": 3, "bytes": 220, "rejected.truncated": 2}
    assert set_metrics(manifest, None) == counts, "no rate of a set that was begun before"
    statistics = {"mean": [3.0, 0.0], "std": [4.0, 0.5]}
    rate = {"images_per_second": 25.0, "latent_rms_least": 0.5, "latent_rms_most": 5.0}
    assert set_metrics({**manifest, "statistics": statistics}, 2.0) == {**counts, **rate}


def test_full_refuses_at_once_what_evaluate_could_not_compare():
    config, _ = build([from_overrides(["storage=/nowhere", "latents.resolution=16"])])
    with pytest.raises(ConfigError, match=r"latents\.resolution is 16.*data\.resolution=16"):
        run_pipeline(config)


@pytest.mark.parametrize(
    ("words", "evaluation"),
    [
        ([], "f31a7564f7deda18"),
        (
            ["random_control=true", "diffusion.prefix.kind=random", "sampling.prefix=8", "evaluation.neighbours=4"],
            "635b3e30468b586b",
        ),
        (["diffusion.prefix.kind=none", "autoencoder.prefix.kind=none"], "873c3020c08c6eea"),
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


def test_milestones_of_given_artifacts_are_measured_where_all_that_it_needs_is_known(tmp_path):
    given = {"images": make_images(str(tmp_path / "images")), "autoencoder": make_autoencoder(str(tmp_path / "ae"))}
    given["latents"] = make_latents(str(tmp_path / "latents"), given["images"], given["autoencoder"])
    config, _ = build([from_overrides([f"storage={tmp_path}", MILESTONES])])

    def inputs(*roles: str) -> dict[str, str]:
        stages = plan(config, {role: given[role] for role in roles})
        return next((stage.inputs for stage in stages if stage.name == "measure_milestones"), {})

    assert inputs("latents") == inputs("latents", "images") == {}, "whose images and autoencoder they are is not known"
    assert inputs("images", "autoencoder")["autoencoder"] == given["autoencoder"]
    known = inputs("images", "autoencoder", "latents")
    assert {role: known[role] for role in ("images", "autoencoder")} == {r: given[r] for r in ("images", "autoencoder")}
    given["denoiser"] = given["latents"]  # any artifact: only its name is read
    assert inputs("denoiser") == {}, "what was kept of a given denoiser's training is not known"


def test_a_weighted_loss_is_named_by_the_prefixes_that_it_stands_for():
    weighted = "diffusion.prefix.kind=weighted"
    assert changed(weighted) == ["train_diffusion", "sample", "evaluate"]
    assert changed("diffusion.prefix.first=8", weighted)[0] == "train_diffusion"
    assert planned("diffusion.prefix.kind=none") != planned(weighted)


def test_every_stage_that_is_named_as_the_next_command_has_a_script():
    folder = Path(__file__).parents[2] / "pipelines"
    assert [name for name in STAGES if name not in CONTROLS and not (folder / f"{name}.py").exists()] == []


@pytest.mark.parametrize("milestones", [True, False])
def test_the_next_command_is_that_of_the_next_stage(tmp_path, capsys, milestones):
    config, _ = build([from_overrides([f"storage={tmp_path}", *([MILESTONES] if milestones else [])])])
    for stage in plan(config):
        storage.write_json(storage.join(stage.uri, MANIFEST), {})
    run_command(Command(config, {}, False, {}, ()), "train_diffusion")
    following = "measure_milestones" if milestones else "sample"
    assert f"next: python pipelines/{following}.py with the same configuration" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "name", "message"),
    [
        ([], "measure_milestones", r"nothing to do for measure_milestones: diffusion\.milestones is empty"),
        ([MILESTONES, "diffusion.enabled=false"], "measure_milestones", r"diffusion\.enabled is false"),
        (
            ["diffusion.enabled=false"],
            "train_diffusion",
            r"nothing to do for train_diffusion: diffusion\.enabled is false",
        ),
    ],
)
def test_a_stage_that_the_configuration_does_not_have_says_why(tmp_path, words, name, message):
    config, _ = build([from_overrides([f"storage={tmp_path}", *words])])
    with pytest.raises(ConfigError, match=message):
        run_stages(config, [name])


def test_milestones_of_given_latents_need_what_they_were_made_of(tmp_path):
    images, autoencoder = make_images(str(tmp_path / "images")), make_autoencoder(str(tmp_path / "ae"))
    latents = make_latents(str(tmp_path / "latents"), images, autoencoder)
    config, _ = build([from_overrides([f"storage={tmp_path}", MILESTONES])])
    with pytest.raises(ConfigError, match="must be given, too: images=URI autoencoder=URI"):
        run_stages(config, ["measure_milestones"], {"latents": latents})
