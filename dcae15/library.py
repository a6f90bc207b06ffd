"""Open what the stages made, or weights from elsewhere: three functions for use as a library."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as from_safetensors
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn
from torch.utils.data import Dataset

from dcae15 import artifacts, storage
from dcae15.config import SamplingConfig
from dcae15.data.loader import latent_cache
from dcae15.data.shards import float_latents
from dcae15.errors import ArtifactError, WeightsError
from dcae15.export.foreign_weights import (
    UNKNOWN,
    is_foreign,
    load_foreign_autoencoder,
    require_autoencoder,
)
from dcae15.models.autoencoder import Autoencoder
from dcae15.models.dit import DiT
from dcae15.models.spec import AutoencoderSpec, DiTSpec
from dcae15.sampling.guidance import guided_velocity
from dcae15.sampling.solvers import initial_noise, integrate


def load_autoencoder(
    uri: str, config: str | AutoencoderSpec | None = None, *, averaged: bool = True, ema: float | bool | None = None
) -> Autoencoder:
    """Return a trained autoencoder, ready for inference on the CPU.

    Args:
        uri: our artifact; a diffusers folder, or that of a pipeline with ``vae/`` in it; an official folder (``config.json`` and
            ``model.safetensors``); or a weights file of either layout (safetensors, or torch: .pt, .pth, .ckpt, .bin). DC-AE 1.0,
            1.1, 1.5, Sana's and lite are known. ``URI#NAME`` takes one of several networks or averages in a file.
        config: for a bare file its graph: a preset name, the official configuration as ``key=value`` words, or a spec.
        averaged: take the moving average rather than the last weights (our trained artifacts only).
        ema: for a checkpoint of others, the moving average to take: its decay, or True where there is only one. None takes the
            last weights, and a logged warning says that there are averages.

    Returns:
        A module with ``encode(pixels, prefix=None)`` (pixels (B, 3, H, W) in [-1, 1] to latents (B, c, h, w)) and
        ``decode(latents)``, which takes any channel prefix; ``prefix_choices`` holds the prefix lengths that it was trained
        with (empty when unknown) and ``fingerprint`` names it.

    Raises:
        ArtifactError: nothing of that kind is there.
        WeightsError: the weights are damaged or do not fit.
    """
    if config is None and artifacts.finished(uri):
        artifact = artifacts.Autoencoder.open(uri)
        network = Autoencoder(AutoencoderSpec.from_dict(artifact.spec))
        _load(network, artifact.uri, averaged or artifact.mask_kind == UNKNOWN)  # imports have one version only
        network.prefix_choices, network.fingerprint = artifact.prefix_choices, artifact.fingerprint
    else:
        if config is None and not is_foreign(uri):
            require_autoencoder(uri)
            raise ArtifactError(
                f"{uri} is no autoencoder: it holds neither a finished artifact (manifest.json) nor config.json with weights, and "
                "is no weights file; pass the URI that train_autoencoder printed, or foreign weights"
            )
        network = load_foreign_autoencoder(uri, config, ema=ema)
        network.fingerprint = hashlib.sha256(to_safetensors(network.state_dict())).hexdigest()[:16]
    return network.eval().requires_grad_(False)


@dataclass(frozen=True)
class LoadedDenoiser:
    """A trained denoiser and what is needed to use it."""

    # ``network(latents (B, c, h, w), time (B,), labels (B,))`` gives the velocity; t = 0 is noise, t = 1 is data
    network: DiT
    artifact: artifacts.Denoiser  # shapes, statistics, class names, and where its autoencoder is

    @torch.inference_mode()
    def sample(self, labels: Sequence[int], settings: SamplingConfig | None = None, first: int = 0) -> Tensor:
        """Generate raw latents, ready for the autoencoder's ``decode``.

        Args:
            labels: class of each image.
            settings: solver, steps, guidance, prefix and seed; its ``images`` is not used.
            first: index of the first image; image i is a pure function of (seed, i) and the weights.

        Returns:
            Latents (len(labels), c, h, w), float32.
        """
        settings = settings or SamplingConfig()
        device = next(self.network.parameters()).device
        spec = self.artifact.latents
        prefix = settings.prefix or spec.channels
        shape = (spec.channels, spec.height, spec.width)
        noise = initial_noise(range(first, first + len(labels)), shape, settings.seed)
        velocity = guided_velocity(
            self.network,
            torch.tensor(labels, device=device),
            null_label=len(self.artifact.class_names),
            scale=settings.guidance,
            start=settings.guidance_start,
            end=settings.guidance_end,
        )
        latents = integrate(velocity, noise[:, :prefix].to(device), solver=settings.solver, steps=settings.steps)
        scale = torch.tensor(self.artifact.scale[:prefix], device=device)[:, None, None]
        shift = torch.tensor(self.artifact.shift[:prefix], device=device)[:, None, None]
        return latents.float() / scale + shift


def load_denoiser(uri: str, *, averaged: bool = True) -> LoadedDenoiser:
    """Return a trained denoiser, ready for inference on the CPU; see `LoadedDenoiser`.

    Raises:
        ArtifactError: there is no denoiser at ``uri``.
        WeightsError: the weights are damaged or do not fit.
    """
    artifact = artifacts.Denoiser.open(uri)
    network = DiT(DiTSpec.from_dict(artifact.spec))
    _load(network, artifact.uri, averaged)
    return LoadedDenoiser(network.eval().requires_grad_(False), artifact)


class Latents(Dataset):
    """A latent set as a map-style dataset: item i is (raw latent (C, h, w) float32, label)."""

    def __init__(self, latent_set: artifacts.LatentSet, split: str) -> None:
        self.latent_set = latent_set
        self.spec = latent_set.spec
        self.statistics = latent_set.statistics
        self.split = latent_set.splits[split]
        self._cache = latent_cache(latent_set, self.split)
        self._ends = np.cumsum([shard.count for shard in self.split.shards])

    def __len__(self) -> int:
        return self.split.count

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"latent {index} of {len(self)}")
        index %= len(self)
        shard = int(np.searchsorted(self._ends, index, side="right"))
        row = index - int(self._ends[shard] - self.split.shards[shard].count)
        columns = self._cache.get(shard)
        latent = float_latents(columns["values"][row].copy(), self.latent_set.dtype)
        return latent, int(columns["labels"][row])


def open_latents(uri: str, split: str = "train") -> Latents:
    """Open the latent set at ``uri``; raises ArtifactError when there is none."""
    return Latents(artifacts.LatentSet.open(uri), split)


def _load(network: nn.Module, uri: str, averaged: bool) -> None:
    path = storage.join(uri, "weights.safetensors" if averaged else "weights_raw.safetensors")
    data = storage.read_bytes(path)
    try:
        network.load_state_dict(from_safetensors(data))
    except (SafetensorError, RuntimeError) as error:
        if found := storage.stand_in(data[: storage.HEAD_BYTES]):
            raise WeightsError(f"{path} holds no weights: it is {found}") from error
        raise WeightsError(
            f"{path} does not fit its manifest ({error}); copy the artifact again, or delete {uri} and run its stage again"
        ) from error
