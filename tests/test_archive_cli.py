"""Archives from the command line: exit codes, reports for people and machines, telling others."""

from __future__ import annotations

import json
import logging
import re
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from archives import serve, write_archive, write_scene
from standins import FirstBand

from uniadrs_scale.archive.sink import Sink
from uniadrs_scale.cli import main as cli
from uniadrs_scale.cli import options
from uniadrs_scale.core import machine
from uniadrs_scale.core.machine import interruptible
from uniadrs_scale.storage.places import Place

runner = import_module("uniadrs_scale.archive.sweep")  # the package has a function of that name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Run:
    """What one command gave."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Callable]:
    """Runs a command in this process; the detector is a stand-in."""
    monkeypatch.setattr(runner.Detector, "load", lambda **_: FirstBand())

    def call(*arguments: object) -> Run:
        monkeypatch.setattr(sys, "argv", ["uniadrs-scale", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return Run(int(stop.value.code or 0), *capsys.readouterr())

    yield call
    logging.getLogger("uniadrs_scale.sweep").handlers.clear()
    logging.getLogger("uniadrs_scale.sweep").propagate = True


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Two scenes, one of them broken."""
    write_scene(tmp_path / "incoming" / "good.tif", 1)
    (tmp_path / "incoming" / "<b>bad.tif").write_text("x")
    return write_archive(tmp_path, tries=2)


def test_init_writes_a_description_once(run, tmp_path: Path) -> None:
    target = tmp_path / "new.yaml"
    assert run("sweep", "--init", target).code == 0
    assert "source:" in target.read_text()
    target.write_text("mine")
    again = run("sweep", "--init", target)
    assert (again.code, target.read_text()) == (2, "mine")
    assert "exists" in again.err
    assert run("sweep", "--init", tmp_path / "no" / "folder.yaml").code == 2
    missing = run("sweep")
    assert missing.code == 2
    assert "sweep --init" in missing.err
    assert "cannot be read" in run("sweep", tmp_path / "nothing.yaml").err


@pytest.mark.parametrize("arguments", [
    ("sweep", "--init", "new.yaml", "--dry-run"), ("sweep", "--init", "new.yaml", "--every", "1d"),
    ("status", "new.yaml", "--json", "--html", "new.html"),
])  # fmt: skip
def test_an_option_without_effect_is_refused(run, tmp_path: Path, monkeypatch, arguments) -> None:
    monkeypatch.chdir(tmp_path)
    got = run(*arguments)
    assert got.code == 2
    assert "Drop the other options" in got.err or "Give one of them" in got.err
    assert not any(tmp_path.iterdir())


def test_dry_run_sweep_status_retry(run, archive: Path) -> None:
    assert "holds no archive" in run("status", archive).err
    dry = run("sweep", archive, "--dry-run")
    assert dry.code == 0
    assert "score    good: new" in dry.out
    assert not (archive.parent / "maps").exists()
    first = run("sweep", archive)
    assert first.code == 1
    assert "done     1 of 2" in first.out
    assert "not a raster" in first.out
    second = run("sweep", archive)
    assert "parked   b_bad-" in second.out
    assert run("sweep", archive).code == 0
    status = run("status", archive)
    assert "done     1\n" in status.out
    assert "parked   1\n" in status.out
    facts = json.loads(run("status", archive, "--json").out)
    assert (facts["state"], facts["done"], facts["parked"], facts["pending"]) == ("idle", 1, 1, 0)
    assert facts["troubles"][0]["failures"] == 2
    name = facts["troubles"][0]["name"]
    assert run("retry", archive, "good").code == 2
    assert run("retry", archive, name).out == f"unparked {name}\n"
    assert run("retry", archive).out == "nothing is parked\n"
    assert "score    " in run("sweep", archive, "--dry-run").out


def test_json_for_machines(run, archive: Path) -> None:
    dry = json.loads(run("sweep", archive, "--dry-run", "--log", "json").out)
    assert {d["action"] for d in dry["decisions"]} == {"score"}
    result = run("sweep", archive, "--log", "json")
    events = [json.loads(line) for line in result.err.splitlines()]
    assert [event["event"] for event in events].count("done") == 1
    failed = next(event for event in events if event["event"] == "failed")
    assert failed["level"] == "error"
    assert "not a raster" in failed["reason"]
    assert json.loads(result.out)["failed"].keys() == {failed["scene"]}


def test_busy_is_75(run, archive: Path) -> None:
    sink = Sink(Place.of(archive.parent / "maps"))
    with sink.locked() as ledger:
        busy = run("sweep", archive)
        assert (busy.code, busy.out) == (75, "")
        assert "one at a time" in busy.err
        assert "running" not in run("status", archive).out
        ledger.start_run("me", {"todo": 4, "done": 1, "failed": {}, "seconds": 2, "pixels": 9})
        running = run("status", archive)
        assert "state    running since" in running.out
        assert "pending  3, about 0:00:06 left" in running.out
    assert "the last sweep was killed" in run("status", archive).out


