"""Confusion matrices among TensorBoard's pictures, read back with its own reader."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fashion.api.confusions import show_confusions
from fashion.api.recorded_run import open_run
from fashion.display.confusion import picture, write_confusions
from fashion.reading.confusion import Confusion, confusion
from fashion.record.trial_files import events_by_trial
from tests.support.promoted import promoted_run
from tests.support.skilled_runs import Predictions
from tests.support.swept import swept


def confused(classes: Sequence[str], labels: Sequence[int], predicted: Sequence[int]) -> Confusion:
    probabilities = np.eye(len(classes), dtype=np.float32)[list(predicted)]
    return confusion(Predictions("a", tuple(classes), probabilities, np.array(labels)))


def test_tensorboard_reads_the_winners_matrices(demo_root: Path, tmp_path: Path) -> None:
    run, dataset = promoted_run(tmp_path, demo_root, {}, {})
    opened = open_run(run.path)
    folder = show_confusions(opened)
    assert folder == run.path / "tb" / "winner"
    assert show_confusions(opened) == folder, "it is replaced"
    assert events_by_trial(run.path) == {}
    events = EventAccumulator(str(folder))
    events.Reload()
    assert events.Tags()["images"] == [f"confusion/{each.name}" for each in dataset.attributes]
    for tag in events.Tags()["images"]:
        (shown,) = events.Images(tag)
        assert shown.step == opened.best().epoch
        image = Image.open(io.BytesIO(shown.encoded_image_string))
        assert image.size == (shown.width, shown.height)


def test_a_cell_is_as_dark_as_its_share_of_the_class() -> None:
    right = confused(["$x_1$", "y"], [0] * 9 + [1], [0] * 9 + [1])
    wrong = confused(["$x_1$", "y"], [0] * 9 + [1], [1] * 9 + [0])

    def darkness(each: Confusion, corner: int) -> float:
        content, width, height = picture(each, "t")
        grey = np.asarray(Image.open(io.BytesIO(content)).convert("L"), dtype=float)
        half = grey[height // 5 : height // 2, width // 3 : width * 3 // 5] if corner == 0 else grey
        return 255.0 - float(half.mean())

    assert darkness(right, 0) > darkness(wrong, 0) + 30
    many = [str(number) for number in range(40)]
    assert picture(confused(many, range(40), range(40)), "t")[1] > 500


def test_a_sweep_without_predictions_says_so(tmp_path: Path) -> None:
    run, _ = swept(tmp_path)
    assert "validation predictions are missing" in str(show_confusions(open_run(run.path)))
    assert not (run.path / "tb" / "winner").exists()


def test_a_picture_takes_the_place_of_an_earlier_one_as_a_whole(tmp_path: Path) -> None:
    one = confused(["x", "y"], [0, 1], [0, 1])
    write_confusions(tmp_path / "tb", "t", 1, 0.0, [one])
    write_confusions(tmp_path / "tb", "t", 2, 0.0, [one])
    assert [path.name for path in (tmp_path / "tb").iterdir()] == ["winner"]
    assert len(list((tmp_path / "tb" / "winner").iterdir())) == 1


@pytest.mark.filterwarnings("error")  # which would be printed amid what the sweep came to
@pytest.mark.parametrize("name", ["$x_{1$", "連衣裙", "👗", "x" * 300, "\\frac", "العربية"])
def test_names_of_any_kind_are_drawn_without_a_word(name: str) -> None:
    predictions = Predictions(name, (name, "y"), np.eye(2, dtype=np.float32), np.array([0, 1]))
    content, width, height = picture(confusion(predictions), "t")
    assert Image.open(io.BytesIO(content)).size == (width, height)
