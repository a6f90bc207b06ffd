import pytest
import torch
from torch import nn

from dcae15.models.discriminator import PatchDiscriminator, least_image_side


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("layers", "patch"), [(1, 16), (2, 34), (3, 70)])
def test_a_logit_sees_a_patch_of_the_image(layers, patch):
    network = PatchDiscriminator(8, layers, "none", generator())
    for module in network.modules():
        if isinstance(module, nn.Conv2d):  # no weight or slope may cancel another
            nn.init.ones_(module.weight)
    image = torch.ones(1, 3, 160, 160, requires_grad=True)
    logits = network(image)
    logits[0, 0, logits.shape[2] // 2, logits.shape[3] // 2].backward()
    seen = image.grad.abs().sum(dim=(0, 1)) > 0
    assert seen.any(0).sum() == seen.any(1).sum() == patch


def test_one_logit_map():
    assert PatchDiscriminator(8)(torch.zeros(2, 3, 64, 48)).shape == (2, 1, 6, 4)
    assert PatchDiscriminator(8)(torch.zeros(2, 3, 24, 24)).shape == (2, 1, 1, 1)


def test_widths_double_up_to_eight_times_the_first():
    convs = [m for m in PatchDiscriminator(8, 5).modules() if isinstance(m, nn.Conv2d)]
    assert [c.out_channels for c in convs] == [8, 16, 32, 64, 64, 64, 1]
    assert [c.stride[0] for c in convs] == [2, 2, 2, 2, 2, 1, 1]
    assert sum(p.numel() for p in PatchDiscriminator(norm="batch").parameters()) == 2_765_633  # as VQGAN's


@pytest.mark.parametrize("layers", [2, 3])
def test_an_image_of_the_least_side_has_one_patch(layers):
    side = least_image_side(layers)
    assert PatchDiscriminator(8, layers)(torch.zeros(1, 3, side, side)).numel() == 1
    with pytest.raises(RuntimeError):
        PatchDiscriminator(8, layers)(torch.zeros(1, 3, side - 1, side))


@pytest.mark.parametrize("norm", ["group", "batch", "none"])
def test_norms(norm):
    network = PatchDiscriminator(16, 3, norm, generator())
    kinds = {"group": nn.GroupNorm, "batch": nn.BatchNorm2d, "none": ()}
    assert sum(isinstance(m, (nn.GroupNorm, nn.BatchNorm2d)) for m in network.modules()) == (0 if norm == "none" else 3)
    assert all(isinstance(m, kinds[norm]) for m in network.modules() if isinstance(m, (nn.GroupNorm, nn.BatchNorm2d)))
    biases = [m.bias is not None for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert biases == ([True, False, False, False, True] if norm == "batch" else [True] * 5)
    images = torch.randn(4, 3, 32, 32, generator=generator())
    one = network(images[:1])
    assert torch.allclose(network(images)[:1], one, atol=1e-5) == (norm != "batch"), "judged apart from its batch"


def test_any_width_has_groups():
    for width in (1, 3, 6, 10, 64):
        network = PatchDiscriminator(width, generator=generator())
        assert network(torch.zeros(1, 3, 32, 32)).isfinite().all()


def test_initial_weights_come_from_the_private_generator():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    a = PatchDiscriminator(16, norm="group", generator=generator(5)).state_dict()
    torch.set_rng_state(state)
    torch.manual_seed(2)
    b = PatchDiscriminator(16, norm="group", generator=generator(5)).state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)
    norms = torch.cat([a[name] for name in a if name.endswith("weight") and a[name].ndim == 1])
    assert norms.mean().item() == pytest.approx(1, abs=0.01)
    assert norms.std().item() == pytest.approx(0.02, rel=0.2)
    convs = torch.cat([a[name].flatten() for name in a if a[name].ndim == 4])
    assert convs.mean().item() == pytest.approx(0, abs=1e-3)
    assert convs.std().item() == pytest.approx(0.02, rel=0.05)
    assert all(not a[name].any() for name in a if name.endswith("bias"))


def test_it_learns_to_tell_noise_from_flat_images():
    network = PatchDiscriminator(8, generator=generator())
    optimizer = torch.optim.Adam(network.parameters(), 1e-3, betas=(0.5, 0.9))
    draws = generator(1)
    for _ in range(30):
        real = torch.rand(8, 3, 24, 24, generator=draws) * 2 - 1
        fake = torch.rand(8, 3, 1, 1, generator=draws).expand(8, 3, 24, 24) * 2 - 1
        loss = (1 - network(real)).relu().mean() + (1 + network(fake)).relu().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.5
