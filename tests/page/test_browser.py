"""The page in a real browser: what is drawn, by its pixels, and what it does when it is used."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.chromium import Chromium, find_chromium
from benchmarks.page_run import CLASSES, draw_run
from fashion.api.recorded_run import RecordedRun
from fashion.page.document import page_html
from fashion.page.gather import PageRun, gather
from fashion.record.run import Run

pytestmark = [
    pytest.mark.skipif(find_chromium() is None, reason="needs Chromium: apt-get install chromium"),
    pytest.mark.xdist_group("chromium"),
]
HOSTILE: dict[str, tuple[str, ...]] = {
    '<b>at&"tr</b>': ("</script><script>bad()</script>", "<img src=x onerror=bad()>", "$x_1$")
}
EXTRAS: dict[str, tuple[str, ...]] = {"extras": ("belt", "hood", "scarf")}
SECTIONS = "[...document.querySelectorAll('main section')].map((each) => each.getBoundingClientRect().height)"


def gathered(run: Run) -> PageRun:
    return gather(RecordedRun(Run.open(run.path)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pages of a usual run, of two, of one whose names are HTML, of one with a multi-label attribute and with labels
    missing, of a failed one, and of one that still runs."""
    place = tmp_path_factory.mktemp("pages")
    small = gathered(draw_run(place / "runs", "small", 40, 8, 60, predicted=6))
    other = gathered(draw_run(place / "runs", "other", 5, 8, 60, predicted=2, seed=0))
    hostile = gathered(draw_run(place / "runs", "hostile", 6, 4, 40, predicted=2, classes=HOSTILE))
    several = gathered(draw_run(place / "runs", "several", 5, 3, 60, predicted=2, classes={**CLASSES, **EXTRAS},
                                several=EXTRAS, missing=0.2))  # fmt: skip
    failed = Run.create(place / "runs", "failed", {**small.manifest, "name": "failed"})
    failed.record_trial(0, {"train": {"epochs": 4, "lr": 0.1}})
    failed.record_attempt(0)
    failed.record_end(0, "failed", "out of memory <b>")
    failed.close()
    pages = {
        "small": [small], "both": [small, other], "hostile": [hostile], "several": [several],
        "failed": [gathered(failed)],
    }  # fmt: skip
    for name, runs in pages.items():
        (place / f"{name}.html").write_text(page_html(runs))
    (place / "watched.html").write_text(page_html([small], watch=1.0))
    return place


@pytest.fixture(scope="module")
def chromium() -> Iterator[Chromium]:
    with Chromium() as started:
        yield started


@pytest.fixture
def browser(chromium: Chromium) -> Iterator[Chromium]:
    """With what every test asks for: no complaint on the console, and no request but for the page itself."""
    chromium.look()
    yield chromium
    assert chromium.problems == []
    assert all(each.startswith(("file:", "about:")) and each.split("#")[0].endswith((".html", ":blank"))
               for each in chromium.requests)  # fmt: skip


def pixels(browser: Chromium, place: str) -> Any:
    """(height, width, 3) of an element, scrolled into view."""
    box = browser.run(
        f"(() => {{ const found = document.getElementById('{place}'); found.scrollIntoView();"
        " const box = found.getBoundingClientRect(); return [box.left, box.top, box.right, box.bottom]; })()"
    )
    whole = Image.open(io.BytesIO(browser.picture())).convert("RGB")
    return np.asarray(whole.crop(tuple(map(round, box)))).astype(int)


def colourful(image: Any) -> int:
    """How many pixels are neither grey nor of the paper: lines' colours."""
    return int(((image.max(axis=2) - image.min(axis=2)) > 40).sum())


def axis_place(browser: Chromium, axis: int, share: float) -> tuple[float, float]:
    """A point on an axis of the parallel coordinates, `share` of its length from its top."""
    x, y, width, height = browser.run(
        "(() => { document.getElementById('coordinates').scrollIntoView();"
        f" const box = document.querySelectorAll('#parallel .brush-area')[{axis}].getBoundingClientRect();"
        " return [box.x, box.y, box.width, box.height]; })()"
    )
    return x + width / 2, y + height * share


def passing(browser: Chromium) -> str:
    """What the page says of its filter, once it rests."""
    return str(
        browser.run(
            "new Promise((done) => setTimeout(() => done(document.getElementById('passing').textContent), 350))"
        )
    )


