"""prepare_images from tars in a bucket of a real S3 server."""

from __future__ import annotations

import pytest

from dcae15 import storage
from dcae15.cluster import Cluster
from dcae15.config import Config
from tests import layouts
from tests.preparing import below, prepared, settings

pytestmark = [pytest.mark.ray, pytest.mark.s3, pytest.mark.timeout(900)]


def test_tars_and_parquet_in_a_bucket(tmp_path, s3_root, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    items = layouts.pictures()
    local = {kind: layouts.LAYOUTS[kind](tmp_path / kind, items) for kind in ("imagenet_tars", "parquet")}
    for kind, folder in local.items():
        for info in storage.list_files(folder):
            storage.write_bytes(f"{s3_root}/{kind}/{info.path}", storage.read_bytes(f"{folder}/{info.path}"))
    with Cluster(Config()) as cluster:
        here = prepared(settings(str(tmp_path), local["imagenet_tars"]), cluster, "set")
        for kind in local:
            assert prepared(settings(s3_root, f"{s3_root}/{kind}"), cluster, kind) == here
    assert not [path for path in below(f"{s3_root}/out/sources") if "unpacked" in path]
