import hashlib

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from dcae15.config import PerceptualConfig
from dcae15.errors import ConfigError, WeightsError
from dcae15.losses.perceptual import LPIPS, load_lpips

PLAN = [(64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)]  # VGG-16's convolutions between pools


def weights():
    """Return random weights in the layouts of torchvision and LPIPS, smaller than real ones in nothing."""
    draws = torch.Generator().manual_seed(0)
    vgg, heads, index, channels = {}, {}, 0, 3
    for level, widths in enumerate(PLAN):
        for width in widths:
            gain = (2 / (9 * channels)) ** 0.5
            vgg[f"features.{index}.weight"] = torch.randn(width, channels, 3, 3, generator=draws) * gain
            vgg[f"features.{index}.bias"] = torch.randn(width, generator=draws) * 0.1
            index, channels = index + 2, width
        index += 1
        heads[f"lin{level}.model.1.weight"] = torch.rand(1, channels, 1, 1, generator=draws)
    return vgg, heads


@pytest.fixture(scope="module")
def parts():
    return weights()


@pytest.fixture(scope="module")
def files(parts, tmp_path_factory):
    """The two files as they are downloaded."""
    folder = tmp_path_factory.mktemp("lpips")
    torch.save({**parts[0], "classifier.0.weight": torch.zeros(3)}, folder / "vgg16.pth")
    torch.save(parts[1], folder / "heads.pth")
    return folder


@pytest.fixture(scope="module")
def lpips(parts):
    return LPIPS(*parts)


def config(folder, **changes):
    return PerceptualConfig(
        **{"weight": 1.0, "vgg": str(folder / "vgg16.pth"), "heads": str(folder / "heads.pth"), **changes}
    )