@pytest.mark.parametrize("dark", [False, True])
def test_every_panel_is_drawn(browser: Chromium, folder: Path, dark: bool) -> None:
    browser.look(dark=dark)
    browser.open(folder / "small.html")
    for panel in ("parallel", "curves", "slices"):
        assert colourful(pixels(browser, panel)) > 300, panel
    assert min(browser.run(SECTIONS)) > 30
    paper = pixels(browser, "parallel")[2, 2]
    assert (paper.max() < 90) if dark else (paper.min() > 200)


def test_a_brush_filters_every_panel_and_a_click_clears_it(browser: Chromium, folder: Path) -> None:
    browser.open(folder / "small.html")
    assert passing(browser) == "40 of 40 trials"
    before = {panel: pixels(browser, panel) for panel in ("parallel", "curves", "slices")}
    last = browser.run("axes.length - 1")
    browser.drag(axis_place(browser, last, 0.6), axis_place(browser, last, 0.88))
    shown = int(passing(browser).split()[0])
    assert 0 < shown < 40
    assert browser.run("document.querySelectorAll('#trials tbody tr').length") == shown
    losses = browser.run("data.trials.filter((_, each) => passing[each]).map((each) => each.loss)")
    others = browser.run("data.trials.filter((_, each) => !passing[each] && data.trials[each].loss !== null)"
                         ".map((each) => each.loss)")  # fmt: skip
    assert max(losses) - min(losses) < max(others) - min(others)
    for panel, image in before.items():
        assert (pixels(browser, panel) != image).any(), panel
    browser.drag(axis_place(browser, last, 0.2), axis_place(browser, last, 0.2))
    assert passing(browser) == "40 of 40 trials"


def test_the_lane_holds_trials_without_a_value(browser: Chromium, folder: Path) -> None:
    browser.open(folder / "small.html")
    index = browser.run("axes.findIndex((each) => each.name === 'momentum')")
    unset = browser.run(f"axes[{index}].values.filter((each) => each === null).length")
    browser.drag(axis_place(browser, index, 0.93), axis_place(browser, index, 0.99))
    assert passing(browser) == f"{unset} of 40 trials"


def test_the_form_and_the_table_work_by_keyboard_alone(browser: Chromium, folder: Path) -> None:
    browser.open(folder / "small.html")
    browser.run("document.querySelector('details.form summary').focus()")
    browser.key("Enter")
    browser.key("Tab")
    assert browser.run("document.activeElement.type") == "checkbox"
    browser.key(" ")
    first = int(passing(browser).split()[0])
    assert 0 < first < 40
    browser.run("document.querySelector('#trials th:nth-child(1) button').focus()")
    browser.key("Enter")
    browser.key("Enter")
    numbers = browser.run(
        "[...document.querySelectorAll('#trials tbody td:first-child')].map((each) => +each.textContent)"
    )
    assert numbers == sorted(numbers, reverse=True)
    assert len(numbers) == first
    assert browser.run("document.querySelector('#trials th').getAttribute('aria-sort')") == "descending"


def test_the_view_is_in_the_address(browser: Chromium, folder: Path) -> None:
    browser.open(folder / "small.html")
    browser.run("setFilter(axes.length - 1, {low: 0, high: 0.3, unset: false})")
    shown = passing(browser)
    browser.run("new Promise((done) => setTimeout(done, 400))")
    browser.reload()
    assert passing(browser) == shown != "40 of 40 trials"


def test_a_filter_keeps_its_values_where_new_trials_move_its_axis(browser: Chromium, folder: Path) -> None:
    browser.open(folder / "small.html")
    filters = [
        browser.run(f"keptFilter(axes[{axis}], {filter})")
        for axis, filter in (("axes.length - 1", "{low: 0.1, high: 0.4, unset: false}"),
                             ("axes.findIndex((each) => each.kind === 'category')", "{picked: [1]}"))
    ]  # fmt: skip
    again = browser.run(
        f"""(() => {{
          const [loss, names] = {json.dumps(filters)};
          const wider = {{...axes[axes.length - 1], high: 2 * axes[axes.length - 1].high}};
          const known = axes.find((each) => each.kind === 'category');
          const more = {{...known, labels: ['a new one', ...known.labels]}};
          const moved = filterFrom(wider, loss);
          return [valueAt(wider, moved.low), valueAt(wider, moved.high), filterFrom(more, names).picked];
        }})()"""
    )
    assert again == [pytest.approx(filters[0]["from"]), pytest.approx(filters[0]["to"]), [2]]
    assert browser.run("filterFrom(axes[axes.length - 1], keptFilter(axes[axes.length - 1],"
                       " {low: 0, high: -0.1, unset: true})).high") < 0  # fmt: skip


