"""Building blocks of the DC-AE 1.1 and 1.5 graphs (arXiv 2410.10733, 2508.00413), with diffusers' parameter names."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ChannelRMSNorm(nn.Module):
    """Divide each pixel's channel vector by its root mean square, then scale and shift each channel.

    Input and output have shape (B, C, H, W). Unlike most RMS norms this one has a bias.
    """

    def __init__(self, channels: int, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Normalise over dimension 1; same shape out."""
        x = x_BCHW.float()  # squares overflow half precision
        scale = torch.rsqrt(x.square().mean(dim=1, keepdim=True) + self.eps)
        y = torch.addcmul(self.bias[:, None, None], x * scale, self.weight[:, None, None])
        return y.to(x_BCHW.dtype)


class ResBlock(nn.Module):
    """conv3x3 -> SiLU -> conv3x3 (no bias) -> norm, added to the input; shape is kept."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = ChannelRMSNorm(channels)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return x plus its residual."""
        return x_BCHW + self.norm(self.conv2(F.silu(self.conv1(x_BCHW))))


class Downsample(nn.Module):
    """(B, in, H, W) -> (B, out, H/2, W/2): conv3x3 to out/4 channels, then each 2x2 square of pixels becomes channels.

    The shortcut does the same to the input without weights: space to channels, then the mean over groups of
    4 * in / out consecutive channels ("residual autoencoding", arXiv 2410.10733).
    """

    def __init__(self, in_channels: int, out_channels: int, shortcut: bool = True):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels // 4, 3, padding=1)
        self.group = 4 * in_channels // out_channels if shortcut else 0

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Halve both sides; they must be even."""
        y = F.pixel_unshuffle(self.conv(x_BCHW), 2)
        if self.group:
            y = y + F.pixel_unshuffle(x_BCHW, 2).unflatten(1, (-1, self.group)).mean(dim=2)
        return y


class Upsample(nn.Module):
    """(B, in, H, W) -> (B, out, 2H, 2W): conv3x3 to 4 * out channels, then channels become 2x2 squares of pixels.

    The shortcut repeats each input channel 4 * out / in times before the channels become pixels.
    """

    def __init__(self, in_channels: int, out_channels: int, shortcut: bool = True):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, 4 * out_channels, 3, padding=1)
        self.repeats = 4 * out_channels // in_channels if shortcut else 0

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Double both sides."""
        y = self.conv(x_BCHW)
        if self.repeats:
            y = (y.unflatten(1, (-1, self.repeats)) + x_BCHW.unsqueeze(2)).flatten(1, 2)
        return F.pixel_shuffle(y, 2)


class PrefixOutConv(nn.Conv2d):
    """A convolution that computes only its first output channels (the encoder's last layer in DC-AE 1.5)."""

    def forward(self, x_BCHW: Tensor, prefix: int) -> Tensor:  # type: ignore[override]
        """Return the first ``prefix`` of ``out_channels`` channels, at the cost of these alone."""
        bias = None if self.bias is None else self.bias[:prefix]
        return F.conv2d(x_BCHW, self.weight[:prefix], bias, self.stride, self.padding)


class PrefixInConv(nn.Conv2d):
    """A convolution that takes any number of front channels (the decoder's first layer in DC-AE 1.5).

    Its whole bias is used, so the result equals that of the input filled up with zero channels.
    """

    def forward(self, x_BcHW: Tensor) -> Tensor:  # type: ignore[override]
        """Map 1 to ``in_channels`` front channels to all output channels."""
        return F.conv2d(x_BcHW, self.weight[:, : x_BcHW.shape[1]], self.bias, self.stride, self.padding)


def init_weights(module: nn.Module, generator: torch.Generator | None) -> None:
    """Draw the initial weights of everything below ``module`` from a private generator.

    Convolutions get torch's default distribution: uniform within 1 / sqrt(fan in). Every ResBlock starts as identity,
    because a norm ends it: with the usual gain of 1 each block would add a full-size random vector to the signal of the
    shortcuts, whatever its convolutions do. With a gain of 0 training begins with the shortcuts alone, and is faster.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            bound = 1 / math.sqrt(layer.weight[0].numel())
            nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
            if layer.bias is not None:
                nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
        elif isinstance(layer, ResBlock):
            nn.init.zeros_(layer.norm.weight)
