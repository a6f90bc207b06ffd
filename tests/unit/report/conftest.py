import dataclasses

import numpy as np
import pytest

from dcae15.report.data import Made, ReportData
from dcae15.report.figures import pictures
from dcae15.report.html import render

PREFIXES = [4, 8, 12, 16, 20, 24, 28, 32]
NAN = float("nan")


def shapes(rng: np.random.Generator, count: int, side: int) -> np.ndarray:
    """Draw ``count`` coloured discs and squares on a noisy ground, uint8 (count, side, side, 3)."""
    y, x = np.mgrid[:side, :side] / side - 0.5
    images = []
    for i in range(count):
        cx, cy, r = *rng.uniform(-0.15, 0.15, 2), rng.uniform(0.2, 0.35)
        inside = (np.hypot(x - cx, y - cy) if i % 2 else np.maximum(abs(x - cx), abs(y - cy))) < r
        ground, paint = rng.uniform(40, 215, (2, 3))
        image = np.where(inside[..., None], paint, ground) + rng.normal(0, 14, (side, side, 1))
        images.append(image.clip(0, 255).astype(np.uint8))
    return np.stack(images)


def partial(images: np.ndarray, rng: np.random.Generator, noise: float) -> np.ndarray:
    steps = [images + rng.normal(0, noise * (1 - c / 32), images.shape) for c in PREFIXES]
    return np.stack(steps).clip(0, 255).astype(np.uint8)


def rows(psnr: tuple[float, float], accuracy: tuple[float, float], distance: tuple[float, float]) -> list[dict]:
    def between(ends: tuple[float, float], c: int) -> float:
        return ends[0] + (ends[1] - ends[0]) * (1 - (1 - (c - 4) / 28) ** 2)

    return [
        {
            "prefix": c,
            "psnr": between(psnr, c),
            "ssim": between((psnr[0] / 30, psnr[1] / 30), c),
            "frechet_distance": between(distance, c),
            "class_accuracy": between(accuracy, c),
        }
        for c in PREFIXES
    ]


def shares(low: float, high: float) -> list[dict]:
    return [
        {
            "prefix": c,
            "low_frequency_share": 1 - (1 - low) * (1 - (c - 4) / 28) ** 2,
            "high_frequency_share": high + (1 - high) * (c - 4) / 28,
            "explained_share": 1 - (1 - low * 0.8) * (1 - (c - 4) / 28) ** 1.5,
            "effective_rank": 1 + (c - 1) * (1.2 - low),
            "probe_accuracy": 0.2 + 0.7 * low + (0.75 - 0.7 * low) * (c - 4) / 28,
        }
        for c in PREFIXES
    ]


def channels(rng: np.random.Generator, front: float) -> list[dict]:
    """Rows of 32 channels; those in front make objects of ``front`` grey levels."""
    return [
        {
            "channel": c,
            "mean": rng.normal(0, 0.1),
            "std": 0.3 + front / 8 / (1 + 0.3 * c) + rng.gamma(2, 0.1),
            "image_low": (front / (1 + c) + rng.gamma(2, 1)) ** 2,
            "image_high": rng.gamma(4, 1) ** 2,
        }
        for c in range(32)
    ]


def sparsity(objects: float, front: float, detail: float, detail_front: float, share: float) -> dict[str, float]:
    return {
        "object_sparsity": objects,
        "object_front_share": front,
        "detail_sparsity": detail,
        "detail_front_share": detail_front,
        "object_share": share,
    }


def means(images: np.ndarray) -> np.ndarray:
    """Maps (P, N, 4, 4): each cell the brightness of its part of the image."""
    side = images.shape[1] // 4
    cells = images.reshape(len(images), 4, side, 4, side, 3).mean(axis=(2, 4, 5))
    return np.stack([cells] * len(PREFIXES)).astype(np.uint8)


def history(rng: np.random.Generator, end: float) -> list[dict]:
    return [
        {
            "images": images,
            "loss": end + 0.5 * np.exp(-images / 9000) + rng.normal(0, 0.005),
            "learning_rate": 1e-3 * min(1, images / 3200) * (0.5 + 0.5 * np.cos(np.pi * images / 64000)),
            "gradient_norm": 0.4 + rng.gamma(2, 0.1),
            "images_per_second": 1450 + rng.normal(0, 40),
            "data_wait": abs(rng.normal(0, 0.002)),
        }
        for images in range(3200, 64001, 3200)
    ]


