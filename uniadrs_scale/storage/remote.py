"""Remote files: settings of GDAL, and requests to web servers.

All settings of remote access are here, except those of :mod:`.retries`. GDAL reads rasters itself
(in ranges, and only the blocks that a window needs); :mod:`.buckets` reads everything else.

A variable of the environment that GDAL or the tools of a cloud know takes precedence. Credentials
come from the environment of each process: none travels with a task.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import rasterio
import requests
import urllib3
from rasterio.session import DummySession

from uniadrs_scale.errors import SceneError, gist, redact_logs
from uniadrs_scale.storage.retries import PassingError, retried, retry_time, server_of
from uniadrs_scale.storage.urls import BUCKETS, is_remote

if TYPE_CHECKING:
    from collections.abc import Mapping

GDAL_TRIES = 4
"""Most retries by GDAL itself. It doubles its pauses without limit, so that twelve would
take hours, and does not retry failed connections. Readers retry those."""
CONNECT_SECONDS, SILENT_SECONDS = 10, 30
"""Limits on the time to accept a connection, and on silence."""
WORTH_REPEATING = (408, 429, 500, 502, 503, 504)
PASSING = (
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,
    urllib3.exceptions.HTTPError,  # while the body is read
)
LARGEST = 512 << 20
"""Bytes of a file that is read as a whole."""
PEEK = 1024
"""Bytes that tell what a file is."""
GDAL_REMOTE = {
    # One request instead of a listing, and no search for side files.
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    # The whole header of most COGs in the first request.
    "GDAL_INGESTED_BYTES_AT_OPEN": "32768",
    "GDAL_HTTP_CONNECTTIMEOUT": str(CONNECT_SECONDS),
    "GDAL_HTTP_LOW_SPEED_TIME": str(SILENT_SECONDS),
    "GDAL_HTTP_LOW_SPEED_LIMIT": "1",
    # GDAL would always remember that a file did not exist, and the bytes of an older one.
    "CPL_VSIL_CURL_NON_CACHED": "/vsicurl/:/vsis3/:/vsigs/",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Glimpse:
    """The facts that a server gives about a file, and its first bytes."""

    stamp: str
    """Changes with the file: size, and ETag or time of modification."""
    size: int
    start: bytes
    """At most PEEK bytes."""


def gdal_name(uri: str) -> str:
    """Return ``uri`` as GDAL names it; paths stay as they are.

    rasterio would sign s3:// with boto3 if it is installed, and without it otherwise.
    """
    if not is_remote(uri):
        return uri
    scheme, _, rest = uri.partition("://")
    return f"/vsi{scheme}/{rest}" if scheme in BUCKETS else f"/vsicurl/{uri}"


def gdal_env(uri: str, **options: object) -> rasterio.Env:
    """Return the environment in which GDAL opens and reads ``uri``.

    GDAL finds credentials itself. rasterio would sign with boto3, if it is installed, and give its
    keys to GDAL as settings.
    """
    redact_logs()
    return rasterio.Env(session=DummySession(), **options, **gdal_settings(uri))


def gdal_settings(uri: str) -> dict[str, str]:
    """Return the configuration of GDAL for ``uri``; empty for local files."""
    if not (is_remote(uri) or uri.startswith("/vsi")):
        return {}
    settings = GDAL_REMOTE | {"GDAL_HTTP_RETRY_DELAY": str(retry_time().pause)}
    endpoint = urlsplit(s3_endpoint())
    if endpoint.netloc:
        settings |= {
            "AWS_S3_ENDPOINT": endpoint.netloc + endpoint.path.rstrip("/"),
            "AWS_HTTPS": "YES" if endpoint.scheme == "https" else "NO",
            "AWS_VIRTUAL_HOSTING": "FALSE",
        }
    ours = {name: value for name, value in settings.items() if name not in os.environ}
    return ours | {"GDAL_HTTP_MAX_RETRY": str(min(retry_time().tries, GDAL_TRIES))}


def is_set(name: str) -> bool:
    """Return True if a variable of the environment says yes."""
    return os.environ.get(name, "").upper() in ("YES", "TRUE", "ON", "1")


def s3_endpoint() -> str:
    """Return the URL of an S3 server that is not Amazon's; empty for Amazon's."""
    named = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
    url = next((os.environ[name] for name in named if os.environ.get(name)), "")
    host = os.environ.get("AWS_S3_ENDPOINT", "")
    if url or not host:
        return url
    secure = os.environ.get("AWS_HTTPS", "YES").upper() not in ("NO", "FALSE", "OFF", "0")
    return f"{'https' if secure else 'http'}://{host}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The response of a web server."""

    status: int
    headers: Mapping[str, str]
    content: bytes


