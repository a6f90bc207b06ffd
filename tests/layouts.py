"""The same small pictures in every layout that prepare_images reads, built on the spot."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from scipy.io import savemat

from dcae15.data import sources
from dcae15.data.sources import Selection, Source


def open_source(uri: str | Path, kind: str = "auto", **selection: Any) -> Source:
    """Open a source as the pipeline does, in this process."""
    listing = sources.find(str(uri), kind)
    return sources.assemble(listing, [sources.index(c) for c in listing.containers], Selection(**selection))


WNIDS = ("n01440764", "n01443537", "n02110185")
TRAIN_TAR, VAL_TAR, DEVKIT = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12.tar.gz"
PER_CLASS, VALIDATION = 16, 12


@dataclass(frozen=True)
class Picture:
    """One file: its split, class, name as ImageNet has it, and content."""

    split: str
    wnid: str
    name: str
    data: bytes

    @property
    def path(self) -> str:
        return f"{self.split}/{self.wnid}/{self.name}"


def encoded(seed: int, size: tuple[int, int] = (40, 48), kind: str = "JPEG") -> bytes:
    """A picture of noise around a grey; both depend on the seed."""
    generator = np.random.default_rng(seed)
    pixels = np.clip(generator.normal(generator.uniform(50, 200), 25, (*size, 3)), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def pictures(broken: bool = True) -> list[Picture]:
    """48 training and 12 validation pictures of three classes; named .JPEG, as ImageNet's are, some being PNG.

    With ``broken``, one is cut off, one is empty, one is text, one is tiny.
    """
    found = []
    for c, wnid in enumerate(WNIDS):
        for i in range(PER_CLASS):
            seed = 100 * c + i
            found.append(
                Picture("train", wnid, f"{wnid}_{i + 1}.JPEG", encoded(seed, kind="PNG" if i % 5 == 0 else "JPEG"))
            )
    for i in range(VALIDATION):
        wnid = WNIDS[i * 7 % 3]
        found.append(Picture("val", wnid, f"ILSVRC2012_val_{i + 1:08d}.JPEG", encoded(1000 + i)))
    if broken:
        wrong = {3: found[3].data[:600], 17: b"", 30: b"not an image", 50: encoded(1, (3, 3))}
        found = [Picture(p.split, p.wnid, p.name, wrong.get(i, p.data)) for i, p in enumerate(found)]
    return found


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def tar_bytes(members: Iterable[tuple[str, bytes]], mode: str = "w", form: int = tarfile.GNU_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode, format=form) as tar:  # pyright: ignore
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def as_folder(root: Path, items: Sequence[Picture]) -> str:
    for item in items:
        write(root / item.path, item.data)
    return str(root)


def devkit(truth: Sequence[int], wnids: Sequence[str] = WNIDS, images: Sequence[int] = (PER_CLASS,) * 3) -> bytes:
    """The development kit: the number of each class is not its place in the sorted names."""
    buffer = io.BytesIO()
    names = ["ILSVRC2012_ID", "WNID", "words", *(["num_train_images"] if images else [])]
    synsets = np.zeros((len(wnids), 1), [(name, object) for name in names])
    for i, (wnid, number) in enumerate(numbers(wnids).items()):
        counts = [np.array([[count]], np.uint16) for count in images[i : i + 1]]
        synsets[number - 1, 0] = (np.array([[number]], float), wnid, "words", *counts)
    savemat(buffer, {"synsets": synsets})
    folder = "ILSVRC2012_devkit_t12/data"
    lines = "".join(f"{number}\n" for number in truth).encode()
    members = [
        ("ILSVRC2012_devkit_t12/readme.txt", b"x"),
        (f"{folder}/meta.mat", buffer.getvalue()),
        (f"{folder}/ILSVRC2012_validation_ground_truth.txt", lines),
    ]
    return tar_bytes(members, "w:gz")


def numbers(wnids: Sequence[str] = WNIDS) -> dict[str, int]:
    return {wnid: len(wnids) - i for i, wnid in enumerate(wnids)}


def as_imagenet_tars(root: Path, items: Sequence[Picture]) -> str:
    inner = []
    for wnid in WNIDS:
        members = [(item.name, item.data) for item in items if item.split == "train" and item.wnid == wnid]
        inner.append((f"{wnid}.tar", tar_bytes(members)))
    write(root / TRAIN_TAR, tar_bytes(inner))
    val = [item for item in items if item.split == "val"]
    write(root / VAL_TAR, tar_bytes([(item.name, item.data) for item in val]))
    write(root / DEVKIT, devkit([numbers()[item.wnid] for item in val]))
    return str(root)


def parquet_bytes(
    items: Sequence[Picture], names: Sequence[str] | None = WNIDS, row_group: int = 7, tagged: bool = True
) -> bytes:
    """A file as Hugging Face's imagenet-1k has it: names in the metadata, the class at the end of each path."""
    paths = [item.name.replace(".JPEG", f"_{item.wnid}.JPEG") if tagged else item.name for item in items]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = pa.array([{"bytes": i.data, "path": p} for i, p in zip(items, paths, strict=True)], kind)
    table = pa.table({"image": images, "label": pa.array([WNIDS.index(item.wnid) for item in items], pa.int64())})
    if names is not None:
        features = {"image": {"_type": "Image"}, "label": {"names": list(names), "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, row_group_size=row_group)
    return buffer.getvalue()


def as_parquet(root: Path, items: Sequence[Picture]) -> str:
    train = [item for item in items if item.split == "train"]
    order = np.random.default_rng(0).permutation(len(train))
    halves = np.array_split(order, 2)
    names = [f"words {i}" for i in range(len(WNIDS))]
    for i, half in enumerate(halves):
        write(root / "data" / f"train-{i:05d}-of-00002.parquet", parquet_bytes([train[j] for j in half], names))
    val = [item for item in items if item.split == "val"]
    write(root / "data" / "validation-00000-of-00001.parquet", parquet_bytes(val, names))
    write(root / "data" / "test-00000-of-00001.parquet", b"never opened")
    write(root / "README.md", b"# imagenet-1k")
    return str(root)


def samples(items: Iterable[Picture]) -> list[tuple[str, bytes]]:
    """Members of a WebDataset tar: image and number for every other sample, image and JSON for the rest."""
    members = []
    for i, item in enumerate(items):
        key, label = item.name.removesuffix(".JPEG"), WNIDS.index(item.wnid)
        members.append((item.name, item.data))
        members.append((f"{key}.cls", str(label).encode()) if i % 2 else (f"{key}.json", b'{"label": %d}' % label))
    return members


def as_webdataset(root: Path, items: Sequence[Picture]) -> str:
    for split, name in (("train", "train"), ("val", "validation")):
        chosen = [item for item in items if item.split == split]
        for part in range(2):
            write(root / f"{name}-{part:04d}.tar", tar_bytes(samples(chosen[part::2])))
    write(root / "classes.txt", "\n".join(WNIDS).encode() + b"\n")
    return str(root)


def as_list(root: Path, items: Sequence[Picture]) -> str:
    as_folder(root, items)
    rows = [(item.path, item.wnid, {"val": "validation"}.get(item.split, item.split)) for item in items]
    with (root / "list.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("uri", "label", "split"), *rows])
    return str(root / "list.csv")


def as_list_parquet(root: Path, items: Sequence[Picture]) -> str:
    """Files without telling names, elsewhere: ids are given."""
    for i, item in enumerate(items):
        write(root / "files" / str(i), item.data)
    columns = {
        "uri": [str(root / "files" / str(i)) for i in range(len(items))],
        "label": [item.wnid for item in items],
        "split": [item.split for item in items],
        "id": [item.path for item in items],
    }
    pq.write_table(pa.table(columns), root / "list.parquet")
    return str(root / "list.parquet")


LAYOUTS = {
    "folder": as_folder,
    "imagenet_tars": as_imagenet_tars,
    "parquet": as_parquet,
    "webdataset": as_webdataset,
    "list": as_list,
    "list of given ids": as_list_parquet,
}
