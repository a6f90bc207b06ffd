"""A folder of real photographs, as people have them: sizes, modes and formats mixed, some files broken."""

from __future__ import annotations

import importlib.util
import io
import itertools
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dcae15.artifacts import ImageSet
from dcae15.data.images import center_crop, decode
from tests.scripts import TINY, Workplace

pytestmark = [pytest.mark.ray, pytest.mark.timeout(1200)]

PACKAGES = {"skimage": "data", "sklearn": "datasets/images", "matplotlib": "mpl-data/sample_data"}
CLASSES = {
    "people": ("astronaut.png", "grace_hopper.jpg"),
    "animals": ("chelsea.png", "flower.jpg"),
    "sky": ("hubble_deep_field.jpg", "rocket.jpg", "moon.png"),
    "things": ("coffee.png", "camera.png", "coins.png", "china.jpg"),
}
CROPS_PER_CLASS = 50
STYLES = ("rgb.jpg", "rgb.png", "grey.jpg", "grey.png", "rgba.png", "palette.png", "cmyk.jpg", "16bit.png", "rgb.webp")
QUALITIES = (35, 75, 95)


@dataclass(frozen=True)
class Photographs:
    """A folder ``<class>/*``: the files that can be used, and the others with the reason of each."""

    folder: Path
    good: frozenset[str]
    bad: dict[str, str]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Photographs:
    found = shipped_pictures()
    folder = tmp_path_factory.mktemp("photographs")
    good = set()
    for name, pictures in CLASSES.items():
        present = [found[picture] for picture in pictures if picture in found]
        if not present:
            continue
        (folder / name).mkdir()
        for i, crop in enumerate(crops(present, CROPS_PER_CLASS)):
            style = STYLES[i % len(STYLES)]
            file = folder / name / f"{i:03d} {style}"
            file.write_bytes(styled(crop, style, QUALITIES[i % len(QUALITIES)]))
            good.add(f"{name}/{file.name}")
    assert len(good) >= 150, f"too few pictures in the installed packages: {sorted(found)}"
    return Photographs(folder, frozenset(good), add_bad_files(folder, sorted(good)))


@pytest.fixture(scope="module")
def words(photographs: Photographs) -> tuple[str, ...]:
    given = (f"data.source={photographs.folder}", "data.val_fraction=0.2", "evaluation.reconstruction_images=40")
    return ("--config", str(TINY), "arms=[]", "diffusion.enabled=false", "data.max_bad_fraction=0.1", *given)


@pytest.fixture(scope="module")
def image_set(place: Workplace, words: tuple[str, ...]) -> ImageSet:
    done = place.run("prepare_images", *words, "storage=results", "tracking.enabled=false")
    assert done.code == 0, done.out + done.err
    return ImageSet.open(str(place.folder / done.artifact))


def test_the_good_ones_arrive_each_once(image_set: ImageSet, photographs: Photographs) -> None:
    ids = [row["id"] for split in image_set.splits for row in rows_of(image_set, split)]
    assert sorted(ids) == sorted(photographs.good)


def test_classes_and_held_out_images(image_set: ImageSet, photographs: Photographs) -> None:
    assert image_set.class_names == tuple(sorted({name.split("/")[0] for name in photographs.good}))
    for split, least, most in (("train", 30, 45), ("val", 5, 15)):
        counts = Counter(row["label"] for row in rows_of(image_set, split))
        assert len(counts) == len(image_set.class_names) and all(least <= n <= most for n in counts.values()), counts
        for row in rows_of(image_set, split):
            assert row["id"].split("/")[0] == image_set.class_names[row["label"]]


def test_pixels_are_those_of_the_file(image_set: ImageSet, photographs: Photographs) -> None:
    for row in rows_of(image_set, "val"):
        stored = np.frombuffer(row["image"], np.uint8).reshape(32, 32, 3)
        file = decode((photographs.folder / row["id"]).read_bytes(), min_side=8, max_pixels=10**8)
        np.testing.assert_array_equal(stored, center_crop(file, 32))
        independent = np.asarray(crudely(photographs.folder / row["id"]).resize((32, 32), Image.Resampling.BOX), float)
        assert np.abs(independent.mean() - stored.mean()) < 12, row["id"]


def test_the_bad_ones_are_counted_by_reason(image_set: ImageSet, photographs: Photographs) -> None:
    assert image_set.rejected == dict(Counter(photographs.bad.values()))
    listed = [json.loads(line) for line in (Path(image_set.uri) / "rejected.jsonl").read_text().splitlines()]
    assert {item["id"]: item["reason"] for item in listed} == photographs.bad
    assert all(item["detail"] for item in listed)


