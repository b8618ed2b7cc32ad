"""`load_model` and its predictions: those of `best --predict --images`, to the last bit, from any kind of image."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import fashion
from fashion.api import model as api_model
from fashion.data.layout import Dataset
from fashion.prediction.probabilities import read_probabilities
from fashion.prediction.write import PROBABILITIES_NAME, PredictionInput, predict_into
from fashion.record.run import Run
from tests.support.promoted import promoted_run
from tests.support.servers.s3_server import Server
from tests.support.typed import typed


@pytest.fixture(scope="module")
def trained(demo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Dataset]:
    """Padded, mirrored and bilinear, and a training batch of 5: nothing that a default would hide."""
    data = {"fit": "pad", "interpolation": "bilinear", "eval_flip": True}
    return promoted_run(tmp_path_factory.mktemp("runs"), demo_root, data, {"batch_size": 5, "ema": 0.8})


@pytest.fixture(scope="module")
def photos(trained: tuple[Run, Dataset], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of several sizes and modes, more than one evaluation batch of them."""
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for number in range(40):
        shape = (30 + number, 70 - number, 3)
        image = Image.fromarray(random.integers(0, 256, shape, np.uint8))
        mode = ("RGB", "L", "RGBA", "P", "LA")[number % 5]
        image.convert(mode).save(folder / f"{number:02d}.png")
    return folder


def stored(folder: Path) -> list[dict[str, list[float]]]:
    """What a prediction wrote: for each image {attribute: probabilities}."""
    images, attributes, values = read_probabilities(folder / PROBABILITIES_NAME)
    return [
        {name: rows[index].tolist() for name, rows in zip(attributes, values, strict=True)}
        for index in range(len(images))
    ]


def flat(predictions: list[fashion.Prediction]) -> list[dict[str, list[float]]]:
    return [{name: list(classes.values()) for name, classes in each.items()} for each in predictions]


