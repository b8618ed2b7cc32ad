"""The spec that `run --data` drafts: valid for every machine, for other backbones, and never over another file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fashion.bucket.address import parse_address
from fashion.config.data import Form
from fashion.data.layout import Dataset, read_dataset
from fashion.data.remote.push import push
from fashion.data.remote.pushed import PackFile, Pushed
from fashion.errors import DataError, SpecError
from fashion.model.backbones import BACKBONES
from fashion.spec.sweep_spec import SweepSpec, load_spec
from fashion.sweep.drafts.draft import draft_text, drafted, name_for
from fashion.sweep.drafts.recipes import Machine
from tests.support.label_files import labelled
from tests.support.servers.s3_server import Server

BARE = Machine(2, False, ())
LITES = tuple(name for name in BACKBONES if "lite" in name)
MACHINES = {
    "no weights": BARE,
    "weights": Machine(2, False, LITES),
    "a GPU": Machine(16, True, LITES),
    "a GPU, no weights": Machine(16, True, ()),
}
TEXT = "file_name,kind,caption\n" + "".join(f"img/{n}.png,{'ab'[n % 2]},words {n}\n" for n in range(40))
WITHOUT_CAPTION = "data.attributes=[kind]"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with labels.csv, of which one column is no attribute."""
    labelled(tmp_path, TEXT, 40)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def silent(label: str, done: int, total: int) -> None:
    pass


def draft(root: str = "labels.csv", *overrides: str, machine: Machine = BARE) -> Path:
    return drafted(root, (WITHOUT_CAPTION, *overrides), silent, lambda: machine).path


@pytest.mark.parametrize("name", MACHINES)
def test_a_draft_is_valid_whatever_the_backbone(folder: Path, name: str) -> None:
    machine = MACHINES[name]
    path = draft(machine=machine)
    assert path == Path("labels.yaml")
    spec = load_spec(path)
    backbone = str(spec.fixed["model.backbone"])
    trials = [spec.trial(number) for number in range(spec.total_trials)]
    assert len({trial.model_dump_json() for trial in trials}) == spec.total_trials
    pretrained = bool(machine.packaged)
    assert {trial.model.weights for trial in trials} == {"imagenet" if pretrained else "none"}
    assert {trial.train.mode for trial in trials} == {"probe" if pretrained and not machine.gpu else "full"}
    assert backbone in (machine.packaged or ("tiny", "resnet18"))
    assert trials[0].data.attributes == ("kind",)
    for other in ("tiny", "resnet50", "convnext_tiny", "mobilenet_v3_small", "efficientnet_lite1"):
        changed = load_spec(path, [f"model.backbone={other}", "search.trials=3"])
        assert changed.trial(2).model.weights == ("imagenet" if other == backbone and pretrained else "none")
    both = load_spec(path, [f"model.backbone={{grid: [resnet34, {backbone}]}}", "train.epochs=2"])
    assert {both.trial(number).model.backbone for number in range(2)} == {"resnet34", backbone}


def test_the_same_data_have_the_same_draft_and_no_file_is_overwritten(folder: Path) -> None:
    Path("labels.yaml").write_text("mine")
    first = drafted("labels.csv", [WITHOUT_CAPTION], silent, lambda: BARE)
    assert (first.path, first.written) == (Path("labels-2.yaml"), True)
    assert load_spec(first.path).name == "labels-2"
    edited = first.path.read_text().replace("trials: 8", "trials: 5")
    first.path.write_text(edited)
    Path("labels.csv").unlink()  # what is there is not made again, so nobody looks at the data
    again = drafted("./labels.csv", [], silent)
    assert (again.path, again.written) == (first.path, False)
    assert "used as it is" in again.sentence
    assert first.path.read_text() == edited
    assert Path("labels.yaml").read_text() == "mine"


def test_a_name_and_a_backbone_that_are_asked_for_are_the_drafts(folder: Path) -> None:
    path = draft("labels.csv", "name=mine", "model.backbone=resnet50")
    spec = load_spec(path)
    assert (path, spec.name) == (Path("mine.yaml"), "mine")
    assert spec.trial(0).model.backbone == "resnet50"
    assert spec.trial(0).model.weights == "imagenet"
    assert draft("labels.csv", "name=other", "model.backbone=tiny") == Path("other.yaml")
    assert load_spec("other.yaml").trial(0).model.weights == "none"