def test_a_page_that_follows_loads_itself_again(browser: Chromium, folder: Path) -> None:
    browser.open(folder / "watched.html")
    browser.run("window.seen = true")
    page = (folder / "watched.html").read_text()
    (folder / "watched.html").write_text(page.replace("<h1>small</h1>", "<h1>later</h1>"))
    told = "new Promise((done) => setTimeout(() => done([window.seen, document.querySelector('h1').textContent]), 600))"
    for _ in range(20):
        try:
            found = browser.run(told)
        except RuntimeError:  # the page went while it was asked
            continue
        if found == [None, "later"] or found == ["later"]:
            break
    assert found[-1] == "later"


def test_names_that_are_html_are_text(browser: Chromium, folder: Path) -> None:
    browser.open(folder / "hostile.html")
    assert browser.run("document.querySelectorAll('main script, main img, main b').length") == 0
    text = browser.run("document.getElementById('attributes').textContent")
    assert all(name in text for names in HOSTILE.values() for name in names)


def test_a_failed_sweep_says_why(browser: Chromium, folder: Path) -> None:
    browser.open(folder / "failed.html")
    assert "out of memory <b>" in browser.run("document.getElementById('answer').textContent")
    assert browser.run("document.querySelectorAll('#trials tbody tr').length") == 1


def test_two_runs_stand_side_by_side(browser: Chromium, folder: Path) -> None:
    browser.open(folder / "both.html")
    assert browser.run("axes[0].name") == "run"
    assert passing(browser) == "45 of 45 trials"
    assert "Winner of other less winner of small" in browser.run("document.getElementById('runs').textContent")
    ids = browser.run("[...document.querySelectorAll('[id]')].map((each) => each.id)")
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize(
    ("name", "dark"),
    [("several", False), ("several", True), pytest.param("both", True, marks=pytest.mark.slow)],
)
def test_axe_finds_no_violation(browser: Chromium, folder: Path, name: str, dark: bool) -> None:
    browser.look(dark=dark)
    browser.open(folder / f"{name}.html")
    browser.run("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    browser.run(files("axe_core_python").joinpath("axe.min.js").read_text() + "; 0")
    told = browser.run("axe.run({resultTypes: ['violations']}).then((told) => told.violations)")
    assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in told] == []


def test_classes_of_a_multi_label_attribute_have_a_row_each(browser: Chromium, folder: Path) -> None:
    browser.open(folder / "several.html")
    rows = browser.run("[...document.querySelectorAll('[aria-label=\"Classes of extras\"] tbody tr')]"
                       ".map((row) => [...row.cells].map((cell) => cell.textContent))")  # fmt: skip
    assert [row[0] for row in rows] == list(EXTRAS["extras"])
    assert all(0 < float(row[3]) <= 1 and " of " in row[1] for row in rows)


@pytest.mark.parametrize("name", ["small", "both", "hostile", "several"])
def test_a_phone_scrolls_one_way_only(browser: Chromium, folder: Path, name: str) -> None:
    browser.look(390, 844)
    browser.open(folder / f"{name}.html")
    assert browser.run("document.documentElement.scrollWidth") == 390
    assert colourful(pixels(browser, "parallel")) > 200


def test_it_prints_on_a4(browser: Chromium, folder: Path) -> None:
    browser.open(folder / "small.html")
    assert browser.paper().startswith(b"%PDF")
    browser.look(width=718, height=1000, media="print")
    widths = browser.run(
        "[...document.querySelectorAll('canvas, svg.drawing')].map((e) => e.getBoundingClientRect().right)"
    )
    assert max(widths) <= 719


def test_data_survive_their_way(folder: Path) -> None:
    page = (folder / "hostile.html").read_text()
    start = page.index('id="data">') + len('id="data">')
    data = json.loads(page[start : page.index("</script>", start)])
    assert len(data["trials"]) == 6
    assert data["trials"][0]["curve"]
