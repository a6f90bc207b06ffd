"""One makes what several want: claims between real processes, and in every order of events that is hard to hit."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest

from dcae15 import storage
from dcae15.artifacts import claims
from dcae15.artifacts.claims import claim
from dcae15.errors import StorageError

HOLDER = """
import sys
from dcae15.artifacts.claims import claim
with claim(sys.argv[1], "x"):
    print("holds", flush=True)
    sys.stdin.readline()
    open(sys.argv[1] + "/made", "x").close()
"""
ELSEWHERE = {"id": "b" * 32, "host": "elsewhere", "machine": "elsewhere", "process": 1, "started": "1"}


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "POLL_SECONDS", 0.01)


@contextlib.contextmanager
def holder(root: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the claim until it gets a line."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, root], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "holds\n"
        yield process


def files(root: Path) -> list[str]:
    return sorted(path.name for path in (root / ".claims").glob("*"))


def put(root: Path | str, body: dict[str, object], number: int = 1) -> str:
    uri = storage.join(str(root), ".claims", f"x.{number:06d}.json")
    storage.write_json(uri, body)
    return uri


def own_body(**changes: object) -> dict[str, object]:
    """The claim of this process."""
    return {"id": "c" * 32, **claims._process(os.getpid()), **changes}


class Clock:
    """Time that passes only in sleep; at each second something may happen."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: Callable[[int], None] = lambda second: None) -> None:
        self.now, self.at = 0, at
        monkeypatch.setattr(claims, "POLL_SECONDS", 1)
        monkeypatch.setattr(claims.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(claims.time, "sleep", self.sleep)

    def sleep(self, seconds: int) -> None:
        self.now += seconds
        self.at(self.now)


def test_a_claim_is_there_while_it_is_held_and_gone_after_it_whatever_happens(tmp_path):
    with claim(str(tmp_path), "x"), claim(str(tmp_path), "xy"):
        assert files(tmp_path) == ["x.000001.json", "xy.000001.json"]
    with pytest.raises(ValueError, match="the work"), claim(str(tmp_path), "x"):
        raise ValueError("the work")
    assert files(tmp_path) == []


def test_who_comes_later_waits_says_for_whom_once_and_goes_on_when_it_is_free(tmp_path):
    said: list[str] = []
    waiting = threading.Event()
    with holder(tmp_path) as process:

        def say(line: str) -> None:
            said.append(line)
            waiting.set()

        def wait() -> None:
            with claim(str(tmp_path), "x", say):
                said.append("made" if (tmp_path / "made").exists() else "too early")

        thread = threading.Thread(target=wait)
        thread.start()
        assert waiting.wait(30)
        process.communicate("\n")
        assert process.returncode == 0
        thread.join(30)
    assert said[0].startswith(f"waits for process {process.pid} on ")
    assert said[1:] == ["made"]
    assert files(tmp_path) == []


@pytest.mark.parametrize("reaped", [True, False], ids=["gone", "zombie"])
def test_the_claim_of_a_killed_process_is_taken_over_at_once(tmp_path, reaped):
    said: list[str] = []
    with holder(tmp_path) as process:
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | (0 if reaped else os.WNOWAIT))
        with claim(str(tmp_path), "x", said.append):
            assert files(tmp_path) == ["x.000002.json"]
    assert files(tmp_path) == said == []


def test_a_later_process_of_the_same_number_is_no_holder(tmp_path):
    put(tmp_path, own_body(started="1"))
    with claim(str(tmp_path), "x", pytest.fail):
        pass
    assert files(tmp_path) == []


def test_all_claims_of_the_dead_are_taken_over(tmp_path):
    for number in (1, 2, 5):
        put(tmp_path, own_body(started="1", id=str(number)), number)
    with claim(str(tmp_path), "x", pytest.fail):
        assert files(tmp_path) == ["x.000006.json"]


@pytest.mark.parametrize("machine", ["elsewhere", None], ids=["another machine", "another format"])
def test_a_claim_from_elsewhere_is_taken_over_when_it_is_not_renewed(tmp_path, monkeypatch, machine):
    put(tmp_path, own_body(machine=machine, started="1"))  # the name of the host says nothing
    clock = Clock(monkeypatch)
    with claim(str(tmp_path), "x"):
        assert claims.STALE_SECONDS < clock.now < claims.STALE_SECONDS + 3


def test_a_claim_from_elsewhere_holds_as_long_as_it_is_renewed(tmp_path, monkeypatch):
    uri = put(tmp_path, ELSEWHERE)

    def renewed(second: int) -> None:
        if second == 1000:
            storage.remove(uri)
        elif second < 1000 and second % 50 == 0:
            storage.write_json(uri, {**ELSEWHERE, "beat": second})

    clock = Clock(monkeypatch, renewed)
    with claim(str(tmp_path), "x"):
        assert clock.now == 1000


def test_a_holder_renews_its_claim_also_after_trouble(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "RENEW_SECONDS", 0.01)
    written, renewed = storage.write_json, threading.Event()

    def write_json(uri: str, value: dict[str, object]) -> None:
        if value["beat"] == 1:
            raise StorageError("the endpoint is away for a moment")
        written(uri, value)
        if value["beat"] == 3:
            renewed.set()

    monkeypatch.setattr(storage, "write_json", write_json)
    with claim(str(tmp_path), "x"):
        before = json.loads((tmp_path / ".claims" / "x.000001.json").read_text())
        assert renewed.wait(30)
        after = json.loads((tmp_path / ".claims" / "x.000001.json").read_text())
    assert after.pop("beat") >= 3
    assert {**before, "beat": None} == {**after, "beat": None}
    assert files(tmp_path) == []


