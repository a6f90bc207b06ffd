"""The same weights, loaded by name without renaming, make diffusers' AutoencoderDC and ours the same function."""

import pytest
import torch
from diffusers import AutoencoderDC  # pyright: ignore[reportMissingImports]

from dcae15.export.foreign_config import spec_from_diffusers
from dcae15.models.autoencoder import Autoencoder, AutoencoderSpec

SPECS = [
    AutoencoderSpec(8, (8, 16, 32, 32), (0, 2, 1, 1), (8, 16, 32, 32), (0, 1, 1, 2)),
    AutoencoderSpec(6, (4, 8, 16, 32, 64), (0, 1, 1, 2, 1), (20, 24, 48, 16, 64), (0, 1, 2, 1, 1)),
    AutoencoderSpec(3, (7, 32), (0, 1), (5, 24), (0, 3)),
]


def pair(spec):
    theirs = AutoencoderDC(
        latent_channels=spec.latent_channels,
        encoder_block_types="ResBlock",
        decoder_block_types="ResBlock",
        encoder_block_out_channels=spec.encoder_widths,
        decoder_block_out_channels=spec.decoder_widths,
        encoder_layers_per_block=spec.encoder_depths,
        decoder_layers_per_block=spec.decoder_depths,
        encoder_qkv_multiscales=((),) * len(spec.encoder_widths),
        decoder_qkv_multiscales=((),) * len(spec.encoder_widths),
        encoder_out_shortcut=False,
        decoder_in_shortcut=False,
        decoder_conv_act_fn="silu",
    ).eval()
    ours = Autoencoder(spec, torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in ours.parameters():  # norms too, so that swapped weights and biases would show
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    theirs.load_state_dict(ours.state_dict())
    return theirs, ours


@pytest.mark.parametrize("spec", SPECS, ids=["f8", "f16", "f2"])
@torch.no_grad()
def test_latents_images_and_configuration_agree(spec):
    theirs, ours = pair(spec)
    f = spec.spatial_compression
    pixels = torch.rand(2, 3, 2 * f, 3 * f, generator=torch.Generator().manual_seed(2)) * 2 - 1
    latents = theirs.encode(pixels).latent
    torch.testing.assert_close(ours.encode(pixels), latents, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.decode(latents), theirs.decode(latents).sample, rtol=1e-5, atol=1e-5)
    assert spec_from_diffusers(theirs.config) == spec


@torch.no_grad()
def test_a_prefix_is_their_latent_with_zeros_behind():
    theirs, ours = pair(SPECS[0])
    pixels = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(3)) * 2 - 1
    for prefix in (1, 3, 8):
        masked = theirs.encode(pixels).latent
        masked[:, prefix:] = 0
        image = ours.decode(ours.encode(pixels, prefix))
        torch.testing.assert_close(image, theirs.decode(masked).sample, rtol=1e-5, atol=1e-5)
