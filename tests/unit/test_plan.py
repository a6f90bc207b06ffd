"""What names a result: each field that can change it, and no other; and which stages a configuration has."""

import dataclasses

import pytest
import torch
from safetensors.torch import save_file

from dcae15.config import Config, PhaseConfig, build, from_overrides
from dcae15.errors import ArtifactError
from dcae15.orchestration.plan import plan

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
