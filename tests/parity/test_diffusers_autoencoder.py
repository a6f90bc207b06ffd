"""The same weights, loaded by name without renaming, make diffusers' AutoencoderDC and ours the same function."""

import pytest
import torch
from diffusers import AutoencoderDC  # pyright: ignore[reportMissingImports]

from dcae15.export.foreign_config import diffusers_config, spec_from_diffusers
from dcae15.models.autoencoder import Autoencoder
from dcae15.models.presets import PRESETS
from tests.families import FAMILIES, pixels, randomised


def pair(spec):
    ours = randomised(spec)
    theirs = AutoencoderDC.from_config(diffusers_config(spec, 1.0)).eval()
    theirs.load_state_dict(ours.state_dict())
    return theirs, ours


@pytest.mark.parametrize("size", [(2, 3), (7, 5)], ids=["few pixels", "many pixels"])
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_latents_images_and_configuration_agree(family, size):
    spec = FAMILIES[family]
    theirs, ours = pair(spec)
    images = pixels(spec, 2, *size)
    latents = theirs.encode(images).latent
    torch.testing.assert_close(ours.encode(images), latents, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.decode(latents), theirs.decode(latents).sample, rtol=1e-5, atol=1e-5)
    assert spec_from_diffusers(theirs.config) == spec


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_a_prefix_is_their_latent_with_zeros_behind(family):
    spec = FAMILIES[family]
    theirs, ours = pair(spec)
    images = pixels(spec, 1)
    for prefix in (1, 3, spec.latent_channels):
        masked = theirs.encode(images).latent
        torch.testing.assert_close(ours.encode(images, prefix), masked[:, :prefix], rtol=1e-5, atol=1e-5)
        masked[:, prefix:] = 0
        image = ours.decode(ours.encode(images, prefix))
        torch.testing.assert_close(image, theirs.decode(masked).sample, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", PRESETS)
def test_published_graphs_have_the_same_parameters(name):
    with torch.device("meta"):
        theirs = AutoencoderDC.from_config(diffusers_config(PRESETS[name], 1.0))
        ours = Autoencoder(PRESETS[name])
    shapes = [{key: value.shape for key, value in model.state_dict().items()} for model in (theirs, ours)]
    assert shapes[0] == shapes[1]
