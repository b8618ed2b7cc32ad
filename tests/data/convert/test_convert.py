"""The same labels in every form: the same data set, down to the fingerprint and the pixels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from sklearn.datasets import load_digits

from fashion.cli.data.group import data
from fashion.config.data import AS_WRITTEN, LabelReading, SplitRule
from fashion.data.convert.convert import convert
from fashion.data.layout import read_dataset
from fashion.data.lists import Attribute
from fashion.data.pack import Pack
from fashion.data.remote.local_copy import on_this_machine
from fashion.errors import DataError, UserError
from fashion.model.pretrained.resolved_weights import ResolvedWeights
from fashion.training.feed import TrainingData
from fashion.training.loop import TrialInputs, fit
from tests.support.data_in_buckets import FORM, HERE, pushed
from tests.support.label_files import WHOLE, labelled, pictures
from tests.support.labelled import configured
from tests.support.servers.s3_server import Server

ENDINGS = ("csv", "tsv", "jsonl", "parquet")


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 of scikit-learn's digits in the challenge's layout: which digit, whether it is odd, whether it has a hole."""
    root = tmp_path_factory.mktemp("digits")
    (root / "img").mkdir()
    (root / "split").mkdir()
    found = load_digits()
    lines: dict[str, list[tuple[str, str]]] = {"train": [], "val": [], "test": []}
    for number in range(300):
        digit = int(found.target[number])
        Image.fromarray((found.images[number] * 15).astype(np.uint8)).save(root / f"img/{number}.png")
        split = ("train", "val", "test", "train")[number % 4]
        lines[split].append((f"img/{number}.png", f"{digit} {digit % 2} {int(digit in (0, 6, 8, 9))}"))
    for split, rows in lines.items():
        (root / f"split/{split}.txt").write_text("\n".join(image for image, _ in rows))
        (root / f"split/{split}_attr.txt").write_text("\n".join(labels for _, labels in rows))
    (root / "split/attribute_names.txt").write_text("digit\nodd\nhole")
    return root


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("which", ["demo_root", "digits"])
def test_a_label_file_is_the_challenges_data_set(
    which: str, ending: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    root: Path = request.getfixturevalue(which)
    first = read_dataset(root)
    done = convert(root, tmp_path / f"labels.{ending}", False, AS_WRITTEN)
    assert (done.images, done.attributes, done.rule) == (
        sum(map(len, first.splits.values())),
        len(first.attributes),
        None,
    )
    again = read_dataset(tmp_path)
    assert again.form == "label file"
    assert again.attributes == first.attributes
    assert again.fingerprint() == first.fingerprint()
    assert majority(again) == majority(first)


def majority(dataset: object) -> object:
    from fashion.data.layout import Dataset, majority_baseline

    assert isinstance(dataset, Dataset)
    return majority_baseline(dataset)


def test_caches_are_shared_between_forms(digits: Path, tmp_path: Path) -> None:
    convert(digits, tmp_path / "labels.csv", False, AS_WRITTEN)
    packs = [Pack.open_or_build(read_dataset(root), "val", 8, cache_dir=tmp_path) for root in (digits, tmp_path)]
    assert packs[0].path == packs[1].path
    assert packs[0].labels is not None
    assert packs[1].labels is not None
    assert np.array_equal(packs[0].labels, packs[1].labels)


def test_every_form_trains_to_the_same_numbers(digits: Path, tmp_path: Path) -> None:
    """To the last digit, each with caches of its own."""
    roots = [digits]
    for ending in ENDINGS:
        convert(digits, tmp_path / ending / f"labels.{ending}", False, AS_WRITTEN)
        roots.append(tmp_path / ending)
    losses = []
    for number, root in enumerate(roots):
        config, dataset = configured(root, epochs=1, layout="nchw"), read_dataset(root)
        train, val = (
            Pack.open_or_build(dataset, split, *config.data.form, cache_dir=tmp_path / f"cache{number}")
            for split in ("train", "val")
        )
        data = TrainingData(train, val, dataset.attributes, dataset.fingerprint())
        (report,) = fit(TrialInputs(config, data, ResolvedWeights("none"), tmp_path / f"trial{number}"))
        losses.append(report.metrics["val_loss"])
    assert len(set(losses)) == 1, losses


def test_and_back(digits: Path, tmp_path: Path) -> None:
    convert(digits, tmp_path / "labels.csv", False, AS_WRITTEN)
    with pytest.raises(UserError, match="must not exist yet"):
        convert(tmp_path / "labels.csv", digits, False, AS_WRITTEN)
    with pytest.raises(UserError, match="lies in the images' own folder"):
        convert(tmp_path / "labels.csv", tmp_path / "new", False, AS_WRITTEN)
    images = tmp_path / "copy"
    (images / "img").mkdir(parents=True)
    for path in (digits / "img").iterdir():
        (images / "img" / path.name).hardlink_to(path)
    about = json.loads((tmp_path / "labels.json").read_text())
    (tmp_path / "labels.json").write_text(json.dumps({**about, "images": "copy"}))
    convert(tmp_path / "labels.csv", images, False, AS_WRITTEN)
    assert read_dataset(images).form == "the challenge's layout"
    assert read_dataset(images).fingerprint() == read_dataset(digits).fingerprint()


def test_a_division_is_written_down(tmp_path: Path) -> None:
    rows = [f"img/{n}.png,{'ab'[n % 2]},{n // 2}" for n in range(40)]
    path = labelled(tmp_path / "d", "\n".join(["file_name,kind,owner", *rows]), 40)
    reading = LabelReading(split=SplitRule(val=0.25, test=0.0, group="owner"))
    first = read_dataset(path, reading=reading)
    done = convert(path, tmp_path / "labels.parquet", False, reading)
    assert done.rule == reading.split
    again = read_dataset(tmp_path / "labels.parquet", reading=reading)
    assert (again.fingerprint(), again.rule) == (first.fingerprint(), reading.split)
    assert read_dataset(tmp_path / "labels.parquet").fingerprint() == first.fingerprint()


def test_celeba_is_converted(tmp_path: Path) -> None:
    pictures(tmp_path / "img_align_celeba", [f"{n:06}.jpg" for n in range(1, 5)])
    lines = ["4", "Smiling Young", *(f"{n:06}.jpg {'-1' if n % 2 else ' 1'} 1" for n in range(1, 5))]
    (tmp_path / "list_attr_celeba.txt").write_text("\n".join(lines))
    (tmp_path / "list_eval_partition.txt").write_text("".join(f"{n:06}.jpg {(n - 1) // 2}\n" for n in range(1, 5)))
    (tmp_path / "x").mkdir()
    (tmp_path / "x/list_attr_celeba.txt").write_text("1\nSmiling\n")
    with pytest.raises(DataError, match="It looks like CelebA: fashion-sweep data convert"):
        read_dataset(tmp_path / "x")
    convert(tmp_path / "list_attr_celeba.txt", tmp_path / "labels.csv", False, AS_WRITTEN)
    dataset = read_dataset(tmp_path / "labels.csv")
    assert dataset.attributes == (Attribute("Smiling", ("no", "yes")), Attribute("Young", ("no", "yes")))
    assert dataset.labels("train").tolist() == [[0, 1], [1, 1]]
    assert dataset.splits["val"].images == ("000003.jpg", "000004.jpg")
    lines[3] = "000002.jpg 2 1"
    (tmp_path / "list_attr_celeba.txt").write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"list_attr_celeba.txt:4: .*; got '2'"):
        convert(tmp_path / "list_attr_celeba.txt", tmp_path / "again.csv", False, AS_WRITTEN)


