import io
import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from dcae15 import storage
from dcae15.artifacts import LatentSet, Shard
from dcae15.data import shards
from dcae15.errors import DataError
from tests.unit.data.sets import latent_set

SHAPE = (6, 2, 3)


def latents(count: int = 5) -> torch.Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(0))


def table(values: torch.Tensor, dtype: str = "float16", ids=None):
    ids = ids or [f"n/{i}" for i in range(len(values))]
    digests = [bytes([i]) * 16 for i in range(len(values))]
    return shards.latent_table(ids, range(len(values)), values, [False] * len(values), digests, dtype, {"channels": 6})


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_latents_come_back_as_they_were_rounded(tmp_path, dtype):
    values = latents()
    record = shards.write_shard(str(tmp_path), "train/0.parquet", table(values, dtype))
    back = shards.read_shard(str(tmp_path), record.shard)
    decoded = shards.decode_latents(back.column("latent"), SHAPE, dtype)
    assert torch.equal(decoded, values.to(getattr(torch, dtype)).float())
    assert back.column("label").to_pylist() == [0, 1, 2, 3, 4]


def test_plain_pyarrow_and_numpy_decode_a_row_in_one_line(tmp_path):
    values = latents()
    shards.write_shard(str(tmp_path), "a.parquet", table(values))
    row = pq.read_table(tmp_path / "a.parquet").column("latent")[3].as_py()
    assert np.array_equal(np.frombuffer(row, np.float16).reshape(SHAPE), values[3].half().numpy())


def test_decoding_a_slice_reads_its_own_rows():
    values = latents(7)
    column = table(values, "float32").slice(2, 3).column("latent")
    assert torch.equal(shards.decode_latents(column, SHAPE, "float32"), values[2:5])


def test_values_that_the_type_cannot_hold_are_refused_with_the_id():
    values = latents()
    values[2, 0, 0, 0] = 1e6
    with pytest.raises(
        DataError, match=r"n/2 reaches 1e\+06 and overflows as float16, .* 65504; .*dtype to bfloat16 or float32"
    ):
        table(values)
    table(values, "bfloat16")
    values[2, 0, 0, 0] = -3.4e38
    with pytest.raises(
        DataError, match=r"n/2 reaches 3.4e\+38 and overflows as bfloat16, .*; set latents.dtype to float32"
    ):
        table(values, "bfloat16")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_latents_that_no_type_can_hold_are_not_called_an_overflow(dtype):
    values = latents()
    values[1, 0, 0, 0] = 1e6  # overflows as float16, which another type would mend
    values[3, 0] = float("nan")
    values[4, 1, 0, 0] = float("inf")
    with pytest.raises(DataError) as error:
        table(values, dtype)
    message = str(error.value)
    assert (
        "makes 6 NaN and 0 infinite values among the 36 of the latent of n/3 (2 of 5 latents of this shard" in message
    )
    assert "no latents.dtype can hold" in message and "set latents.dtype" not in message


def test_an_id_twice_is_refused(tmp_path):
    with pytest.raises(DataError, match="twice"):
        shards.write_shard(str(tmp_path), "a.parquet", table(latents(2), ids=["a", "a"]))
    assert storage.list_files(str(tmp_path)) == []


