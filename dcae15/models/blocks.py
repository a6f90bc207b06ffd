"""Building blocks of the DC-AE graphs (arXiv 2410.10733, 2508.00413), with diffusers' parameter names."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def activation(name: str) -> Callable[[Tensor], Tensor]:
    """Return the function called ``silu`` or ``relu``."""
    return {"silu": F.silu, "relu": F.relu}[name]


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
    """conv3x3 -> activation -> conv3x3 (no bias) -> norm, added to the input; shape is kept."""

    def __init__(self, channels: int, norm: str = "rms_norm", act: str = "silu"):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels) if norm == "batch_norm" else ChannelRMSNorm(channels)
        self.act = activation(act)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return x plus its residual."""
        return x_BCHW + self.norm(self.conv2(self.act(self.conv1(x_BCHW))))


class Downsample(nn.Module):
    """(B, in, H, W) -> (B, out, H/2, W/2).

    Either a conv3x3 to out/4 channels, then each 2x2 square of pixels becomes channels, or, ``strided``, a conv3x3 of stride 2.
    The shortcut does it without weights: space to channels, then the mean over groups of 4 * in / out consecutive channels
    ("residual autoencoding", arXiv 2410.10733).
    """

    def __init__(self, in_channels: int, out_channels: int, shortcut: bool = True, strided: bool = False):
        super().__init__()
        self.strided = strided
        if strided:
            self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, stride=2)
        else:
            self.conv = nn.Conv2d(in_channels, out_channels // 4, 3, padding=1)
        self.group = 4 * in_channels // out_channels if shortcut else 0

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Halve both sides; they must be even."""
        y = self.conv(x_BCHW)
        if not self.strided:
            y = F.pixel_unshuffle(y, 2)
        if self.group:
            y = y + F.pixel_unshuffle(x_BCHW, 2).unflatten(1, (-1, self.group)).mean(dim=2)
        return y


class Upsample(nn.Module):
    """(B, in, H, W) -> (B, out, 2H, 2W).

    Either a conv3x3 to 4 * out channels, then channels become 2x2 squares of pixels, or, ``interpolate``, nearest neighbours
    and a conv3x3. The shortcut repeats each input channel 4 * out / in times before the channels become pixels.
    """

    def __init__(self, in_channels: int, out_channels: int, shortcut: bool = True, interpolate: bool = False):
        super().__init__()
        self.interpolate = interpolate
        self.conv = nn.Conv2d(in_channels, out_channels if interpolate else 4 * out_channels, 3, padding=1)
        self.repeats = 4 * out_channels // in_channels if shortcut else 0

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Double both sides."""
        if self.interpolate:
            y = self.conv(F.interpolate(x_BCHW, scale_factor=2.0, mode="nearest"))
            if self.repeats:
                y = y + F.pixel_shuffle(x_BCHW.repeat_interleave(self.repeats, dim=1), 2)
            return y
        y = self.conv(x_BCHW)
        if self.repeats:
            y = (y.unflatten(1, (-1, self.repeats)) + x_BCHW.unsqueeze(2)).flatten(1, 2)
        return F.pixel_shuffle(y, 2)


class PrefixOutConv(nn.Conv2d):
    """A convolution that computes only its first output channels (the encoder's last layer in DC-AE 1.5).

    Args:
        in_channels: Channels in.
        out_channels: C, channels of the whole latent.
        shortcut: Add the mean over groups of in / C consecutive input channels (1.0); in must be a multiple of C.
    """

    def __init__(self, in_channels: int, out_channels: int, shortcut: bool = False):
        super().__init__(in_channels, out_channels, 3, padding=1)
        self.group = in_channels // out_channels if shortcut else 0

    def forward(self, x_BCHW: Tensor, prefix: int) -> Tensor:  # type: ignore[override]
        """Return the first ``prefix`` of ``out_channels`` channels, at the cost of these alone."""
        bias = None if self.bias is None else self.bias[:prefix]
        y = F.conv2d(x_BCHW, self.weight[:prefix], bias, self.stride, self.padding)
        if self.group:
            y = y + x_BCHW[:, : prefix * self.group].unflatten(1, (-1, self.group)).mean(dim=2)
        return y


class PrefixInConv(nn.Conv2d):
    """A convolution that takes any number of front channels (the decoder's first layer in DC-AE 1.5).

    Its whole bias is used, and the shortcut of a missing channel is zero, so the result equals that of the input filled up
    with zero channels.

    Args:
        in_channels: C, channels of the whole latent.
        out_channels: Channels out.
        shortcut: Add each input channel, repeated out / C times (1.0); out must be a multiple of C.
    """

    def __init__(self, in_channels: int, out_channels: int, shortcut: bool = False):
        super().__init__(in_channels, out_channels, 3, padding=1)
        self.repeats = out_channels // in_channels if shortcut else 0

    def forward(self, x_BcHW: Tensor) -> Tensor:  # type: ignore[override]
        """Map 1 to ``in_channels`` front channels to all output channels."""
        y = F.conv2d(x_BcHW, self.weight[:, : x_BcHW.shape[1]], self.bias, self.stride, self.padding)
        if self.repeats:
            repeated = x_BcHW.repeat_interleave(self.repeats, dim=1)
            y = y + F.pad(repeated, (0, 0, 0, 0, 0, y.shape[1] - repeated.shape[1]))
        return y