def _session() -> requests.Session:
    return _session_of(os.getpid())  # with a fork's connections, answers would mix


@cache
def _session_of(_process: int) -> requests.Session:
    redact_logs()
    made = requests.Session()
    for scheme in ("http://", "https://"):
        made.mount(scheme, requests.adapters.HTTPAdapter(pool_maxsize=16))
    return made


def fetch(uri: str, headers: Mapping[str, str] | None = None, most: int | None = None) -> Answer:
    """Return the response to a GET, with the first ``most`` bytes of its body; retry failures.

    Raise OSError if the server does not respond, or with an error. The message has no secrets.
    """

    def ask() -> Answer:
        try:
            with _session().get(
                uri, headers=headers, timeout=(CONNECT_SECONDS, SILENT_SECONDS), stream=True
            ) as answer:
                return _received(answer, most)
        except PASSING as error:
            raise PassingError(gist(error)) from None
        except requests.RequestException as error:
            raise OSError(gist(error)) from None

    return retried(server_of(uri), ask)


def _received(answer: requests.Response, most: int | None) -> Answer:
    if not answer.ok:
        kind = PassingError if answer.status_code in WORTH_REPEATING else OSError
        raise kind(f"the server responds {answer.status_code} {answer.reason}")
    content = _whole(answer) if most is None else answer.raw.read(most)
    # urllib3 does not notice if a part ends early.
    if most is not None and len(content) < min(most, int(answer.headers.get("Content-Length", 0))):
        raise PassingError("the answer ends early")
    return Answer(status=answer.status_code, headers=answer.headers, content=bytes(content))


def _whole(answer: requests.Response) -> bytes:
    """Return the body, unpacked; a small answer may unpack without end."""
    content = bytearray()
    for part in answer.iter_content(2**20):
        content += part
        if len(content) > LARGEST:
            raise OSError(f"the answer has more than {LARGEST >> 20} MiB")
    return bytes(content)


def glimpse_http(uri: str, *, whole: bool = False) -> Glimpse:
    """Return the first bytes of a file on a web server, in one request.

    Raises:
        SceneError: The file does not exist, the server fails, or it sends whole files only and
            ``whole`` does not allow that.
    """
    wanted = {"Range": f"bytes=0-{PEEK - 1}", "Accept-Encoding": "identity"}
    try:
        answer = fetch(uri, wanted, PEEK)
    except OSError as error:
        raise unreachable(uri, error) from None
    known, start = answer.headers, answer.content
    _, _, total = known.get("Content-Range", "").rpartition("/")
    size = int(total or known.get("Content-Length") or len(start))
    ranges = answer.status == requests.codes.partial_content
    if not (ranges or whole) and size > PEEK:
        raise SceneError(
            f"'{uri}' is on a server without range requests, so each window would read the whole "
            "file. Download it, then open the copy."
        )
    changed = known.get("ETag") or known.get("Last-Modified", "")
    return Glimpse(stamp=f"{size}-{changed}", size=size, start=start)


def unreachable(uri: str, error: object) -> SceneError:
    """Return the error about a remote file that cannot be read."""
    return SceneError(
        f"'{uri}' cannot be read ({gist(error)}). Check the URL, access rights and credentials "
        "(a signed URL may have expired), and that the server is up; then try again."
    )


def post_json(url: str, text: str, seconds: float) -> None:
    """Send ``text`` as JSON to ``url``; wait for the answer for at most ``seconds``.

    Raise OSError if the server cannot be reached, or refuses.
    """
    headers = {"Content-Type": "application/json"}
    requests.post(url, data=text, headers=headers, timeout=seconds).raise_for_status()
