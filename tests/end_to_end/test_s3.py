"""The whole pipeline with everything in a bucket of a real S3 server, and not a trace of the secret anywhere."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from dcae15 import storage
from dcae15.artifacts import ImageSet
from tests.scripts import TINY, Workplace, workplace

pytestmark = [pytest.mark.ray, pytest.mark.s3, pytest.mark.timeout(900)]


@pytest.fixture
def place(tmp_path, s3_server):
    with workplace(tmp_path / "cwd", s3_server.variables()) as place:
        yield place


def upload(source: str) -> None:
    generator = np.random.default_rng(0)
    for split, count in (("train", 48), ("val", 24)):
        for i in range(count):
            pixels = np.clip(generator.normal(60 + 120 * (i % 2), 25, (40, 48, 3)), 0, 255).astype(np.uint8)
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "JPEG")
            storage.write_bytes(f"{source}/{split}/class {i % 2}/{i:03d}.JPEG", buffer.getvalue())


def run(place: Workplace, root: str, source: str, **kwargs):
    words = ["--config", str(TINY), f"storage={root}", f"data.source={source}", "sampling.images=20"]
    words += ["evaluation.reconstruction_images=24", "tracking.uri=sqlite:///mlflow.db"]
    return place.run("full", *words, **kwargs)


def test_the_pipeline_lives_in_a_bucket(place, s3_server, s3_root):
    source, root = f"{s3_root}/images", f"{s3_root}/out"
    upload(source)
    done = run(place, root, source)
    assert done.code == 0, done.out + done.err
    named = storage.read_json(f"{root}/latest.json")
    image_set = ImageSet.open(named["prepare_images"])
    assert (image_set.splits["train"].count, image_set.splits["val"].count) == (48, 24)
    assert image_set.class_names == ("class 0", "class 1")
    assert storage.read_bytes(named["report"]).startswith(b"<!doctype html")

    again = run(place, root, source)
    assert again.code == 0, again.err
    assert len(again.stages("reused")) == 7
    assert again.stages("runs") == []

    secret = s3_server.secret_key.encode()
    texts = {"console": (done.out + done.err + again.out + again.err).encode()}
    texts |= {info.path: storage.read_bytes(f"{root}/{info.path}") for info in storage.list_files(root)}
    texts |= {str(p): p.read_bytes() for p in [*place.folder.rglob("*"), *place.ray.rglob("*")] if p.is_file()}
    assert len(texts) > 30
    assert [name for name, text in texts.items() if secret in text] == []


def test_a_wrong_secret_is_said_before_any_work(place, s3_root):
    done = run(place, f"{s3_root}/out", f"{s3_root}/images", variables={"AWS_SECRET_ACCESS_KEY": "wrong"})
    assert done.code == 1
    assert done.err.count("error: ") == 1
    assert "AWS_SECRET_ACCESS_KEY" in done.err
    assert "Traceback" not in done.err
    assert place.ray_sessions() == 0
