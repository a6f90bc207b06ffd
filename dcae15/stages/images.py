"""prepare_images: a source of images becomes an image set."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dcae15 import artifacts
from dcae15.config import Config, active_fields
from dcae15.errors import ConfigError
from dcae15.stages.base import Context, Output, Stage, Variant, View


def identity(view: View) -> dict[str, Any]:
    """The source and what is done with its images; crops while training concern the training."""
    data = view.config.data
    fields = active_fields(data, view.config, "data")
    fields.pop("random_crop_min_area", None)
    return {**fields, "classes": sorted(set(data.classes))}


def facts(view: View) -> dict[str, str]:
    """Source, images, bytes."""
    data = view.config.data
    images = "as many as the source holds"
    if data.source == "shapes":
        count = data.shapes.images + data.shapes.val_images
        images = f"{count:,}" if not data.limit else f"{min(data.limit, count):,} or fewer"
    side = data.resolution
    each = f"{side}x{side} pixels, {side**2 * 3:,} bytes uncompressed"
    return {"source": data.source, "images": images, "each": each}


def run(context: Context, inputs: Mapping[str, str], output: Output) -> None:
    """Decode, crop and store on the cluster."""
    from dcae15.stages.image_preparing import prepare_images

    prepare_images(context.config, context.cluster, uri=output.uri, fingerprint=output.fingerprint)


def validate(config: Config, inputs: Mapping[str, str], dry_run: bool, find: Callable[[str], str]) -> str:
    """Look at every image that prepare_images would take, with the same code; return the verdict."""
    if config.data.source == "shapes":
        raise ConfigError("the embedded images need no validation; give data.source=... with images of your own")
    if dry_run:
        return f"would look at every image of {config.data.source}"
    from dcae15.cluster import Cluster
    from dcae15.stages.image_check import check_images

    with Cluster(config) as cluster:
        return check_images(config, cluster)


STAGE = Stage(
    "prepare_images",
    "Turn images into an image set: folders, ILSVRC 2012's tars, Parquet, WebDataset, lists, or the embedded ones.",
    role="images",
    makes=artifacts.ImageSet,
    split="train",
    reads=(),
    run=run,
    identity=identity,
    facts=facts,
    sections=("data", "scaling", "tracking"),
    variants={
        "validate-only": Variant(
            "look at every image of data.source, report, write nothing; exit code 1 if preparing would fail", validate
        )
    },
)
