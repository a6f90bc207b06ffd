"""The fold over a plan: each stage is skipped when its result is there, else run, by one process of those that want it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from dcae15 import artifacts, storage, tracking
from dcae15.artifacts.claims import claim
from dcae15.config import Config
from dcae15.config.graph import autoencoder_spec
from dcae15.errors import Dcae15Error
from dcae15.evaluation.milestones import Row, commit_milestones
from dcae15.export.foreign_weights import import_autoencoder
from dcae15.orchestration import cache, measure, prepare, sample, train
from dcae15.orchestration.cluster import Cluster, Session
from dcae15.orchestration.plan import IMPORTS, TRAINS, Stage, announce
from dcae15.training.stages import milestones_of, snapshot_uri


class Fold:
    """Runs the stages of a plan that are not done.

    Args:
        config: the configuration.
        stages: in order.
        session: gives the cluster.
        parent: the tracked run above the stages.
        on_milestone: called with each row of quality over training, in order, as soon as it is measured or found.
        on_stage: called with each stage, ``runs``, ``done`` or ``reused``, and the seconds that it took.
    """

    def __init__(
        self,
        config: Config,
        stages: Sequence[Stage],
        session: Session,
        parent: tracking.TrackerSpec,
        on_milestone: Callable[[Row], None] = lambda row: None,
        on_stage: Callable[[Stage, str, float], None] = lambda stage, what, seconds: None,
    ) -> None:
        self._config, self._stages, self._session, self._parent = config, stages, session, parent
        self._on_milestone, self._on_stage = on_milestone, on_stage
        self._heard = 0.0

    def run(self) -> dict[str, float]:
        """Return the seconds of each stage that ran here; one that another process made meanwhile is not among them."""
        seconds: dict[str, float] = {}
        for stage in self._stages:
            if not stage.done:
                with claim(self._config.storage, f"{stage.kind}-{stage.fingerprint}", self._say(stage)):
                    if not stage.done:
                        announce(stage, "runs")
                        self._on_stage(stage, "runs", 0.0)
                        seconds[stage.name] = self._run(stage)
                        self._on_stage(stage, "done", seconds[stage.name])
                        print(f"{stage.name}: done in {seconds[stage.name]:.0f} s: {stage.uri}", flush=True)
            if stage.name not in seconds:
                announce(stage, "reused")
                self._on_stage(stage, "reused", 0.0)
            if stage.kind == artifacts.Milestones.KIND:
                for row in artifacts.Milestones.open(stage.uri).rows:
                    self._hear(row)
        return seconds

    def _run(self, stage: Stage) -> float:
        cluster = self._session.cluster(trains=stage.name in TRAINS)
        began, continued = time.perf_counter(), storage.exists(stage.uri)
        child = tracking.start_stage_run(self._parent, stage.name, stage.fingerprint, stage.facts)
        try:
            self._dispatch(stage, cluster, child)
        except BaseException as error:
            tracking.Tracker(child).finish("FAILED" if isinstance(error, Exception) else "KILLED")
            if isinstance(error, Dcae15Error):
                raise type(error)(f"{stage.name}: {error}") from error
            raise
        seconds = time.perf_counter() - began
        tracker = tracking.Tracker(child)
        if stage.kind in ("images", "latents"):
            manifest = artifacts.read_manifest(stage.uri)
            tracker.metrics(set_metrics(manifest, None if continued else seconds), step=0)
            if "statistics" in manifest:
                tracker.dict(
                    {"mean": manifest["statistics"]["mean"], "rms": artifacts.set_counts(manifest).latent_rms},
                    "channels.json",
                )
        tracker.finish("FINISHED")
        return seconds

    def _dispatch(self, stage: Stage, cluster: Cluster, tracker: tracking.TrackerSpec) -> None:
        """Call the stage's function."""
        config, output = self._config, {"uri": stage.uri, "fingerprint": stage.fingerprint}
        match stage.name:
            case name if name in IMPORTS:
                graph, name = autoencoder_spec(config.autoencoder), config.autoencoder.preset
                import_autoencoder(
                    stage.inputs["weights"], graph, uri=stage.uri, fingerprint=stage.fingerprint, preset=name
                )
            case "prepare_images":
                prepare.prepare_images(config, cluster, **output)
            case "train_autoencoder":
                train.train_autoencoder(config, cluster, tracker, **stage.inputs, **output)
            case "train_baseline":
                train.train_autoencoder(config, cluster, tracker, masks="none", **stage.inputs, **output)
            case "train_random":
                train.train_autoencoder(config, cluster, tracker, masks="random", **stage.inputs, **output)
            case "cache_latents":
                cache.cache_latents(config, cluster, **stage.inputs, **output)
            case "train_diffusion":
                self._train_diffusion(stage, cluster, tracker)
            case "measure_milestones":
                for images in milestones_of(config.diffusion):
                    self._measure_milestone(stage, images, cluster, tracker)
                commit_milestones(stage.uri, stage.fingerprint, milestones_of(config.diffusion))
            case "sample":
                sample.sample(config, cluster, **stage.inputs, **output)
            case "evaluate":
                measure.evaluate(config, cluster, tracker, stage.inputs, **output)

    def _train_diffusion(self, stage: Stage, cluster: Cluster, tracker: tracking.TrackerSpec) -> None:
        """Train from milestone to milestone, and measure at each; so quality shows while the training goes on."""
        arguments = {**stage.inputs, "uri": stage.uri, "fingerprint": stage.fingerprint}
        measures = next((other for other in self._stages if other.name == "measure_milestones"), None)
        if measures is not None:
            for images in milestones_of(self._config.diffusion):
                if not artifacts.finished(snapshot_uri(stage.uri, images)):
                    train.train_diffusion(self._config, cluster, tracker, **arguments, until=images)
                self._measure_milestone(measures, images, cluster, tracker)
        if not stage.done:
            train.train_diffusion(self._config, cluster, tracker, **arguments)

    def _measure_milestone(self, measures: Stage, images: int, cluster: Cluster, tracker: tracking.TrackerSpec) -> None:
        inputs = {**measures.inputs, "denoiser": snapshot_uri(measures.inputs["denoiser"], images)}
        row = measure.milestone(self._config, cluster, inputs, measures.uri)
        tracking.Tracker(tracker).metrics({k: v for k, v in row.items() if k != "images"}, step=images)
        self._hear(row)

    def _hear(self, row: Row) -> None:
        if row["images"] > self._heard:
            self._heard = row["images"]
            self._on_milestone(row)

    def _say(self, stage: Stage) -> Callable[[str], None]:
        return lambda line: print(f"{stage.name}: {line}", flush=True)


def set_metrics(manifest: dict[str, Any], seconds: float | None) -> dict[str, float]:
    """Return what is tracked of a finished image or latent set.

    They are ``images`` (of all splits, and ``images.<split>``), ``shards``, ``bytes``, ``images_per_second``,
    ``rejected.<reason>``, and the least and largest root mean square of a latent channel.

    Args:
        manifest: of the set.
        seconds: how long all of it took; None when it was begun before.
    """
    counts = artifacts.set_counts(manifest)
    metrics: dict[str, float] = {"images": sum(counts.images.values())}
    metrics |= {f"images.{split}": count for split, count in counts.images.items()}
    metrics |= {"shards": counts.shards, "bytes": counts.bytes}
    metrics |= {f"rejected.{reason}": count for reason, count in counts.rejected.items()}
    if seconds:
        metrics["images_per_second"] = metrics["images"] / seconds
    if counts.latent_rms:
        metrics |= {"latent_rms_least": min(counts.latent_rms), "latent_rms_most": max(counts.latent_rms)}
    return metrics