def test_too_many_bad_files_fail_the_stage_and_keep_the_list(
    place: Workplace, photographs: Photographs, words: tuple[str, ...]
) -> None:
    words = (*words, "storage=strict", "data.max_bad_fraction=0", "tracking.enabled=false")
    done = place.run("prepare_images", *words)
    assert done.code == 1
    (message,) = [line for line in done.err.splitlines() if line.startswith("error: ")]
    (list_file,) = place.folder.glob("strict/images/*/rejected.jsonl")
    assert str(list_file) in message and "data.max_bad_fraction=0" in message and "Traceback" not in done.err
    listed = {json.loads(line)["id"]: json.loads(line)["reason"] for line in list_file.read_text().splitlines()}
    assert listed and listed.items() <= photographs.bad.items()
    assert not (list_file.parent / "manifest.json").exists()
    assert "to run" in place.run_here("prepare_images", *words, "--dry-run").out


def test_random_crops_keep_whole_images_train_and_reach_the_report(
    place: Workplace, photographs: Photographs, words: tuple[str, ...]
) -> None:
    done = place.run("full", *words, "storage=random", "data.crop=random", "tracking.enabled=false")
    assert done.code == 0, done.err
    image_set = ImageSet.open(str(place.folder / done.artifacts["prepare_images"]))
    shapes = {Image.open(io.BytesIO(row["image"])).size for row in rows_of(image_set, "train")}
    assert {min(size) for size in shapes} == {36}, "the shorter side is resolution * 9 / 8"
    assert len(shapes) > 10, "aspects are kept"
    assert done.stages("runs") == ["prepare_images", "train_autoencoder", "evaluate"]
    assert "autoencoder: 640/640 images" in done.out
    report = place.folder / done.out.splitlines()[-1].removeprefix("report: ")
    text = report.read_text()
    assert f"{len(photographs.bad)} quarantined" in text
    for reason, count in Counter(photographs.bad.values()).items():
        assert f"{count} {reason}" in text


def shipped_pictures() -> dict[str, Image.Image]:
    """The pictures inside the packages that are installed, by file name."""
    found = {}
    for package, folder in PACKAGES.items():
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            continue
        for file in sorted((Path(spec.submodule_search_locations[0]) / folder).glob("*")):
            if file.suffix in (".png", ".jpg"):
                found[file.name] = Image.open(file).convert("RGB")
    return found


def crops(pictures: list[Image.Image], count: int) -> Iterator[Image.Image]:
    """Parts of the pictures, of many sizes and aspects."""
    generator = np.random.default_rng(0)
    for picture in itertools.islice(itertools.cycle(pictures), count):
        width, height = (int(generator.integers(40, min(240, side))) for side in picture.size)
        left, top = int(generator.integers(picture.width - width)), int(generator.integers(picture.height - height))
        yield picture.crop((left, top, left + width, top + height))


def styled(image: Image.Image, style: str, quality: int) -> bytes:
    """Encode an image as a file of this mode and format."""
    mode, suffix = style.rsplit(".", 1)
    if mode == "16bit":
        grey = np.asarray(image.convert("L")).astype(np.uint16) * 257
        image = Image.fromarray(grey)
    elif mode == "rgba":
        image = image.convert("RGBA")
        image.putalpha(Image.linear_gradient("L").resize(image.size).point(lambda v: 128 + v // 2))
    elif mode == "palette":
        image = image.convert("P", palette=Image.Palette.ADAPTIVE)
    else:
        image = image.convert({"rgb": "RGB", "grey": "L", "cmyk": "CMYK"}[mode])
    buffer = io.BytesIO()
    options = {} if suffix == "png" else {"quality": quality}
    image.save(buffer, {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}[suffix], **options)
    return buffer.getvalue()


def add_bad_files(folder: Path, good: list[str]) -> dict[str, str]:
    """Add files that cannot be used to the first class; return their ids and reasons."""
    jpeg = (folder / next(name for name in good if name.endswith("rgb.jpg"))).read_bytes()
    png = (folder / next(name for name in good if name.endswith("rgb.png"))).read_bytes()
    tiny, frames = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (5, 300)).save(tiny, "PNG")
    Image.new("L", (40, 40)).save(frames, "GIF", save_all=True, append_images=[Image.new("L", (40, 40), 255)])
    files = {
        "empty.jpg": (b"", "empty"),
        "cut.jpg": (jpeg[: len(jpeg) // 2], "truncated"),
        "cut.png": (png[: len(png) // 2], "truncated"),
        "page.jpg": (b"<html>404 not found</html>", "unreadable"),
        "notes.png": (b"to do: label these\n", "unreadable"),
        "line.png": (tiny.getvalue(), "too_small"),
        "moving.gif": (frames.getvalue(), "animated"),
    }
    first = good[0].split("/")[0]
    for name, (data, _) in files.items():
        (folder / first / name).write_bytes(data)
    (folder / first / "README.txt").write_text("not an image by its name: ignored")
    return {f"{first}/{name}": reason for name, (_, reason) in files.items()}


def crudely(file: Path) -> Image.Image:
    """The central square of a file, decoded by Pillow alone, over white."""
    image = Image.open(file)
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
    layer = image.convert("RGBA")
    image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def rows_of(image_set: ImageSet, split: str) -> list[dict]:
    return [
        row
        for shard in image_set.splits[split].shards
        for row in pq.read_table(f"{image_set.uri}/{shard.path}").to_pylist()
    ]
