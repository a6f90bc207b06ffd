"""The three-phase recipe at toy size: what trains, what is frozen, exact resume, controls, guards."""

import pytest
import torch
from safetensors.torch import load_file

from dcae15 import artifacts, storage
from dcae15.config import PhaseConfig
from dcae15.config.arms import with_arm
from dcae15.config.graph import autoencoder_spec
from dcae15.errors import ConfigError, TrainingError, WeightsError
from dcae15.models.autoencoder import Autoencoder
from dcae15.runtime import LocalRuntime
from dcae15.training import autoencoder as autoencoder_training
from dcae15.training import parts
from dcae15.training.checkpoint import Checkpoints
from dcae15.training.randomness import generator
from tests.unit.training.small import StopError, StoppingTracker, run, small_config, three_phases


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, larger_images) -> tuple[str, bytes]:
    out = str(tmp_path_factory.mktemp("k") / "a")
    return out, run("autoencoder", three_phases(), larger_images, out)


@pytest.mark.parametrize("stops", [[1], [2], [3], [4], [5], [2, 2, 1]], ids=str)
def test_a_run_stopped_in_any_phase_ends_with_the_same_bits(tmp_path, larger_images, undisturbed, stops):
    config, out = three_phases(), str(tmp_path / "k" / "b")
    for phase in config.autoencoder.phases:
        phase.training.checkpoint_images = 8
    for stop in stops:
        with pytest.raises(StopError):
            run("autoencoder", config, larger_images, out, StoppingTracker(stop))
    assert run("autoencoder", config, larger_images, out) == undisturbed[1]
    rows = artifacts.read_history(out)
    assert [row["images"] for row in rows] == [16, 32, 48, 64, 80]
    assert [row["phase"] for row in rows] == [0, 0, 1, 2, 2]


def test_a_run_with_another_memory_format_is_continued_with_the_same_bits(tmp_path, larger_images):
    config = three_phases(channels_last=True, checkpoint_images=8)
    undisturbed = run("autoencoder", config, larger_images, str(tmp_path / "k" / "a"))
    for stop in (1, 3, 2):  # in each phase
        with pytest.raises(StopError):
            run("autoencoder", config, larger_images, str(tmp_path / "k" / "b"), StoppingTracker(stop))
    assert run("autoencoder", config, larger_images, str(tmp_path / "k" / "b")) == undisturbed


def test_a_run_whose_artifact_could_not_be_written_is_not_trained_again(tmp_path, larger_images, undisturbed):
    out, config = str(tmp_path / "k" / "b"), three_phases()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(autoencoder_training, "write_trained", lambda *_: (_ for _ in ()).throw(StopError))
        with pytest.raises(StopError):
            run("autoencoder", config, larger_images, out)
    lines = []
    runtime = LocalRuntime(device=torch.device("cpu"))
    runtime.say = lines.append
    assert run("autoencoder", config, larger_images, out, runtime=runtime) == undisturbed[1]
    assert lines == [], "no step was taken"


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (lambda phase: phase.parts.append("decoder.up_blocks.9"), r"phases\[2\]\.parts has 'decoder\.up_blocks\.9'"),
        (lambda phase: setattr(phase.losses.adversarial, "layers", 4), r"phases\[2\].*layers is 4.*48 pixels"),
        (lambda phase: setattr(phase.losses.perceptual, "vgg_sha256", "0" * 64), r"phases\[2\].*vgg"),
        (lambda phase: setattr(phase, "resolution", 8), r"phases\[2\].*LPIPS needs images of 16 pixels"),
        (lambda phase: setattr(phase, "resolution", 64), r"phases\[2\]\.resolution is 64, larger"),
    ],
    ids=["parts", "layers", "digest", "lpips", "resolution"],
)
def test_a_mistake_in_the_last_phase_is_found_before_the_first(tmp_path, larger_images, lpips_files, mistake, message):
    config = three_phases(lpips_files)
    mistake(config.autoencoder.phases[2])
    lines = []
    runtime = LocalRuntime(device=torch.device("cpu"))
    runtime.say = lines.append
    with pytest.raises((ConfigError, WeightsError), match=message):
        run("autoencoder", config, larger_images, str(tmp_path / "k" / "a"), runtime=runtime)
    assert lines == []


def test_a_run_stopped_between_phases_begins_the_next_one(tmp_path, larger_images, undisturbed, monkeypatch):
    save = Checkpoints.save

    def save_and_stop(self, images_seen, state):
        save(self, images_seen, state)
        if "optimizer" not in state and images_seen == 32:
            raise StopError

    out = str(tmp_path / "k" / "b")
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", save_and_stop)
        with pytest.raises(StopError):
            run("autoencoder", three_phases(), larger_images, out)
    assert run("autoencoder", three_phases(), larger_images, out) == undisturbed[1]


def test_each_phase_logs_its_own_losses(tmp_path, larger_images, lpips_files):
    out = str(tmp_path / "k" / "a")
    run("autoencoder", three_phases(lpips_files), larger_images, out)
    first, before, last = [artifacts.read_history(out)[i] for i in (0, -2, -1)]
    assert {"loss", "dead_channels"} <= first.keys()
    assert not {"l1", "lpips", "discriminator_loss"} & first.keys()
    game = {"discriminator_loss", "logits_real", "logits_fake", "generator_loss", "adversarial_weight"}
    assert {"l1", "lpips", *game} <= last.keys()
    assert last["adversarial_weight"] > 0
    assert before["adversarial_weight"] == 0, "the discriminator is not heard before start_images"


