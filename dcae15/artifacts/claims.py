"""Claims: of several processes that want the same result, one makes it and the others wait for it.

They save work, no more: every stage may safely be made twice at once. A claim is a file in the storage that its holder renews;
so it works between the trials of a sweep, and between commands on machines that share nothing but the storage. The claim of a
holder that died is taken over: at once on the same machine, elsewhere when it was not renewed for a while.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dcae15 import storage
from dcae15.errors import StorageError

FOLDER = ".claims"
RENEW_SECONDS = 10.0
STALE_SECONDS = 60.0
POLL_SECONDS = 1.0


@contextmanager
def claim(root: str, name: str, say: Callable[[str], None] = lambda line: None) -> Iterator[None]:
    """Hold the claim on a name; wait while another living process holds it.

    Where the storage cannot keep claims, the work is done without one, and that is said.

    Args:
        root: URI of the storage.
        name: of what is made, such as the fingerprint of an artifact.
        say: told once, when there is something to wait for.
    """
    held, stop = _Claim(storage.join(root, FOLDER), name), threading.Event()
    renewer = threading.Thread(target=held.renew, args=(stop,), name=f"renews {name}", daemon=True)
    try:
        try:
            held.take(say)
            renewer.start()
        except StorageError as error:  # the work itself meets what is wrong with the storage, and explains it better
            say(f"works without a claim, so that others may do the same work: {error}")
        yield
    finally:
        stop.set()
        if renewer.ident:
            renewer.join()
        with suppress(StorageError):  # the claim of a process that ended, or was not renewed, holds nobody up
            held.release()


class _Claim:
    """A numbered claim file. A higher number takes over from claims that nobody renews any more.

    Whoever makes a file looks again, and holds only if there is nothing beside it but what it is to take over. Of two that
    came at the same moment at least one sees the other, and steps back.
    """

    def __init__(self, folder: str, name: str) -> None:
        self._folder, self._name = folder, name
        self._body = {"id": uuid.uuid4().hex, **_process(os.getpid())}
        self._number = 0

    def take(self, say: Callable[[str], None]) -> None:
        seen: dict[tuple[int, str], float] = {}
        told = False
        while True:
            present, now = self._present(), time.monotonic()
            seen = {claim: seen.get(claim, now) for claim in present.items()}
            living = [text for (_, text), since in seen.items() if not (_dead(text) or now - since > STALE_SECONDS)]
            if not living and self._create(present):
                return
            if living and not told:
                told = True
                say(f"waits for {_holder(living[-1])}, which makes it now")
            time.sleep(POLL_SECONDS)

    def renew(self, stop: threading.Event) -> None:
        beat = 0
        while not stop.wait(RENEW_SECONDS):
            beat += 1
            with suppress(StorageError):  # which shows in the work itself; a lost claim only costs work
                if not self._mine():
                    return
                storage.write_json(self._uri(self._number), {**self._body, "beat": beat})

    def release(self) -> None:
        if self._number and self._mine():
            storage.remove(self._uri(self._number))

    def _create(self, over: dict[int, str]) -> bool:
        """Make a claim that takes over from others; return whether it holds."""
        number = max(over, default=0) + 1
        if not storage.create_bytes(self._uri(number), json.dumps(self._body).encode()):
            return False
        self._number = number
        others = self._present()
        if self._body["id"] in others.pop(number, "") and others.items() <= over.items():
            for other in others:
                storage.remove(self._uri(other))
            return True
        self.release()
        return False

    def _mine(self) -> bool:
        return self._body["id"] in self._present().get(self._number, "")

    def _uri(self, number: int) -> str:
        return storage.join(self._folder, f"{self._name}.{number:06d}.json")

    def _present(self) -> dict[int, str]:
        """Return the claims on the name, by number."""
        found = {}
        for path in [file.path for file in storage.list_files(self._folder)]:
            if path.startswith(f"{self._name}."):
                try:
                    found[int(path.split(".")[-2])] = storage.read_bytes(storage.join(self._folder, path)).decode()
                except StorageError as error:
                    if not storage.is_missing(error):  # removed between the two looks
                        raise
        return found


def _process(number: int) -> dict[str, Any]:
    return {"host": socket.gethostname(), "machine": _machine(), "process": number, "started": _started(number)}


def _machine() -> str:
    """Return what tells apart machines and containers whose process numbers mean different processes; hosts may share a name."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(parts)


def _started(process: int) -> str:
    """Return what tells a process from a later one of the same number: when it started; empty where systems do not say."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "dead" if fields[0] == "Z" else fields[19]


def _dead(content: str) -> bool:
    """Whether the holder is known to be dead, which only its own machine knows."""
    try:
        body = json.loads(content)
    except ValueError:
        return False
    return body.get("machine") == _machine() and not _runs(body["process"], body["started"])


def _runs(process: int, started: str) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return _started(process) == started


def _holder(content: str) -> str:
    try:
        body = json.loads(content)
        return f"process {body['process']} on {body['host']}"
    except (KeyError, ValueError):
        return "another process"
