"""The control with a weighted loss: trains on all channels, and is the plain training where the weights are equal."""

import pytest
import torch
from safetensors.torch import load_file

from dcae15.artifacts import Denoiser
from dcae15.config import Config, PhaseConfig, build, check, from_overrides, warnings_for
from dcae15.errors import ConfigError
from tests.unit.training.small import run, small_config


def trained(folder, name: str, latents: str, **prefix) -> tuple[dict[str, torch.Tensor], Denoiser]:
    config = small_config(
        learning_rate=1e-4
    )  # AdamW's first steps make a whole step of the sign of what rounding leaves
    config = config.changed(
        diffusion=config.diffusion.changed(prefix=config.diffusion.prefix.changed(always_full=False, **prefix)),
    )
    out = folder / "k" / name
    run("denoiser", config, latents, str(out))
    return load_file(out / "weights_raw.safetensors"), Denoiser.open(str(out))


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def test_equal_weights_train_what_no_masks_train_and_others_do_not(tmp_path, latent_set):
    plain, _ = trained(tmp_path, "plain", latent_set, kind="none")
    equal, made = trained(tmp_path, "equal", latent_set, kind="weighted", choices=[8])
    front, _ = trained(tmp_path, "front", latent_set, kind="weighted", choices=[2, 8])  # 2 was never decoded: no matter
    assert distance(equal, plain) < 0.1 * distance(front, plain)
    assert made.prefix_choices == (8,)


def test_a_compiled_step_gets_the_same_weights(tmp_path, latent_set, graphs_only):
    config = small_config(images=64)
    config.diffusion.prefix = config.diffusion.prefix.changed(kind="weighted", choices=[2, 8])
    run("denoiser", config, latent_set, str(tmp_path / "k" / "plain"))
    config.diffusion.training = config.diffusion.training.changed(compile=True)
    run("denoiser", config, latent_set, str(tmp_path / "k" / "compiled"))
    plain, compiled = (load_file(tmp_path / "k" / name / "weights.safetensors") for name in ("plain", "compiled"))
    for name, value in plain.items():
        torch.testing.assert_close(compiled[name], value, rtol=1e-3, atol=1e-4)


def test_an_autoencoder_cannot_have_it():
    config, _ = build([from_overrides(["autoencoder.prefix.kind=weighted"])])
    with pytest.raises(
        ConfigError, match=r"autoencoder\.prefix\.kind is 'weighted'.*use it for diffusion\.prefix\.kind"
    ):
        check(config)
    config = Config()
    config.autoencoder.phases = [PhaseConfig(name="one"), PhaseConfig(name="two")]
    config.autoencoder.phases[1].prefix.kind = "weighted"
    with pytest.raises(ConfigError, match=r"autoencoder\.phases\[1\]\.prefix\.kind is 'weighted'"):
        check(config)


def test_it_is_no_odd_choice_but_its_denoiser_knows_all_channels_only():
    def warnings(*words: str) -> list[str]:
        config, _ = build([from_overrides(["diffusion.prefix.kind=weighted", *words])])
        check(config)
        return warnings_for(config)

    assert warnings() == warnings("diffusion.prefix.choices=[1,2,32]") == warnings("sampling.prefix=32") == []
    assert ["expect poor images" in warning for warning in warnings("sampling.prefix=8")] == [True]