@pytest.mark.parametrize(
    ("names", "moves"),
    [
        (["encoder_head", "decoder_input"], ("encoder.conv_out.", "decoder.conv_in.")),
        (["decoder_head"], ("decoder.norm_out.", "decoder.conv_out.")),
        (["decoder_last_stage"], ("decoder.up_blocks.1.",)),
        (["encoder"], ("encoder.",)),
        (["decoder.up_blocks.2"], ("decoder.up_blocks.2",)),
        (["all"], ("",)),
    ],
    ids=str,
)
def test_exactly_the_named_parts_move(tmp_path, image_set, names, moves):
    config = small_config(images=32, weight_decay=0.1, warmup_images=16)
    config.autoencoder.phases = [
        PhaseConfig(name="only", parts=names).changed(
            training=config.autoencoder.training,
            prefix=config.autoencoder.prefix,
        )
    ]
    out = tmp_path / "k" / "a"
    run("autoencoder", config, image_set, str(out))
    source = generator(config.seed, "initial weights of the autoencoder", 0)
    before = Autoencoder(autoencoder_spec(config.autoencoder), source).state_dict()
    for file in ("weights", "weights_raw"):
        after = load_file(out / f"{file}.safetensors")
        moved = {name for name in before if not torch.equal(before[name], after[name])}
        assert moved == {name for name in before if name.startswith(moves)}
    assert artifacts.Autoencoder.open(str(out)).warnings == ()


def test_a_frozen_tensor_that_changes_stops_the_run(tmp_path, image_set, monkeypatch):
    config = small_config(images=32)
    config.autoencoder.phases = [PhaseConfig(name="only", parts=["decoder"], training=config.autoencoder.training)]
    freeze = parts.freeze

    def leaky(network, *names):
        def leak(*_):
            network.encoder.conv_out.bias.data.add_(1.0)

        freeze(network, *names)
        network.decoder.register_forward_hook(leak)

    monkeypatch.setattr(parts, "freeze", leaky)
    with pytest.raises(TrainingError, match=r"frozen tensors have changed, such as encoder\.conv_out\.bias"):
        run("autoencoder", config, image_set, str(tmp_path / "k" / "a"))
    assert not artifacts.finished(str(tmp_path / "k" / "a"))


def test_a_parameter_that_never_moves_is_named(tmp_path, image_set):
    config = small_config(images=32)
    config.autoencoder.training.learning_rate = 0.0
    out = str(tmp_path / "k" / "a")
    run("autoencoder", config, image_set, out)
    assert any("trainable parameters never changed" in w for w in artifacts.Autoencoder.open(out).warnings)


def test_a_part_that_names_nothing_lists_what_there_is(tmp_path, image_set):
    config = small_config()
    config.autoencoder.phases = [PhaseConfig(parts=["decoder.up_blocks.9"], training=config.autoencoder.training)]
    with pytest.raises(ConfigError, match=r"'decoder\.up_blocks\.9'.*decoder\.up_blocks\.2"):
        run("autoencoder", config, image_set, str(tmp_path / "k" / "a"))


@pytest.mark.parametrize(("arm", "masks"), [("baseline", "none"), ("random", "random")])
def test_controls_train_the_same_phases_with_other_masks(tmp_path, larger_images, undisturbed, arm, masks):
    config, out = three_phases(), str(tmp_path / "k" / "b")
    config.autoencoder = with_arm(config.autoencoder, arm)
    weights = run("autoencoder", config, larger_images, out)
    artifact, structured = artifacts.Autoencoder.open(out), artifacts.Autoencoder.open(undisturbed[0])
    assert weights != undisturbed[1]
    assert (artifact.mask_kind, artifact.prefix_choices) == (masks, (8,))
    assert (structured.mask_kind, structured.prefix_choices) == ("prefix", (2, 4, 6, 8))
    assert artifact.images_seen == structured.images_seen
    assert [p.prefix.kind for p in config.autoencoder.phases] == [masks] * 3


def test_a_discriminator_that_explodes_stops_before_the_update(tmp_path, larger_images):
    config, out = three_phases(clip_norm=0.0), str(tmp_path / "k" / "a")
    config.autoencoder.phases[2].losses.adversarial.learning_rate = 1e30
    with pytest.raises(TrainingError, match="gradient is not finite after"):
        run("autoencoder", config, larger_images, out)
    saved = Checkpoints(storage.join(out, artifacts.CHECKPOINTS)).latest()
    assert saved is not None
    assert all(bool(torch.isfinite(v).all()) for v in saved["network"].values())


def test_missing_perceptual_weights_are_named(tmp_path, larger_images, lpips_files):
    config = three_phases((str(tmp_path / "none.pth"), lpips_files[1]))
    with pytest.raises(Exception, match=r"none\.pth") as caught:
        run("autoencoder", config, larger_images, str(tmp_path / "k" / "a"))
    assert "vgg" in str(caught.value)


def test_a_training_begins_with_given_weights(tmp_path, image_set):
    config = small_config(images=64)
    start = str(tmp_path / "k" / "a")
    run("autoencoder", config, image_set, start)
    config.autoencoder.training.learning_rate = 0.0
    run("autoencoder", config, image_set, str(tmp_path / "k" / "b"), initial=start)
    ours, theirs = (load_file(tmp_path / "k" / name / "weights.safetensors") for name in "ab")
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    config.autoencoder.latent_channels = 4
    with pytest.raises(ConfigError, match=r"autoencoder\.initial .* whose graph .*'latent_channels': 8"):
        run("autoencoder", config, image_set, str(tmp_path / "k" / "c"), initial=start)
