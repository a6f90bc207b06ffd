"""Storage behaves the same on local folders and on a real S3 server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dcae15 import storage
from dcae15.errors import StorageError
from tests.s3.proxy import FaultyProxy

ODD_NAMES = [
    "with space", "a=1&b=2", "100%", "%41", "plus+plus", "schön-猫", "a[1]*?.bin", "semi;colon", "hash#mark", "quo'te",
    'quo"te', "dollar$HOME", "~tilde", "comma,", "back\\slash", "x" * 200, ".hidden", "s3:", "?query=1",
]  # fmt: skip


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.s3)])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return request.getfixturevalue("s3_root") if request.param == "s3" else str(tmp_path / "root")


# ---------------------------------------------------------------------------------------------------------- names


def test_resolve_expands_what_users_type(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/user")
    monkeypatch.setenv("BUCKET", "images")
    assert storage.resolve("runs/../data/") == str(tmp_path / "data")
    assert storage.resolve("~/x") == "/home/user/x"
    assert storage.resolve("$HOME/x") == "/home/user/x"
    assert storage.resolve("file:///data/x/") == "/data/x"
    assert storage.resolve("s3://$BUCKET/${BUCKET}/") == "s3://images/images"
    assert storage.resolve("S3a://images") == "s3://images"
    assert storage.resolve("gs://images/a//b/") == "gs://images/a//b"


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("", "empty path"),
        ("$NOT_SET_ANYWHERE/x", "NOT_SET_ANYWHERE"),
        ("s3://", "no valid bucket"),
        ("s3://under score/x", "no valid bucket"),
        ("s3:/bucket/x", "s3://bucket/x"),
        ("s3://bucket/x?versionId=1", "version"),
    ],
)
def test_resolve_refuses_what_names_no_place(uri: str, message: str):
    with pytest.raises(StorageError, match=message):
        storage.resolve(uri)


@pytest.mark.parametrize("uri", ["s3://AKIA:s3cr/et@bucket/x", "s3://AKIA:s3cret@bucket", "gs://AKIA:s3cret@bucket/x"])
@pytest.mark.parametrize("function", [storage.resolve, storage.exists, storage.check_access])
def test_credentials_in_a_uri_are_refused_and_not_repeated(uri: str, function):
    with pytest.raises(StorageError, match="AWS_SECRET_ACCESS_KEY") as caught:
        function(uri)
    assert "s3cr" not in repr(caught.value)
    assert "AKIA" not in repr(caught.value)


def test_join():
    assert storage.join("s3://bucket/", "/a/", "", "b/c") == "s3://bucket/a/b/c"
    assert storage.join("/", "a") == "/a"
    assert storage.join("/data") == "/data"
    with pytest.raises(StorageError, match=r"\.\."):
        storage.join("/data", "a/../../etc")


# ------------------------------------------------------------------------------------------------------------ files


def test_round_trip(root: str):
    uri = storage.join(root, "a", "b", "file.bin")
    for data in (b"", b"first", bytes(range(256)) * 4000):
        storage.write_bytes(uri, data)
        assert storage.read_bytes(uri) == data
        assert storage.list_files(root) == [storage.FileInfo("a/b/file.bin", len(data))]


def test_json_round_trip_and_damage(root: str):
    uri = storage.join(root, "value.json")
    storage.write_json(uri, {"b": [1, 2.5, None], "a": "ä"})
    assert storage.read_json(uri) == {"a": "ä", "b": [1, 2.5, None]}
    assert storage.read_bytes(uri).startswith(b'{\n  "a"')
    storage.write_bytes(uri, b'{"cut')
    with pytest.raises(StorageError, match=r"value\.json is not valid JSON"):
        storage.read_json(uri)


def test_json_that_is_something_else_says_what(tmp_path):
    uri = str(tmp_path / "config.json")
    for data, words in (
        (
            b"version https://git-lfs.github.com/spec/v1\nsize 1024\n",
            "It is a git-lfs pointer to a file of 1,024 bytes",
        ),
        (b"<html><title>Sign in</title>", "It is a web page titled 'Sign in'"),
        (b"", "It is empty"),
        (b'{"cut', r"is not valid JSON \(.*\)\. Restore it"),
    ):
        storage.write_bytes(uri, data)
        with pytest.raises(StorageError, match=words) as error:
            storage.read_json(uri)
        assert "Remove" not in str(error.value)


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 12\n", "`git lfs pull`"),
        (b"/annex/objects/MD5E-s5--ab.jpg\n", "`git annex get`"),
        (b"../../.git/annex/objects/aa/bb/x\n", "`git annex get`"),
        (b"\xff\xd8\xff\xe0", "a JPEG image"),
        ("Schlüssel fehlt".encode(), "a text that begins with 'Schlüssel fehlt'"),
        ("ä".encode() * 600, "a text that begins with"),
        ("utf-16".encode("utf-16"), "a text that begins with 'utf-16'"),
        (b"x" * 257 + b"ustar", "a tar archive"),
        (b"", "empty"),
        (b"PK\x03\x04\x14\x00", ""),
        (b"\x80\x02\x8a\nl", ""),
        (b"text\x00and more", ""),
    ],
)
def test_what_lies_in_the_place_of_a_file(head, words):
    found = storage.stand_in(head[: storage.HEAD_BYTES])
    assert words in found and bool(words) == bool(found)
    assert storage.pointer(head) == (found if "pointer" in found else "")


def test_what_does_not_exist(root: str):
    missing = storage.join(root, "missing")
    assert not storage.exists(missing)
    assert storage.list_files(missing) == []
    storage.remove(missing)
    for function in (storage.read_bytes, storage.read_json, storage.open_read):
        with pytest.raises(StorageError, match="missing: it does not exist"):
            function(missing)


def test_exists_for_files_and_for_folders_with_files(root: str):
    storage.write_bytes(storage.join(root, "a", "file"), b"")
    assert storage.exists(storage.join(root, "a", "file"))
    assert storage.exists(storage.join(root, "a"))
    assert storage.exists(root)
    assert not storage.exists(storage.join(root, "a", "fil"))


def test_list_is_recursive_and_sorted_and_only_of_this_folder(root: str):
    for name in ("b", "a/2", "a/10", "a/1/deep", "a.txt"):
        storage.write_bytes(storage.join(root, "set", name), b"12")
    storage.write_bytes(storage.join(root, "settings"), b"")
    paths = [file.path for file in storage.list_files(storage.join(root, "set"))]
    assert paths == ["a.txt", "a/1/deep", "a/10", "a/2", "b"]
    assert storage.list_files(storage.join(root, "set", "b")) == []


def test_odd_names_survive(root: str):
    for number, name in enumerate(ODD_NAMES):
        storage.write_bytes(storage.join(root, name), str(number).encode())
    assert [file.path for file in storage.list_files(root)] == sorted(ODD_NAMES)
    for number, name in enumerate(ODD_NAMES):
        assert storage.read_bytes(storage.join(root, name)) == str(number).encode()
        assert storage.exists(storage.join(root, name))
        with storage.open_read(storage.join(root, name)) as file:
            assert file.read() == str(number).encode()
        storage.remove(storage.join(root, name))
        assert len(storage.list_files(root)) == len(ODD_NAMES) - number - 1


def test_remove_takes_a_file_or_a_tree_and_nothing_beside(root: str):
    for name in ("tree/a", "tree/b/c", "tree2", "single"):
        storage.write_bytes(storage.join(root, name), b"x")
    storage.remove(storage.join(root, "single"))
    storage.remove(storage.join(root, "tree"))
    assert [file.path for file in storage.list_files(root)] == ["tree2"]
    assert not storage.exists(storage.join(root, "tree"))


def test_remove_does_not_expand_wildcards(root: str):
    for name in ("a*", "ab", "a[b]"):
        storage.write_bytes(storage.join(root, name), b"x")
    storage.remove(storage.join(root, "a*"))
    storage.remove(storage.join(root, "a[b]"))
    assert [file.path for file in storage.list_files(root)] == ["ab"]


@pytest.mark.parametrize("uri", ["/", "~", "//", "s3://bucket", "s3://bucket/", "gs://bucket"])
def test_remove_refuses_whole_roots(uri: str):
    with pytest.raises(StorageError, match="Refusing"):
        storage.remove(uri)


def test_readers_see_whole_versions_while_a_file_is_overwritten(root: str):
    uri = storage.join(root, "file")
    versions = [bytes([value]) * 300_000 for value in range(2)]
    storage.write_bytes(uri, versions[0])
    done = threading.Event()

    def read() -> int:
        reads = 0
        while not done.is_set():
            assert storage.read_bytes(uri) in versions
            reads += 1
        return reads

    with ThreadPoolExecutor(3) as pool:
        readers = [pool.submit(read) for _ in range(3)]
        try:
            for number in range(30):
                storage.write_bytes(uri, versions[number % 2])
        finally:
            done.set()
        assert all(reader.result() > 0 for reader in readers)


def test_create_has_exactly_one_winner(root: str):
    creators = 8
    for contest in range(4):
        uri = storage.join(root, "claims", str(contest))
        barrier = threading.Barrier(creators)

        def create(creator: int, uri: str = uri, barrier: threading.Barrier = barrier) -> bool:
            barrier.wait()
            return storage.create_bytes(uri, str(creator).encode() * 50_000)

        with ThreadPoolExecutor(creators) as pool:
            won = list(pool.map(create, range(creators)))
        assert sum(won) == 1
        assert storage.read_bytes(uri) == str(won.index(True)).encode() * 50_000
    assert len(storage.list_files(root)) == 4


def test_open_read_serves_parquet_and_seeks(root: str):
    table = pa.table({"index": range(50_000), "blob": [os.urandom(100) for _ in range(50_000)]})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, row_group_size=10_000)
    uri = storage.join(root, "shard.parquet")
    storage.write_bytes(uri, sink.getvalue().to_pybytes())
    with storage.open_read(uri) as file:
        assert pq.ParquetFile(file).read().equals(table)
    with storage.open_read(uri) as file:
        assert pq.read_table(file, columns=["index"]).column("index").equals(table.column("index"))
    with storage.open_read(uri) as file:
        assert file.seekable()
        file.seek(-4, 2)
        assert file.read() == b"PAR1"
        file.seek(0)
        assert file.read(4) == b"PAR1"


def test_ranges_are_exact(root: str):
    data = bytes(range(256)) * 40
    storage.write_bytes(f"{root}/a", data)
    assert storage.file_info(f"{root}/a").size == len(data)
    assert storage.read_range(f"{root}/a", 300, 1000) == data[300:1300]
    assert storage.read_range(f"{root}/a", len(data) - 1, 1) == data[-1:]
    assert storage.read_range(f"{root}/a", 5, 0) == b""
    for offset, size in ((len(data) - 3, 4), (len(data), 1), (len(data) + 10, 5)):
        with pytest.raises(StorageError, match=f"Cannot read {root}/a"):
            storage.read_range(f"{root}/a", offset, size)
    with pytest.raises(StorageError, match="does not exist") as caught:
        storage.read_range(f"{root}/b", 0, 1)
    assert storage.is_missing(caught.value)


def test_an_open_range_is_a_file_of_its_own(root: str, monkeypatch: pytest.MonkeyPatch):
    data = bytes(range(256)) * 40
    storage.write_bytes(f"{root}/a", data)
    fetched = []
    read = storage.ranges.read_range
    monkeypatch.setattr(storage.ranges, "read_range", lambda *place: fetched.append(place[1:]) or read(*place))
    with storage.open_range(f"{root}/a", 1000, 5000, ahead=2000) as file:
        assert file.read(10) == data[1000:1010]
        assert file.read(1000) == data[1010:2010]
        assert file.seek(-10, os.SEEK_END) == 4990
        assert file.read() == data[5990:6000]
        assert file.read(1) == b""
    assert fetched[:2] == [(1000, 2000), (5990, 10)]


def test_versions_tell_files_that_were_written_anew(root: str):
    versions = []
    for data in (b"first", b"other"):
        storage.write_bytes(f"{root}/a", data)
        [info] = storage.list_files(root)
        assert storage.file_info(f"{root}/a").version == info.version
        assert storage.file_info(f"{root}/a").size == info.size == 5
        versions.append(info.version)
    assert all(versions) and versions[0] != versions[1]


def test_check_access_leaves_nothing_behind(root: str):
    storage.check_access(root)
    assert storage.list_files(root) == []


def test_sha256():
    assert storage.sha256(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_xxh3():
    assert storage.xxh3(memoryview(b"abc")) == storage.xxh3(b"abc") == "06b05ab6733a618578af5f94892f3950"


# ------------------------------------------------------------------------------------------------------------ local


def test_a_killed_writer_leaves_the_old_file_and_no_listed_new_one(tmp_path: Path):
    uri = str(tmp_path / "file")
    storage.write_bytes(uri, b"old")
    script = (
        "import os, sys, time\n"
        "from dcae15 import storage\n"
        "os.fsync = lambda _: (print('written', flush=True), time.sleep(600))\n"
        "storage.write_bytes(sys.argv[1], b'new' * 100_000)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, uri], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"written\n"
        writer.send_signal(signal.SIGKILL)
    assert len(list(tmp_path.iterdir())) == 2  # the leftover is there ...
    assert storage.list_files(str(tmp_path)) == [storage.FileInfo("file", 3)]  # ... but is no file of ours
    assert storage.read_bytes(uri) == b"old"
    storage.remove_unfinished(str(tmp_path))
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_unfinished_is_removed_at_any_depth_and_nothing_else(tmp_path: Path):
    kept = [tmp_path / ".tmp-mine", tmp_path / ".hidden", tmp_path / "deep" / "file"]
    gone = [tmp_path / "deep" / f".tmp-{'0' * 32}", tmp_path / f".tmp-{'1' * 32}" / "deep" / f".tmp-{'2' * 32}"]
    for path in kept + gone:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    storage.remove_unfinished(str(tmp_path))
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(kept)
    storage.remove_unfinished(str(tmp_path / "nowhere"))


def test_only_leftovers_do_not_count_as_a_file(tmp_path: Path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / f".tmp-{'0' * 32}").write_bytes(b"x")
    assert not storage.exists(str(tmp_path / "set"))


def test_symbolic_links_are_followed_but_not_in_circles(tmp_path: Path):
    storage.write_bytes(str(tmp_path / "elsewhere" / "image"), b"x")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "cats").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set" / "dogs").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set" / "circle").symlink_to(tmp_path / "set")
    (tmp_path / "set" / "broken").symlink_to(tmp_path / "nowhere")
    assert [file.path for file in storage.list_files(str(tmp_path / "set"))] == ["broken", "cats/image", "dogs/image"]
    storage.remove(str(tmp_path / "set" / "cats"))
    assert (tmp_path / "elsewhere" / "image").exists()


def test_new_files_have_the_usual_permissions(tmp_path: Path):
    old = os.umask(0o022)
    try:
        storage.write_bytes(str(tmp_path / "file"), b"")
    finally:
        os.umask(old)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644


# --------------------------------------------------------------------------------------------------------------- S3


@pytest.mark.s3
def test_markers_are_neither_listed_nor_left_behind(s3_root: str):
    s3 = fsspec.filesystem("s3", skip_instance_cache=True, use_listings_cache=False)
    folder = storage.join(s3_root, "folder")
    for marker in ("folder/", "folder/sub/"):
        s3.touch(f"{s3_root}/{marker}")
    assert storage.list_files(s3_root) == []
    assert not storage.exists(folder)
    storage.write_bytes(storage.join(folder, "sub", "file"), b"x")
    assert storage.list_files(s3_root) == [storage.FileInfo("folder/sub/file", 1)]
    storage.remove(folder)
    bucket, _, prefix = s3_root.removeprefix("s3://").partition("/")
    assert s3.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix)["KeyCount"] == 0


@pytest.mark.s3
def test_a_large_object_goes_up_in_parts_and_comes_back_whole(s3_root: str, s3_proxy: FaultyProxy):
    data = os.urandom(2**20) * 101
    s3_proxy.inject("slow_down", 1, "PUT")
    storage.write_bytes(storage.join(s3_root, "large"), data)
    assert s3_proxy.count("PUT") == 4  # three parts of 50 MiB, one of them twice
    assert storage.sha256(storage.read_bytes(storage.join(s3_root, "large"))) == storage.sha256(data)


@pytest.mark.s3
def test_parquet_takes_few_requests(s3_root: str, s3_proxy: FaultyProxy):
    table = pa.table({"blob": [os.urandom(4_000) for _ in range(5_000)]})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, row_group_size=250, compression="none")
    uri = storage.join(s3_root, "shard.parquet")
    storage.write_bytes(uri, sink.getvalue().to_pybytes())
    with storage.open_read(uri) as file:
        shard = pq.ParquetFile(file)
        groups = [shard.read_row_group(index) for index in range(shard.num_row_groups)]
    assert pa.concat_tables(groups).equals(table)
    assert s3_proxy.count("GET") + s3_proxy.count("HEAD") <= 10  # for 20 MB in 20 row groups


@pytest.mark.s3
def test_a_forked_process_can_use_storage(s3_root: str):
    uri = storage.join(s3_root, "file")
    storage.write_bytes(uri, b"x")
    child = os.fork()
    if child == 0:
        os._exit(0 if storage.read_bytes(uri) == b"x" else 1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.s3
def test_environment_is_what_a_worker_needs_to_reach_the_same_storage(s3_root: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("AWS_REQUEST_CHECKSUM_CALCULATION")
    monkeypatch.setenv("AWS_PROFILE", "mine")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/home/me/aws")
    variables = storage.environment()
    assert os.environ["AWS_REQUEST_CHECKSUM_CALCULATION"] == "when_required"
    assert not {"AWS_PROFILE", "AWS_CONFIG_FILE"} & set(variables)
    monkeypatch.delenv("AWS_PROFILE")
    storage.write_bytes(storage.join(s3_root, "file"), b"hello")
    script = "import sys; from dcae15 import storage; print(storage.read_bytes(sys.argv[1]).decode())"
    worker = subprocess.run(
        [sys.executable, "-c", script, storage.join(s3_root, "file")],
        env={"PATH": os.environ["PATH"], **variables},
        capture_output=True,
        text=True,
    )
    assert worker.stdout == "hello\n", worker.stderr
