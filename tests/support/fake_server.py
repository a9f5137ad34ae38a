"""A publisher's web server, or the Hugging Face hub, on loopback; it misbehaves on demand."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Served:
    """One file and how the server delivers it.

    drop_after: bodies stop after so many bytes, one entry per connection; then they are whole.
    extra_length: bytes that Content-Length promises too many.
    failures: status codes sent before the first proper answer.
    """

    body: bytes
    etag: str = ""
    kind: str = "application/octet-stream"
    ranges: bool = True
    drop_after: list[int] = field(default_factory=list)
    extra_length: int = 0
    failures: list[int] = field(default_factory=list)
    shift: int = 0  # a range starts so many bytes later than asked for
    pause: float = 0.0  # seconds between two blocks of 64 KiB
    moved_to: str = ""  # another address, told by a redirect
    token: str = ""  # the hub refuses who does not send it, as for a gated repository


class Publisher:
    """Serves `files` by path; `asked` holds (path, Range header) of every GET.

    `most_at_once` is the largest number of bodies that were being sent at the same time.
    """

    def __init__(self) -> None:
        self.files: dict[str, Served] = {}
        self.asked: list[tuple[str, str]] = []
        self.most_at_once = self.sending = 0
        self.lock = threading.Lock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def offer(self, name: str, body: bytes, **behaviour: object) -> str:
        """Serve a file; its address."""
        etag = f'"{hashlib.md5(body).hexdigest()}"'
        self.files[f"/{name}"] = Served(body, **{"etag": etag, **behaviour})  # type: ignore[arg-type]
        return f"{self.address}/{name}"

    @property
    def address(self) -> str:
        """The address of the server itself."""
        return f"http://127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        """Stop; a second call does nothing."""
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def count(self, change: int) -> None:
        """Count a body whose sending begins or ends."""
        with self.lock:
            self.sending += change
            self.most_at_once = max(self.most_at_once, self.sending)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        publisher = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                served = publisher.files.get(self.path)
                self.send_response(200 if served else 404)
                self.send_header("Content-Length", str(len(served.body) if served else 0))
                self.end_headers()

            def do_GET(self) -> None:
                publisher.asked.append((self.path, self.headers.get("Range", "")))
                served = publisher.files.get(self.path)
                if served is None:
                    self.send_error(404)
                elif served.failures:
                    self.send_error(served.failures.pop(0))
                elif served.moved_to:
                    self.send_response(302)
                    self.send_header("Location", served.moved_to)
                    self.end_headers()
                elif served.token not in self.headers.get("Authorization", ""):
                    self.send_response(403)
                    self.send_header("X-Error-Code", "GatedRepo")
                    self.end_headers()
                else:
                    publisher.count(1)
                    _answer(self, served)
                    publisher.count(-1)

            def log_message(self, *_: object) -> None:
                pass

        return Handler


def _answer(handler: BaseHTTPRequestHandler, served: Served) -> None:
    start, total = 0, len(served.body)
    wanted = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
    unchanged = handler.headers.get("If-Range", served.etag) == served.etag
    if wanted and served.ranges and unchanged:
        start = int(wanted[1]) + served.shift
        if start >= total:
            handler.send_error(416)
            return
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
    else:
        handler.send_response(200)
    handler.send_header("Content-Length", str(total - start + served.extra_length))
    handler.send_header("Content-Type", served.kind)
    if served.etag:
        handler.send_header("ETag", served.etag)
    handler.end_headers()
    stop = min(total, start + served.drop_after.pop(0)) if served.drop_after else total
    _send(handler.wfile.write, served.body[start:stop], served.pause)
    handler.close_connection = True


def _send(write: Callable[[bytes], object], body: bytes, pause: float) -> None:
    try:
        for at in range(0, len(body), 1 << 16):
            if at:
                time.sleep(pause)
            write(body[at : at + (1 << 16)])
    except (BrokenPipeError, ConnectionResetError):
        pass  # the client was killed, which some tests do
