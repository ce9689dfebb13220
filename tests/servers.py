"""Servers on the loopback interface: files with ranges and faults, and S3."""

from __future__ import annotations

import logging
import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import pytest
import requests
from moto.server import ThreadedMotoServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PLANTED = "pLaNtEd-0123456789"
"""What must not be found anywhere."""


@dataclass
class FileServer:
    """A folder by HTTP, its requests, and what is wrong with it."""

    folder: Path
    url: str = ""
    requests: list[tuple[str, str, int]] = field(default_factory=list)
    """(path with query, Range header or HEAD, bytes sent) of each request."""
    failures: int = 0
    """So many of the next requests are answered 503; -1: all."""
    cuts: int = 0
    """So many of the next answers end in the middle."""
    ranges: bool = True
    tags: bool = True
    """False: no ETag, and all that tells versions apart is the time of modification."""
    token: str = ""
    """Requests without this in their query are answered 403; so is HEAD, as where a URL is signed
    for GET."""

    @property
    def bytes_sent(self) -> int:
        return sum(size for _, _, size in self.requests)


@contextmanager
def serving(folder: Path) -> Iterator[FileServer]:
    state = FileServer(folder)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            _answer(self, state)

        def do_HEAD(self) -> None:
            _answer(self, state)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _answer(handler: BaseHTTPRequestHandler, state: FileServer) -> None:
    asked = "HEAD" if handler.command == "HEAD" else handler.headers.get("Range", "")
    path = state.folder / unquote(urlsplit(handler.path).path).lstrip("/")
    if state.failures:
        state.failures -= state.failures > 0
        code, body, extra = 503, b"busy", {}
    elif state.token and (state.token not in handler.path or asked == "HEAD"):
        code, body, extra = 403, b"forbidden", {}
    elif not path.is_file():
        code, body, extra = 404, b"", {}
    else:
        code, body, extra = _part(path, asked if state.ranges else "")
        if not state.tags:
            del extra["ETag"]
            extra["Last-Modified"] = formatdate(path.stat().st_mtime, usegmt=True)
    sent = b"" if asked == "HEAD" else body
    state.requests.append((handler.path, asked, len(sent)))
    handler.send_response(code)
    for name, value in {"Content-Length": str(len(body)), **extra}.items():
        handler.send_header(name, value)
    handler.end_headers()
    if state.cuts and sent:
        state.cuts -= 1
        sent, handler.close_connection = sent[: len(sent) // 2], True
    handler.wfile.write(sent)


def _part(path: Path, asked: str) -> tuple[int, bytes, dict[str, str]]:
    content = path.read_bytes()
    tag = {"ETag": f'"{path.stat().st_mtime_ns:x}-{len(content):x}"'}
    match = re.fullmatch(r"bytes=(\d+)-(\d*)", asked)
    if match is None:
        return 200, content, tag
    first, last = int(match[1]), min(int(match[2] or len(content)), len(content) - 1)
    if first > last:
        return 416, b"", {"Content-Range": f"bytes */{len(content)}"}
    return 206, content[first : last + 1], tag | {
        "Content-Range": f"bytes {first}-{last}/{len(content)}", "Accept-Ranges": "bytes",
    }  # fmt: skip


@contextmanager
def s3_server() -> Iterator[str]:
    """URL of an S3 server with nothing in it."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@contextmanager
def maps_bucket() -> Iterator[str]:
    """URL of an S3 server with an empty bucket ``maps``; the environment has the way there."""
    with pytest.MonkeyPatch.context() as patch, s3_server() as url:
        for name, value in {
            "AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": f"id-{PLANTED}",
            "AWS_SECRET_ACCESS_KEY": PLANTED, "AWS_REGION": "us-east-1",
            "GDAL_HTTP_MAX_RETRY": "4", "GDAL_HTTP_RETRY_DELAY": "0.05",
        }.items():  # fmt: skip
            patch.setenv(name, value)
        requests.put(f"{url}/maps", timeout=60).raise_for_status()
        yield url
