"""DiT, the diffusion transformer (arXiv 2212.09748), which denoises any prefix of the latent channels."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dcae15.errors import ConfigError
from dcae15.models.spec import DiTSpec

TIME_FREQUENCIES = 128
NORM_EPS = 1e-6


def position_table(side: int, width: int) -> Tensor:
    """Return fixed 2-D sine-cosine positions (1, side * side, width): first the row's channels, then the column's."""
    frequencies = 10_000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    angles = torch.arange(side, dtype=torch.float64)[:, None] * frequencies
    line = torch.cat([angles.sin(), angles.cos()], dim=1)
    rows, columns = line.repeat_interleave(side, dim=0), line.repeat(side, 1)
    return torch.cat([rows, columns], dim=1).float()[None]


def modulate(x_BND: Tensor, shift_BD: Tensor, scale_BD: Tensor) -> Tensor:
    """Normalise each token without weights, then scale by 1 + scale and shift (adaptive layer norm)."""
    return torch.addcmul(shift_BD[:, None], F.layer_norm(x_BND, x_BND.shape[-1:], eps=NORM_EPS), 1 + scale_BD[:, None])


class PatchEmbedding(nn.Module):
    """Latents (B, c, h, w) with any c <= C front channels to tokens (B, N, D)."""

    def __init__(self, spec: DiTSpec):
        super().__init__()
        self.proj = nn.Conv2d(spec.latent_channels, spec.width, spec.patch_size, stride=spec.patch_size)

    def forward(self, latents_Bchw: Tensor) -> Tensor:
        """Embed with the weights of the channels present and the whole bias."""
        weight = self.proj.weight[:, : latents_Bchw.shape[1]]
        return F.conv2d(latents_Bchw, weight, self.proj.bias, self.proj.stride).flatten(2).transpose(1, 2)


class TimeEmbedding(nn.Module):
    """Time (B,) in [0, 1] to (B, D): an MLP on waves of the raw time, as in SiT (arXiv 2401.08740)."""

    def __init__(self, width: int):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(2 * TIME_FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t_B: Tensor) -> Tensor:
        """Embed; the angles are computed in float32 whatever the precision around."""
        steps = torch.arange(TIME_FREQUENCIES, device=t_B.device, dtype=torch.float32)
        angles = t_B.float()[:, None] * torch.exp(-math.log(10_000.0) * steps / TIME_FREQUENCIES)
        return self.mlp(torch.cat([angles.cos(), angles.sin()], dim=1).to(next(self.mlp.parameters()).dtype))


class LabelEmbedding(nn.Module):
    """Labels (B,) in 0..num_classes, the last being the null class, to (B, D)."""

    def __init__(self, num_classes: int, width: int):
        super().__init__()
        self.embedding_table = nn.Embedding(num_classes + 1, width)

    def forward(self, labels_B: Tensor) -> Tensor:
        """Look the labels up."""
        return self.embedding_table(labels_B)


class Attention(nn.Module):
    """Multi-head self-attention over tokens (B, N, D)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x_BND: Tensor) -> Tensor:
        """Mix the tokens."""
        q, k, v = self.qkv(x_BND).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """Two linear layers with a tanh-approximated GELU between them."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x_BND: Tensor) -> Tensor:
        """Transform each token."""
        return self.fc2(F.gelu(self.fc1(x_BND), approximate="tanh"))


class Block(nn.Module):
    """A transformer block whose shifts, scales and gates come from the condition (adaLN-Zero)."""

    def __init__(self, spec: DiTSpec):
        super().__init__()
        self.attn = Attention(spec.width, spec.heads)
        self.mlp = MLP(spec.width, int(spec.width * spec.mlp_ratio))
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(spec.width, 6 * spec.width))

    def forward(self, x_BND: Tensor, condition_BD: Tensor) -> Tensor:
        """Add gated attention, then the gated MLP."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN_modulation(condition_BD).chunk(6, dim=1)
        x_BND = x_BND + gate1[:, None] * self.attn(modulate(x_BND, shift1, scale1))
        return x_BND + gate2[:, None] * self.mlp(modulate(x_BND, shift2, scale2))


