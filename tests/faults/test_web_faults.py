"""Pictures at addresses of the web, and files that cannot be read: each fault costs its own picture, an outage stops."""

from __future__ import annotations

import errno
import json
import os
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from dcae15 import storage
from dcae15.config import DataConfig
from dcae15.data import inspection, sources
from dcae15.data.images import BadImage
from dcae15.data.sources import reading
from dcae15.errors import StorageError
from dcae15.stages.image_preparing import PrepareWriter
from dcae15.stages.shard_writing import ShardPlan
from dcae15.storage import attempts, web
from tests import layouts
from tests.web import Server

GOOD = {f"{i}.jpg": layouts.encoded(i) for i in range(4)}


@pytest.fixture
def server():
    with Server(dict(GOOD) | {"empty.jpg": b"", "page.jpg": b"<!DOCTYPE html><title>Sorry</title>"}) as running:
        yield running


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(attempts, "RETRY_SECONDS", 2.5)
    monkeypatch.setattr(web, "RETRY_SECONDS", 0.5)
    monkeypatch.setattr(web, "READ_SECONDS", 0.7)
    storage.remote._connect.cache_clear()  # connections keep their limits
    yield
    storage.remote._connect.cache_clear()


def table(uris, offsets=None):
    ids = [f"id {i}" for i in range(len(uris))]
    return sources.rows(ids, [0] * len(uris), list(uris), offsets or [-1] * len(uris), [-1] * len(uris))


def read(*uris):
    return list(reading.read_images(table(uris)))


CLOSED = "http://127.0.0.1:9/x.jpg"
NO_HOST = "http://no-such-host.invalid/x.jpg"
FAULTS = {
    "404/x.jpg": ("missing", "answers 404 (Not Found)"),
    "410/x.jpg": ("missing", "answers 410 (Gone)"),
    "401/x.jpg": ("forbidden", "answers 401 (Unauthorized)"),
    "403/x.jpg": ("forbidden", "answers 403 (Forbidden)"),
    "400/x.jpg": ("unreachable", "answers 400 (Bad Request)"),
    "500/x.jpg": ("unreachable", "answers 500 (Internal Server Error). Gave up after"),
    "503/x.jpg": ("unreachable", "answers 503 (Service Unavailable). Gave up after"),
    "busy/x.jpg": ("unreachable", "answers 429 (Too Many Requests). Gave up after 1 attempts in"),
    "loop/x.jpg": ("unreachable", "redirects without end"),
    "hang/x.jpg": ("unreachable", "does not answer"),
    "close/x.jpg": ("unreachable", "does not answer"),
    "cut/1.jpg": ("unreachable", "the transfer fails (ClientPayloadError). Gave up after"),
}


def test_each_answer_is_its_pictures_fault_and_the_others_are_read(server: Server):
    secret = "?X-Amz-Signature=hush"
    addresses = [f"{server.address}/{path}{secret}" for path in FAULTS] + [CLOSED + secret, NO_HOST + secret]
    good = [f"{server.address}/{name}{secret}" for name in GOOD]
    found = read(*good[:2], *addresses, *good[2:])
    assert found[:2] + found[-2:] == list(GOOD.values())
    expected = [*FAULTS.values(), *[("unreachable", "reached")] * 2]
    for uri, bad, (reason, text) in zip(addresses, found[2:-2], expected, strict=True):
        assert isinstance(bad, BadImage), uri
        assert bad.reason == reason, bad
        assert text in str(bad) and uri.partition("?")[0] in str(bad), bad
        assert "hush" not in str(bad)
    assert server.asked["/403/x.jpg"] == server.asked["/404/x.jpg"] == server.asked["/busy/x.jpg"] == 1
    assert server.asked["/500/x.jpg"] > 1


