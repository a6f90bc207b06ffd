"""The feature network: a small classifier trained on the run's own images, whose features distances are measured in."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable, Iterator

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn

from dcae15.data.pixels import to_pixels
from dcae15.errors import DataError, WeightsError
from dcae15.evaluation.needs import LEAST_RESOLUTION

FEATURES = 64
ROTATIONS = 4
BATCH_SIZE = 32
"""Images of a training step."""
_LOOK = 64  # images looked at once by the trained network
_LEARNING_RATE = 5e-3
_WEIGHT_DECAY = 0.05


Stream = Iterator[tuple[np.ndarray, np.ndarray]]
"""Endless uint8 images ``BATCH_SIZE H W 3`` and their classes."""


class FeatureNetwork(nn.Module):
    """A convolutional classifier of square images; its features are the averaged activations before the classifier.

    Trained on classes, or on telling rotations apart where there is only one class. What it calls near is what its
    images taught it, so its Fréchet distance is no FID and compares only under the same ``digest``.
    """

    def __init__(self, resolution: int, num_classes: int) -> None:
        super().__init__()
        if resolution < LEAST_RESOLUTION:
            raise DataError(f"images of {resolution} pixels; the feature network needs at least {LEAST_RESOLUTION}")
        self.resolution, self.num_classes = resolution, num_classes
        halvings = int(math.log2(resolution / 4))  # down to 4 to 7 places a side
        widths = [3] + [min(FEATURES, 32 * 2**i) for i in range(halvings)]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            layers += [*_block(before, after, stride=2), *_block(after, after, stride=1)]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(FEATURES, num_classes if num_classes > 1 else ROTATIONS)

    def forward(self, pixels_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return features ``B 64`` and logits of classes (of rotations, where there is one class)."""
        features = self.body(pixels_BCHW).mean(dim=(2, 3))
        return features, self.head(features)

    def features(self, images_NHWC: np.ndarray) -> np.ndarray:
        """Return the features of uint8 images, float64 ``N 64``."""
        return self.features_and_labels(images_NHWC)[0]

    @torch.no_grad()
    def features_and_labels(self, images_NHWC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return features, float64 ``N 64``, and the most likely labels, int64 ``N``; always 0 where there is one class."""
        batches = [images_NHWC[start : start + _LOOK] for start in range(0, len(images_NHWC), _LOOK)]
        outputs = [self(to_pixels(batch, self.head.weight.device)) for batch in batches]
        features, logits = (torch.cat(part).cpu().numpy() for part in zip(*outputs, strict=True))
        labels = logits.argmax(axis=1) if self.num_classes > 1 else np.zeros(len(images_NHWC), dtype=np.int64)
        return features.astype(np.float64), labels

    @property
    def digest(self) -> str:
        """SHA-256 of shape and weights, in hexadecimal."""
        state = hashlib.sha256()
        for name, tensor in sorted(self._tensors().items()):
            state.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
            state.update(tensor.numpy().tobytes())
        return state.hexdigest()

    def to_bytes(self) -> bytes:
        """Return the network as a safetensors file."""
        return safetensors.torch.save(self._tensors())

    @classmethod
    def from_bytes(cls, data: bytes, device: torch.device | str = "cpu") -> FeatureNetwork:
        """Return the network that ``to_bytes`` wrote, in evaluation mode.

        Raises:
            WeightsError: the bytes are truncated, or not a feature network.
        """
        try:
            tensors = safetensors.torch.load(data)
            resolution, num_classes = tensors.pop("shape").tolist()
            with torch.device("meta"):  # the weights come from the file
                network = cls(resolution, num_classes)
            network.load_state_dict(tensors, assign=True)
        except (SafetensorError, KeyError, ValueError, RuntimeError, DataError) as error:
            raise WeightsError(
                f"{len(data)} bytes are not a feature network ({error}); evaluate again to train a new one"
            ) from error
        return network.eval().to(device)

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        return {**tensors, "shape": torch.tensor([self.resolution, self.num_classes])}


def _block(before: int, after: int, *, stride: int) -> list[nn.Module]:
    return [nn.Conv2d(before, after, 3, stride, padding=1, bias=False), nn.GroupNorm(8, after), nn.SiLU()]


def random_batches(images_NHWC: np.ndarray, labels_N: np.ndarray) -> Callable[[torch.Generator], Stream]:
    """Return what makes batches of images that are held, in one random order after the other, for `train_features`."""

    def stream(generator: torch.Generator) -> Stream:
        order = torch.empty(0, dtype=torch.int64)
        while True:
            while len(order) < BATCH_SIZE:
                order = torch.cat([order, torch.randperm(len(images_NHWC), generator=generator)])
            chosen, order = order[:BATCH_SIZE].numpy(), order[BATCH_SIZE:]
            yield images_NHWC[chosen], labels_N[chosen]

    return stream


def train_features(
    stream: Callable[[torch.Generator], Stream],
    *,
    resolution: int,
    num_classes: int,
    images_seen: int,
    seed: int,
    device: torch.device | str = "cpu",
) -> FeatureNetwork:
    """Train the feature network: AdamW, warm-up and cosine, random shifts by up to an eighth of the side.

    Images are not mirrored: a mirrored image may belong to another class. The same arguments give the same weights on
    one kind of CPU with the same number of threads.

    Args:
        stream: makes the batches; what it draws from the generator is part of the training's randomness.
        resolution: side of the images, at least 16 pixels.
        num_classes: number of classes; 1 (or unlabelled images) trains the network to tell four rotations apart.
        images_seen: length of the training, in images.
        seed: of weights and shifts, and of the generator.
        device: where to train.

    Returns:
        The network in evaluation mode, on ``device``.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.device("meta"):  # so that the global generator stays as it is
        network = FeatureNetwork(resolution, num_classes)
    network.to_empty(device="cpu")
    _initialise(network, generator)
    network.to(device).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY)
    steps = max(1, images_seen // BATCH_SIZE)
    warm_up = max(1, steps // 20)
    for step, (images, labels) in enumerate(itertools.islice(stream(generator), steps)):
        pixels = to_pixels(_shift(torch.from_numpy(images).to(device), generator))
        targets = torch.from_numpy(labels.astype(np.int64))
        if num_classes == 1:
            targets = torch.randint(ROTATIONS, (len(pixels),), generator=generator)
            pixels = torch.stack([torch.rot90(p, int(r), dims=(1, 2)) for p, r in zip(pixels, targets, strict=True)])
        factor = min((step + 1) / warm_up, 0.5 * (1 + math.cos(math.pi * step / steps)))
        for group in optimizer.param_groups:
            group["lr"] = _LEARNING_RATE * factor
        loss = F.cross_entropy(network(pixels)[1], targets.to(device), label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval()


def _shift(images_BHWC: Tensor, generator: torch.Generator) -> Tensor:
    """Move each image by up to an eighth of its side in any direction; the border is repeated."""
    count, side = images_BHWC.shape[:2]
    most, device = side // 8, images_BHWC.device
    offsets = torch.randint(-most, most + 1, (2, count, 1), generator=generator).to(device)
    rows, columns = (torch.arange(side, device=device) + offsets).clamp(0, side - 1)
    return images_BHWC[torch.arange(count, device=device)[:, None, None], rows[:, :, None], columns[:, None, :]]


def _initialise(network: nn.Module, generator: torch.Generator) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, generator=generator)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.02, generator=generator)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.GroupNorm):
            module.reset_parameters()