def test_page(run, archive: Path) -> None:
    run("sweep", archive)
    page = archive.parent / "page.html"
    assert run("status", archive, "--html", page).code == 0
    text = page.read_text()
    assert "&#x27;" in text or "&lt;" in text
    assert "<b>bad" not in text.replace("<b>1</b>", "")
    key = next(path.name for path in (archive.parent / "maps" / "good").iterdir() if path.is_dir())
    assert f'src="maps/good/{key}/quicklook.png"' in text
    assert "http-equiv" not in text


def test_every_ends_on_sigterm(run, archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    class Pause(threading.Event):
        """The first is over at once, the second ends by a signal."""

        def wait(self, timeout: float | None = None) -> bool:
            pauses.append(timeout or 0)
            if len(pauses) == 1:
                return False
            signal.raise_signal(signal.SIGTERM)
            return super().wait(timeout)

    @contextmanager
    def with_pauses() -> Iterator[machine.Stop]:
        with interruptible() as stop:
            stop.event = Pause()
            yield stop

    monkeypatch.setattr(machine, "interruptible", with_pauses)
    result = run("sweep", archive, "--every", "1h")
    assert result.code == 128 + signal.SIGTERM
    assert result.err.count("sweep begins") == 2
    assert 3000 < pauses[0] <= 3600
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert run("sweep", archive, "--every", "soon").code == 2


def test_a_signal_in_the_tail_of_a_sweep_ends_what_repeats_it_too() -> None:
    with interruptible() as outer:
        with interruptible() as inner:
            signal.raise_signal(signal.SIGTERM)
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        assert inner.signal == outer.signal == signal.SIGTERM
        assert outer.event.is_set()


class _Hook(SimpleHTTPRequestHandler):
    got: list[dict[str, Any]] = []  # noqa: RUF012 - one for the class is what is wanted

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        self.got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(500 if "broken" in self.path else 200)
        self.end_headers()


def test_others_are_told(run, archive: Path) -> None:
    _Hook.got.clear()
    folder = archive.parent
    write = "import sys; open(sys.argv[1], 'w').write(sys.stdin.read())"
    with serve(folder, _Hook) as address:
        notify = {
            "on_failure": {"webhook": f"{address}/broken",
                           "command": [sys.executable, "-c", write, str(folder / "$(told)")]},
            "on_complete": {"webhook": f"{address}/fine"},
        }  # fmt: skip
        write_archive(folder, notify=notify, tries=2)
        failed = run("sweep", archive)
        assert failed.code == 1
        assert "message not sent: 500" in failed.err
        # A receiver that fails costs nothing; arguments are passed on as they are.
        told = json.loads((folder / "$(told)").read_text())
        assert told == _Hook.got[0]
        assert told["archive"] == str(folder / "maps")
        (folder / "incoming" / "<b>bad.tif").unlink()
        run("sweep", archive)
        assert len(_Hook.got) == 1, "nothing was to do"
        write_scene(folder / "incoming" / "another.tif", 2)
        assert run("sweep", archive).code == 0
        assert _Hook.got[1]["complete"]


def test_recipes_are_what_they_seem() -> None:
    text = (Path(__file__).parents[1] / "docs" / "scheduling.md").read_text()
    for number, recipe in enumerate(re.findall(r"```python\n(.*?)```", text, re.DOTALL)):
        compile(recipe, f"recipe {number}", "exec")
    for code in (0, options.INCOMPLETE, options.BAD_INPUT, options.BUSY):
        assert f"\n| {code} |" in text


def test_the_line_for_cron_prints_only_what_somebody_should_read(tmp_path: Path) -> None:
    text = (Path(__file__).parents[1] / "docs" / "scheduling.md").read_text()
    line = re.search(r"30 2 \* \* \* (.*)", text)
    assert line is not None
    assert "%" not in line[1], "cron makes a new line of it"
    command, told = tmp_path / "uniadrs-scale", {}
    for code in (0, options.INCOMPLETE, options.BAD_INPUT, options.BUSY, 128 + 15):
        command.write_text(f"#!/bin/sh\necho $1: the reason; exit {code}\n")
        command.chmod(0o755)
        script = line[1].replace("/opt/uniadrs/bin", str(tmp_path)).replace("/var/log/uniadrs", ".")
        done = subprocess.run(
            ["/bin/sh", "-c", script], check=True, cwd=tmp_path, capture_output=True, text=True
        )
        told[code] = done.stdout
        assert not done.stderr
    assert [code for code, printed in told.items() if printed] == [1, 2]
    assert told[2].startswith("sweep ended with 2\n")
    assert "sweep: the reason" in told[2]


@pytest.mark.parametrize("days", ["0", "-1", "1e9", "nan"])
def test_days_that_a_sweep_refuses_end_it_also_with_every(run, archive, days: str) -> None:
    ended = run("sweep", archive, "--every", "1d", "--keep-days", days)
    assert ended.code == 2
    assert "--keep-days" in ended.err
