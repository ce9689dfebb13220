"""URLs: what they name, how GDAL opens them, what a web server says.

All settings of remote access are here, but for those of :mod:`.retries`. Rasters
go through GDAL's own readers (ranges, and only the blocks that a window needs); everything else
goes through :mod:`uniadrs_scale.io.buckets`.

A variable of the environment that GDAL or the cloud's own tools know always wins. Credentials come
from the environment of each process: none travels with a task.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote, urlsplit

import rasterio
import requests
import urllib3
from rasterio.session import DummySession

from uniadrs_scale.errors import URL, SceneError, gist, redact_logs
from uniadrs_scale.storage.retries import PassingError, retried, retry_time, server_of

if TYPE_CHECKING:
    from collections.abc import Mapping


SIGNATURES = {"signature", "sig", "x-amz-signature", "x-goog-signature", "x-oss-signature"}
"""Query parameters of which one makes all others, but for VERSIONS, part of a signature."""
VERSIONS = {"versionid", "generation", "snapshot"}
TOKENS = re.compile(r"token|key|secret|passw|auth|credential|signature|^sig$|^sas$", re.IGNORECASE)


INNER = re.compile(rf"(/vsi\w+/+)*(?P<url>{URL.pattern})")
"""A URL right after the scheme of another one: ``vrt://https://...``."""