class FinalLayer(nn.Module):
    """Tokens (B, N, D) to the first c channels of their patches, (B, N, p * p * c), channel last within a patch."""

    def __init__(self, spec: DiTSpec):
        super().__init__()
        self.channels = spec.latent_channels
        self.linear = nn.Linear(spec.width, spec.patch_size**2 * spec.latent_channels)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(spec.width, 2 * spec.width))

    def forward(self, x_BND: Tensor, condition_BD: Tensor, prefix: int) -> Tensor:
        """Compute the rows of the first ``prefix`` channels only."""
        shift, scale = self.adaLN_modulation(condition_BD).chunk(2, dim=1)
        weight = self.linear.weight.unflatten(0, (-1, self.channels))[:, :prefix].flatten(0, 1)
        bias = self.linear.bias.unflatten(0, (-1, self.channels))[:, :prefix].flatten()
        return F.linear(modulate(x_BND, shift, scale), weight, bias)


class DiT(nn.Module):
    """DiT with adaLN-Zero conditioning on time and class, fixed positions, and sliced input and output weights.

    It takes any c <= C front channels and returns as many; it is not told c (augmented diffusion training, arXiv
    2508.00413, equation 2). Latents with the rear channels set to zero give the same first c output channels.
    Parameters are named as in the official DiT, and the fixed positions are part of the state dict as they are there.
    """

    pos_embed: Tensor

    def __init__(self, spec: DiTSpec, generator: torch.Generator | None = None, label_std: float = 0.02):
        super().__init__()
        self.spec = spec
        self.x_embedder = PatchEmbedding(spec)
        self.t_embedder = TimeEmbedding(spec.width)
        self.y_embedder = LabelEmbedding(spec.num_classes, spec.width)
        self.register_buffer("pos_embed", position_table(spec.latent_size // spec.patch_size, spec.width))
        self.blocks = nn.ModuleList(Block(spec) for _ in range(spec.depth))
        self.final_layer = FinalLayer(spec)
        self._init_weights(generator, label_std)

    def _init_weights(self, generator: torch.Generator | None, label_std: float) -> None:
        """Follow the DiT paper: Xavier, small embeddings, and zero gates, so that every block starts as identity."""
        for name, parameter in self.named_parameters():
            if name.endswith(".bias") or "adaLN_modulation" in name or name.startswith("final_layer."):
                nn.init.zeros_(parameter)
            elif name.startswith(("t_embedder.", "y_embedder.")):
                std = label_std if name.startswith("y_embedder.") else 0.02
                nn.init.normal_(parameter, std=std, generator=generator)
            else:  # a patch's convolution counts as the linear layer that it is
                nn.init.xavier_uniform_(parameter.flatten(1), generator=generator)

    def forward(self, latents_Bchw: Tensor, t_B: Tensor, labels_B: Tensor) -> Tensor:
        """Return the prediction for the channels given, (B, c, h, w).

        Args:
            latents_Bchw: Noisy latents, h = w = ``spec.latent_size``, 1 <= c <= C front channels.
            t_B: Time in [0, 1], any float type.
            labels_B: Class indices in 0..num_classes; ``num_classes`` means no class.

        Raises:
            ConfigError: The latents do not fit the spec.
        """
        spec, shape = self.spec, tuple(latents_Bchw.shape)
        if len(shape) != 4 or not 1 <= shape[1] <= spec.latent_channels or shape[2:] != (spec.latent_size,) * 2:
            raise ConfigError(
                f"cannot denoise latents of shape {shape}; expected (batch, 1 to {spec.latent_channels} channels, "
                f"{spec.latent_size}, {spec.latent_size})"
            )
        x_BND = self.x_embedder(latents_Bchw) + self.pos_embed
        condition_BD = self.t_embedder(t_B) + self.y_embedder(labels_B)
        for block in self.blocks:
            x_BND = block(x_BND, condition_BD)
        patches = self.final_layer(x_BND, condition_BD, prefix=shape[1])
        side, p = spec.latent_size // spec.patch_size, spec.patch_size
        return patches.reshape(-1, side, side, p, p, shape[1]).permute(0, 5, 1, 3, 2, 4).reshape(shape).contiguous()