@pytest.mark.parametrize("code", [429, 500, 408])
def test_servers_that_ask_to_wait_are_asked_again_then(server: Server, code: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(attempts, "RETRY_SECONDS", 30)
    begun = time.monotonic()
    assert read(f"{server.address}/{code}-2/1.jpg", f"{server.address}/to/2.jpg") == [GOOD["1.jpg"], GOOD["2.jpg"]]
    assert server.asked[f"/{code}-2/1.jpg"] == 3
    assert time.monotonic() - begun >= 2, "it asked for a second, twice"


@pytest.mark.parametrize(
    ("text", "seconds"), [("7", 7), ("Wed, 21 Oct 2015 07:28:00 GMT", 0), ("soon", 0), ("-3", 0), ("", 0)]
)
def test_what_a_server_asks(text: str, seconds: float):
    error = RuntimeError()
    error.headers = {"retry-after": text}  # pyright: ignore
    assert web.asked_delay(error, {}) == seconds
    later = time.time() + 100
    error.headers = {"Retry-After": time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(later))}  # pyright: ignore
    assert 95 < web.asked_delay(error, {}) <= 100
    assert web.asked_delay(None, {"ResponseMetadata": {"HTTPHeaders": {"retry-after": text}}}) == seconds


def test_a_dead_host_does_not_cost_time_for_each_picture(server: Server):
    many = [f"{server.address}/hang/{i}.jpg" for i in range(200)]
    begun = time.monotonic()
    found = read(*many, *[f"http://127.0.0.1:9/{i}.jpg" for i in range(200)])
    assert time.monotonic() - begun < 15
    assert {bad.reason for bad in found if isinstance(bad, BadImage)} == {"unreachable"} and len(found) == 400
    assert sum(server.asked.values()) < 3 * reading.IN_FLIGHT
    assert "5 other files of 127.0.0.1:9 in a row could not be reached" in str(found[-1])


def test_a_host_that_answers_again_is_asked_on(server: Server):
    faulty = [f"{server.address}/busy/{i}.jpg" for i in range(6)]
    reader = reading._Reader()
    for place in [*faulty[:4], f"{server.address}/403/x.jpg", *faulty[4:]]:
        assert isinstance(reader.read((place, -1, -1)), BadImage)
    assert reader.read((f"{server.address}/1.jpg", -1, -1)) == GOOD["1.jpg"]


@pytest.mark.parametrize(
    "uri",
    ["http://", "https://user:hush@host/x.jpg", "htp://host/x.jpg", "http:/host/x.jpg?sig=hush", "http://[::1/x.jpg"],
)
def test_places_that_are_none(uri: str):
    (bad,) = read(uri)
    assert isinstance(bad, BadImage) and bad.reason == "unreachable"
    assert "hush" not in str(bad)


def test_versions_and_slashes_of_an_address_are_its_own(server: Server):
    server.files["a/"] = b"A"
    assert read(f"{server.address}/a/", f"{server.address}/1.jpg?versionId=3") == [b"A", GOOD["1.jpg"]]


def test_prepare_images_and_validate_agree(server: Server, tmp_path: Path):
    listed = [*GOOD, *FAULTS, "empty.jpg", "page.jpg"]
    lines = [f"{server.address}/{path}?sig=hush,0" for path in listed] + [f"{CLOSED},0", f"{NO_HOST},0", "gone.jpg,0"]
    layouts.write(tmp_path / "list.csv", "\n".join(["uri,label", *lines]).encode())
    source = layouts.open_source(tmp_path / "list.csv")
    data = DataConfig(source=str(tmp_path / "list.csv"), resolution=32)
    found = inspection.inspect(source.train, source.kind, data)
    record = PrepareWriter(str(tmp_path / "out"), data).write(ShardPlan("0.parquet", len(lines), source.train))
    assert record.shard.count == len(GOOD)
    assert found.bad == Counter(line["reason"] for line in record.rejected)
    assert found.bad == {"missing": 3, "forbidden": 2, "unreachable": 10, "empty": 1, "unreadable": 1}
    details = {line["id"]: line["detail"] for line in record.rejected}
    assert "answers 403 (Forbidden)" in details[f"{server.address}/403/x.jpg"]
    assert "an HTML page" in details[f"{server.address}/page.jpg"]
    told = json.dumps(record.rejected) + str(found.examples)
    assert "hush" not in told
    for reason, detail in (("forbidden", "401"), ("unreachable", "http"), ("missing", "404")):
        assert any(example.partition(": ")[2].startswith(reason) for example in found.examples[reason])
        assert any(detail in example for example in found.examples[reason])


