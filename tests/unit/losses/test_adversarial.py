import gc

import pytest
import torch
from torch import nn

from dcae15.losses.adversarial import LastLayer, adaptive_weight, generator_loss, hinge_discriminator_loss
from dcae15.models.autoencoder import Autoencoder
from dcae15.models.spec import AutoencoderSpec

SPEC = AutoencoderSpec(8, (8, 16, 32), (0, 1, 1), (8, 16, 32), (0, 1, 1))


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def network():
    return Autoencoder(SPEC, torch.Generator().manual_seed(0)).train()


def judgement(reconstructions):
    """Some loss that is not linear in any pixel."""
    return sum((r.float() - noise(*r.shape, seed=9)).abs().mul(r.float().cos()).mean() for r in reconstructions)


def both(network, last_layer, prefixes, dtype=None):
    """Return the gradient at the last weight: ours, and autograd's."""
    last_layer.reset()
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype is not None):
        latents = network.encode(noise(2, 3, 16, 24))
        reconstructions = [network.decode(latents[:, :c]) for c in prefixes]
    loss = judgement(reconstructions)
    grads = torch.autograd.grad(loss, reconstructions, retain_graph=True)
    weight = [layer for layer in network.decoder.modules() if isinstance(layer, nn.Conv2d)][-1].weight
    return last_layer.gradient(grads), torch.autograd.grad(loss, weight)[0]


def test_the_hinge_pulls_logits_beyond_plus_and_minus_one():
    assert hinge_discriminator_loss(torch.zeros(2, 1, 3, 3), torch.zeros(5)).item() == 1
    assert hinge_discriminator_loss(torch.full((2,), 1.5), torch.full((2,), -1.0)).item() == 0
    assert hinge_discriminator_loss(torch.tensor([0.0, 3.0]), torch.tensor([-5.0, 1.0])).item() == 0.75
    assert generator_loss(torch.tensor([1.0, 2.0])).item() == -1.5
    assert hinge_discriminator_loss(torch.zeros(2).bfloat16(), torch.zeros(2).bfloat16()).dtype == torch.float32
    assert generator_loss(torch.zeros(2).bfloat16()).dtype == torch.float32


def test_the_adaptive_weight_is_the_ratio_of_the_gradients_within_limits():
    ours, theirs = torch.tensor([3.0, 4.0]), torch.tensor([0.0, 2.0])
    assert adaptive_weight(ours, theirs).item() == pytest.approx(2.5, rel=1e-4)
    assert adaptive_weight(ours, torch.zeros(2)).item() == 1e4
    assert adaptive_weight(torch.zeros(2), theirs).item() == 0
    assert adaptive_weight(ours * 1e-4, torch.zeros(2)).item() == pytest.approx(5, rel=1e-3)


@pytest.mark.parametrize("mode", [True, False])  # frozen layers are in evaluation mode
@pytest.mark.parametrize("prefixes", [[8], [3], [8, 3, 5]])
def test_the_gradient_at_the_last_layer_is_autograds(network, prefixes, mode):
    network.decoder.train(mode)
    ours, autograds = both(network, LastLayer(network.decoder), prefixes)
    assert ours.shape == (12, 16, 3, 3)
    assert autograds.abs().max() > 1e-4
    torch.testing.assert_close(ours, autograds, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("between", [nn.SiLU(), nn.Upsample(scale_factor=2)])
def test_it_is_so_without_a_pixel_shuffle(between):
    decoder = nn.Sequential(nn.Conv2d(4, 6, 3), between, nn.Conv2d(6, 3, 3, padding=1))
    last_layer = LastLayer(decoder)
    reconstruction = decoder(noise(2, 4, 10, 12))
    loss = judgement([reconstruction])
    ours = last_layer.gradient(torch.autograd.grad(loss, [reconstruction], retain_graph=True))
    torch.testing.assert_close(ours, torch.autograd.grad(loss, decoder[-1].weight)[0], rtol=1e-5, atol=1e-8)


def test_it_is_so_in_bfloat16(network):
    ours, autograds = both(network, LastLayer(network.decoder), [8, 4], torch.bfloat16)
    assert ours.dtype == torch.float32
    assert (ours - autograds).norm() < 0.01 * autograds.norm()


def test_it_is_so_in_a_compiled_decoder(network):
    network.decoder.compile(backend="aot_eager")
    for _ in range(2):  # the second one finds a decoder that was compiled without its hook
        network.decode(network.encode(noise(2, 3, 16, 24))[:, :8]).mean().backward()
        last_layer = LastLayer(network.decoder)
        for prefixes in ([8], [8, 3], [5, 8]):
            ours, autograds = both(network, last_layer, prefixes)
            torch.testing.assert_close(ours, autograds, rtol=1e-4, atol=1e-7)
        del last_layer
    assert len(network.decoder.conv_out.conv._forward_pre_hooks) == 0


def test_it_is_so_with_activation_checkpointing(network):
    last_layer = LastLayer(network.decoder)
    for _ in range(2):  # the second step forgets what the first one's backward pass computed again
        last_layer.reset()
        latents = network.encode(noise(2, 3, 16, 24))
        reconstruction = torch.utils.checkpoint.checkpoint(network.decoder, latents, use_reentrant=False)
        loss = judgement([reconstruction])
        ours = last_layer.gradient(torch.autograd.grad(loss, [reconstruction], retain_graph=True))
        loss.backward()
        torch.testing.assert_close(ours, network.decoder.conv_out.conv.weight.grad, rtol=1e-5, atol=1e-8)
        network.zero_grad()


def test_it_keeps_nothing_but_what_training_needs(network):
    last_layer = LastLayer(network.decoder)
    latents = network.encode(noise(2, 3, 16, 24))
    with torch.no_grad():
        network.decode(latents)
    grad = torch.ones(2, 3, 16, 24)
    with pytest.raises(RuntimeError, match="called 0 times"):
        last_layer.gradient([grad])
    network.decode(latents)
    torch.testing.assert_close(last_layer.gradient([grad]), last_layer.gradient([grad]), msg="it may be asked twice")
    last_layer.reset()
    with pytest.raises(RuntimeError, match="called 0 times"):
        last_layer.gradient([grad])


def test_the_hook_goes_away_with_the_object(network):
    last_layer = LastLayer(network.decoder)
    assert len(network.decoder.conv_out.conv._forward_pre_hooks) == 1
    del last_layer
    gc.collect()
    assert not network.decoder.conv_out.conv._forward_pre_hooks
