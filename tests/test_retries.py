"""How long a server that fails is asked again, and what is never asked twice."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
import requests
import tenacity
from servers import FileServer, serving
from test_remote_scenes import make_cog

import uniadrs_scale as us
from uniadrs_scale.core.lattice import Window
from uniadrs_scale.scenes.sources import scene_source
from uniadrs_scale.storage import buckets, remote, retries
from uniadrs_scale.storage.retries import PassingError, retried

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOST = "https://example.org"


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now, self.pauses = 1000.0, list[float]()

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.pauses.append(seconds)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    for module in (tenacity, tenacity.nap):
        monkeypatch.setattr(module, "time", made)
    monkeypatch.setattr(retries, "_known", set())
    for name in ("GDAL_HTTP_MAX_RETRY", "GDAL_HTTP_RETRY_DELAY"):
        monkeypatch.delenv(name, raising=False)
    return made


def away(clock: Clock, seconds: float, each: float = 0) -> Iterator[object]:
    """Asks a server that is away for so long from now; each failure takes a while itself."""
    until = clock.now + seconds

    def ask() -> str:
        if clock.now < until:
            clock.now += each
            raise PassingError
        return "there"

    return ask


@pytest.mark.parametrize("each", [0, 10, 30])
def test_a_minute_without_a_server_is_bridged(clock: Clock, each: float) -> None:
    retries.answered(HOST)
    assert retried(HOST, away(clock, 60, each)) == "there"
    assert max(clock.pauses) <= 15


def test_a_server_that_is_gone_takes_minutes_once(clock: Clock) -> None:
    retries.answered(HOST)
    took = []
    for _ in range(3):
        began = clock.now
        with pytest.raises(PassingError):
            retried(HOST, away(clock, 9999, 10))
        took.append(clock.now - began)
    assert 110 < took[0] < 180
    assert max(took[1:]) < 60
    retries.answered(HOST)
    assert retried(HOST, away(clock, 60)) == "there"


def test_a_server_that_never_answered_is_given_half_a_minute(clock: Clock) -> None:
    assert retried(HOST, away(clock, 20)) == "there"
    with pytest.raises(PassingError):
        retried("https://exmaple.org", away(clock, 60))
    assert retries.retry_time(HOST).seconds == 4 * retries.retry_time("https://exmaple.org").seconds


def test_variables_of_gdal_say_how_long(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    retries.answered(HOST)
    assert retries.retry_time(HOST).seconds == 120.5
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "16")
    assert retries.retry_time(HOST).seconds == 180.5
    monkeypatch.setenv("GDAL_HTTP_RETRY_DELAY", "20")
    assert retries.retry_time(HOST).seconds == 16 * 15
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "no number")
    assert retries.retry_time(HOST).seconds == 12 * 15
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "0")
    assert retries.retry_time(HOST).seconds == 0
    with pytest.raises(PassingError):
        retried(HOST, away(clock, 1))
    assert clock.pauses == []


def test_gdal_itself_gives_up_soon(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    def settings() -> dict[str, str]:
        return remote.gdal_settings("https://example.org/a.tif")

    assert settings()["GDAL_HTTP_MAX_RETRY"] == "4"
    assert settings()["GDAL_HTTP_RETRY_DELAY"] == "0.5"
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "50")
    assert settings()["GDAL_HTTP_MAX_RETRY"] == "4"
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "1")
    assert settings()["GDAL_HTTP_MAX_RETRY"] == "1"


def test_a_server_is_the_same_whoever_asks() -> None:
    assert retries.server_of("https://me:pw@example.org/a?b=c") == HOST
    assert retries.server_of("s3://bucket/a#b?c") == "s3://bucket"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """Files by HTTP, and as the bucket ``s3://maps``."""
    (tmp_path / "maps").mkdir()
    make_cog(tmp_path / "maps" / "scene.tif")
    monkeypatch.setattr(retries, "_known", set())
    with serving(tmp_path) as state:
        for name, value in {
            "AWS_ENDPOINT_URL": state.url, "AWS_ACCESS_KEY_ID": "id", "AWS_REGION": "us-east-1",
            "AWS_SECRET_ACCESS_KEY": "secret", "GDAL_HTTP_MAX_RETRY": "8",
            "GDAL_HTTP_RETRY_DELAY": "0.02",
        }.items():  # fmt: skip
            monkeypatch.setenv(name, value)
        yield state