# ------------------------------------------------------------------------------------------- what is everybody's fault


@pytest.mark.parametrize("path", ["403/x.tar", "404/x.tar", "500/x.tar"])
def test_a_container_that_cannot_be_read_stops(server: Server, path: str):
    with pytest.raises(StorageError, match=f"Cannot read {server.address}/{path}: the server answers"):
        list(reading.read_images(table([f"{server.address}/{path}"], [0])))


class _S3Error(OSError):
    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": 403}}


class _DeniedError(_S3Error, PermissionError):
    pass


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (FileNotFoundError("key"), "missing"),
        (_DeniedError("AccessDenied"), "forbidden"),
        (_S3Error("InvalidObjectState"), "forbidden"),
        (_DeniedError("InvalidAccessKeyId"), ""),
        (_DeniedError("ExpiredToken"), ""),
        (_S3Error("NoSuchBucket"), ""),
        (ConnectionRefusedError("endpoint"), ""),
        (ImportError("s3fs"), ""),
        (MemoryError(), ""),
    ],
)
def test_object_stores(monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str):
    """One object's fault is that of its picture; that of the endpoint or of the credentials stops."""

    def fail(uri: str) -> bytes:
        raise error

    monkeypatch.setattr(storage.remote, "read", fail)
    if reason:
        (bad,) = read("s3://bucket/key")
        assert isinstance(bad, BadImage) and bad.reason == reason
    else:
        with pytest.raises(StorageError):
            read("s3://bucket/key")


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.EACCES, "forbidden"),
        (errno.EPERM, "forbidden"),
        (errno.EIO, "unreadable"),
        (errno.ESTALE, ""),
        (errno.ENOTCONN, ""),
        (errno.EMFILE, ""),
        (errno.ENOMEM, ""),
    ],
)
def test_local_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, reason: str):
    """A root user is refused nothing, so the errors are made here."""
    layouts.write(tmp_path / "1.jpg", GOOD["1.jpg"])
    real = Path.read_bytes

    def fail(path: Path) -> bytes:
        if path.name == "bad.jpg":
            raise OSError(number, os.strerror(number), str(path))
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", fail)
    places = [f"{tmp_path}/bad.jpg", f"{tmp_path}/1.jpg"]
    if reason:
        bad, good = read(*places)
        assert isinstance(bad, BadImage) and bad.reason == reason and f"{tmp_path}/bad.jpg" in str(bad)
        assert good == GOOD["1.jpg"]
    else:
        with pytest.raises(StorageError):
            read(*places)


def test_local_places_that_hold_no_file(tmp_path: Path):
    layouts.write(tmp_path / "file.jpg", b"F")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "itself.jpg").symlink_to("itself.jpg")
    names = ["gone.jpg", "folder.jpg", "itself.jpg", "file.jpg/below.jpg", "x" * 300 + ".jpg", "zero\0byte.jpg"]
    *bad, good = read(*[f"{tmp_path}/{name}" for name in names], f"{tmp_path}/file.jpg")
    assert good == b"F"
    assert [found.reason for found in bad if isinstance(found, BadImage)] == ["missing"] * len(names)


# ---------------------------------------------------------------------------------------------------------- odd names

