"""The PatchGAN discriminator of pix2pix (arXiv 1611.07004), as VQGAN uses it: one judgement per patch of the image."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

_KERNEL = 4
_SLOPE = 0.2
_INITIAL_STD = 0.02  # of weights; norms scatter around 1


def least_image_side(layers: int) -> int:
    """Return the least side, in pixels, of images for ``layers`` that halve: two more shrink what is left by a pixel each."""
    return 3 * 2**layers


class PatchDiscriminator(nn.Module):
    """Pixels (B, 3, H, W) to logits (B, 1, h, w), each for a patch: high where it looks real.

    ``layers`` convolutions halve the image, two more keep its size; all are 4x4. With 3 halving layers a logit sees
    70 x 70 pixels. Channels double with every layer, up to eight times the first.

    Args:
        width: channels of the first layer.
        layers: layers that halve the image.
        norm: ``group`` (depends on nothing but the image itself), ``batch`` (pix2pix) or ``none``. As in pix2pix the first
            and the last layer have no norm.
        generator: source of the initial weights; None draws them from torch's global generator.
    """

    def __init__(
        self,
        width: int = 64,
        layers: int = 3,
        norm: Literal["group", "batch", "none"] | str = "group",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        widths = [width * min(2**i, 8) for i in range(layers + 1)]
        body: list[nn.Module] = [_conv(3, width, 2), nn.LeakyReLU(_SLOPE)]
        for i in range(1, layers + 1):
            stride = 2 if i < layers else 1
            body += [_conv(widths[i - 1], widths[i], stride, bias=norm != "batch"), *_norm(norm, widths[i])]
            body.append(nn.LeakyReLU(_SLOPE))
        self.body = nn.Sequential(*body)
        self.head = _conv(widths[-1], 1, 1)
        self._init_weights(generator)

    @torch.no_grad()
    def _init_weights(self, generator: torch.Generator | None) -> None:
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, 0.0, _INITIAL_STD, generator)
            elif isinstance(layer, nn.BatchNorm2d | nn.GroupNorm):
                nn.init.normal_(layer.weight, 1.0, _INITIAL_STD, generator)
            else:
                continue
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        """Return one logit per patch, of images of at least `least_image_side` pixels."""
        return self.head(self.body(pixels_BCHW))


def _conv(inputs: int, outputs: int, stride: int, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, _KERNEL, stride, padding=1, bias=bias)


def _norm(kind: str, channels: int) -> list[nn.Module]:
    if kind == "batch":
        return [nn.BatchNorm2d(channels)]
    if kind == "group":  # 32 groups, fewer where they would hold less than 4 channels
        return [nn.GroupNorm(math.gcd(32, channels, max(1, channels // 4)), channels)]
    return []