def images(*shape, seed=1):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def expected(a_chw, b_chw, vgg, heads):
    """The distance in numpy and float64, from the paper's equation and the released constants."""

    def conv(x, weight, bias):
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
        return np.einsum("chwij,ocij->ohw", windows, weight, optimize=True) + bias[:, None, None]

    def features(x):
        x = (x - np.array([-0.030, -0.088, -0.188])[:, None, None]) / np.array([0.458, 0.448, 0.450])[:, None, None]
        index, taps = 0, []
        for level, widths in enumerate(PLAN):
            if level:
                c, h, w = x.shape
                x = x[:, : h // 2 * 2, : w // 2 * 2].reshape(c, h // 2, 2, w // 2, 2).max(axis=(2, 4))
                index += 1
            for _ in widths:
                x = np.maximum(conv(x, vgg[f"features.{index}.weight"], vgg[f"features.{index}.bias"]), 0)
                index += 2
            taps.append(x)
        return taps

    vgg, heads = ({name: t.double().numpy() for name, t in part.items()} for part in (vgg, heads))
    total = 0.0
    for level, (f, g) in enumerate(zip(features(a_chw), features(b_chw), strict=True)):
        f, g = (v / (np.sqrt((v**2).sum(axis=0, keepdims=True)) + 1e-10) for v in (f, g))
        total += np.einsum("chw,c->hw", (f - g) ** 2, heads[f"lin{level}.model.1.weight"][0, :, 0, 0]).mean()
    return total


def test_values_are_those_of_an_independent_computation(lpips, parts):
    a, b = images(2, 3, 16, 20), images(2, 3, 16, 20, seed=2)
    reference = [expected(x.double().numpy(), y.double().numpy(), *parts) for x, y in zip(a, b, strict=True)]
    distance = lpips(a, b)
    assert distance.shape == (2,)
    assert abs(reference[0] - reference[1]) > 1e-3
    np.testing.assert_allclose(distance.numpy(), reference, rtol=1e-4)
    assert lpips(a, a).tolist() == [0, 0]


def test_gradients_flow_to_the_reconstruction_alone(lpips):
    a, b = images(1, 3, 16, 16).requires_grad_(), images(1, 3, 16, 16, seed=2).requires_grad_()
    lpips(a, b).sum().backward()
    assert b.grad is None
    assert not any(p.requires_grad for p in lpips.parameters())
    assert not lpips.training
    direction = images(1, 3, 16, 16, seed=3)
    slope = (a.grad * direction).sum().item()
    with torch.no_grad():
        steps = [lpips(a + sign * 1e-3 * direction, b).item() for sign in (1, -1)]
    assert slope == pytest.approx((steps[0] - steps[1]) / 2e-3, rel=0.02)


def test_features_that_are_zero_everywhere_have_finite_gradients(parts):
    vgg = {name: value if name.endswith("weight") else torch.full_like(value, -1e3) for name, value in parts[0].items()}
    a = images(1, 3, 16, 16).requires_grad_()
    distance = LPIPS(vgg, parts[1])(a, images(1, 3, 16, 16, seed=2))
    distance.sum().backward()
    assert distance.item() == 0
    assert a.grad.isfinite().all()


def test_float32_under_autocast(lpips):
    a, b = images(1, 3, 16, 16), images(1, 3, 16, 16, seed=2)
    with torch.autocast("cpu", torch.bfloat16):
        distance = lpips(a.bfloat16(), b)
    assert distance.dtype == torch.float32
    torch.testing.assert_close(distance, lpips(a, b), rtol=0.05, atol=0)


def test_small_images_are_refused(lpips):
    with pytest.raises(ConfigError, match=r"8x32 pixels are too small for LPIPS.*at least 16.*perceptual\.weight"):
        lpips(images(1, 3, 8, 32), images(1, 3, 8, 32))


def test_files_as_they_are_downloaded(lpips, files, parts, tmp_path):
    a, b = images(1, 3, 16, 16), images(1, 3, 16, 16, seed=2)
    digests = {f"{k}_sha256": hashlib.sha256((files / n).read_bytes()).hexdigest().upper() for k, n in NAMES.items()}
    state = torch.get_rng_state()
    loaded = load_lpips(config(files, **digests))
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(loaded(a, b), lpips(a, b))
    assert not any(p.requires_grad for p in loaded.parameters())
    save_file(parts[1], tmp_path / "heads.safetensors")
    assert torch.equal(load_lpips(config(files, heads=str(tmp_path / "heads.safetensors")))(a, b), lpips(a, b))


NAMES = {"vgg": "vgg16.pth", "heads": "heads.pth"}
SOURCES = {"vgg": "vgg16-397923af.pth from download.pytorch.org", "heads": "lpips/weights/v0.1/vgg.pth"}


def refusal(settings, path="autoencoder.losses.perceptual"):
    with pytest.raises(WeightsError) as caught:
        load_lpips(settings, path)
    return str(caught.value)


@pytest.mark.parametrize("field", ["vgg", "heads"])
def test_a_missing_or_wrong_file_is_named_with_its_source(files, tmp_path, field):
    missing = str(tmp_path / "nowhere.pth")
    for value in ("", missing):
        message = refusal(config(files, **{field: value}))
        assert f"autoencoder.losses.perceptual.{field} is " in message
        assert value in message and SOURCES[field] in message
    message = refusal(config(files, **{f"{field}_sha256": "12ab"}))
    assert f"perceptual.{field}_sha256 = 12ab" in message and str(files / NAMES[field]) in message
    assert hashlib.sha256((files / NAMES[field]).read_bytes()).hexdigest() in message
    (tmp_path / "damaged.pth").write_bytes((files / NAMES[field]).read_bytes()[:100])
    message = refusal(config(files, **{field: str(tmp_path / "damaged.pth")}))
    assert f"perceptual.{field} is " in message and SOURCES[field] in message


def test_missing_and_misshapen_tensors_are_named(files, tmp_path):
    swapped = config(files, vgg=str(files / "heads.pth"))
    told = refusal(swapped)
    assert "names such as features.0.weight, features.0.bias" in told and "the first is 'lin0.model.1.weight'" in told
    bad = torch.load(files / "heads.pth", weights_only=True)
    bad["lin2.model.1.weight"] = torch.zeros(1, 64, 1, 1)
    torch.save(bad, tmp_path / "bad.pth")
    message = refusal(config(files, heads=str(tmp_path / "bad.pth")))
    assert "'lin2.model.1.weight' has shape (1, 64, 1, 1), not (1, 256, 1, 1)" in message


def test_files_that_others_wrote_again(lpips, files, parts, tmp_path, caplog):
    a, b = images(1, 3, 16, 16), images(1, 3, 16, 16, seed=2)
    wrapped = {f"module.{name}": value for name, value in parts[0].items()}
    torch.save(
        {"state_dict": wrapped | {"module.classifier.0.weight": torch.zeros(3)}, "epoch": 3}, tmp_path / "vgg.ckpt"
    )
    assert torch.equal(load_lpips(config(files, vgg=str(tmp_path / "vgg.ckpt")))(a, b), lpips(a, b))
    assert not caplog.records, "what LPIPS never reads is no news"


def test_weights_that_are_not_finite_and_pointers_are_refused(files, parts, tmp_path):
    bad = {**parts[1], "lin2.model.1.weight": torch.full((1, 256, 1, 1), torch.nan)}
    torch.save(bad, tmp_path / "bad.pth")
    assert "256 NaN among the 256 values of 'lin2.model.1.weight'" in refusal(
        config(files, heads=str(tmp_path / "bad.pth"))
    )
    (tmp_path / "pointer.pth").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 58862\n")
    for digest in ("", "0" * 64):
        message = refusal(config(files, heads=str(tmp_path / "pointer.pth"), heads_sha256=digest))
        assert "it is a git-lfs pointer to a file of 58,862 bytes" in message and "`git lfs pull`" in message