@pytest.mark.parametrize(
    ("root", "overrides", "kind", "said"),
    [
        ("labels.csv", (), DataError, "not a description or an identifier"),
        ("labels.csv", (WITHOUT_CAPTION, "data.missing=7"), SpecError, "must be -1 or null"),
        ("labels.csv", (WITHOUT_CAPTION, "train.lr=fast"), SpecError, "--set train.lr"),
        ("labels.csv", (WITHOUT_CAPTION, "name=../x"), SpecError, "it names a folder"),
        ("nowhere.csv", (), DataError, "nothing there"),
        ("new\nline.csv", (), SpecError, "printable"),
    ],
)
def test_a_mistake_leaves_no_file(
    folder: Path, root: str, overrides: tuple[str, ...], kind: type[Exception], said: str
) -> None:
    many = TEXT + "".join(f"img/{n % 40}.png,a,other {n}\n" for n in range(40, 160))
    Path("labels.csv").write_text(many)
    with pytest.raises(kind, match=said):
        drafted(root, overrides, silent, lambda: BARE)
    assert not list(folder.glob("*.yaml"))


@pytest.mark.parametrize(
    ("root", "name"),
    [
        ("labels.csv", "labels"),
        ("data/shoes/labels.csv", "shoes"),
        ("data/shoes/metadata.jsonl", "shoes"),
        ("data/my shoes.v2.csv", "my-shoes.v2"),
        ("../labels.csv", "labels"),
        ("data/flowers", "flowers"),
        ("s3://bucket/deep/flowers/", "flowers"),
        ("写真/連.csv", "data"),
    ],
)
def test_the_name_is_the_datas(root: str, name: str) -> None:
    assert name_for(root) == name


def pushed(dataset: Dataset, *forms: Form) -> Dataset:
    packs = tuple(PackFile("train", form, "packs/x", 1, "0" * 64, {}) for form in forms)
    return replace(dataset, packed=Pushed("0" * 16, "0" * 64, packs))


def test_packed_images_are_taken_in_a_size_that_was_pushed(folder: Path) -> None:
    dataset = read_dataset(folder, reading=load_spec("x.yaml", [WITHOUT_CAPTION], MINIMAL).trial(0).data.label_reading)
    told = pushed(dataset, Form(96, "pad"), Form(320))
    asked: SweepSpec = load_spec("x.yaml", [WITHOUT_CAPTION], MINIMAL)
    for machine, resize, crop, fit in ((MACHINES["weights"], 320, 320, "stretch"), (BARE, 96, 85, "pad")):
        text = draft_text("x", "s3://bucket/x", told, machine, asked)
        data = load_spec("x.yaml", (), text).trial(0).data
        assert (data.resize, data.crop, data.fit) == (resize, crop, fit)


MINIMAL = "data: {root: labels.csv}\nmodel: {backbone: tiny, weights: none}"


def test_the_size_of_the_data_sets_the_length(folder: Path) -> None:
    """A few thousand images take minutes on two cores, so that epochs and pixels are cut where there are more."""
    asked = load_spec("x.yaml", [WITHOUT_CAPTION], MINIMAL)
    dataset = read_dataset(folder, reading=asked.trial(0).data.label_reading)
    many = replace(dataset.splits["train"], images=dataset.splits["train"].images * 3000)
    large = replace(dataset, splits={**dataset.splits, "train": many})
    specs = [load_spec("x.yaml", (), draft_text("x", "l.csv", each, BARE, asked)) for each in (dataset, large)]
    assert [spec.fixed["train.epochs"] for spec in specs] == [30, 4]
    assert [spec.fixed["data.crop"] for spec in specs] == [32, 32]
    sizes = [
        load_spec("x.yaml", (), draft_text("x", "l.csv", each, MACHINES["weights"], asked)).fixed["data.crop"]
        for each in (dataset, large)
    ]
    assert sizes == [224, 128]


def test_a_data_set_in_a_bucket_is_drafted_for(folder: Path, s3: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASHION_CACHE", str(folder / "cache"))
    dataset = read_dataset(folder, reading=load_spec("x.yaml", [WITHOUT_CAPTION], MINIMAL).trial(0).data.label_reading)
    push(dataset, parse_address("s3://sweeps/data/kinds"), [Form(24)], False, silent)
    path = drafted("s3://sweeps/data/kinds", [], silent, lambda: BARE).path
    config = load_spec(path).trial(0)
    assert (path, config.data.root) == (Path("kinds.yaml"), "s3://sweeps/data/kinds")
    assert (config.data.resize, config.data.crop) == (24, 21)