class Uri(str):
    """A URL as it must be opened, whose ``repr`` (in logs, digests, dataclasses) is harmless."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(stable_uri(self))


def stable_uri(uri: str) -> str:
    """``uri`` for digests and logs: equal when the URL is signed anew, different for other objects.

    What remains of a query is hashed: whatever it holds, it cannot be read.

    >>> stable_uri("https://me:pw@host/a.tif?X-Amz-Date=1&X-Amz-Signature=abc&versionId=7")
    'https://host/a.tif?~5a9453eed5aa'
    >>> stable_uri("/vsizip/vsicurl/https://me:pw@host/a.zip?sig=abc")
    '/vsizip/vsicurl/https://host/a.zip'
    >>> stable_uri("/data/a.tif")
    '/data/a.tif'
    """
    prefix, url = _url_in(uri)
    if not url:
        return str(uri)
    parts = urlsplit(url)
    plain = f"{prefix}{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    signed = any(name.lower() in SIGNATURES for name, _ in pairs)
    kept = [
        (name, value)
        for name, value in pairs
        if name.lower() in VERSIONS or not (signed or TOKENS.search(name))
    ]
    return plain if not kept else f"{plain}?~{hashlib.sha256(repr(kept).encode()).hexdigest()[:12]}"


def _url_in(uri: str) -> tuple[str, str]:
    """Return (what stands before it, the URL) in ``uri``; the URL is empty for a path.

    GDAL writes prefixes before a URL (``/vsizip/vsicurl/https://...``), or hides it in a query
    (``/vsicurl?url=https%3A%2F%2F...``).

    >>> _url_in("/vsicurl_streaming/https://host/a.tif?sig=abc")
    ('/vsicurl_streaming/', 'https://host/a.tif?sig=abc')
    """
    before, asks, query = uri.partition("?")
    if asks and before.startswith("/vsi") and "://" not in before:
        return f"{before}/", next((v for k, v in parse_qsl(query) if k == "url"), "none://")
    found = URL.search(uri)
    while found and (inner := INNER.match(uri, found.end())):
        found = URL.search(uri, inner.start("url"))
    return (uri[: found.start()], uri[found.start() :]) if found else ("", "")


def public_uri(uri: str) -> str:
    """``uri`` for items and reports: as :func:`stable_uri`, without any query.

    >>> public_uri("https://me:pw@host/a.tif?sig=abc")
    'https://host/a.tif'
    """
    return stable_uri(uri).partition("?~")[0]


def uri_name(uri: str | Path) -> str:
    """The last part of a path or URL, never its query.

    >>> uri_name("https://host/some/a%20b.tif?X-Amz-Signature=abc"), uri_name("s3://bucket/m.zarr/")
    ('a b.tif', 'm.zarr')
    """
    _, url = _url_in(str(uri))
    if not url:
        return Path(uri).name
    parts = urlsplit(url)
    return PurePosixPath(unquote(parts.path)).name or parts.netloc.rpartition("@")[2]


BUCKETS = ("s3", "gs")
"""Schemes of object stores, which can be written to."""
VSI = {"/vsicurl/": "", "/vsis3/": "s3://", "/vsigs/": "gs://"}
"""GDAL's prefixes, and the schemes they stand for."""
GDAL_TRIES = 4
"""Repetitions by GDAL itself, at most: it doubles its pauses without end, so that twelve would take
hours, and it does not repeat what could not connect at all. Readers go on asking for it."""
CONNECT_SECONDS, SILENT_SECONDS = 10, 30
"""How long a server may take to accept a connection, and may send nothing."""
WORTH_REPEATING = (408, 429, 500, 502, 503, 504)
PASSING = (
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,
    urllib3.exceptions.HTTPError,  # while the body is read
)
WORDS = re.compile(r"[A-Za-z]\w+:")
"""Start of a name in GDAL's words, such as GTIFF_DIR:1:/data/a.tif."""
LARGEST = 512 << 20
"""Bytes of a file that is read as a whole."""
PEEK = 1024
"""Bytes that tell what a file is."""
GDAL_REMOTE = {
    # One request instead of a listing, and side files are not looked for.
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    # The whole header of most COGs in the first request.
    "GDAL_INGESTED_BYTES_AT_OPEN": "32768",
    "GDAL_HTTP_CONNECTTIMEOUT": str(CONNECT_SECONDS),
    "GDAL_HTTP_LOW_SPEED_TIME": str(SILENT_SECONDS),
    "GDAL_HTTP_LOW_SPEED_LIMIT": "1",
    # GDAL would remember for ever that a file was not to be had, and the bytes of an older one.
    "CPL_VSIL_CURL_NON_CACHED": "/vsicurl/:/vsis3/:/vsigs/",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Glimpse:
    """What a server says of a file, and how it begins."""

    stamp: str
    """Changes with the file: size, and ETag or time of modification."""
    size: int
    start: bytes
    """At most PEEK bytes."""


def is_remote(place: object) -> bool:
    """True for the URL of something on a server."""
    return re.match(r"(https?|s3|gs)://", str(place)) is not None


def in_bucket(place: object) -> bool:
    """True for a place in an object store, which can be written to."""
    return str(place).startswith(tuple(f"{scheme}://" for scheme in BUCKETS))


def canonical(source: str) -> str:
    """Return ``source`` as any worker can open it: a URL, an absolute path, or words of GDAL."""
    for prefix, scheme in VSI.items():
        if source.startswith(prefix):
            url = scheme + source.removeprefix(prefix)
            return Uri(url) if is_remote(url) else source
    if is_remote(source):
        return Uri(source)
    return source if for_gdal(source) else str(Path(source).absolute())


def for_gdal(source: str) -> bool:
    """Return True if ``source`` is not a path, but a name that GDAL alone understands."""
    if "://" in source or source.startswith("/vsi"):
        return True
    words = WORDS.match(source) is not None or ":" in Path(source).name
    return words and not Path(source).exists()


def gdal_name(uri: str) -> str:
    """``uri`` in GDAL's words; paths as they are.

    Not left to rasterio, which signs s3:// with boto3 where that is installed and without where it
    is not.
    """
    if not is_remote(uri):
        return uri
    scheme, _, rest = uri.partition("://")
    return f"/vsi{scheme}/{rest}" if scheme in BUCKETS else f"/vsicurl/{uri}"


def gdal_env(uri: str, **options: object) -> rasterio.Env:
    """The environment in which GDAL opens and reads ``uri``.

    GDAL finds credentials itself. rasterio would sign with boto3, where that is installed, and hand
    its keys to GDAL as settings.
    """
    return rasterio.Env(session=DummySession(), **options, **gdal_settings(uri))


def gdal_settings(uri: str) -> dict[str, str]:
    """Configuration of GDAL for reading ``uri``; none for local files."""
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
    """URL of an S3 server that is not Amazon's; empty for Amazon's."""
    named = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
    url = next((os.environ[name] for name in named if os.environ.get(name)), "")
    host = os.environ.get("AWS_S3_ENDPOINT", "")
    if url or not host:
        return url
    secure = os.environ.get("AWS_HTTPS", "YES").upper() not in ("NO", "FALSE", "OFF", "0")
    return f"{'https' if secure else 'http'}://{host}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a web server has sent."""

    status: int
    headers: Mapping[str, str]
    content: bytes


@cache
def _session() -> requests.Session:
    made = requests.Session()
    for scheme in ("http://", "https://"):
        made.mount(scheme, requests.adapters.HTTPAdapter(pool_maxsize=16))
    return made


def fetch(uri: str, headers: Mapping[str, str] | None = None, most: int | None = None) -> Answer:
    """The answer to a GET, with the first ``most`` bytes of its body; asked again while it fails.

    Raises:
        OSError: There is none, or it is an error; the message has no secrets.
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
        raise kind(f"the server answers {answer.status_code} {answer.reason}")
    content = _whole(answer) if most is None else answer.raw.read(most)
    # Of a part, urllib3 does not see that it ends early.
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
    """The first bytes of a file on a web server, in one request.

    Raises:
        SceneError: The server has it not, fails, or sends files only whole, unless ``whole`` says
            that this will do.
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
            f"'{uri}' can only be had whole: its server does not know range requests, so that each "
            "window would cost the whole file. Download it, then open the copy."
        )
    changed = known.get("ETag") or known.get("Last-Modified", "")
    return Glimpse(stamp=f"{size}-{changed}", size=size, start=start)


def unreachable(uri: str, error: object) -> SceneError:
    """What to say of a remote file that cannot be read."""
    return SceneError(
        f"'{uri}' cannot be read ({gist(error)}). Check the URL, access rights and credentials "
        "(a signed URL may have expired), and that the server is up; then try again."
    )


redact_logs()


def post_json(url: str, text: str, seconds: float) -> None:
    """Send ``text`` as JSON to ``url``; wait for the answer for at most ``seconds``.

    Raises:
        OSError: The server cannot be reached, or refuses.
    """
    headers = {"Content-Type": "application/json"}
    requests.post(url, data=text, headers=headers, timeout=seconds).raise_for_status()