def report_data(side: int = 32, images: int = 8) -> ReportData:
    """A complete report with made-up numbers of the size that a run on the embedded images gives."""
    rng = np.random.default_rng(0)
    inputs = shapes(rng, images, side)
    names = ["disc", "square", "triangle", "star", "ring", "cross", "heart", "moon", "arrow", "hexagon"]
    stages = [
        ("prepare_images", "reused", 0.2, {"images": "14,000", "shards": "14", "bytes": "31.2 MB", "rejected": "0"}),
        ("train_autoencoder", "done", 63.4, {"images": "64,000", "images/s": "1,010", "parameters": "0.51 M"}),
        ("train_autoencoder (baseline)", "done", 61.0, {"images": "64,000", "images/s": "1,049"}),
        ("cache_latents", "done", 5.2, {"images": "12,000", "shards": "12", "bytes": "12.3 MB"}),
        ("train_diffusion", "done", 77.8, {"images": "64,000", "images/s": "823", "parameters": "2.1 M"}),
        ("evaluate", "done", 48.1, {"images": "1,000"}),
    ]
    return ReportData(
        title="shapes: DC-AE 1.5 f8c32 on 12,000 images",
        created="2026-08-01 12:00 UTC",
        summary="An autoencoder with a structured latent space (f8, 32 channels, prefixes 4, 8, ... 32), trained on "
        "12,000 drawn images of 32 x 32 pixels in 10 classes, and a latent diffusion model with augmented diffusion "
        "training on its latents.",
        config_yaml="name: shapes\nseed: 0\nautoencoder:\n  latent_channels: 32\n",
        environment={"dcae15": "0.1.0", "torch": "2.13.0+cpu", "python": "3.12.3", "processors": "2 x CPU"},
        stages=[
            Made(name, f"/data/dcae15/{name.split()[0]}/{i}f3a9c2b7d5e8046", f"{i}f3a9c2b7d5e8046", {}, d, status, s)
            for i, (name, status, s, d) in enumerate(stages)
        ],
        histories={
            "training_autoencoder": {"structured": history(rng, 0.11), "baseline": history(rng, 0.08)},
            "training_diffusion": {"diffusion": history(rng, 0.6)},
        },
        reconstruction={
            "structured": rows((20.7, 26.4), (0.91, 0.97), (7.8, 1.1)),
            "baseline": rows((15.7, 27.0), (0.17, 0.975), (74, 0.9)),
        },
        structure={"structured": shares(0.95, 0.27), "baseline": shares(0.38, 0.31)},
        generation={
            "frechet_distance": 17.1,
            "frechet_distance_of_training_images": 1.21,
            "precision": 0.71,
            "recall": 0.52,
            "class_accuracy": 0.934,
            "class_accuracy_of_training_images": 0.981,
        },
        protocol={"images": "1,000", "features": "classifier of this image set, 3f2a9c11", "solver": "heun, 25 steps"},
        grids={"structured": (inputs, partial(inputs, rng, 25)), "baseline": (inputs, partial(inputs, rng, 110))},
        prefixes={"structured": PREFIXES, "baseline": PREFIXES},
        samples={name: shapes(rng, images, side) for name in names[: images + 2]},
        warnings=["3 workers were lost and replaced while training the autoencoder."],
        channels={"structured": channels(rng, 18.0), "baseline": channels(rng, 0.0)},
        arm_summary={
            "structured": {"channels": 32.0, "effective_rank": 9.1, **sparsity(0.71, 0.93, 0.22, 0.31, 0.34)},
            "baseline": {"channels": 32.0, "effective_rank": 25.2, **sparsity(0.24, 0.27, 0.19, 0.24, 0.41)},
        },
        channel_means={"structured": (inputs, means(inputs)), "baseline": (inputs, means(inputs[::-1]))},
    )


def html_of(data: ReportData) -> str:
    return render(data, pictures(data))


@pytest.fixture
def data() -> ReportData:
    return report_data(images=2)


@pytest.fixture
def empty(data: ReportData) -> ReportData:
    """The same report with every section empty."""
    blank = {
        f.name: type(getattr(data, f.name))() for f in dataclasses.fields(data) if f.name not in ("title", "created")
    }
    return dataclasses.replace(data, **blank)