def test_mmpretrains_tasks_are_converted(tmp_path: Path) -> None:
    pictures(tmp_path, [f"{n}.jpg" for n in range(4)])
    rows = [{"img_path": f"{n}.jpg", "gt_label": {"gender": n % 2, "wear": [1, n % 2, 0]}} for n in range(4)]
    del rows[2]["gt_label"]["gender"]  # type: ignore[attr-defined]
    (tmp_path / "all.json").write_text(json.dumps({"metainfo": {"tasks": ["gender", "wear"]}, "data_list": rows}))
    convert(tmp_path / "all.json", tmp_path / "labels.jsonl", False, AS_WRITTEN)
    dataset = read_dataset(tmp_path / "labels.jsonl", reading=LabelReading(split=SplitRule(val=0.5, test=0.0)))
    assert dataset.attributes == (Attribute("gender", ("0", "1")), Attribute("wear", ("0", "1", "2"), True))
    rows_by_name = dict(zip(
        (image for split in dataset.splits.values() for image in split.images),
        [row for name in dataset.splits for row in dataset.labels(name).tolist()], strict=True))  # fmt: skip
    assert rows_by_name == {"0.jpg": [0, 1, 0, 0], "1.jpg": [1, 1, 1, 0], "2.jpg": [-1, 1, 0, 0], "3.jpg": [1, 1, 1, 0]}


def test_any_form_goes_through_a_bucket(s3: Server, tmp_path: Path) -> None:
    """As images and as packed caches; what is there names the splits, so that no machine divides again."""
    path = labelled(tmp_path / "d", WHOLE.replace("colour", "tint"))
    first = read_dataset(path)
    for number, forms in enumerate(((), (FORM,))):
        address = HERE / f"labels{number}"
        assert pushed(path, address, *forms).fingerprint == first.fingerprint()
        root = on_this_machine(address, tmp_path / f"cache{number}", list(forms), ("train", "val", "test"))
        copy = read_dataset(root)
        assert copy.attributes == first.attributes
        assert copy.fingerprint() == first.fingerprint()
    assert Pack.open_or_build(copy, "val", *FORM).names == ["img/4.png", "img/5.png"]


def test_the_commands_speak_of_splits_and_forms(tmp_path: Path) -> None:
    rows = [f"img/{n}.png,{'ab'[n % 2]}" for n in range(20)]
    path = labelled(tmp_path, "\n".join(["file_name,kind", *rows]), 20)
    done = CliRunner().invoke(data, ["stats", str(path), "--divide", "val=0.2,test=0.2"])
    assert done.exit_code == 0
    assert "is divided by data.split: {val: 0.2, test: 0.2, seed: 0}" in done.stderr
    done = CliRunner().invoke(data, ["explain", str(path)])
    assert (done.exit_code, done.stdout.splitlines()[0]) == (0, f"{path}: label file")
    done = CliRunner().invoke(data, ["convert", str(path), str(tmp_path / "x/labels.tsv")])
    assert (done.exit_code, done.stdout.splitlines()[-1]) == (0, "20 images, 1 attribute")
    assert CliRunner().invoke(data, ["check", str(path), "--divide", "val=2"]).exit_code == 2
    (tmp_path / "empty").mkdir()
    assert CliRunner().invoke(data, ["explain", str(tmp_path / "empty")]).exit_code == 2
