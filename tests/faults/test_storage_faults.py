"""Storage under faults: what a user is told, what is retried, and what is never lost."""

from __future__ import annotations

import errno
import json
import logging
import os
import resource
import traceback
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest
from fsspec.registry import known_implementations

from dcae15 import storage
from dcae15.errors import StorageError
from dcae15.storage import attempts, remote
from tests.s3.proxy import Fault, FaultyProxy

# ------------------------------------------------------------------------------------------------------------ local


def test_a_file_where_a_folder_should_be(tmp_path: Path):
    storage.write_bytes(str(tmp_path / "file"), b"x")
    for uri in (tmp_path / "file" / "below", tmp_path / "file" / "far" / "below"):
        with pytest.raises(
            StorageError, match=r"a file stands where a folder is needed: .*/file\. Choose another folder"
        ):
            storage.write_bytes(str(uri), b"y")
        with pytest.raises(StorageError, match="a file stands where a folder is needed"):
            storage.check_access(str(uri.parent))
    assert storage.read_bytes(str(tmp_path / "file")) == b"x"


def test_a_folder_where_a_file_should_be(tmp_path: Path):
    (tmp_path / "folder").mkdir()
    for function in (storage.read_bytes, storage.open_read, lambda uri: storage.write_bytes(uri, b"x")):
        with pytest.raises(StorageError, match="it is a folder"):
            function(str(tmp_path / "folder"))
    assert list(tmp_path.iterdir()) == [tmp_path / "folder"]


def test_a_read_only_file_system():
    """/proc refuses new files, to root as well."""
    with pytest.raises(StorageError, match="Cannot write to /proc/dcae15") as caught:
        storage.check_access("/proc/dcae15")
    assert isinstance(caught.value.__cause__, OSError)


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, "no space is left on the device"),
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "permission"),
        (errno.EMFILE, "this process has too many files open.*ulimit -n"),
        (errno.ENFILE, "all processes of this machine together have too many files open"),
        (errno.EIO, "the disk reports an error"),
    ],
)
def test_a_failed_write_leaves_the_old_file_and_no_temporary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, message: str
):
    uri = str(tmp_path / "file")
    storage.write_bytes(uri, b"old")

    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    for function in (storage.write_bytes, lambda uri, data: storage.create_bytes(uri + "2", data)):
        with pytest.raises(StorageError, match=message):
            function(uri, b"new")
    assert list(tmp_path.iterdir()) == [Path(uri)]
    assert storage.read_bytes(uri) == b"old"


