"""A reverse proxy before the S3 server that breaks chosen requests, and counts all."""

from __future__ import annotations

import http.client
import random
import socket
import struct
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal, Self
from urllib.parse import urlsplit

# slow_down: 503, nothing is done. reset: the connection breaks, nothing is done. lose_answer: the server does it, then
# the connection breaks. cut_answer: the connection breaks in the middle of the answer's body.
Fault = Literal["slow_down", "reset", "lose_answer", "cut_answer"]
_RANDOM: dict[bool, tuple[Fault, ...]] = {
    True: ("slow_down", "reset", "cut_answer"),
    False: ("slow_down", "reset", "lose_answer"),
}
_SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"


@dataclass(frozen=True)
class Request:
    """What a client asked for."""

    method: str
    path: str


class FaultyProxy:
    """Forwards to the S3 server; `inject` breaks the next requests, ``down`` all, ``share`` some at random.

    Use as a context manager.
    """

    def __init__(self, upstream: str):
        self.down = False
        self.share = 0.0
        self.broken = 0
        self._chance = random.Random(0)
        self.requests: list[Request] = []
        self._upstream = urlsplit(upstream).netloc
        self._faults: list[tuple[Fault, str]] = []
        self._last: tuple[str, int] = ("", 0)
        self._written: set[str] = set()  # objects since `break_after`
        self._lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"proxy": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def inject(self, fault: Fault, times: int, method: str = "") -> None:
        """Break the next requests, of one HTTP method if given."""
        with self._lock:
            self._faults.extend((fault, method) for _ in range(times))

    def break_after(self, ending: str, times: int) -> None:
        """Go ``down`` when so many objects with this ending were written; one that was written again counts once."""
        with self._lock:
            self._last, self._written = (ending, times), set()

    def note_written(self, request: Request) -> None:
        """Go down if that was the last object before an outage."""
        ending, times = self._last
        with self._lock:
            path = request.path.partition("?")[0]
            if times and request.method == "PUT" and path.endswith(ending):
                self._written.add(path)
                if len(self._written) == times:
                    self._last, self.down = ("", 0), True

    @property
    def pending(self) -> int:
        """How many faults have not happened yet."""
        return len(self._faults)

    def count(self, method: str) -> int:
        """How many requests of this HTTP method have come, broken ones included."""
        return sum(request.method == method for request in self.requests)

    def take(self, request: Request) -> Fault | None:
        """Note a request, and return the fault that it shall meet."""
        with self._lock:
            self.requests.append(request)
            if self.down:
                return "reset"
            if self._chance.random() < self.share:
                self.broken += 1
                return self._chance.choice(_RANDOM[request.method == "GET"])
            for index, (fault, method) in enumerate(self._faults):
                if method in ("", request.method):
                    del self._faults[index]
                    return fault
        return None

    def forward(self, request: Request, body: bytes, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        """Do a request on the real server; returns status, headers and body."""
        connection = http.client.HTTPConnection(self._upstream, timeout=60)
        try:
            connection.request(request.method, request.path, body, headers)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: FaultyProxy

    def _handle(self) -> None:
        request = Request(self.command, self.path)
        fault = self.proxy.take(request)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if fault == "reset":
            return self._reset()
        if fault == "slow_down":
            return self._answer(503, {"Content-Type": "application/xml"}, _SLOW_DOWN)
        status, headers, content = self.proxy.forward(request, body, dict(self.headers))
        if status == 200:
            self.proxy.note_written(request)
        if fault == "lose_answer":
            return self._reset()
        return self._answer(status, headers, content, cut=fault == "cut_answer")

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _handle  # noqa: N815

    def _answer(self, status: int, headers: dict[str, str], body: bytes, cut: bool = False) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in {"content-length", "transfer-encoding", "connection", "date", "server"}:
                self.send_header(name, value)
        length = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(body))
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if cut else body)
        if cut:
            self._reset()

    def _reset(self) -> None:
        """Send RST instead of a regular end."""
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""
