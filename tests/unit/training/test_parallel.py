"""Every switch equals the plain path: workers under DDP and FSDP2, accumulation, recomputed activations, compilation.

Tolerances in float32 on the CPU: losses and gradient norms agree to 1e-3 relatively, weights to 1e-3 of each tensor's norm.
Sums of gradients are taken in another order, and AdamW's first steps turn the sign of a tiny gradient into a whole step, so single
weights may differ by the learning rate. Through LPIPS over random weights, whose deepest features are normalised by tiny norms,
such a difference grows: 3e-2 there. bfloat16: 2e-1, of small tensors near zero.
"""

import contextlib
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as multiprocessing
from safetensors.torch import load_file

from dcae15 import artifacts
from dcae15.config import Config
from dcae15.runtime import ProcessGroupRuntime
from tests.unit.training.small import StopError, run, small_config, three_phases, train, weights

TOLERANCE = 1e-3
PERCEPTUAL = 3e-2  # the first steps of Adam turn a rounding of its small gradients into a step of full size
BFLOAT16 = 2e-1


def with_training(config: Config, **settings) -> Config:
    """The same run with other switches in every phase."""
    autoencoder = config.autoencoder
    phases = [p.changed(training=p.training.changed(**settings)) for p in autoencoder.phases]
    training = autoencoder.training.changed(**settings)
    diffusion = config.diffusion.changed(training=config.diffusion.training.changed(**settings))
    return config.changed(autoencoder=autoencoder.changed(phases=phases, training=training), diffusion=diffusion)


def fixed_weight(config: Config) -> Config:
    """An adaptive weight is of each part of a batch: with accumulation it is another one."""
    config.autoencoder.phases[2].losses.adversarial.adaptive = False
    return config


class StoppingRuntime(ProcessGroupRuntime):
    """Stops all workers at their n-th row of the history."""

    def __init__(self, after: int) -> None:
        super().__init__(torch.device("cpu"))
        self.left = after

    def preempted(self) -> bool:
        self.left -= 1
        if self.left == 0:
            raise StopError
        return False


def two_workers(rank: int, folder: str, images: str, latents: str, lpips: tuple[str, str]) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    runtime = ProcessGroupRuntime(torch.device("cpu"))

    def go(name: str, stage: str, config: Config, runtime: ProcessGroupRuntime = runtime, **extra: int) -> None:
        source = latents if stage == "denoiser" else images
        train(stage, config, source, f"{folder}/k/{name}", runtime=runtime, **extra)

    phases, perceptual = three_phases(), three_phases(lpips)
    milestones = small_config(images=128)
    milestones.diffusion.milestones = [20, 100]
    for parallel in ("ddp", "fsdp"):
        go(f"phases {parallel}", "autoencoder", with_training(perceptual, parallel=parallel))
        parts = {"parallel": parallel, "accumulation": 2, "activation_checkpointing": True}
        go(f"phases {parallel} parts", "autoencoder", with_training(fixed_weight(three_phases()), **parts))
        go(f"denoiser {parallel}", "denoiser", with_training(small_config(images=128), parallel=parallel))
        for until in (32, 112, 0):
            turns = with_training(milestones, parallel=parallel)
            go(f"denoiser {parallel} in turns", "denoiser", turns, until=until)
        last = with_training(small_config(images=64), parallel=parallel, channels_last=True)
        go(f"pixels {parallel}", "autoencoder", last)
        with contextlib.suppress(StopError):  # the same two workers go on
            often = with_training(last, checkpoint_images=16)
            go(f"pixels {parallel} again", "autoencoder", often, StoppingRuntime(2))
        go(f"pixels {parallel} again", "autoencoder", last)
        for phase, row in enumerate((2, 3, 5)):  # one process goes on, or two that share it otherwise, see below
            with contextlib.suppress(StopError):
                stopping = with_training(phases, parallel=parallel, checkpoint_images=8)
                go(f"stopped {parallel} in phase {phase}", "autoencoder", stopping, StoppingRuntime(row))
    for parallel, other in (("ddp", "fsdp"), ("fsdp", "ddp")):
        go(f"stopped {parallel} in phase 2", "autoencoder", with_training(phases, parallel=other))
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory, larger_images, latent_set, lpips_files) -> Path:
    """Plain runs, and the same on two workers."""
    folder = tmp_path_factory.mktemp("parallel")
    torch.set_num_threads(1)
    run("autoencoder", three_phases(lpips_files), larger_images, str(folder / "k" / "phases"))
    run("autoencoder", three_phases(), larger_images, str(folder / "k" / "stopped"))
    run("autoencoder", fixed_weight(three_phases()), larger_images, str(folder / "k" / "phases parts"))
    run("denoiser", small_config(images=128), latent_set, str(folder / "k" / "denoiser"))
    run("autoencoder", small_config(images=64), larger_images, str(folder / "k" / "pixels"))
    arguments = (str(folder), larger_images, latent_set, lpips_files)
    multiprocessing.spawn(two_workers, arguments, nprocs=2, join=True)  # pyright: ignore[reportPrivateImportUsage]
    return folder / "k"


