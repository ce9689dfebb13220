"""Sweeps into a bucket: the same products as in a folder, and nothing else, whatever happens."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import sys
import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import obstore
import pystac
import pytest
import requests
from archives import write_archive, write_scene
from pystac.validation.stac_validator import JsonSchemaSTACValidator
from servers import PLANTED
from standins import FirstBand, TileMean
from waiting import LIMIT, wait_until

import uniadrs_scale as us
from uniadrs_scale.archive import listing
from uniadrs_scale.archive.ledger import Ledger
from uniadrs_scale.archive.sink import STORE, Sink
from uniadrs_scale.cli import main as cli
from uniadrs_scale.maps.store import open_store
from uniadrs_scale.storage import buckets
from uniadrs_scale.storage import leases as lease
from uniadrs_scale.storage.clients import ConditionalObject
from uniadrs_scale.storage.places import Place

runner = import_module("uniadrs_scale.archive.sweep")  # the package has a function of that name

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Spawn = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def bucket(maps_server: str, request: pytest.FixtureRequest) -> str:
    """As conftest's, with a name that a sink takes."""
    del maps_server
    return f"s3://maps/{re.sub('[^a-z_]', '', request.node.name)[:60]}"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Three scenes, named by their days."""
    for day in (1, 2, 3):
        write_scene(tmp_path / "incoming" / f"s_2024010{day}.tif", day, side=32)
    return tmp_path


def describe(folder: Path, bucket: str, **changes: Any) -> Path:
    """ARCHIVE.yaml over ``incoming`` into the bucket."""
    output = {"folder": bucket, **changes.pop("output", {})}
    return write_archive(folder, output=output, **changes)


def tree(bucket: str) -> list[str]:
    """Every object but what is inside stores and the sweep's own."""
    keys = [re.sub(r"\.zarr/.*", ".zarr", key) for key in buckets.list_keys(bucket)]
    return sorted({key for key in keys if not key.startswith(".sweep/")})


def product(bucket: str, name: str) -> tuple[dict[str, Any], str]:
    """(item, URL of its files)."""
    item = json.loads(buckets.read_object(f"{bucket}/{name}/{name}.json") or b"")
    return item, f"{bucket}/{name}/{item['properties']['uniadrs:key']}"


def expected(bucket: str, names: list[str], files: tuple[str, ...]) -> list[str]:
    keys = ["collection.json"]
    for name in names:
        key = product(bucket, name)[1].rpartition("/")[2]
        keys += [f"{name}/{name}.json", *(f"{name}/{key}/{file}" for file in files)]
    return sorted(keys)


FILES = ("quicklook.png", "run.json", "scores.qml", "scores.tif")


def test_products_are_those_of_a_folder(archive: Path, bucket: str) -> None:
    formats = ["cog", "zarr"]
    config = describe(archive, bucket, output={"formats": formats})
    there = us.sweep(config, detector=TileMean())
    here = us.sweep(
        write_archive(archive, output={"folder": "maps", "formats": formats}), detector=TileMean()
    )
    assert there.complete
    assert sorted(there.done) == sorted(here.done) == ["s_20240101", "s_20240102", "s_20240103"]
    assert tree(bucket) == expected(bucket, there.done, (*FILES, "scores.zarr"))
    for name in there.done:
        item, place = product(bucket, name)
        local = json.loads((archive / "maps" / name / f"{name}.json").read_text())
        JsonSchemaSTACValidator().validate_core(item, pystac.STACObjectType.ITEM, "1.1.0")
        for document in (item, local):
            # Times, and what lists them.
            del document["properties"]["created"], document["properties"]["processing:datetime"]
            del document["assets"]["run"]
        assert item == local
        folder = archive / "maps" / name / local["properties"]["uniadrs:key"]
        for file in ("scores.tif", "quicklook.png"):
            assert buckets.read_object(f"{place}/{file}") == (folder / file).read_bytes()
        assert list(open_store(f"{place}/scores.zarr").verify()) == []
        np.testing.assert_array_equal(
            open_store(f"{place}/scores.zarr").open(), open_store(folder / "scores.zarr").open()
        )
    collection = json.loads(buckets.read_object(f"{bucket}/collection.json") or b"")
    assert collection == json.loads((archive / "maps" / "collection.json").read_text())


