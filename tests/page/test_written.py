"""`fashion-sweep report`: the files that it leaves, and what is in them."""

from __future__ import annotations

import base64
import csv
import io
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.page_run import draw_run
from fashion.api.recorded_run import Progress, RecordedRun
from fashion.page.gather import PageRun, gather
from fashion.record.lock import RunLock
from fashion.record.ranking import best
from fashion.record.run import Run
from tests.support.typed import told, typed


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    draw_run(folder, "small", 15, 6, 60, predicted=5)
    return folder


def test_the_page_lies_in_the_run(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = typed(capsys, "report", "small", "--storage", str(storage))
    assert said.strip() == str(storage / "small" / "report.html")
    page = (storage / "small" / "report.html").read_text()
    winner = best(Run.open(storage / "small"))
    assert f"Trial {winner.trial} at epoch {winner.epoch} has the lowest val_loss" in page
    assert "<img" not in page


def test_pictures_and_tables(storage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, static, report = tmp_path / "p.html", tmp_path / "static", tmp_path / "r.md"
    typed(capsys, "report", "small", "--storage", str(storage), "--out", str(out), "--static", str(static),
          "--markdown", str(report))  # fmt: skip
    names = {path.name for path in static.iterdir()}
    assert {"leaderboard.svg", "winner_loss.png", "slots.svg", "attributes.csv", "confusion_1.csv"} <= names
    for path in static.glob("*.svg"):
        assert ET.parse(path).getroot().tag.endswith("svg")
    for path in static.glob("*.png"):
        assert len(Image.open(path).convert("RGB").getcolors(100_000) or []) > 5, path
    rows = list(csv.DictReader((static / "leaderboard.csv").open()))
    assert len(rows) == 15
    winner = best(Run.open(storage / "small"))
    assert int(rows[0]["trial"]) == winner.trial
    assert float(rows[0]["val_loss"]) == winner.val_loss
    text = report.read_text()
    assert all(f"## {title}" in text for title in ("Model", "Loss and training", "Curves", "By attribute", "Machine"))
    assert "Parameters: " in text


def test_thumbnails_that_are_not_there_are_named(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    typed(capsys, "report", "small", "--storage", str(storage), "--thumbnails")
    assert "not on this machine" in (storage / "small" / "report.html").read_text()


def test_thumbnails_are_small_pictures_and_a_damaged_one_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = draw_run(tmp_path, "seen", 3, 2, 12, predicted=2)
    run.update_manifest(data_root=str(tmp_path / "data"))
    (tmp_path / "data" / "img").mkdir(parents=True)
    for number in range(12):
        Image.new("RGB", (400, 300), (200, 30, 30)).save(tmp_path / "data" / "img" / f"{number:05d}.jpg")
    typed(capsys, "report", str(run.path), "--thumbnails")
    page = (run.path / "report.html").read_text()
    whole = page.count('src="data:image/jpeg;base64,')
    assert whole
    shown = page.partition('src="data:image/jpeg;base64,')[2].partition('"')[0]
    assert Image.open(io.BytesIO(base64.b64decode(shown))).size == (128, 96)
    name = re.findall(r"<small>(img/\d+\.jpg)</small>", page)[0]
    (tmp_path / "data" / name).write_bytes(b"no picture")
    typed(capsys, "report", str(run.path), "--thumbnails")
    page = (run.path / "report.html").read_text()
    assert page.count('src="data:image/jpeg;base64,') == whole - 1


def test_what_can_not_be_written_or_read_is_refused(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (storage / "file").write_text("")
    said = told(capsys, "report", "small", "--storage", str(storage), "--out", str(storage / "file" / "p.html"))
    assert "can't be written" in said
    assert "holds no such run" in told(capsys, "report", "none", "--storage", str(storage))
    assert "--markdown takes one run" in told(
        capsys, "report", "small", "small", "--storage", str(storage), "--markdown", "r.md"
    )


def test_watch_ends_with_the_sweep(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = typed(capsys, "report", "small", "--storage", str(storage), "--watch")
    assert "report.html" in said
    assert '"watch":0.0' in (storage / "small" / "report.html").read_text()


def test_the_last_page_of_a_sweep_that_ends_while_it_is_read_has_all_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = draw_run(tmp_path, "live", 2, 4, 20, predicted=2, ends=False).path
    driver, lock, gathered = Run.open(path), RunLock(path).acquire(), []

    def ending(opened: RecordedRun, progress: Progress) -> PageRun:
        """The sweep ends when the second page's record has been read."""
        gathered.append(opened)
        if len(gathered) == 2:
            for number in (0, 1):
                driver.record_end(number, "completed")
            driver.close()
            lock.release()
        return gather(opened, progress)

    monkeypatch.setattr("fashion.page.gather.gather", ending)
    monkeypatch.setattr("fashion.cli.report.command.WATCH_SECONDS", 0.01)
    monkeypatch.setattr("fashion.cli.report.command.SHARE", 0)
    typed(capsys, "report", str(path), "--watch")
    page = (path / "report.html").read_text()
    assert "2 completed of 2 trials" in page
    assert '"watch":0.0' in page
