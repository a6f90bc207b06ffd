"""The report of a pipeline, gathered from the artifacts alone."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from dcae15 import artifacts, storage, tracking
from dcae15.config import ARMS, Config, dump, warnings_for
from dcae15.report.data import Made, ReportData, Rows, in_order
from dcae15.report.figures import pictures
from dcae15.report.html import render


def report_uri(config: Config, fingerprint: str) -> str:
    """Return where the report of a pipeline is, or will be, that ends with the result of this name."""
    return storage.join(config.storage, "reports", f"{config.name}-{fingerprint[:8]}", "report.html")


def write_report(config: Config, made: Sequence[Made], parent: tracking.TrackerSpec) -> str:
    """Write the report of a finished pipeline, its pictures beside it and into MLflow; return its URI. The last one evaluates."""
    data = gather(config, made)
    uri = report_uri(config, made[-1].fingerprint)
    folder, tracker, drawn = uri.rsplit("/", 1)[0], tracking.Tracker(parent), pictures(data)
    for name, png in drawn.items():
        storage.write_bytes(storage.join(folder, f"{name}.png"), png)
        tracker.picture(name, np.asarray(Image.open(io.BytesIO(png)).convert("RGB")), step=0)
    page = render(data, drawn)
    storage.write_bytes(uri, page.encode())
    tracker.text(page, "report.html")
    return uri


def gather(config: Config, made: Sequence[Made]) -> ReportData:
    """Collect what the report shows."""
    evaluation = artifacts.Evaluation.open(made[-1].uri)
    image_set = artifacts.ImageSet.open(made[-1].inputs["images"])
    shown = artifacts.read_pictures(evaluation.uri)
    order = list(ARMS)

    def by_arm(start: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        found = {name.removeprefix(start): value for name, value in shown.items() if name.startswith(start)}
        return {arm: (shown["inputs"], value) for arm, value in in_order(found, order).items()}

    manifests = {step.name: artifacts.read_manifest(step.uri) for step in made}
    histories: dict[str, dict[str, Rows]] = {}
    for step in (step for step in made if step.figure):
        histories.setdefault(step.figure, {})[step.label] = artifacts.read_history(step.uri)
    noticed = [f"{step.name}: {text}" for step in made[:-1] for text in manifests[step.name].get("warnings", [])]
    return ReportData(
        title=f"DC-AE 1.5: {config.name}",
        created=artifacts.now(),
        summary=_summary(config, image_set),
        config_yaml=dump(config, {}),
        environment=artifacts.environment(),
        stages=[replace(step, facts={**step.facts, **_details(manifests[step.name])}) for step in made],
        histories=histories,
        reconstruction=in_order(evaluation.reconstruction, order),
        structure=in_order(evaluation.structure, order),
        channels=in_order(evaluation.channels, order),
        arm_summary=in_order(evaluation.summary, order),
        generation=evaluation.generation,
        protocol=evaluation.protocol,
        grids=by_arm("reconstructions."),
        prefixes=evaluation.prefixes,
        channel_means=by_arm("channel_means."),
        milestones=[
            {key.removesuffix(".generated"): value for key, value in row.items()}
            for found in manifests.values()
            if found["kind"] == artifacts.Milestones.KIND
            for row in found["rows"]
        ],
        samples=dict(zip(image_set.class_names, shown["samples"], strict=False)) if "samples" in shown else {},
        warnings=[*warnings_for(config), *noticed, *evaluation.warnings],
    )


def _summary(config: Config, image_set: artifacts.ImageSet) -> str:
    train, val = (image_set.splits[s].count for s in ("train", "val"))
    source = "the embedded images" if image_set.source == "shapes" else image_set.source
    rejected, training = sum(image_set.rejected.values()), config.diffusion.training
    return (
        f"{train:,} training and {val:,} validation images of {len(image_set.class_names)} classes from {source} at "
        f"{image_set.resolution} x {image_set.resolution} pixels"
        + (f" ({rejected} quarantined)" if rejected else "")
        + f". The autoencoder saw {sum(p.training.whole_batches for p in config.autoencoder.all_phases):,} images"
        + (f", the denoiser {training.whole_batches:,} latents" if config.diffusion.enabled else "")
        + f"; seed {config.seed}."
    )


def _details(manifest: dict[str, Any]) -> dict[str, str]:
    details = {"made": manifest["created"]}
    if "splits" in manifest:
        counts = artifacts.set_counts(manifest)
        details["images"] = f"{sum(counts.images.values()):,} in {counts.shards} shards"
        details["bytes"] = f"{counts.bytes:,}"
    if manifest.get("rejected"):
        details["rejected"] = ", ".join(f"{count} {reason}" for reason, count in manifest["rejected"].items())
    if "parameters" in manifest:
        details["parameters"] = f"{manifest['parameters']:,}"
    return details