def test_no_space_is_told_from_no_more_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A file system without inodes gives the same error as a full one."""
    real = os.statvfs(tmp_path)

    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def filled(files: int, free_blocks: int) -> os.statvfs_result:
        names = ("f_bsize", "f_frsize", "f_blocks", "f_bfree", "f_bavail", "f_files", "f_ffree", "f_favail", "f_flag")
        values = {name: getattr(real, name) for name in (*names, "f_namemax")}
        values |= {"f_frsize": 4096, "f_files": 65_536, "f_favail": files, "f_bavail": free_blocks}
        return os.statvfs_result(tuple(values.values()))

    monkeypatch.setattr(os, "fsync", fail)
    for files, blocks, message in (
        (0, 2560, "can hold no more files, though 10 MiB are free: all its 65,536 inodes are in use"),
        (9, 0, r"no space is left on the device \(0 MiB are free\)"),
    ):
        monkeypatch.setattr(os, "statvfs", lambda _, files=files, blocks=blocks: filled(files, blocks))
        with pytest.raises(StorageError, match=message):
            storage.write_bytes(str(tmp_path / "new" / "file"), b"x")


def test_too_many_open_files_for_real(tmp_path: Path):
    storage.write_bytes(str(tmp_path / "file"), b"x")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, limits[1]))
        with pytest.raises(StorageError, match=r"Cannot open .*file: this process has too many files open.*ulimit -n"):
            held.extend(storage.open_read(str(tmp_path / "file")) for _ in range(100))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for file in held:
            file.close()


def test_the_network_without_a_free_descriptor_is_not_called_unreachable(monkeypatch: pytest.MonkeyPatch):
    def fail(_: str) -> bytes:
        raise ConnectionError("no connection") from OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(remote, "read", fail)
    monkeypatch.setattr(attempts, "RETRY_SECONDS", 0.0)
    with pytest.raises(StorageError, match="too many files open"):
        storage.read_bytes("s3://bucket/key")


# -------------------------------------------------------------------------------------------------- before work starts


def test_unknown_schemes():
    with pytest.raises(StorageError, match="no storage scheme nonsense://"):
        storage.check_access("nonsense://bucket/x")


def test_schemes_that_need_a_package(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(known_implementations, "gs", {"class": "not_there.FileSystem", "err": "Please install gcsfs"})
    with pytest.raises(StorageError, match="gs:// needs a package that is not installed: Please install gcsfs"):
        storage.check_access("gs://bucket/x")


@pytest.mark.s3
def test_check_access_names_what_is_wrong(s3_server, s3_root: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(storage, "CHECK_SECONDS", 0.5)
    with pytest.raises(StorageError, match="the bucket not-there does not exist"):
        storage.check_access("s3://not-there/x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StorageError, match=r"credentials are missing, wrong or expired .*AWS_SECRET_ACCESS_KEY"):
        storage.check_access(s3_root)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "lab:nobody")
    with pytest.raises(StorageError, match=r"credentials are missing, wrong or expired .*AWS_ACCESS_KEY_ID"):
        storage.check_access(s3_root)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    with pytest.raises(StorageError, match=r"credentials are missing, wrong or expired .*AWS_ACCESS_KEY_ID"):
        storage.check_access(s3_root)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.secret_key)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StorageError, match=r"endpoint cannot be reached .*AWS_ENDPOINT_URL"):
        storage.check_access(s3_root)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.endpoint)
    storage.check_access(s3_root)


@pytest.mark.s3
def test_check_access_tells_read_only_from_no_access(s3_server, monkeypatch: pytest.MonkeyPatch):
    s3 = fsspec.filesystem("s3", skip_instance_cache=True)
    for bucket, acl in (("dcae15-public", "public-read"), ("dcae15-private", "private")):
        s3.mkdir(bucket)
        s3.call_s3("put_bucket_acl", Bucket=bucket, ACL=acl)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.reader_key)
    with pytest.raises(StorageError, match="s3://dcae15-public is read-only"):
        storage.check_access("s3://dcae15-public")
    with pytest.raises(StorageError, match="Cannot write to s3://dcae15-private/x: access denied"):
        storage.check_access("s3://dcae15-private/x")


@pytest.mark.s3
def test_a_missing_bucket_is_not_an_empty_folder(s3_server):
    for function in (storage.list_files, storage.exists, storage.read_bytes, storage.remove):
        with pytest.raises(StorageError, match="the bucket not-there does not exist"):
            function("s3://not-there/x")


# ---------------------------------------------------------------------------------------------------------- retries

OPERATIONS: dict[str, tuple[Callable[[str], object], object, list[str]]] = {
    "read_bytes": (lambda root: storage.read_bytes(f"{root}/file"), b"data", ["file"]),
    "open_read": (lambda root: storage.open_read(f"{root}/file").read(), b"data", ["file"]),
    "read_range": (lambda root: storage.read_range(f"{root}/file", 1, 2), b"at", ["file"]),
    "size": (lambda root: storage.file_info(f"{root}/file").size, 4, ["file"]),
    "write_bytes": (lambda root: storage.write_bytes(f"{root}/new", b"new"), None, ["file", "new"]),
    "create_bytes": (lambda root: storage.create_bytes(f"{root}/claim", b"new"), True, ["claim", "file"]),
    "exists": (lambda root: storage.exists(f"{root}/file"), True, ["file"]),
    "list_files": (lambda root: [file.path for file in storage.list_files(root)], ["file"], ["file"]),
    "remove": (lambda root: storage.remove(f"{root}/file"), None, []),
}
"""What each returns, and which files are there afterwards."""


@pytest.mark.s3
@pytest.mark.parametrize(
    ("fault", "operation"),
    [(fault, operation) for fault in ("slow_down", "reset", "lose_answer") for operation in OPERATIONS]
    + [("cut_answer", operation) for operation in ("read_bytes", "open_read", "read_range", "list_files")],
)
def test_transient_faults_are_survived(
    s3_root: str, s3_proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch, fault: Fault, operation: str
):
    monkeypatch.setitem(remote.S3_RETRIES, "total_max_attempts", 1)  # only our own
    storage.write_bytes(f"{s3_root}/file", b"data")
    s3_proxy.inject(fault, 2, "GET" if fault == "cut_answer" else "")
    run, result, files = OPERATIONS[operation]
    assert run(s3_root) == result
    assert s3_proxy.pending == 0
    assert [file.path for file in storage.list_files(s3_root)] == files


@pytest.mark.s3
@pytest.mark.parametrize("fault", ["slow_down", "reset"])
def test_lasting_faults_end_in_a_clear_error(
    s3_root: str, s3_proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch, fault: Fault
):
    monkeypatch.setattr(attempts, "RETRY_SECONDS", 1.0)
    s3_proxy.inject(fault, 1000)
    with pytest.raises(StorageError, match=r"Cannot write s3://.*/file: the .* Gave up after \d+ attempts"):
        storage.write_bytes(f"{s3_root}/file", b"data")
    assert s3_proxy.count("PUT") > 1


@pytest.mark.s3
def test_other_errors_are_not_retried(s3_root: str, s3_proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StorageError, match="credentials"):
        storage.write_bytes(f"{s3_root}/file", b"data")
    assert s3_proxy.count("PUT") == 1


def test_delays_and_their_total_are_bounded(monkeypatch: pytest.MonkeyPatch):
    slept: list[float] = []
    monkeypatch.setattr(attempts.time, "monotonic", lambda: sum(slept))
    monkeypatch.setattr(attempts.time, "sleep", slept.append)

    def fail() -> None:
        raise ConnectionResetError("reset by peer")

    with pytest.raises(StorageError, match="cannot be reached") as caught:
        attempts.attempt("s3://bucket/x", "read", fail)
    assert isinstance(caught.value.__cause__, ConnectionResetError)
    assert slept[0] <= 0.2 and 1 < max(slept) <= 15
    assert 30 < sum(slept) <= attempts.RETRY_SECONDS


@pytest.mark.s3
def test_an_object_overwritten_while_it_is_open_is_an_error_and_not_a_mixture(s3_root: str):
    storage.write_bytes(f"{s3_root}/file", b"a" * 20_000_000)
    with storage.open_read(f"{s3_root}/file") as file:
        assert file.read(10) == b"a" * 10
        storage.write_bytes(f"{s3_root}/file", b"b" * 20_000_000)
        with pytest.raises(StorageError, match="overwritten while it was being read"):
            file.read()


# ---------------------------------------------------------------------------------------------------------- secrets


@pytest.mark.s3
def test_no_message_and_no_log_holds_a_secret(
    s3_server, s3_root: str, s3_proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(attempts, "RETRY_SECONDS", 0.3)
    monkeypatch.setattr(storage, "CHECK_SECONDS", 0.3)
    secrets = ["sEcReT/of+the+account", "tOkEn-of-the-session", s3_server.secret_key]
    told: list[str] = []

    def collect(*functions: Callable[[], object]) -> None:
        for function in functions:
            with pytest.raises(StorageError) as caught:
                function()
            told.extend([repr(caught.value), *traceback.format_exception(caught.value)])

    with caplog.at_level(logging.DEBUG):
        collect(lambda: storage.read_bytes(f"{s3_root}/missing"), lambda: storage.check_access("s3://not-there"))
        s3_proxy.inject("slow_down", 1000, "PUT")
        collect(lambda: storage.write_bytes(f"{s3_root}/x", b""))
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secrets[0])
        monkeypatch.setenv("AWS_SESSION_TOKEN", secrets[1])
        collect(
            lambda: storage.list_files(s3_root),
            lambda: storage.resolve(f"s3://key:{secrets[0]}@bucket/x"),
            lambda: attempts.attempt("s3://b/x", "read", lambda: json.loads(f"{secrets[0]} {secrets[1]}")),
        )
        with pytest.raises(StorageError) as caught:
            attempts.attempt("s3://b/x", "read", lambda: (_ for _ in ()).throw(RuntimeError(f"key={secrets[0]}")))
        told.append(str(caught.value))
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("dcae15")]
    for secret in secrets:
        assert not any(secret in text for text in told + ours)