def test_who_lost_its_claim_neither_renews_nor_removes_the_new_holders(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "RENEW_SECONDS", 0.0)
    with claim(str(tmp_path), "x"):
        renewer = next(thread for thread in threading.enumerate() if thread.name == "renews x")
        while renewer.is_alive():
            put(tmp_path, ELSEWHERE)  # again, should it be written over by a renewal that was under way
    assert files(tmp_path) == ["x.000001.json"]
    assert storage.read_json(str(tmp_path / ".claims" / "x.000001.json")) == ELSEWHERE


def before_creating(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], object]) -> None:
    """Let something happen between the first look at the claims and the first attempt to make one."""
    create, left = storage.create_bytes, [happens]

    def create_bytes(uri: str, data: bytes) -> bool:
        if left:
            left.pop()()
        return create(uri, data)

    monkeypatch.setattr(storage, "create_bytes", create_bytes)


def test_who_is_slow_to_take_over_from_the_dead_gives_way_to_who_did_it_before(tmp_path, monkeypatch):
    dead = put(tmp_path, own_body(started="1"))

    def others() -> None:
        storage.remove(dead)  # taken over and released, and then
        put(tmp_path, ELSEWHERE)  # taken by another, under the first number again

    before_creating(monkeypatch, others)
    clock = Clock(monkeypatch, lambda second: storage.remove(dead) if second == 7 else None)
    with claim(str(tmp_path), "x"):
        assert clock.now == 7
        assert files(tmp_path) == ["x.000001.json"]


def test_of_two_that_find_nothing_one_holds(tmp_path, monkeypatch):
    uri = storage.join(str(tmp_path), ".claims", "x.000001.json")
    before_creating(monkeypatch, lambda: put(tmp_path, ELSEWHERE))
    clock = Clock(monkeypatch, lambda second: storage.remove(uri) if second == 7 else None)
    with claim(str(tmp_path), "x"):
        assert clock.now == 7


def test_a_storage_that_overwrites_instead_of_creating_lets_the_last_one_hold(tmp_path, monkeypatch):
    uri = storage.join(str(tmp_path), ".claims", "x.000001.json")
    overwritten: list[str] = []

    def create_bytes(uri: str, data: bytes) -> bool:
        storage.write_bytes(uri, data)
        if not overwritten:
            overwritten.append(put(tmp_path, ELSEWHERE))
        return True

    monkeypatch.setattr(storage, "create_bytes", create_bytes)
    clock = Clock(monkeypatch, lambda second: storage.remove(uri) if second == 7 else None)
    with claim(str(tmp_path), "x"):
        assert clock.now == 7


def test_an_object_store_without_metadata_keeps_claims(monkeypatch):
    root = "memory://claims"
    uri = put(root, ELSEWHERE)
    clock = Clock(monkeypatch, lambda second: storage.remove(uri) if second == 7 else None)
    with claim(root, "x"):
        assert clock.now == 7
        assert storage.exists(uri)
    assert fsspec.filesystem("memory").find("/claims") == []


def test_where_no_claims_can_be_kept_the_work_is_done_without(tmp_path, monkeypatch):
    def create_bytes(uri: str, data: bytes) -> bool:
        raise StorageError(f"Cannot create {uri}: NotImplemented")

    monkeypatch.setattr(storage, "create_bytes", create_bytes)
    said: list[str] = []
    with claim(str(tmp_path), "x", said.append):
        assert len(said) == 1
        assert said[0].startswith("works without a claim")
        assert "NotImplemented" in said[0]


def test_trouble_with_the_claim_does_not_hide_how_the_work_ended(tmp_path, monkeypatch):
    def broken(uri: str) -> None:
        raise StorageError("the endpoint is away")

    with pytest.raises(ValueError, match="the work"), claim(str(tmp_path), "x"):
        monkeypatch.setattr(storage, "list_files", broken)
        raise ValueError("the work")
    monkeypatch.undo()
    put(tmp_path, own_body(started="1"))
    with claim(str(tmp_path), "x"):
        monkeypatch.setattr(storage, "remove", broken)


def _worker(root: str, rounds: int, results: multiprocessing.SimpleQueue[str]) -> None:
    inside = Path(root) / "inside"
    for _ in range(rounds):
        with claim(root, "x"):
            try:
                os.close(os.open(inside, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                results.put("two hold")
            else:
                inside.unlink()
                results.put("held")


def test_many_that_come_at_the_same_moment_hold_one_after_the_other(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "POLL_SECONDS", 0.001)
    put(tmp_path, own_body(started="1"))
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    workers = [context.Process(target=_worker, args=(str(tmp_path), 10, results)) for _ in range(6)]
    for worker in workers:
        worker.start()
    ended = [results.get() for _ in range(60)]
    for worker in workers:
        worker.join(30)
    assert ended == ["held"] * 60
    assert files(tmp_path) == []


@pytest.mark.s3
def test_a_real_object_store_lets_one_hold_after_the_other(s3_root):
    put(s3_root, own_body(started="1"))
    inside, most = 0, []

    def hold() -> None:
        nonlocal inside
        for _ in range(3):
            with claim(s3_root, "x"):
                inside += 1
                assert storage.list_files(s3_root)  # time for another to come in
                most.append(inside)
                inside -= 1

    threads = [threading.Thread(target=hold) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert most == [1] * 12
    assert storage.list_files(s3_root) == []
