"""A bad week: 40 scenes, seven nights, each night another fault, in a folder and in a bucket."""

from __future__ import annotations

import errno
import logging
import os
import re
import signal
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from archives import write_archive, write_scene
from standins import FirstBand

import uniadrs_scale as us
from uniadrs_scale.archive import product as products
from uniadrs_scale.archive.sink import Sink
from uniadrs_scale.storage import buckets
from uniadrs_scale.storage.places import Place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Night = Callable[[], Any]

SCENES = 40
EACH_NIGHT = 5
"""Maps that a night makes before its fault."""


class Week:
    """An archive, the faults that can befall it, and what its nights have logged."""

    def __init__(self, folder: Path, place: str, log: Log) -> None:
        self.folder, self.place, self.log = folder, place, log
        self.config = write_archive(
            folder,
            source={"type": "folder", "path": "incoming", "glob": "*.tif*"},
            output={"folder": place, "quicklook": False},
            plan={"tile": 16, "chunk": 32},
        )

    def sweep(self) -> us.SweepReport:
        return us.sweep(self.config, detector=FirstBand())

    @contextmanager
    def failing(self, fault: BaseException | Callable[[], None]) -> Iterator[None]:
        """Let some scenes pass; then raise ``fault``, or do it, in the middle of one."""
        passed, run = [0], products.run

        def fail(*given: Any, **named: Any) -> Any:
            passed[0] += 1
            if passed[0] > EACH_NIGHT:
                if isinstance(fault, BaseException):
                    raise us.StoreError("Cannot make the map") from fault
                fault()
            return run(*given, **named)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(products, "run", fail)
            yield

    @contextmanager
    def source_away(self) -> Iterator[None]:
        """A mount point without its disk."""
        (self.folder / "incoming").rename(self.folder / "away")
        (self.folder / "incoming").mkdir()
        yield
        (self.folder / "incoming").rmdir()
        (self.folder / "away").rename(self.folder / "incoming")

    @contextmanager
    def broken_library(self) -> Iterator[None]:
        """A mistake of the program itself, after the scenes."""

        def mistaken(*_: object) -> None:
            raise KeyError("a mistake")

        with pytest.MonkeyPatch.context() as patch, self.failing(self.stop):
            patch.setattr(Sink, "write_text", mistaken)
            yield

    @contextmanager
    def another_sweep(self) -> Iterator[None]:
        with Sink(Place(self.place)).locked():
            yield

    @contextmanager
    def poison(self) -> Iterator[None]:
        """A file that is not a raster, and two files with one id; both older than all others."""
        incoming = self.folder / "incoming"
        (incoming / "poison.tif").write_text("not a raster")
        twins = [write_scene(incoming / f"twin.{end}", 1, side=32) for end in ("tif", "tiff")]
        for path in (incoming / "poison.tif", *twins):
            os.utime(path, (1, 1))
        with self.failing(self.stop):
            yield
        for path in (incoming / "poison.tif", *twins):
            path.unlink()

    @staticmethod
    def stop() -> None:
        os.kill(os.getpid(), signal.SIGTERM)


class Log(logging.Handler):
    """Keeps what sweeps say."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def done(self) -> Counter[str]:
        events = [vars(record) for record in self.records]
        return Counter(event["scene"] for event in events if event.get("event") == "done")


@pytest.fixture
def log() -> Iterator[Log]:
    logger, handler = logging.getLogger("uniadrs_scale.sweep"), Log()
    before = logger.level, logger.disabled
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.disabled = False
    yield handler
    logger.removeHandler(handler)
    logger.level, logger.disabled = before


@pytest.mark.parametrize("where", ["folder", "bucket"])
def test_a_bad_week(where: str, tmp_path: Path, log: Log, request: pytest.FixtureRequest) -> None:
    names = [f"s{number:02}" for number in range(SCENES)]
    for number, name in enumerate(names):
        write_scene(tmp_path / "incoming" / f"{name}.tif", number, side=32)
    place = str(tmp_path / "maps") if where == "folder" else request.getfixturevalue("bucket")
    week = Week(tmp_path, place, log)
    full, quota = (OSError(code, os.strerror(code)) for code in (errno.ENOSPC, errno.EDQUOT))
    proj = RuntimeError("PROJ: internal: Cannot find proj.db")
    nights: list[tuple[Any, str, int]] = [
        (week.failing(full), "No space left on device", EACH_NIGHT),
        (week.source_away(), "The source is empty, but", 0),
        (week.failing(proj), "proj.db", EACH_NIGHT),
        (week.another_sweep(), "Another", 0),
        (week.poison(), r"poison.*not a raster.*twin: 2 items", EACH_NIGHT),
        (week.failing(quota), "quota exceeded", EACH_NIGHT),
        (week.broken_library(), r"KeyError: 'a mistake'", 0),
    ]
    for fault, words, made in nights:
        before, said = log.done(), len(log.records)
        with fault:
            try:
                outcome = week.sweep().text()
            except us.UniadrsScaleError as error:
                outcome = str(error)
        told = [record.getMessage() for record in log.records[said:]]
        assert re.search(words, "\n".join([*told, outcome]), re.DOTALL | re.IGNORECASE)
        assert (log.done() - before).total() in range(made, EACH_NIGHT + 2)
    assert week.sweep().complete, "the fault is mended"
    assert week.sweep().counts() == f"{SCENES} keep"
    assert log.done() == Counter(names), "each map was made exactly once"
    assert set(versions(place)) == set(names)
    assert set(Counter(versions(place)).values()) == {1}
    with Sink(Place(place)).ledger() as ledger:
        assert not ledger.tries(), "no fault was blamed on a scene"
        assert {record["uniadrs:parts"]["config"] for _, record in ledger.products().values()} == {
            us.load_config(week.config).digest
        }


def versions(place: str) -> list[str]:
    """Name of the scene of each finished map in the sink."""
    files = Place(place).files() if "://" not in place else buckets.list_keys(place)
    return [path.split("/")[0] for path in files if path.endswith("/scores.tif")]
