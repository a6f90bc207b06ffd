"""LPIPS (arXiv 1801.03924, version 0.1) over VGG-16: how different two images look."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dcae15 import storage
from dcae15.errors import ConfigError, StorageError, WeightsError
from dcae15.weights import parse_state_dict, require_finite
from dcae15.weights.choice import Wanted

# VGG-16 up to relu5_3 as torchvision numbers its layers: convolutions with their channels, the others are ReLUs ...
_CONVS = {0: 64, 2: 64, 5: 128, 7: 128, 10: 256, 12: 256, 14: 256, 17: 512, 19: 512, 21: 512, 24: 512, 26: 512, 28: 512}
_POOLS_BEFORE = (5, 10, 17, 24)  # ... and max pools, just before these convolutions
_TAPS = (2, 7, 14, 21, 28)  # compared after their ReLU: relu1_2, relu2_2, relu3_3, relu4_3, relu5_3
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)
_EPS = 1e-10

LEAST_IMAGE_SIDE = 2 ** len(_POOLS_BEFORE)
"""Least side of an image, in pixels: the pools halve it."""

PERCEPTUAL_SOURCES = {
    "vgg": "LPIPS needs VGG-16's weights; download vgg16-397923af.pth from download.pytorch.org/models and give its path or URI",
    "heads": "LPIPS needs its linear heads; download lpips/weights/v0.1/vgg.pth from the repository "
    "richzhang/PerceptualSimilarity and give its path or URI",
}
"""Where the weights of LPIPS come from, by field."""


class LPIPS(nn.Module):
    """Distance of two images, from features of VGG-16 under learned weights per channel. Nothing in it trains.

    Args:
        features: VGG-16's weights, ``features.N.weight`` and ``features.N.bias``; other names are ignored.
        heads: weights of the feature channels, ``lin0.model.1.weight`` to ``lin4.model.1.weight``.
    """

    def __init__(self, features: dict[str, Tensor], heads: dict[str, Tensor]) -> None:
        super().__init__()
        convs, channels = {}, 3
        for index, width in _CONVS.items():
            with torch.device("meta"):
                convs[str(index)] = nn.Conv2d(channels, width, 3, padding=1)
            channels = width
        self.features = nn.ModuleDict(convs)
        self.load_state_dict({name: features[name].float() for name in _vgg_shapes()}, assign=True)
        for i, name in enumerate(_head_shapes()):
            self.register_buffer(f"head{i}", heads[name].float().flatten(), persistent=False)
        self.shift: Tensor
        self.scale: Tensor
        self.register_buffer("shift", torch.tensor(_SHIFT)[:, None, None], persistent=False)
        self.register_buffer("scale", torch.tensor(_SCALE)[:, None, None], persistent=False)
        self.requires_grad_(False)
        self.eval()

    def forward(self, reconstruction_BCHW: Tensor, target_BCHW: Tensor) -> Tensor:
        """Return the distance of each pair of images in [-1, 1], (B,) in float32; gradients flow to the first only.

        Raises:
            ConfigError: the images have fewer than 16 pixels on a side.
        """
        height, width = target_BCHW.shape[-2:]
        if min(height, width) < LEAST_IMAGE_SIDE:
            raise ConfigError(
                f"images of {height}x{width} pixels are too small for LPIPS, which needs at least {LEAST_IMAGE_SIDE} on each "
                "side; set perceptual.weight to 0, or train on larger images"
            )
        with torch.no_grad():
            targets = [_unit(feature) for feature in self._features(target_BCHW)]
        distance = torch.zeros(len(target_BCHW), device=target_BCHW.device)
        for i, feature in enumerate(self._features(reconstruction_BCHW)):
            difference_BC = (_unit(feature) - targets[i]).square().mean(dim=(2, 3))  # the heads are linear: mean first
            distance = distance + (difference_BC * self.get_buffer(f"head{i}")).sum(dim=1)
        return distance

    def _features(self, pixels_BCHW: Tensor) -> Iterator[Tensor]:
        x = (pixels_BCHW.float() - self.shift) / self.scale
        for index in _CONVS:
            if index in _POOLS_BEFORE:
                x = F.max_pool2d(x, 2)
            x = F.relu(self.features[str(index)](x))
            if index in _TAPS:
                yield x


def _unit(feature_BCHW: Tensor) -> Tensor:
    """Scale each place's channels to a vector of length 1; where all are zero they stay so, and the gradient is finite."""
    feature = feature_BCHW.float()
    return feature / (torch.linalg.vector_norm(feature, dim=1, keepdim=True) + _EPS)


def _vgg_shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    channels = 3
    for index, width in _CONVS.items():
        shapes |= {f"features.{index}.weight": (width, channels, 3, 3), f"features.{index}.bias": (width,)}
        channels = width
    return shapes


def _head_shapes() -> dict[str, tuple[int, ...]]:
    return {f"lin{i}.model.1.weight": (1, _CONVS[index], 1, 1) for i, index in enumerate(_TAPS)}


class LPIPSFiles(Protocol):
    """Where the two weight files are, as paths or URIs, and their SHA-256; an empty digest is not checked."""

    vgg: str
    vgg_sha256: str
    heads: str
    heads_sha256: str


def load_lpips(files: LPIPSFiles, path: str = "losses.perceptual") -> LPIPS:
    """Read the weights that a configuration names.

    Raises:
        WeightsError: a file cannot be read, has another digest, or holds something else; says which field names it.
    """
    features = _read(f"{path}.vgg", files.vgg, files.vgg_sha256, PERCEPTUAL_SOURCES["vgg"], _vgg_shapes())
    heads = _read(f"{path}.heads", files.heads, files.heads_sha256, PERCEPTUAL_SOURCES["heads"], _head_shapes())
    return LPIPS(features, heads)


def _read(field: str, uri: str, digest: str, source: str, shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    if not uri:
        raise WeightsError(f"{field} is empty: {source}")
    try:
        data = storage.read_bytes(storage.expanded(uri))
        found = storage.sha256(data)
        if digest and digest.strip().lower() != found:
            what = storage.stand_in(data[: storage.HEAD_BYTES])
            raise WeightsError(
                f"its SHA-256 is {found}, not {field}_sha256 = {digest}: "
                + (f"it is {what}" if what else "the download is damaged, or it is another file")
            )
        wanted = Wanted("weights of this kind", shapes.__contains__, ", ".join(list(shapes)[:2]), rest=False)
        weights = parse_state_dict(data, uri, wanted=wanted)
        for name, shape in shapes.items():
            if name not in weights:
                raise WeightsError(f"it has no '{name}'; its names begin with {', '.join(sorted(weights)[:3])}")
            if tuple(weights[name].shape) != shape:
                raise WeightsError(f"'{name}' has shape {tuple(weights[name].shape)}, not {shape}")
        require_finite({name: weights[name] for name in shapes}, uri)
    except (StorageError, WeightsError) as error:
        raise WeightsError(f"{field} is '{uri}', which cannot be used: {str(error).rstrip('.')}. {source}") from error
    return {name: weights[name] for name in shapes}
