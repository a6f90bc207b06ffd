"""prepare_images on a cluster that is connected, and what it leaves."""

from __future__ import annotations

import json

from dcae15 import storage
from dcae15.artifacts import ImageSet
from dcae15.cluster import Cluster
from dcae15.config import Config, DataConfig
from dcae15.stages.image_preparing import prepare_images


def settings(root: str, source: str, **data: object) -> Config:
    values = {"resolution": 16, "shard_images": 20, "max_bad_fraction": 0.1, **data}
    return Config(storage=f"{root}/out", data=DataConfig(source=source, **values))


def prepared(config: Config, cluster: Cluster, name: str) -> dict[str, bytes]:
    """Prepare images; return the files of the image set except its manifest, which has a date, and the plan, which has places."""
    uri = f"{config.storage}/images/{name}"
    prepare_images(config, cluster, uri=uri, fingerprint=name)
    files = {info.path: storage.read_bytes(f"{uri}/{info.path}") for info in storage.list_files(uri)}
    assert files.pop("plan.json")
    manifest = json.loads(files.pop("manifest.json"))
    assert ImageSet.open(uri).rejected == manifest["rejected"]
    return {**files, "names": json.dumps(manifest["class_names"]).encode()}


def below(root: str) -> list[str]:
    return [info.path for info in storage.list_files(root)]
