"""The description of an archive: what is refused is refused with a sentence."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from uniadrs_scale.archive import config as module
from uniadrs_scale.archive.config import ArchiveConfig, duration, example, load_config
from uniadrs_scale.archive.filters import Section
from uniadrs_scale.errors import ArchiveError

if TYPE_CHECKING:
    from pathlib import Path

LEAST: dict[str, Any] = {"source": {"type": "folder", "path": "in"}, "output": {"folder": "out"}}


def load(tmp_path: Path, **changes: Any) -> ArchiveConfig:
    path = tmp_path / "archive.yaml"
    path.write_text(yaml.safe_dump(LEAST | changes))
    return load_config(path)


def test_the_example_is_a_description(tmp_path: Path) -> None:
    path = tmp_path / "archive.yaml"
    path.write_text(example())
    config = load_config(path)
    assert config.output.folder.local == tmp_path / "maps"
    # Its other fields are those that one would have without it.
    assert config.model_dump(exclude={"source", "output"}) == load(tmp_path).model_dump(
        exclude={"source", "output"}
    )


def test_the_example_shows_every_field_and_every_field_is_described() -> None:
    sections = [s for s in vars(module).values() if isinstance(s, type) and issubclass(s, Section)]
    assert len(sections) == 10
    for section in sections:
        for name, field in section.model_fields.items():
            assert field.description or name == "type", f"{section.__name__}.{name}"
            assert re.search(rf"\b{name}:", example()), f"{section.__name__}.{name}"


def test_commented_fields_of_the_example_are_right(tmp_path: Path) -> None:
    """Each section as the example's comments show it."""
    text = example()
    for kind in ("stac", "api"):
        block = re.search(rf"# source:\n#   type: {kind}\n(?:#  .*\n)+", text)
        assert block is not None
        source = yaml.safe_load(re.sub(r"^# ", "", block[0], flags=re.MULTILINE))["source"]
        assert load(tmp_path, source=source).source.type == kind
    filters = text.partition("filters:\n")[2].partition("\n\n")[0]
    shown = yaml.safe_load(re.sub(r"^  # ", "  ", filters, flags=re.MULTILINE))
    stac = {"type": "stac", "href": "c.json"}
    assert load(tmp_path, source=stac, filters=shown).filters.cloud_cover == 20


def test_paths_count_from_the_file(tmp_path: Path) -> None:
    (tmp_path / "my.safetensors").touch()
    config = load(tmp_path, status_page="a/b.html", detector={"weights": "my.safetensors"})
    assert config.source.path.local == tmp_path / "in"
    assert config.status_page.local == tmp_path / "a" / "b.html"
    assert config.detector["weights"] == str(tmp_path / "my.safetensors")
    assert load(tmp_path, detector={"weights": "uniadrs-s"}).detector["weights"] == "uniadrs-s"
    stac = load(tmp_path, source={"type": "stac", "href": "stac/catalog.json"})
    assert stac.source.href == str(tmp_path / "stac" / "catalog.json")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sauce": 1}, r"sauce: Extra inputs are not permitted"),
        ({"source": {"type": "ftp"}}, r"source: .*'folder', 'stac', 'api'"),
        ({"source": {"type": "folder"}}, r"source.folder.path: Field required"),
        ({"output": {"folder": "ftp://b/x"}}, r"'ftp://b/x' cannot be written to.*s3://"),
        ({"status_page": "https://b/x"}, r"status_page: 'https://b/x' cannot be written to"),
        ({"output": {"folder": "o", "formats": []}}, r"output.formats: .*at least 1"),
        ({"plan": {"tiles": 3}}, r"plan.tiles: Extra inputs are not permitted"),
        ({"plan": {"scheduler": "sync"}}, r"plan.scheduler: Extra inputs are not"),
        ({"plan": {"tile": "big"}}, r"plan.tile: .*valid integer \(got 'big'\)"),
        ({"plan": {"chunk": 0}}, r"plan.chunk: .*greater than or equal to 1 \(got 0\)"),
        ({"plan": {"preset": "lidar"}}, r"plan: preset 'lidar' is unknown. Use auto, hyper"),
        ({"plan": {"tile": 64, "stride": 96}}, r"plan: stride=96 px is larger than tile=64"),
        ({"plan": {"chunk": 64, "tile": 128}}, r"plan: chunk=64 px is smaller than tile=128"),
        ({"plan": {"tile": 300, "chunk": 256}}, r"plan: chunk=256 px is smaller than tile=300"),
        ({"scene": {"source": "x"}}, r"scene.source is unknown"),
        ({"detector": {"gpu": 1}}, r"detector.gpu is unknown"),
        ({"detector": {"weights": 5}}, r"detector.weights takes a text, got 5"),
        ({"scene": {"nodata": "abc"}}, r"scene.nodata takes a number, auto, or null.*got 'abc'"),
        ({"scene": {"nodata": ""}}, r"scene.nodata takes a number"),
        ({"scene": {"nodata": True}}, r"scene.nodata takes a number"),
        ({"scene": {"bands": "B02"}}, r"scene.bands takes a list .*got 'B02'"),
        ({"scene": {"bands": [0]}}, r"scene.bands takes a list"),
        ({"scene": {"bands": []}}, r"scene.bands takes a list"),
        ({"scene": {"mask": 3}}, r"scene.mask takes none, cloud, or a list"),
        ({"scene": {"variable": 5}}, r"scene.variable takes a name"),
        ({"scene": {"units": "db"}}, r"scene.units takes amplitude or dB, got 'db'"),
        ({"scene": {"nodata_when": "some"}}, r"scene.nodata_when takes auto, any or all"),
        ({"output": {"folder": 5}}, r"output.folder: it takes a path or URL.*got 5"),
        ({"output": {"folder": ""}}, r"output.folder: it takes a path"),
        ({"output": {"folder": "${OUT}/x"}}, r"variables such as \$HOME are not replaced"),
        ({"status_page": "archive.yaml"}, r"status_page '.*archive.yaml' does not end in .html"),
        ({"keep_days": True}, r"keep_days takes neither yes nor no"),
        ({"workers": True}, r"workers takes neither yes"),
        ({"filters": {"newest_days": True}}, r"filters: newest_days takes neither yes"),
        ({"tries": 0}, r"tries: .*greater than or equal to 1 \(got 0\)"),
        ({"filters": {"datetime": "May"}}, r"'May' is not a date. Use 2024-01-31"),
        ({"filters": {"datetime": "2024-06-30/2024-01-01"}}, r"ends before it begins. Swap"),
        ({"filters": {"datetime": "2024-W05"}}, r"'2024-W05' is not a date. Use 2024-01-31"),
        ({"filters": {"bbox": [1, 4, 3, 2]}}, r"bbox .* is not west, south, east, north"),
        ({"filters": {"bbox": [1, 2, float("nan"), 4]}}, r"bbox .* is not west, south, east"),
        ({"filters": {"bbox": [5e5, 5e6, 6e5, 6e6]}}, r"bbox .* is not west, south, east"),
        ({"filters": {"properties": {"gsd": {"mx": 5}}}}, r"gsd takes min <= max, .*'mx': 5"),
        ({"filters": {"properties": {"gsd": {"min": 5, "max": 1}}}}, r"gsd takes min <= max"),
        ({"filters": {"bbox": [1, 2, 3, 4]}}, r"neither footprints nor properties"),
        ({"notify": {"on_failure": {"webhook": "file:///etc/passwd"}}}, r"webhook: .*pattern"),
        ({"notify": {"on_failure": {"command": "rm -rf"}}}, r"command: .*tuple"),
        ({"scheduler": "sync", "workers": 3}, r"drop workers or scheduler"),
        ({"scheduler": "threads", "wait_for_workers": "6h"}, r"wait_for_workers is for clusters"),
    ],
)
def test_mistakes_are_told(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ArchiveError, match=message):
        load(tmp_path, **changes)