def test_with_nothing_to_do_nothing_is_written_but_the_run(
    archive: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = describe(archive, bucket)
    assert us.sweep(config, detector=FirstBand(), dry_run=True).counts() == "3 score"
    assert tree(bucket) == buckets.list_keys(bucket) == []
    us.sweep(config, detector=FirstBand())
    assert tree(bucket) == expected(bucket, ["s_20240101", "s_20240102", "s_20240103"], FILES)
    state = {key for key in buckets.list_keys(bucket) if key.startswith(".sweep/")}
    assert state == {".sweep/ledger.sqlite", ".sweep/index.sqlite"}
    asked: list[str] = []
    put, get = obstore.put, obstore.get
    monkeypatch.setattr(obstore, "put", lambda *a, **k: asked.append(a[1]) or put(*a, **k))
    monkeypatch.setattr(obstore, "get", lambda *a, **k: asked.append(a[1]) or get(*a, **k))
    again = us.sweep(config, detector=FirstBand())
    assert again.facts()["decided"]["keep"] == 3
    names = {key.rpartition("/")[2] for key in asked}
    assert names == {"lock", "ledger.sqlite", "index.sqlite", "collection.json"}
    # Without its index, the items say it all.
    client, key = buckets.bucket_of(f"{bucket}/.sweep/index.sqlite")
    for content in (None, b"rubbish" * 99):
        obstore.delete(client, key)
        if content:
            obstore.put(client, key, content)
        assert us.sweep(config, detector=FirstBand()).facts()["decided"]["keep"] == 3
    assert len(Ledger(Place(f"{bucket}/.sweep")).products()) == 3


def test_changes_mean_rework_and_the_old_map_stays_till_then(archive: Path, bucket: str) -> None:
    config = describe(archive, bucket)
    us.sweep(config, detector=FirstBand())
    old, place = product(bucket, "s_20240101")
    pixels = buckets.read_object(f"{place}/scores.tif")
    (archive / "incoming" / "s_20240101.tif").write_text("broken")
    report = us.sweep(config, detector=FirstBand())
    assert report.failed.keys() == {"s_20240101"}
    assert product(bucket, "s_20240101") == (old, place)
    assert buckets.read_object(f"{place}/scores.tif") == pixels
    write_scene(archive / "incoming" / "s_20240101.tif", 77)
    assert us.sweep(config, detector=FirstBand()).done == ["s_20240101"]
    assert product(bucket, "s_20240101")[1] != place
    names = ["s_20240101", "s_20240102", "s_20240103"]
    assert tree(bucket) == expected(bucket, names, FILES)
    again = us.sweep(config, detector=TileMean(), dry_run=True)
    assert {d.reason for d in again.decisions} == {"changed: detector"}


class KilledError(BaseException):
    """As if the process had ended here."""


def killed_after(monkeypatch: pytest.MonkeyPatch, limit: int) -> list[str]:
    """The sweep dies before its ``limit``-th change in the bucket; the changes until then."""
    changes: list[str] = []

    def counted(verb: Callable[..., Any]) -> Callable[..., Any]:
        def call(client: object, keys: Any, *args: Any, **options: Any) -> Any:
            if ".lock" not in str(keys) and "/lock" not in str(keys):
                if len(changes) >= limit:
                    raise KilledError
                changes.append(str(keys))
            return verb(client, keys, *args, **options)

        return call

    for name in ("put", "delete"):
        monkeypatch.setattr(obstore, name, counted(getattr(obstore, name)))
    monkeypatch.setattr(buckets, "CONNECTIONS", 1)
    return changes


def test_killed_before_any_change(
    tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it dies: the old product is whole, the next sweep ends as if nothing had been."""
    write_scene(tmp_path / "incoming" / "scene.tif", 1, side=32)
    config = describe(tmp_path, bucket, tries=99, interruptions=99)
    us.sweep(config, detector=FirstBand())
    scene = write_scene(tmp_path / "incoming" / "scene.tif", 2, side=32)
    with monkeypatch.context() as patch:
        changes = killed_after(patch, 999)
        us.sweep(config, detector=FirstBand())
    sent = next(k for k, change in enumerate(changes) if "scores.tif" in change)
    # Everywhere while it is sent and published, and here and there before.
    for limit in (0, 3, sent // 2, *range(sent - 1, len(changes))):
        write_scene(scene, 100 + limit, side=32)
        before, place = product(bucket, "scene")
        with monkeypatch.context() as patch:
            killed_after(patch, limit)
            with pytest.raises(KilledError):
                us.sweep(config, detector=FirstBand())
        item, now = product(bucket, "scene")
        held = {key.partition("/")[0] for key in buckets.list_keys(now)}
        assert set(FILES) <= held, changes[limit]
        assert item == before or now != place
        us.sweep(config, detector=FirstBand())
        assert tree(bucket) == expected(bucket, ["scene"], FILES), changes[limit]
        wanted = us.score(us.open_scene(scene), tile=32, chunk=32, detector=FirstBand(),
                          scheduler="sync")  # fmt: skip
        item, now = product(bucket, "scene")
        assert now != place
        assert item["properties"]["uniadrs:highest_score"] == wanted.max()


def test_retention_touches_only_what_sweeps_made(archive: Path, bucket: str) -> None:
    today = datetime.now(UTC)
    recent = f"s_{today - timedelta(days=5):%Y%m%d}"
    write_scene(archive / "incoming" / f"{recent}.tif", 9)
    config = describe(archive, bucket)
    assert len(us.sweep(config, detector=FirstBand()).done) == 4
    _, place = product(bucket, "s_20240101")
    key = place.rpartition("/")[2]
    foreign = {
        f"s_20240101/{key}/notes.txt", "s_20240102/0123456789abcdef.txt", "mine.txt",
        "foreign/foreign.json", "foreign/0123456789abcdef/data.tif",
    }  # fmt: skip
    for name in foreign:
        buckets.write_object(f"{bucket}/{name}", b"{}")
    report = us.sweep(config, detector=FirstBand(), keep_days=30)
    assert sorted(report.removed) == ["s_20240101", "s_20240102", "s_20240103"]
    assert tree(bucket) == sorted([*expected(bucket, [recent], FILES), *foreign])
    assert us.sweep(config, detector=FirstBand(), keep_days=30).removed == []


def test_an_edited_item_loses_no_map_but_late_writes_go(archive: Path, bucket: str) -> None:
    config = describe(archive, bucket)
    us.sweep(config, detector=FirstBand())
    item, place = product(bucket, "s_20240101")
    del item["assets"]["run"], item["assets"]["quicklook"]
    buckets.write_object(f"{bucket}/s_20240101/s_20240101.json", json.dumps(item).encode())
    # A worker that outlived its scene has gone on writing.
    buckets.write_object(f"{place}/scores.zarr/score/c/0/0", b"late")
    buckets.write_object(f"{place}/scores.zarr.lock.0123abcd.now", b"")
    us.sweep(config, detector=FirstBand())
    assert tree(bucket) == expected(bucket, ["s_20240101", "s_20240102", "s_20240103"], FILES)
    assert product(bucket, "s_20240101")[0] == item


def test_one_sweep_at_a_time_and_who_was_cut_off_ends(archive: Path, bucket: str) -> None:
    config, sink = describe(archive, bucket), Sink(Place(bucket))
    assert not sink.is_busy()
    with sink.locked():
        assert sink.is_busy()
        with pytest.raises(
            us.BusyError, match=rf"process {os.getpid()} on .* writes to '{bucket}'"
        ):
            us.sweep(config, detector=FirstBand())
    assert not sink.is_busy()
    with sink.locked() as ledger:
        ledger.begin("scene", "key")
        # Cut off for so long that somebody else took over.
        with Ledger(sink.state) as other:
            other.begin("scene", "key")
            with pytest.raises(us.BusyError, match="cut off for longer than its lease"):
                ledger.begin("another", "key")
            assert [*Ledger(sink.state).tries()] == ["scene"]
            other.release("scene")
    dead = lease.this_process() | {"started": 0.0}
    buckets.write_object(f"{sink.state}/lock", json.dumps(dead).encode())
    assert not sink.is_busy(), "its owner was a process of this machine that is no more"
    buckets.write_object(f"{sink.state}/lock", json.dumps(dead | {"machine": "else"}).encode())
    assert sink.is_busy()


def test_a_write_whose_answer_was_lost(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fenced, content = ConditionalObject.read(f"{bucket}/object")
    assert content is None
    put = obstore.put

    def twice(*args: Any, **options: Any) -> Any:
        put(*args, **options)
        return put(*args, **options)

    monkeypatch.setattr(obstore, "put", twice)
    for content in (b"one", b"two"):
        fenced.write(content)
    monkeypatch.setattr(obstore, "put", put)
    fenced.write(b"three")
    assert buckets.read_object(f"{bucket}/object") == b"three"


def test_changes_travel_together(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, writes, slow = Ledger(Place(bucket)), [], threading.Event()
    write = ConditionalObject.write

    def counted(self: ConditionalObject, content: bytes) -> None:
        writes.append(self.uri)
        slow.wait(0.1)
        write(self, content)

    monkeypatch.setattr(ConditionalObject, "write", counted)
    with ledger:
        threads = [threading.Thread(target=ledger.begin, args=(f"s{k}", "k")) for k in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(Ledger(Place(bucket)).tries()) == 20
        assert len(writes) < 6


def test_a_try_counts_once_if_it_cannot_be_sent(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = ConditionalObject.write

    def failing_once(self: ConditionalObject, content: bytes) -> None:
        monkeypatch.setattr(ConditionalObject, "write", write)
        raise us.StoreError("the server is away")

    with Ledger(Place(bucket)) as ledger:
        ledger.begin("scene", "key")
        monkeypatch.setattr(ConditionalObject, "write", failing_once)
        with suppress(us.StoreError):
            ledger.fail("scene", "no pixels", parked=False)
        ledger.begin("another", "key")  # what could not be sent goes along
        (failed, begun) = (Ledger(Place(bucket)).tries()[name] for name in ("scene", "another"))
        assert (failed.failures, failed.interruptions, begun.interruptions) == (1, 0, 1)


def test_a_server_that_fails_is_nobodys_failure(
    archive: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = describe(archive, bucket, tries=1)
    put = obstore.put

    def refusing(client: object, key: str, *args: Any, **options: Any) -> Any:
        if "scores.tif" in key:
            monkeypatch.setattr(obstore, "put", broken)
        return put(client, key, *args, **options)

    def broken(*_: Any, **__: Any) -> Any:
        raise OSError("the server is away")

    monkeypatch.setattr(obstore, "put", refusing)
    with pytest.raises(us.StoreError, match="the server is away"):
        us.sweep(config, detector=FirstBand())
    monkeypatch.setattr(obstore, "put", put)
    with Ledger(Place(f"{bucket}/.sweep")) as ledger:
        assert not any(tries.failures for tries in ledger.tries().values())
    assert len(us.sweep(config, detector=FirstBand()).done) == 3


def test_a_listing_passes_over_stores(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buckets, "PAGE", 10)
    keys = [f"{name}/k/scores.zarr/c/{n:02}" for name in "ab" for n in range(45)]
    keys += ["a/a.json", "a/k/scores.tif", "a/k/scores.zarr.lock", "a/k/z", "b/b.json", "c/c.json"]
    for key in keys:
        buckets.write_object(f"{bucket}/{key}", b"")
    listed = [key for key, _ in buckets.list_objects(bucket, skip="scores.zarr")]
    assert len(listed) == len(set(listed)) < 70
    assert {key for key in listed if ".zarr/" not in key} == set(keys[90:])
    assert sorted(buckets.list_keys(bucket)) == sorted(keys)


def test_a_listing_in_parts_misses_nothing(
    archive: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    us.sweep(describe(archive, bucket, output={"formats": ["cog", "zarr"]}), detector=FirstBand())
    sink = Sink(Place(bucket))
    for share, page in ((500, 1000), (1, 1000), (1, 7), (2, 3)):
        monkeypatch.setattr(listing, "SHARE", share)
        monkeypatch.setattr(buckets, "PAGE", page)
        with sink.ledger() as ledger:
            found = sink.survey(ledger.products())
        assert [*found.products] == ["s_20240101", "s_20240102", "s_20240103"]
        assert not (found.changed)
        assert not (found.gone)
        keys = {name: [record["uniadrs:key"]] for name, record in found.products.items()}
        assert {name: [*versions] for name, versions in found.versions.items()} == keys
        listed = [key for key, _ in listing.list_files(sink.place, STORE, sorted(found.products))]
        assert len(listed) == len(set(listed))


def test_a_sink_below_the_source_is_no_source(tmp_path: Path, bucket: str) -> None:
    scene = write_scene(tmp_path / "scene.tif", 1)
    buckets.write_object(f"{bucket}/in/scene.tif", scene)
    config = describe(tmp_path, f"{bucket}/maps", source={"type": "folder", "path": bucket})
    assert [name[:9] for name in us.sweep(config, detector=FirstBand()).done] == ["in_scene-"]
    assert len(us.sweep(config, detector=FirstBand()).decisions) == 1


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Callable]:
    """Runs a command in this process; the detector is a stand-in: (exit code, what it said)."""
    monkeypatch.setattr(runner.Detector, "load", lambda **_: FirstBand())

    def call(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["uniadrs-scale", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return int(stop.value.code or 0), "".join(capsys.readouterr())

    yield call
    logging.getLogger("uniadrs_scale.sweep").handlers.clear()
    logging.getLogger("uniadrs_scale.sweep").propagate = True


def test_the_command_line(run: Callable, tmp_path: Path, bucket: str) -> None:
    write_scene(tmp_path / "incoming" / "good.tif", 1, side=32)
    (tmp_path / "incoming" / "bad.tif").write_text("x")
    said = []

    def call(*arguments: object) -> tuple[int, str]:
        said.append(run(*arguments))
        return said[-1]

    archive = describe(tmp_path, bucket, tries=1, status_page=f"{bucket}/status.html")
    assert "holds no archive" in call("status", archive)[1]
    assert call("sweep", archive, "--dry-run")[0] == 0
    assert buckets.list_keys(bucket) == []
    code, out = call("sweep", archive)
    assert code == 1
    assert "parked   bad" in out
    assert call("sweep", archive) == (0, said[-1][1])
    facts = json.loads(call("status", archive, "--json")[1])
    assert (facts["folder"], facts["state"], facts["done"], facts["parked"]) == (
        bucket,
        "idle",
        1,
        1,
    )
    key = product(bucket, "good")[1].rpartition("/")[2]
    assert facts["latest"][0]["quicklook"] == f"good/{key}/quicklook.png"
    page = (buckets.read_object(f"{bucket}/status.html") or b"").decode()
    assert f'src="./good/{key}/quicklook.png"' in page
    assert call("status", archive, "--html", f"{bucket}/pages/now.html")[0] == 0
    page = (buckets.read_object(f"{bucket}/pages/now.html") or b"").decode()
    assert f'src="../good/{key}/quicklook.png"' in page
    assert call("status", archive, "--html", tmp_path / "now.html")[0] == 0
    assert f'src="{bucket}/good/{key}/quicklook.png"' in (tmp_path / "now.html").read_text()
    with Sink(Place(bucket)).locked():
        assert call("sweep", archive)[0] == call("retry", archive)[0] == 75
        assert "one at a time" in said[-1][1]
    assert "was killed" not in call("status", archive)[1]
    assert call("retry", archive) == (0, "unparked bad\n")
    assert "score    bad" in call("sweep", archive, "--dry-run")[1]
    stored = b"".join(
        buckets.read_object(f"{bucket}/{k}") or b"" for k in buckets.list_keys(bucket)
    )
    for text in (stored.decode("latin-1"), *(out for _, out in said)):
        assert PLANTED not in text
    media = requests.head(f"{os.environ['AWS_ENDPOINT_URL']}/{bucket[5:]}/status.html", timeout=9)
    assert media.headers["Content-Type"].startswith("text/html")


SCENES = 8


@pytest.fixture
def start(spawn: Spawn) -> Callable[[Path, Path], subprocess.Popen[bytes]]:
    """Start a sweep of an archive, which appends to a log."""
    command = [sys.executable, "-m", "uniadrs_scale.cli.main", "sweep"]

    def begin(archive: Path, log: Path) -> subprocess.Popen[bytes]:
        with log.open("ab") as file:
            return spawn([*command, str(archive), "--log", "json"], stdout=file, stderr=file)

    return begin


@pytest.mark.slow
def test_a_bad_week(
    tmp_path: Path,
    bucket: str,
    tiny_weights: Path,
    start: Callable[[Path, Path], subprocess.Popen[bytes]],
) -> None:
    """Poison, SIGKILL in the middle, two at once, an input replaced; by a timer's command."""
    names = [f"scene{number:02}" for number in range(SCENES)]
    for number, name in enumerate(names):
        write_scene(tmp_path / "incoming" / f"{name}.tif", number, side=96)
    (tmp_path / "incoming" / "poison_text.tif").write_text("not a raster")
    torn = write_scene(tmp_path / "incoming" / "poison_torn.tif", 5, side=96)
    torn.write_bytes(torn.read_bytes()[:20_000])
    options = {
        "detector": {"weights": str(tiny_weights), "device": "cpu"},
        "plan": {"tile": 64, "chunk": 64}, "tries": 1,
    }  # fmt: skip
    archive = describe(tmp_path, bucket, **options, scheduler=None, workers=1)
    log = tmp_path / "log.jsonl"

    def items() -> int:
        return sum(key.count("/") == 1 and key.endswith(".json") and key[0] != "."
                   for key in buckets.list_keys(bucket))  # fmt: skip

    process = start(archive, log)
    wait_until(lambda: items() >= 3, process=process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert f"{bucket}/.sweep/lock" in [f"{bucket}/{key}" for key in buckets.list_keys(bucket)]
    describe(tmp_path, bucket, **options)
    at_once = [start(archive, log), start(archive, log)]
    codes = sorted(process.wait(LIMIT) for process in at_once)
    assert codes in ([0, 75], [1, 75])
    while start(archive, log).wait(LIMIT) != 0:  # poisons, until they are parked
        assert log.read_text().count('"event": "begin"') < 7
    assert tree(bucket) == expected(bucket, names, FILES)
    events = [json.loads(line) for line in log.read_text().splitlines() if line[:7] == '{"time"']
    done = [event["scene"] for event in events if event.get("event") == "done"]
    assert len(done) == len(set(done)) >= SCENES - 5, "never twice"
    with Ledger(Place(f"{bucket}/.sweep")) as ledger:
        troubles = {t["name"]: (t["parked"], t["failures"]) for t in ledger.troubles()}
    assert troubles == {"poison_text": (True, 1), "poison_torn": (True, 1)}
    detector = us.Detector.load(tiny_weights, device="cpu")
    for name in names[::4]:
        scene = us.open_scene(tmp_path / "incoming" / f"{name}.tif")
        us.score(scene, tmp_path / f"{name}.zarr", tile=64, chunk=64, detector=detector,
                 scheduler="sync")  # fmt: skip
        us.to_cog(tmp_path / f"{name}.zarr", tmp_path / "map.tif")
        sent = buckets.read_object(f"{product(bucket, name)[1]}/scores.tif")
        assert sent == (tmp_path / "map.tif").read_bytes()
    old = {name: product(bucket, name)[1] for name in names}
    write_scene(tmp_path / "incoming" / "scene07.tif", 99, side=96)
    assert start(archive, log).wait(LIMIT) == 0
    assert [n for n in names if product(bucket, n)[1] != old[n]] == ["scene07"]
    assert tree(bucket) == expected(bucket, names, FILES)
