"""A small web server whose paths say what it does: answers with a status, asks to wait, hangs, or closes the connection."""

from __future__ import annotations

import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server(ThreadingHTTPServer):
    """Serves ``files`` by path, without their query; ``asked`` counts requests by path.

    - /403/x answers with that status, always.
    - /429-2/x answers so twice, with ``Retry-After: 1``, then with the file.
    - /busy/x answers 429 with ``Retry-After: 3600``.
    - /loop/x redirects to itself, /to/x to /x.
    - /hang/x answers when the server is closed; /close/x ends the connection; /cut/x ends it in the middle of the file.
    """

    daemon_threads = True

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files, self.asked, self.closing, self.lock = files, Counter[str](), threading.Event(), threading.Lock()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> Server:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *args: object) -> None:
        self.closing.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, request, client_address) -> None:  # clients that went away
        pass


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        what, _, rest = path[1:].partition("/")
        with self.server.lock:
            self.server.asked[path] += 1
            times = self.server.asked[path]
        code, _, repeats = what.partition("-")
        if code.isdigit() and (not repeats or times <= int(repeats)):
            self._answer(int(code), b"a page that explains", **{"Retry-After": "1"} if repeats else {})
        elif what == "busy":
            self._answer(429, b"", **{"Retry-After": "3600"})
        elif what in ("loop", "to"):
            self._answer(302, b"", Location=path if what == "loop" else f"/{rest}")
        elif what == "hang":
            self.server.closing.wait(60)
        elif what == "close":
            self.close_connection = True
        elif what == "cut":
            data = self.server.files[rest]
            self._answer(200, data[: len(data) // 2], **{"Content-Length": str(len(data))})
        else:
            data = self.server.files.get(rest if repeats else path[1:])
            self._answer(404 if data is None else 200, data or b"")

    def _answer(self, code: int, body: bytes, **headers: str) -> None:
        self.send_response(code)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
