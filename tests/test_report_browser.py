"""The page of a map in a real browser: what a person clicks, types and gets."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr
from test_report_page import EVIL, LEVELS, data_in, score, write_scene

import uniadrs_scale as us
from uniadrs_scale.archive.status import Status, write_page
from uniadrs_scale.storage.places import Place

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs Chromium (apt install chromium)")


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    """A page with two maps: the same scene, and one in which a target went."""
    folder = tmp_path_factory.mktemp("browser")
    write_scene(folder / EVIL)
    for name in ("map.zarr", "other.zarr"):
        score(folder / EVIL, folder / name)
        group = zarr.open_group(folder / name, mode="r+")
        group.update_attributes({"levels": LEVELS.to_json()})
    group["score"][:] = np.where(np.isfinite(group["score"][:]), np.float32(0.01), np.nan)
    us.report(
        folder / "map.zarr", folder / EVIL, folder / "page.html", compare=folder / "other.zarr"
    )
    return folder / "page.html"


@pytest.fixture(scope="module")
def empty_page(page_file):
    """The page of a map without targets."""
    nothing = {"type": "FeatureCollection", "features": []}
    (page_file.parent / "none.geojson").write_text(json.dumps(nothing))
    us.report(
        page_file.parent / "map.zarr",
        page_file.parent / EVIL,
        page_file.parent / "empty.html",
        targets=page_file.parent / "none.geojson",
    )
    return page_file.parent / "empty.html"


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as driver:
        # Chromium refuses its sandbox to root; the page is our own.
        opened = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def allowed():
    """Beginnings of messages that a test expects."""
    return ["data:", "blob:", "Canvas2D: Multiple readback operations"]


@pytest.fixture
def page(browser, page_file, allowed):
    """The page, ready; it fails if the page made a request or reported an error."""
    context = browser.new_context(viewport={"width": 1400, "height": 900}, accept_downloads=True)
    opened = context.new_page()
    seen = []
    opened.on("request", lambda request: seen.append(request.url))
    opened.on("console", lambda message: seen.append(message.text))
    opened.on("pageerror", lambda error: seen.append(str(error)))
    opened.goto(page_file.as_uri())
    opened.wait_for_selector("html[data-ready=yes]")
    yield opened
    away = [text for text in seen if not text.startswith(tuple(allowed))]
    context.close()
    assert away == [page_file.as_uri()]


def shown(page):
    return page.locator("#list > li:visible").count()


def slide(page, name, value):
    page.evaluate(
        "([name, value]) => { const it = document.getElementById(name); it.value = value;"
        " it.dispatchEvent(new Event('input')); }",
        [name, value],
    )


def colours(page, left=0.0, right=1.0):
    """The pixels of the viewer between two parts of its width, once it has drawn."""
    return page.evaluate(
        "([left, right]) => new Promise(done => requestAnimationFrame(() =>"
        " requestAnimationFrame(() => { const c = document.getElementById('view');"
        " const x = Math.round(left * c.width), w = Math.round((right - left) * c.width);"
        " const d = c.getContext('2d').getImageData(x, 0, w, c.height).data;"
        " let sum = 0; for (let n = 0; n < d.length; n++) sum = (sum * 31 + d[n]) % 4294967291;"
        " done(sum); })))",
        [left, right],
    )


def test_the_threshold_filters_list_and_map(page, page_file):
    data = data_in(page_file.read_text(encoding="utf-8"))
    scores = [target["score"] for target in data["targets"]]
    assert shown(page) == len(scores)
    before = colours(page)
    for level in ("high", "low", "medium"):
        page.click(f"button[data-level]:text-is('{level}')")
        wanted = sum(s >= np.float32(LEVELS.threshold(level)) for s in scores)
        assert shown(page) == wanted
        assert page.inner_text("#count").startswith(f"{wanted} of {len(scores)} targets")
    slide(page, "threshold", len(data["edges"]) + 1)
    assert page.inner_text("#threshold-text").endswith(", about 0.01 false per Mpx")
    assert colours(page) != before


@pytest.mark.parametrize("width", [360, 800, 1400])
def test_the_page_fits_into_the_width_of_a_window(page, width):
    page.set_viewport_size({"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_a_page_without_targets_shows_its_map_and_says_why(browser, empty_page):
    page, seen = browser.new_page(viewport={"width": 1400, "height": 900}), []
    page.on("pageerror", lambda error: seen.append(str(error)))
    page.goto(empty_page.as_uri())
    page.wait_for_selector("html[data-ready=yes]", timeout=20_000)
    before = colours(page)
    slide(page, "opacity", 0)
    assert colours(page) != before
    for key in "jkrx":
        page.keyboard.press(key)
    assert page.inner_text("#count") == "0 of 0 targets, 0\u00a0marked"
    assert page.locator("#list > li.empty").bounding_box()["height"] < 100
    page.close()
    assert seen == []


def test_opacity_and_outlines_change_the_picture(page):
    page.uncheck("#outlines")
    full = colours(page)
    slide(page, "opacity", 0)
    assert page.inner_text("#opacity-text") == "0 %"
    without = colours(page)
    assert without != full
    page.check("#outlines")
    assert colours(page) != without


def test_the_line_uncovers_the_other_map(page):
    page.uncheck("#outlines")
    slide(page, "swipe", 100)
    own = colours(page, 0, 0.4)
    slide(page, "swipe", 0)
    assert colours(page, 0, 0.4) != own
    slide(page, "swipe", 50)
    assert colours(page, 0, 0.4) == own
    box = page.locator("#view").bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 4, middle[1])
    page.mouse.up()
    assert float(page.input_value("#swipe")) == pytest.approx(25, abs=1)


def test_keys_go_through_the_targets(page):
    current = "#list > li[aria-current]"
    assert page.locator(current).count() == 0
    first = colours(page)
    page.keyboard.press("j")
    assert page.locator(current).locator("b").inner_text() == "1"
    near = colours(page)
    assert near != first
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    assert page.locator(current).locator("b").inner_text() == "2"
    page.keyboard.press("h")
    for _ in range(50):
        page.keyboard.press("j")
    assert page.locator(current).locator("b").inner_text() == str(shown(page))


def test_wheel_and_mouse_move_the_picture(page):
    before = colours(page)
    page.mouse.move(300, 300)
    page.mouse.wheel(0, -400)
    zoomed = colours(page)
    assert zoomed != before
    page.mouse.down()
    page.mouse.move(350, 340)
    page.mouse.up()
    assert colours(page) != zoomed
    assert "row" in page.inner_text("#where")
    assert "N" in page.inner_text("#where")
    page.click("#home")
    page.mouse.move(10, 10)
    assert colours(page) == before


def test_a_click_on_a_target_selects_it(page, page_file):
    data = data_in(page_file.read_text(encoding="utf-8"))
    row0, col0, row1, col1 = data["targets"][3]["box"]
    box = page.locator("#view").bounding_box()
    scale = min(box["width"] / data["width"], box["height"] / data["height"]) * 0.98
    x = box["x"] + box["width"] / 2 + ((col0 + col1) / 2 - data["width"] / 2) * scale
    y = box["y"] + box["height"] / 2 + ((row0 + row1) / 2 - data["height"] / 2) * scale
    slide(page, "swipe", 0 if x > box["x"] + box["width"] / 2 else 100)
    page.mouse.click(x, y)
    assert page.locator("#list > li[aria-current] b").inner_text() == "4"


def test_marks_are_kept_filtered_and_exported(page, page_file):
    data = data_in(page_file.read_text(encoding="utf-8"))
    assert page.is_disabled("#export")
    for key in "jrjfjujrx":
        page.keyboard.press(key)
    page.click("#list > li:nth-child(5) button[data-mark=real]")
    assert page.inner_text("#count").endswith("4\xa0marked")
    page.select_option("#marked", "false")
    assert shown(page) == 1
    page.select_option("#marked", "unmarked")
    assert shown(page) == len(data["targets"]) - 4
    page.select_option("#marked", "all")
    with page.expect_download() as saved:
        page.click("#export")
    assert saved.value.suggested_filename == data["export_name"]
    marks = json.loads(Path(saved.value.path()).read_text(encoding="utf-8"))
    assert marks["type"] == "FeatureCollection"
    assert marks["fingerprint"] == data["about"]["fingerprint"]
    found = {f["properties"]["rank"]: f["properties"]["mark"] for f in marks["features"]}
    assert found == {1: "real", 2: "false", 3: "unsure", 5: "real"}
    first = marks["features"][0]
    assert first["geometry"] == data["targets"][0]["geometry"]
    assert first["properties"]["target_id"] == data["targets"][0]["properties"]["target_id"]


def test_a_foreign_script_would_not_run(page, allowed):
    allowed.append("Executing inline script violates the following Content Security Policy")
    assert page.evaluate("document.title") == f"Anomalies in {EVIL}"
    page.evaluate(
        "() => { const s = document.createElement('script'); s.textContent = 'window.evil = 1';"
        " document.body.append(s); }"
    )
    assert page.evaluate("window.evil") is None


def test_scenes_of_a_status_page_sort_by_a_click(browser, tmp_path):
    scenes = [
        {"name": name, "folder": name, "created": "", "acquired": f"2024-01-0{day}T10:00:00Z",
         "targets": targets, "highest_score": score, "page": page}
        for name, day, targets, score, page in (
            ("b", 1, 9, 0.5, "b/k/report.html"), ("a", 3, 10, 1e-7, "a/k/targets.gpkg"),
            ("<i>c</i>", 2, None, 0.981, None),
        )
    ]  # fmt: skip
    figures = dict.fromkeys(("scenes_per_hour", "megapixels_per_second", "eta_seconds"))
    counts = dict.fromkeys(("pending", "failed", "parked"), 0)
    lists = {"troubles": [], "notes": {}, "runs": [], "latest": []}
    status = Status(
        folder=str(tmp_path), state="new", done=5, scenes=scenes, **figures, **counts, **lists
    )
    write_page(Place.of(tmp_path / "page.html"), status)
    page = browser.new_page(viewport={"width": 1000, "height": 600})
    page.goto((tmp_path / "page.html").as_uri())

    def order(head):
        page.click(f"#scenes button:text-is('{head}')")
        return page.locator("#scenes tbody td:first-child").all_inner_texts()

    assert order("targets") == ["a", "b", "<i>c</i>"]
    assert order("targets") == ["<i>c</i>", "b", "a"]
    assert order("highest score") == ["<i>c</i>", "b", "a"]
    assert order("date (UTC)") == ["a", "<i>c</i>", "b"]
    assert page.get_by_text("The 3 latest of 5.").is_visible()
    page.close()