def require_equal(plain: Path, other: Path, tolerance: float = TOLERANCE, rows: bool = True) -> None:
    ours, theirs = (artifacts.read_history(str(uri)) for uri in (plain, other))
    assert [row["images"] for row in theirs] == [row["images"] for row in ours]
    for name in ("loss", "gradient_norm") if rows else ():
        assert [row[name] for row in theirs] == pytest.approx([row[name] for row in ours], rel=tolerance), name
    for file in ("weights.safetensors", "weights_raw.safetensors"):
        expected, found = load_file(plain / file), load_file(other / file)
        assert expected.keys() == found.keys()
        for name, value in expected.items():
            assert float((found[name] - value).norm()) <= tolerance * float(value.norm()) + 1e-3 * tolerance, name


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_workers_train_what_one_trains(results, parallel):
    require_equal(results / "phases", results / f"phases {parallel}", PERCEPTUAL)
    require_equal(results / "denoiser", results / f"denoiser {parallel}")
    require_equal(results / "pixels", results / f"pixels {parallel}")
    require_equal(results / f"pixels {parallel}", results / f"pixels {parallel} again", rows=False)


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_accumulation_and_recomputed_activations_change_nothing_on_two_workers(results, parallel):
    require_equal(results / "phases parts", results / f"phases {parallel} parts")


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_workers_train_in_turns_what_they_train_at_once(results, parallel):
    out = results / f"denoiser {parallel} in turns"
    assert weights(out) == weights(results / f"denoiser {parallel}")
    assert sorted(path.name for path in (out / "milestones").iterdir()) == [f"{images:012d}" for images in (32, 112)]
    ours, theirs = (
        load_file(path) for path in sorted(results.glob(f"denoiser * in turns/milestones/{32:012d}/*.saf*"))
    )
    for name, value in ours.items():
        torch.testing.assert_close(theirs[name], value, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("phase", [0, 1])
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_a_run_of_two_workers_is_continued_by_one(results, larger_images, parallel, phase):
    out = results / f"stopped {parallel} in phase {phase}"
    assert list((out / artifacts.CHECKPOINTS).glob("*.pt")), "it was stopped with checkpoints"
    assert not (out / "manifest.json").exists()
    run("autoencoder", three_phases(), larger_images, str(out))
    # The first row after a restart averages over fewer steps.
    require_equal(results / "stopped", out, rows=False)


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_a_run_of_two_workers_is_continued_by_two_that_share_it_otherwise(results, parallel):
    require_equal(results / "stopped", results / f"stopped {parallel} in phase 2", rows=False)


SWITCHES = {
    "accumulation": {"accumulation": 4},
    "activation_checkpointing": {"activation_checkpointing": True},
    "channels_last": {"channels_last": True},
    "compile": {"compile": True},
    "bf16": {"bf16": True},
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory, image_set, latent_set) -> Path:
    folder = tmp_path_factory.mktemp("plain")
    run("autoencoder", small_config(images=64), image_set, str(folder / "k" / "autoencoder"))
    run("denoiser", small_config(images=64), latent_set, str(folder / "k" / "denoiser"))
    return folder / "k"


@pytest.mark.parametrize("stage", ["autoencoder", "denoiser"])
@pytest.mark.parametrize("switch", list(SWITCHES))
def test_switches_agree_with_the_plain_path(tmp_path, plain, image_set, latent_set, stage, switch, request):
    if (stage, switch) == ("autoencoder", "compile"):
        request.getfixturevalue("graphs_only")  # the denoiser's step is really compiled
    source = latent_set if stage == "denoiser" else image_set
    run(stage, small_config(images=64, **SWITCHES[switch]), source, str(tmp_path / "k" / "b"))
    require_equal(plain / stage, tmp_path / "k" / "b", BFLOAT16 if switch == "bf16" else TOLERANCE)


@pytest.mark.parametrize("per", ["step", "sample"])
def test_a_compiled_gan_phase_agrees_with_the_plain_one(tmp_path, larger_images, per, graphs_only):
    config = three_phases()
    config.autoencoder.phases = config.autoencoder.phases[2:]
    config.autoencoder.phases[0].prefix.per = per
    run("autoencoder", config, larger_images, str(tmp_path / "k" / "a"))
    run("autoencoder", with_training(config, compile=True), larger_images, str(tmp_path / "k" / "b"))
    require_equal(tmp_path / "k" / "a", tmp_path / "k" / "b")
