"""The linear-attention block of DC-AE 1.0 and Sana's autoencoders (EfficientViT, arXiv 2205.14756), diffusers' names."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dcae15.models.blocks import ChannelRMSNorm
from dcae15.models.spec import HEAD_CHANNELS

EPS = 1e-15


def relu_attention(q_BhdN: Tensor, k_BhdN: Tensor, v_BhdN: Tensor) -> Tensor:
    """Attend with relu(q) . relu(k) as the similarity, normalised over the keys; shape of v, in float32.

    The products of N tokens are associative, so that the cost is linear in N (with a row of ones below v, which sums the
    similarities); for N <= d the plain order is cheaper, and both are the same function. Sums over all pixels exceed half
    precision, hence float32.
    """
    q, k, v = F.relu(q_BhdN.float()), F.relu(k_BhdN.float()), v_BhdN.float()
    if q.shape[-1] > q.shape[-2]:
        sums = F.pad(v, (0, 0, 0, 1), value=1.0) @ k.transpose(-1, -2) @ q
        return sums[..., :-1, :] / (sums[..., -1:, :] + EPS)
    similarity = k.transpose(-1, -2) @ q
    return v @ (similarity / (similarity.sum(dim=-2, keepdim=True) + EPS))


class Scale(nn.Module):
    """Queries, keys and values (B, 3 * D, H, W) gathered over a window: depthwise, then within each head."""

    def __init__(self, channels: int, size: int):
        super().__init__()
        self.proj_in = nn.Conv2d(channels, channels, size, padding=size // 2, groups=channels, bias=False)
        self.proj_out = nn.Conv2d(channels, channels, 1, groups=channels // HEAD_CHANNELS, bias=False)

    def forward(self, qkv_BCHW: Tensor) -> Tensor:
        """Return the same shape."""
        return self.proj_out(self.proj_in(qkv_BCHW))


class LinearAttention(nn.Module):
    """Linear attention over all pixels, and the norm that ends it; shape is kept.

    ``to_q``, ``to_k`` and ``to_v`` are the thirds of one projection, whose channels are (heads, q then k then v, 32): the names
    are those of diffusers, which cut it so.
    """

    def __init__(self, channels: int, scales: tuple[int, ...] = ()):
        super().__init__()
        inner = channels // HEAD_CHANNELS * HEAD_CHANNELS
        self.to_q = nn.Linear(channels, inner, bias=False)
        self.to_k = nn.Linear(channels, inner, bias=False)
        self.to_v = nn.Linear(channels, inner, bias=False)
        self.to_qkv_multiscale = nn.ModuleList(Scale(3 * inner, size) for size in scales)
        self.to_out = nn.Linear(inner * (1 + len(scales)), channels, bias=False)
        self.norm_out = ChannelRMSNorm(channels)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return what attention adds to x."""
        weight = torch.cat([self.to_q.weight, self.to_k.weight, self.to_v.weight])
        qkv = F.conv2d(x_BCHW, weight[:, :, None, None])
        qkv = torch.cat([qkv, *(scale(qkv) for scale in self.to_qkv_multiscale)], dim=1)
        q, k, v = qkv.unflatten(1, (-1, 3, HEAD_CHANNELS)).flatten(4).unbind(2)
        with torch.autocast(x_BCHW.device.type, enabled=False):
            mixed = relu_attention(q, k, v)
        mixed = mixed.to(qkv.dtype).flatten(1, 2).unflatten(2, x_BCHW.shape[2:])
        return self.norm_out(F.conv2d(mixed, self.to_out.weight[:, :, None, None]))


class GatedConv(nn.Module):
    """conv1x1 -> SiLU -> depthwise conv3x3 -> gate -> conv1x1 -> norm ("GLUMBConv"); shape is kept."""

    def __init__(self, channels: int):
        super().__init__()
        hidden = 4 * channels
        self.conv_inverted = nn.Conv2d(channels, 2 * hidden, 1)
        self.conv_depth = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden)
        self.conv_point = nn.Conv2d(hidden, channels, 1, bias=False)
        self.norm = ChannelRMSNorm(channels)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return what the layers add to x."""
        value, gate = self.conv_depth(F.silu(self.conv_inverted(x_BCHW))).chunk(2, dim=1)
        return self.norm(self.conv_point(value * F.silu(gate)))


class EViTBlock(nn.Module):
    """Linear attention, then the gated convolution, each added to its input; shape is kept."""

    def __init__(self, channels: int, scales: tuple[int, ...] = ()):
        super().__init__()
        self.attn = LinearAttention(channels, scales)
        self.conv_out = GatedConv(channels)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return x plus its two residuals."""
        x_BCHW = x_BCHW + self.attn(x_BCHW)
        return x_BCHW + self.conv_out(x_BCHW)
