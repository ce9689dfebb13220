"""URLs: the parts that are secret, the names for people, and the kinds of place that they name."""

from __future__ import annotations

import hashlib
import posixpath
import re
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qsl, quote, unquote, urljoin, urlsplit

from uniadrs_scale.errors import URL

BUCKETS = ("s3", "gs")
"""Schemes of object stores, which can be written to."""
VSI = {"/vsicurl/": "", "/vsis3/": "s3://", "/vsigs/": "gs://"}
"""GDAL's prefixes, and the schemes they stand for."""
WORDS = re.compile(r"[A-Za-z]\w+:")
"""Start of a name in GDAL's words, such as GTIFF_DIR:1:/data/a.tif."""
SIGNATURES = {"signature", "sig", "x-amz-signature", "x-goog-signature", "x-oss-signature"}
"""Query parameters of which one makes all others, but for VERSIONS, part of a signature."""
VERSIONS = {"versionid", "generation", "snapshot"}
TOKENS = re.compile(r"token|key|secret|passw|auth|credential|signature|^sig$|^sas$", re.IGNORECASE)

INNER = re.compile(rf"(/vsi\w+/+)*(?P<url>{URL.pattern})")
"""A URL right after the scheme of another one: ``vrt://https://...``."""


class Uri(str):
    """A URL as it must be opened. Its ``repr``, which logs and tracebacks show, has no secrets."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(stable_uri(self))


def stable_uri(uri: str) -> str:
    """Return ``uri`` for digests and logs: equal for all signatures, different for other objects.

    The rest of a query is hashed, so that it cannot be read.

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
    """Return (prefix, URL) of ``uri``; the URL is empty for a path.

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
    """Return ``uri`` for items and reports: as :func:`stable_uri`, without any query.

    >>> public_uri("https://me:pw@host/a.tif?sig=abc")
    'https://host/a.tif'
    """
    return stable_uri(uri).partition("?~")[0]


def uri_name(uri: str | Path) -> str:
    """Return the last part of a path or URL, without its query.

    >>> uri_name("https://host/some/a%20b.tif?X-Amz-Signature=abc"), uri_name("s3://bucket/m.zarr/")
    ('a b.tif', 'm.zarr')
    """
    _, url = _url_in(str(uri))
    if not url:
        return Path(uri).name
    parts = urlsplit(url)
    return PurePosixPath(unquote(parts.path)).name or parts.netloc.rpartition("@")[2]


def is_remote(place: object) -> bool:
    """Return True for the URL of a file or object on a server."""
    return re.match(r"(https?|s3|gs)://", str(place)) is not None


def in_bucket(place: object) -> bool:
    """Return True for a place in an object store, which can be written to."""
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


def join(base: str, href: str) -> str:
    """Return the path or URL that ``href`` means in the document at ``base``, by RFC 3986.

    Keys of a bucket have no percent-encoding, relative references have. Paths on disk may be
    written either way: a file with the literal name comes first.

    Raises:
        ValueError: ``href`` has a host, but neither it nor ``base`` says how to reach it.

    >>> join("https://host/c/item.json?sig=a", "/a%20b.tif"), join("s3://b/c/i.json", "a%20b.tif")
    ('https://host/a%20b.tif', 's3://b/c/a b.tif')
    """
    base = _path_of(base)
    if href.startswith("/vsi") or (urlsplit(href).scheme and "://" in href) or is_file(href):
        return canonical(_path_of(href))
    if in_bucket(base):  # whose schemes urljoin does not know
        scheme, _, key = base.partition("://")
        joined = urljoin(f"https://{quote(key)}", href)
        return Uri(f"{scheme}://{unquote(joined.partition('://')[2])}")
    if "://" in base:
        return Uri(urljoin(base, href))
    if href.startswith("//"):
        raise ValueError(f"'{href}' has a host and no scheme: write https:{href}")
    path = posixpath.normpath(posixpath.join(posixpath.dirname(base), href))
    return path if Path(path).exists() else unquote(path)


def is_file(href: str) -> bool:
    """Return True for a URL of a file on this machine: ``file:///a``, ``file:/a``."""
    return href[:5].lower() == "file:"


def _path_of(href: str) -> str:
    """Return the path that a ``file:`` URL of this machine names; anything else as it is."""
    if not is_file(href):
        return href
    parts = urlsplit(href)
    if parts.netloc not in ("", "localhost"):
        raise ValueError(f"'{href}' is a file of the machine '{parts.netloc}': give a path")
    path = href[5:].removeprefix(f"//{parts.netloc}")
    return path if Path(path).exists() else unquote(path)


def key_matches(key: str, pattern: str) -> bool:
    """Return True if ``key`` matches ``pattern``.

    >>> key_matches("2026/a.tif", "**/*.tif"), key_matches("2026/a.tif", "*.tif")
    (True, False)
    """
    return _matches(key.split("/"), pattern.split("/"))


def _matches(parts: list[str], pattern: list[str]) -> bool:
    if not (parts and pattern):
        return not (parts or pattern)
    if pattern[0] == "**":
        return _matches(parts, pattern[1:]) or _matches(parts[1:], pattern)
    return fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])
