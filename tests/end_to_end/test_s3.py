"""The whole pipeline with everything in a bucket of a real S3 server, and not a trace of the secret anywhere."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dcae15 import storage
from dcae15.artifacts import ImageSet
from tests import layouts
from tests.conftest import S3Server
from tests.scripts import TINY, Done, Workplace, workplace

pytestmark = [pytest.mark.ray, pytest.mark.s3, pytest.mark.timeout(900)]

ROOT = "s3://dcae15-tests/pipeline"
SHARED = ("--config", str(TINY), f"storage={ROOT}/out", "data.max_bad_fraction=0.1")
WORDS = (*SHARED, f"data.source={ROOT}/imagenet_tars", "sampling.images=12", "sampling.shard_images=12")
WORDS += ("evaluation.reconstruction_images=11", "tracking.uri=sqlite:///mlflow.db", "arms=[]")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, s3_server: S3Server) -> Iterator[Workplace]:
    with workplace(tmp_path_factory.mktemp("s3") / "cwd", s3_server.variables()) as place:
        yield place


@pytest.fixture(scope="module")
def done(place: Workplace, tmp_path_factory: pytest.TempPathFactory) -> Done:
    """A pipeline over ILSVRC 2012's tars in the bucket, where the same pictures lie as Parquet files, too."""
    items = layouts.pictures()
    for kind in ("imagenet_tars", "parquet"):
        folder = layouts.LAYOUTS[kind](tmp_path_factory.mktemp(kind), items)
        for info in storage.list_files(folder):
            storage.write_bytes(f"{ROOT}/{kind}/{info.path}", storage.read_bytes(f"{folder}/{info.path}"))
    done = place.run("full", *WORDS)
    assert done.code == 0, done.out + done.err
    return done


def test_the_pipeline_lives_in_a_bucket(place, done):
    named = storage.read_json(f"{ROOT}/out/latest.json")
    image_set = ImageSet.open(named["prepare_images"])
    assert (image_set.splits["train"].count, image_set.splits["val"].count) == (45, 11)
    assert image_set.class_names == layouts.WNIDS
    assert storage.read_bytes(named["report"]).startswith(b"<!doctype html")
    again = place.run_here("full", *WORDS)
    assert again.code == 0, again.err
    assert (len(again.stages("reused")), again.stages("runs")) == (6, [])


def test_no_file_and_no_line_holds_the_secret(place, s3_server, done):
    secret = s3_server.secret_key.encode()
    texts = {"console": (done.out + done.err).encode()}
    texts |= {info.path: storage.read_bytes(f"{ROOT}/out/{info.path}") for info in storage.list_files(f"{ROOT}/out")}
    texts |= {str(p): p.read_bytes() for p in [*place.folder.rglob("*"), *place.ray.rglob("*")] if p.is_file()}
    assert len(texts) > 30
    assert [name for name, text in texts.items() if secret in text] == []


def test_parquet_files_in_a_bucket_are_the_same_images(place, done):
    prepared = place.run("prepare_images", *SHARED, f"data.source={ROOT}/parquet", "tracking.enabled=false")
    assert prepared.code == 0, prepared.err
    named = storage.read_json(f"{ROOT}/out/latest.json")
    ours, theirs = ImageSet.open(prepared.artifact), ImageSet.open(named["prepare_images"])
    assert (ours.splits, ours.rejected, ours.class_names) == (theirs.splits, theirs.rejected, theirs.class_names)
    files = storage.list_files(f"{ROOT}/out/sources")
    assert files and not [info.path for info in files if "unpacked" in info.path]


def test_a_wrong_secret_is_said_before_any_work(place):
    sessions = place.ray_sessions()
    done = place.run("full", *WORDS, "seed=1", variables={"AWS_SECRET_ACCESS_KEY": "wrong"})
    assert done.code == 1
    assert done.err.count("error: ") == 1
    assert "AWS_SECRET_ACCESS_KEY" in done.err
    assert "Traceback" not in done.err
    assert place.ray_sessions() == sessions