def test_predictions_equal_the_commands_to_the_last_bit(
    trained: tuple[Run, Dataset], photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, dataset = trained
    predict_into(run.best_dir, PredictionInput(folder=photos), tmp_path / "out")
    expected = stored(tmp_path / "out")
    model = fashion.load_model(run.best_dir, device="cpu")
    paths = sorted(photos.iterdir())
    found = model.predict(paths)
    assert flat(found) == expected
    assert [list(each) for each in found[0].values()] == [list(each.classes) for each in dataset.attributes]
    assert all(sum(each.values()) == pytest.approx(1, abs=1e-5) for each in found[0].values())
    # Opened images, and a few batches at a time, make no difference.
    monkeypatch.setattr(api_model, "BATCHES_AHEAD", 1)
    assert flat(model.predict([Image.open(path) for path in paths])) == expected


@pytest.mark.ray
def test_predictions_equal_the_typed_command(
    trained: tuple[Run, Dataset], photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(trained[0].path, tmp_path / "run"))
    typed(capsys, "best", str(folder), "--predict", "--images", str(photos))
    expected = stored(folder / "predictions" / f"images-{photos.name}")
    assert flat(fashion.load_model(folder, device="cpu").predict(sorted(photos.iterdir()))) == expected


def test_kinds_of_images_are_the_same_image(trained: tuple[Run, Dataset], photos: Path, tmp_path: Path) -> None:
    model = fashion.load_model(trained[0].path, device="cpu")
    colour, grey, clear = (Image.open(photos / f"0{number}.png") for number in range(3))
    for image in (colour, grey, clear):
        assert isinstance(image.filename, str)
        array = np.asarray(image)
        kinds: list[fashion.ImageLike] = [image, array, image.filename, Path(image.filename), array.copy(order="F")]
        if array.ndim == 2:
            kinds.append(array[:, :, None])
        found = model.predict(kinds)
        assert all(each == found[0] for each in found), image.mode
    # A batch (N, H, W, 3) is a list of images, too.
    batch = np.stack([np.asarray(colour)] * 2)
    assert model.predict(list(batch)) == model.predict([colour, colour])
    assert model.predict([]) == []


def test_the_table_has_what_predict_has(trained: tuple[Run, Dataset], photos: Path) -> None:
    model = fashion.load_model(trained[0].best_dir, device="cpu")
    images: list[fashion.ImageLike] = [str(photos / "00.png"), np.zeros((9, 9, 3), np.uint8)]
    table = model.predict_table(images)
    found = model.predict(images)
    assert table.column("image").to_pylist() == [images[0], "1"]
    for attribute in model.attributes:
        rows = table.column(f"{attribute.name}/probabilities").to_pylist()
        assert rows == [list(each[attribute.name].values()) for each in found]
        best = [max(each[attribute.name], key=each[attribute.name].__getitem__) for each in found]
        assert table.column(f"{attribute.name}/predicted").to_pylist() == best


def test_what_the_model_says_of_itself(trained: tuple[Run, Dataset]) -> None:
    run, dataset = trained
    model = fashion.load_model(str(run.path))
    best = run.trials[0].best()
    assert best is not None
    assert model.attributes == dataset.attributes
    assert model.metrics == best.metrics
    assert model.config.train.batch_size == 5
    assert "tiny" in repr(model)


def test_images_that_cannot_be_used_are_all_told(trained: tuple[Run, Dataset], photos: Path, tmp_path: Path) -> None:
    model = fashion.load_model(trained[0].best_dir, device="cpu")
    broken = tmp_path / "broken.png"
    broken.write_bytes((photos / "00.png").read_bytes()[:60])
    bad: list[Any] = [
        photos / "00.png", np.zeros((4, 4, 3)), np.zeros((4, 4, 2), np.uint8), tmp_path / "none.png",
        Image.open(broken), 3, np.zeros((0, 4, 3), np.uint8),
    ]  # fmt: skip
    with pytest.raises(fashion.DataError) as caught:
        model.predict(bad)
    told = str(caught.value)
    assert [problem.place for problem in caught.value.problems] == [
        "images[1]", "images[2]", str(tmp_path / "none.png"), "images[4]", "images[5]", "images[6]",
    ]  # fmt: skip
    assert "got float64 (4, 4, 3). Scale values in [0, 1] by 255" in told
    assert "images[5]: must be a PIL image, an array or a path; got int" in told


@pytest.mark.parametrize(
    "one", ["photo.jpg", Path("photo.jpg"), Image.new("RGB", (4, 4)), np.zeros((4, 4, 3), np.uint8)]
)
def test_one_image_is_not_a_list(trained: tuple[Run, Dataset], one: Any) -> None:
    with pytest.raises(fashion.DataError, match=r"images: must be a list of images; got .*\. Write \[image\]"):
        fashion.load_model(trained[0].best_dir, device="cpu").predict(one)


def test_where_no_model_is(trained: tuple[Run, Dataset], tmp_path: Path) -> None:
    with pytest.raises(fashion.CheckpointError, match=r"model\.json: is missing. Promote a run's winner first"):
        fashion.load_model(tmp_path)
    with pytest.raises(fashion.RunError, match="device: must be auto or a torch device; got 'gpu'"):
        fashion.load_model(trained[0].best_dir, device="gpu")
    with pytest.raises(fashion.RunError, match="device: must be on this machine; got 'cuda:99'"):
        fashion.load_model(trained[0].best_dir, device="cuda:99")


def test_a_model_in_a_bucket(s3: Server, machine: Path, trained: tuple[Run, Dataset], photos: Path) -> None:
    run = trained[0]
    for path in run.best_dir.iterdir():
        s3.write("sweeps", f"lr/best/{path.name}", path.read_bytes())
    expected = fashion.load_model(run.best_dir, device="cpu").predict([photos / "00.png"])
    for location in ("s3://sweeps/lr", "s3://sweeps/lr/best", "s3://sweeps/lr/best/"):
        assert fashion.load_model(location, device="cpu").predict([photos / "00.png"]) == expected
    with pytest.raises(fashion.CheckpointError, match=r"s3://sweeps/other/best/model\.json: is missing"):
        fashion.load_model("s3://sweeps/other")