NAMES = {
    b"caf\xe9.jpg": "caf\\xe9.jpg",
    b"\xff\xfe/\x80.jpg": "\\xff\\xfe/\\x80.jpg",
    b"\xe9t\xe9/plain.jpg": "\\xe9t\\xe9/plain.jpg",
    "cafe\u0301.jpg".encode(): "cafe\u0301.jpg",
    "café.jpg".encode(): "café.jpg",
    b"two\nlines.jpg": "two\nlines.jpg",
    b"back\\xe9slash.jpg": "back\\xe9slash.jpg",
    b"a" * 251 + b".jpg": "a" * 251 + ".jpg",
    "\U0001f600 \u202e%41?#&.jpg".encode(): "\U0001f600 \u202e%41?#&.jpg",
}


def test_names_that_are_no_utf_8_are_shown_and_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    root = os.fsencode(tmp_path / "set")
    for i, name in enumerate(NAMES):
        os.makedirs(os.path.dirname(root + b"/" + name), exist_ok=True)  # noqa: PTH103, PTH120
        with open(root + b"/" + name, "wb") as file:  # noqa: PTH123
            file.write(layouts.encoded(i))
    bad = root + b"/bad\xe9.jpg"
    Path(os.fsdecode(bad)).write_bytes(b"no picture")
    listed = [info.path for info in storage.list_files(f"{tmp_path}/set")]
    assert sorted(listed) == sorted([*NAMES.values(), "bad\\xe9.jpg"])
    for i, name in enumerate(NAMES.values()):
        uri = f"{tmp_path}/set/{name}"
        assert storage.read_bytes(uri) == layouts.encoded(i)
        assert storage.read_range(uri, 0, 2) == b"\xff\xd8"
        assert storage.open_read(uri).read(2) == b"\xff\xd8"
        assert storage.exists(uri) and storage.file_info(uri).size == len(layouts.encoded(i))
    images = table([f"{tmp_path}/set/{path}" for path in listed])
    images = images.set_column(0, "id", [listed])
    data = DataConfig(source=f"{tmp_path}/set", resolution=32)
    record = PrepareWriter(str(tmp_path / "out"), data).write(ShardPlan("0.parquet", len(listed), images))
    assert record.shard.count == len(NAMES)
    assert [line["id"] for line in record.rejected] == ["bad\\xe9.jpg"]
    found = inspection.inspect(images, "folder", data)
    assert found.examples == {"unreadable": [f"bad\\xe9.jpg: {record.rejected[0]['detail']}"]}
    print(found.examples, listed)
    assert capsys.readouterr().out


def test_a_folder_whose_own_name_is_no_utf_8(tmp_path: Path):
    root = os.fsdecode(os.fsencode(tmp_path) + b"/f\xfcr")
    Path(root).mkdir()
    Path(root, "1.jpg").write_bytes(b"1")
    for uri in (root, storage.resolve(root)):
        assert [info.path for info in storage.list_files(uri)] == ["1.jpg"]
        assert storage.read_bytes(f"{uri}/1.jpg") == b"1"
    assert storage.resolve(root) == f"{tmp_path}/f\\xfcr"
    storage.write_bytes(f"{storage.resolve(root)}/sub/2.jpg", b"2")
    assert Path(root, "sub", "2.jpg").read_bytes() == b"2"
    storage.remove(storage.resolve(root))
    assert not Path(root).exists()


def test_line_breaks_in_names_do_not_break_the_report(tmp_path: Path):
    layouts.write(tmp_path / "set/a\nb.jpg", b"no picture")
    layouts.write(tmp_path / "set/c.jpg", GOOD["1.jpg"])
    layouts.write(tmp_path / "set/d\ne.jpg", GOOD["1.jpg"])
    source = layouts.open_source(tmp_path / "set")
    found = inspection.inspect(source.train, "folder", DataConfig())
    digests = np.frombuffer(found.digests, np.uint8).reshape(-1, 16)
    text = inspection.report(source, found, digests)
    assert "  a\\nb.jpg: unreadable" in text and "  d\\ne.jpg = c.jpg" in text
