"""The report of a pipeline: gathered from the artifacts alone."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from dcae15 import artifacts, storage, tracking
from dcae15.config import Config, dump, images_of, phases_of, warnings_for, whole_batches
from dcae15.evaluation.measure import read_pictures
from dcae15.orchestration.plan import Stage
from dcae15.report.data import ReportData, Rows, StageSummary, in_order
from dcae15.report.figures import pictures
from dcae15.report.html import render
from dcae15.training.stages import read_history

HISTORIES = {
    "train_autoencoder": "autoencoder",
    "train_baseline": "baseline",
    "train_random": "random",
    "train_diffusion": "diffusion",
}


def report_uri(config: Config, stages: Sequence[Stage]) -> str:
    """Return where the report of a plan is, or will be."""
    return storage.join(config.storage, "reports", f"{config.name}-{stages[-1].fingerprint[:8]}", "report.html")


def write_report(
    config: Config, stages: Sequence[Stage], seconds: dict[str, float], parent: tracking.TrackerSpec
) -> str:
    """Write the report of a finished pipeline, and its pictures beside it and into MLflow; return its URI.

    Args:
        config: the configuration.
        stages: all stages, finished.
        seconds: duration of the stages that ran now; the others were reused.
        parent: the pipeline's run.
    """
    data = gather(config, stages, seconds)
    uri = report_uri(config, stages)
    folder = uri.rsplit("/", 1)[0]
    tracker = tracking.open_tracker(parent)
    drawn = pictures(data)
    for name, png in drawn.items():
        storage.write_bytes(storage.join(folder, f"{name}.png"), png)
        tracker.picture(name, np.asarray(Image.open(io.BytesIO(png)).convert("RGB")), step=0)
    page = render(data, drawn)
    storage.write_bytes(uri, page.encode())
    tracker.text(page, "report.html")
    return uri


def gather(config: Config, stages: Sequence[Stage], seconds: dict[str, float]) -> ReportData:
    """Collect what the report shows."""
    uris = {stage.name: stage.uri for stage in stages}
    evaluation = artifacts.Evaluation.open(uris["evaluate"])
    shown = read_pictures(evaluation.uri)
    grids = {
        name.split(".", 1)[1]: (shown["inputs"], value)
        for name, value in shown.items()
        if name.startswith("reconstructions.")
    }
    means = {
        name.split(".", 1)[1]: (shown["inputs"], value)
        for name, value in shown.items()
        if name.startswith("channel_means.")
    }
    image_set = artifacts.ImageSet.open(stages[-1].inputs["images"])
    return ReportData(
        title=f"DC-AE 1.5: {config.name}",
        created=artifacts.now(),
        summary=_summary(config, image_set),
        config_yaml=dump(config, {}),
        environment=artifacts.environment(),
        stages=[_stage_summary(stage, seconds) for stage in stages],
        histories={role: read_history(uris[name]) for name, role in HISTORIES.items() if name in uris},
        reconstruction=in_order(evaluation.reconstruction),
        structure=in_order(evaluation.structure),
        channels=in_order(evaluation.channels),
        arm_summary=in_order(evaluation.summary),
        generation=evaluation.generation,
        protocol=evaluation.protocol,
        grids=in_order(grids),
        prefixes=evaluation.prefixes,
        channel_means=in_order(means),
        milestones=_milestones(uris),
        samples=dict(zip(image_set.class_names, shown["samples"], strict=False)) if "samples" in shown else {},
        warnings=[*warnings_for(config), *_training_warnings(stages), *evaluation.warnings],
    )


def _milestones(uris: Mapping[str, str]) -> Rows:
    """Return what was measured of generated images on the way, by the names that the report uses."""
    if "measure_milestones" not in uris:
        return []
    rows = artifacts.Milestones.open(uris["measure_milestones"]).rows
    return [{key.removesuffix(".generated"): value for key, value in row.items()} for row in rows]


def _training_warnings(stages: Sequence[Stage]) -> list[str]:
    """Return what was noticed while networks trained."""
    return [
        f"{stage.name}: {warning}"
        for stage in stages
        if stage.name in HISTORIES
        for warning in artifacts.read_manifest(stage.uri).get("warnings", [])
    ]


def _summary(config: Config, image_set: artifacts.ImageSet) -> str:
    train, val = (image_set.splits[s].count for s in ("train", "val"))
    source = "the embedded images" if image_set.source == "shapes" else image_set.source
    rejected = sum(image_set.rejected.values())
    return (
        f"{train:,} training and {val:,} validation images of {len(image_set.class_names)} classes from {source} at "
        f"{image_set.resolution} x {image_set.resolution} pixels"
        + (f" ({rejected} quarantined)" if rejected else "")
        + f". The autoencoder saw {sum(map(images_of, phases_of(config.autoencoder))):,} images"
        + (f", the denoiser {whole_batches(config.diffusion.training):,} latents" if config.diffusion.enabled else "")
        + f"; seed {config.seed}."
    )


def _stage_summary(stage: Stage, seconds: dict[str, float]) -> StageSummary:
    status = "done" if stage.name in seconds else "reused"
    details = {**stage.facts, **_details(artifacts.read_manifest(stage.uri))}
    return StageSummary(stage.name, status, stage.uri, stage.fingerprint, seconds.get(stage.name, 0.0), details)


def _details(manifest: dict[str, Any]) -> dict[str, str]:
    details = {"made": manifest["created"]}
    if "splits" in manifest:
        shards = [shard for split in manifest["splits"].values() for shard in split["shards"]]
        details["images"] = f"{sum(s['count'] for s in shards):,} in {len(shards)} shards"
        details["bytes"] = f"{sum(s['bytes'] for s in shards):,}"
    if manifest.get("rejected"):
        details["rejected"] = ", ".join(f"{count} {reason}" for reason, count in manifest["rejected"].items())
    if "parameters" in manifest:
        details["parameters"] = f"{manifest['parameters']:,}"
    return details