def both(server: FileServer) -> tuple[str, str]:
    return f"{server.url}/maps/scene.tif", "s3://maps/scene.tif"


def test_what_fails_for_a_moment_is_asked_again(server: FileServer) -> None:
    content = (server.folder / "maps" / "scene.tif").read_bytes()
    for uri in both(server):
        server.failures = 2
        assert buckets.read_object(uri) == content
        server.failures = 2
        assert buckets.read_range(uri, 10, 200) == content[10:200]
        server.failures = 2
        assert buckets.glimpse(uri).size == len(content)


def test_what_is_cut_off_in_the_middle_is_asked_again(server: FileServer) -> None:
    content = (server.folder / "maps" / "scene.tif").read_bytes()
    for uri in both(server):
        server.cuts = 1
        assert buckets.read_object(uri) == content
        server.cuts = 1
        assert buckets.read_range(uri, 10, 2000) == content[10:2000]
        server.cuts = 1
        assert buckets.glimpse(uri).start[:1024] == content[:1024]


def test_a_server_that_cannot_be_found_is_asked_again(
    server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, errors = remote._session(), [requests.ConnectionError(), requests.ReadTimeout()]

    class Cut:
        def get(self, *args: object, **options: object) -> object:
            if errors:
                raise errors.pop()
            return session.get(*args, **options)

    monkeypatch.setattr(remote, "_session", Cut)
    assert len(buckets.read_range(both(server)[0], 0, 9)) == 9
    assert errors == []


def test_rasters_are_asked_for_again_where_gdal_gives_up(
    server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = Window(100, 100, 100, 100)
    here = scene_source(us.open_scene(server.folder / "maps" / "scene.tif")).window(window).read()
    monkeypatch.setattr(remote, "GDAL_TRIES", 0)
    for uri in both(server):
        reader = scene_source(us.open_scene(uri)).window(window)
        server.failures = 2
        assert np.array_equal(reader.read()[0], here[0])
        server.cuts = 1
        assert np.array_equal(reader.read()[0], here[0])


def test_a_server_that_a_raster_was_read_from_is_known(
    server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for uri in both(server):
        reader = scene_source(us.open_scene(uri)).window(Window(0, 0, 50, 50))
        monkeypatch.setattr(retries, "_known", set())  # as in a worker that did not open it
        before = retries.retry_time(retries.server_of(uri)).seconds
        reader.read()
        assert retries.retry_time(retries.server_of(uri)).seconds == 4 * before


def test_a_raster_that_was_replaced_meanwhile_is_not_read_on(
    server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "GDAL_TRIES", 0)
    uri = both(server)[0]
    reader = scene_source(us.open_scene(uri)).window(Window(0, 0, 50, 50))
    make_cog(server.folder / "maps" / "scene.tif", seed=1)
    server.failures = 2
    with pytest.raises(us.SceneError, match="has changed since it was opened"):
        reader.read()


def test_what_is_not_there_or_refused_is_asked_for_once(server: FileServer) -> None:
    for uri in both(server):
        server.requests.clear()
        with pytest.raises(us.SceneError, match=r"does not exist|404"):
            buckets.glimpse(f"{uri}.aux")
        assert len(server.requests) == 1
    server.token = "right"  # noqa: S105 - made up
    for uri in both(server):
        server.requests.clear()
        with pytest.raises(us.SceneError, match=r"403|[Pp]ermission"):
            buckets.glimpse(uri)
        assert len(server.requests) == 1


def test_a_server_that_stays_away_is_given_up(
    server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "6")
    whole = 0.02 * (2**6 - 1)
    for uri in both(server):
        buckets.glimpse(uri)
        server.failures = -1
        took = []
        for _ in range(2):
            began = time.monotonic()
            with pytest.raises(OSError, match=r"503|busy"):
                buckets.read_range(uri, 0, 9)
            took.append(time.monotonic() - began)
        assert took[0] >= whole, "the whole retry time"
        assert took[1] < took[0] / 2, "a quarter of it"
        server.failures = 0
        assert len(buckets.read_range(uri, 0, 9)) == 9
        assert retries.retry_time(retries.server_of(uri)).seconds == pytest.approx(whole)