@pytest.mark.parametrize("written_with", ["xxh3", "sha256 alone"])
@pytest.mark.parametrize("damage", ["first", "middle", "last", "cut", "longer"])
def test_a_damaged_shard_is_named(tmp_path, damage, written_with):
    shard = shards.write_shard(str(tmp_path), "a.parquet", table(latents())).shard
    shard = shard if written_with == "xxh3" else replace(shard, xxh3="")
    assert shards.read_shard(str(tmp_path), shard).num_rows == 5
    path = tmp_path / "a.parquet"
    data = bytearray(path.read_bytes())
    if damage == "cut":
        del data[-100:]
    elif damage == "longer":
        data += b"\0"
    else:
        data[{"first": 0, "middle": len(data) // 2, "last": -1}[damage]] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"a\.parquet is damaged"):
        shards.read_shard(str(tmp_path), shard)


def test_reading_needs_the_sha256_only_where_there_is_no_xxh3(tmp_path):
    shard = replace(shards.write_shard(str(tmp_path), "a.parquet", table(latents())).shard, sha256="0" * 64)
    assert shards.read_shard(str(tmp_path), shard).num_rows == 5
    for wrong in (replace(shard, xxh3=""), replace(shard, xxh3="0" * 32)):
        with pytest.raises(DataError, match=r"a\.parquet is damaged"):
            shards.read_shard(str(tmp_path), wrong)


def test_both_checksums_are_in_the_manifest_and_sets_without_xxh3_are_read(tmp_path):
    root = str(tmp_path)
    made = latent_set(root, [3, 2])
    made.commit()
    written = made.splits["train"].shards
    assert [s.xxh3 for s in written] == [storage.xxh3((tmp_path / s.path).read_bytes()) for s in written]
    assert LatentSet.open(root).splits == made.splits

    for path in [tmp_path / "manifest.json", *(tmp_path / f"{s.path}.json" for s in written)]:
        body = json.loads(path.read_text())
        for shard in body["splits"]["train"]["shards"] if "splits" in body else [body["shard"]]:
            del shard["xxh3"]
        path.write_text(json.dumps(body))
    old = LatentSet.open(root).splits["train"].shards
    assert list(old) == [replace(s, xxh3="") for s in written]
    assert [r.shard for r in shards.read_records(root).values()] == list(old)
    assert [shards.read_shard(root, s).num_rows for s in old] == [3, 2]


def test_only_shards_with_a_side_file_count_as_complete(tmp_path):
    shards.write_shard(str(tmp_path), "train/0.parquet", table(latents()), statistics={"count": 3})
    shards.write_shard(str(tmp_path), "train/1.parquet", table(latents()))
    (tmp_path / "train/1.parquet.json").unlink()
    (tmp_path / "train/2.parquet.json").write_text("{}")
    records = shards.read_records(str(tmp_path))
    assert list(records) == ["train/0.parquet"]
    assert records["train/0.parquet"].statistics == {"count": 3}


def test_the_same_rows_make_the_same_bytes(tmp_path):
    first = shards.write_shard(str(tmp_path / "a"), "s.parquet", table(latents()))
    second = shards.write_shard(str(tmp_path / "b"), "s.parquet", table(latents()))
    assert first.shard == second.shard
    assert isinstance(first.shard, Shard)


def test_image_rows_keep_ids_labels_and_bytes(tmp_path):
    rows = shards.image_table(["x", "y"], [3, 1], [b"one", b"three"], {"encoding": "png"})
    record = shards.write_shard(str(tmp_path), "i.parquet", rows)
    back = pq.read_table(io.BytesIO(storage.read_bytes(str(tmp_path / "i.parquet"))))
    assert record.shard.count == 2
    assert back.to_pydict() == {"id": ["x", "y"], "label": [3, 1], "image": [b"one", b"three"]}
    assert b"png" in back.schema.metadata[b"dcae15"]


@pytest.mark.s3
def test_a_restart_lists_the_folder_once_and_reads_each_side_file_once(s3_root, s3_proxy):
    for i in range(20):
        shards.write_shard(s3_root, f"train/{i:06d}.parquet", pa.table({"id": [str(i)]}))
    s3_proxy.requests.clear()
    assert len(shards.read_records(s3_root)) == 20
    assert sum("list-type=2" in request.path for request in s3_proxy.requests) == 1
    assert len(s3_proxy.requests) == 21


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary(4)])
def test_fixed_rows_are_those_of_slices_and_chunks(kind):
    values = [bytes([i] * 4) for i in range(9)]
    column = pa.chunked_array([pa.array(values[:4], kind), pa.array(values[4:], kind)]).slice(2, 5)
    assert shards.fixed_rows(column).tolist() == [[i] * 4 for i in range(2, 7)]
    assert shards.fixed_rows(column.slice(0, 1)).tolist() == [[2] * 4]
    assert shards.fixed_rows(column.slice(0, 0)).size == 0


def test_only_the_columns_that_are_asked_for_are_decoded(tmp_path):
    record = shards.write_shard(str(tmp_path), "a.parquet", table(latents()))
    assert shards.read_shard(str(tmp_path), record.shard, columns=("latent", "label")).column_names == [
        "latent",
        "label",
    ]