def test_files_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "archive.yaml"
    with pytest.raises(ArchiveError, match="sweep --init"):
        load_config(path)
    for text in ("a: [", "3", "!!python/object/apply:os.system ['true']", "\x00"):
        path.write_text(text)
        with pytest.raises(ArchiveError, match=r"archive\.yaml"):
            load_config(path)


def test_what_means_rework(tmp_path: Path) -> None:
    def digest(**changes: Any) -> str:
        return load(tmp_path, **changes).digest

    assert digest() == digest(tries=9, scheduler="sync", keep_days=3) == digest(workers=3)
    changes: list[dict[str, Any]] = [
        {}, {"plan": {"tile": 64}}, {"scene": {"bands": [1]}}, {"scene": {"nodata": 0}},
        {"output": {"folder": "out", "formats": ["zarr"]}},
        {"output": {"folder": "out", "quicklook": False}},
    ]  # fmt: skip
    assert len({digest(**change) for change in changes}) == len(changes)


def test_durations() -> None:
    assert duration("6h") == timedelta(hours=6)
    assert duration(" 90s") == timedelta(seconds=90)
    for text in ("6", "h", "0h", "-1h", "1.5h", ""):
        with pytest.raises(ArchiveError, match="Use a number"):
            duration(text)


def test_a_description_that_is_not_there_or_no_yaml_gets_one_line(tmp_path: Path) -> None:
    path = tmp_path / "archive.yaml"
    with pytest.raises(ArchiveError, match=r"archive\.yaml' cannot be read: No such file"):
        load_config(path)
    with pytest.raises(ArchiveError, match=r"cannot be read: Is a directory"):
        load_config(tmp_path)
    path.write_text("source: [folder\n")
    with pytest.raises(ArchiveError, match=r"cannot be read as YAML: while parsing") as told:
        load_config(path)
    assert "  " not in str(told.value)
    assert "\n" not in str(told.value)


def test_a_field_that_is_given_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "archive.yaml"
    path.write_text("source: {type: folder, path: in}\noutput: {folder: a}\noutput: {folder: b}\n")
    with pytest.raises(ArchiveError, match=r"'output' is given twice.* line 3"):
        load_config(path)
    path.write_text("source: &a {type: folder, path: in}\noutput: {<<: {folder: b}, folder: a}\n")
    assert (
        load_config(path).output.folder.local == tmp_path / "a"
    )  # a merged value is not given twice


def test_dates_need_no_quotes(tmp_path: Path) -> None:
    path = tmp_path / "archive.yaml"
    text = "source: {type: stac, href: c.json}\noutput: {folder: a}\nfilters:\n"
    text += "  datetime: 2024-01-31\n  properties: {created: {min: 2024-01-31}}\n"
    path.write_text(text)
    filters = load_config(path).filters
    assert filters.datetime == "2024-01-31"
    assert filters.properties == {"created": {"min": "2024-01-31"}}
