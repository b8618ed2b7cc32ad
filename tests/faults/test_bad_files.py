"""Damaged and made-up files of every kind: a message and exit code 2, or the right answer, and never anything else."""

# ruff: noqa: PT012, PT017, RUF043 (a loop over damages expects an error or none, and looks at those that come)
from __future__ import annotations

import copy
import io
import json
import random
import shutil
import zipfile
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image, ImageDraw
from safetensors.torch import save_file

from fashion.data.images import load_rgb
from fashion.data.pictures.folder import find_pictures
from fashion.errors import CheckpointError, DataError, RunError, SubmissionError
from fashion.prediction.probabilities import read_probabilities, validate_probabilities, write_probabilities
from fashion.prediction.promoted import load_promoted
from fashion.prediction.submission import validate_submission, write_submission
from fashion.record.excerpt import load
from fashion.record.run import Run
from fashion.record.trial import EpochReport
from fashion.record.trial_files import LAST
from fashion.spec.sweep_spec import load_spec
from fashion.training.loop import TrialInputs, fit
from tests.support.recorded import ATTRIBUTES, COUNTS, SPEC, record
from tests.support.typed import told, tree

Shell = pytest.CaptureFixture[str]
DEEP = "[" * 100_000


# -- run directories


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    """A run of two trials that can be promoted."""
    manifest = {"spec": SPEC, "data_fingerprint": "f", "attributes": ATTRIBUTES, "label_counts": COUNTS}
    run = Run.create(tmp_path / "runs", "lr", {**manifest, "data_root": "d"})
    record(run, 0, [0.9, 0.4, 0.5, 0.6])
    run.record_end(0, "completed")
    record(run, 1, [1.5])
    run.close()
    return tmp_path / "runs"


EVIL: list[Any] = [None, True, -1, 1.5, 10**400, "", "../../../../tmp/evil", "\x1b[2J", [], {}, [[]], {"a": {}}]


def variants(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """(place, JSON value with that place replaced or removed) for every place in it."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        for evil in (*EVIL, ...):
            if evil == each and type(evil) is type(each):
                continue
            changed = copy.copy(value)
            if evil is not ...:
                changed[key] = evil
            else:
                del changed[key]
            yield (*path, key, evil), changed
        for place, deeper in variants(each, (*path, key)):
            changed = copy.copy(value)
            changed[key] = deeper
            yield place, changed


def look(storage: Path, capsys: Shell) -> str:
    """Every reading command on the run: it answers, or says what is wrong with the files."""
    said = told(capsys, "ls", "--storage", str(storage), code=0)
    for arguments in (["show", "lr"], ["show", "lr", "--trial", "0"], ["best", "lr"], ["best", "lr", "--json"]):
        said += told(capsys, *arguments, "--storage", str(storage), code=(0, 2))
    assert not any(each in said for each in "\x1b\x07\x00")
    return said


@pytest.mark.parametrize("part", [0, *(pytest.param(part, marks=pytest.mark.faults) for part in range(1, 6))])
def test_any_value_in_any_place_of_a_manifest(part: int, storage: Path, capsys: Shell) -> None:
    path = storage / "lr" / "manifest.json"
    manifest = json.loads(path.read_bytes())
    outside = set(storage.parent.iterdir())
    changes = list(variants(manifest))
    assert len(changes) > 700
    for place, changed in changes[part::24]:
        path.write_text(json.dumps(changed))
        shutil.rmtree(storage / "lr" / "best", ignore_errors=True)
        said = look(storage, capsys)
        if place[:1] in (("attributes",), ("label_counts",), ("format",)) and place[-1] is ...:
            assert "manifest.json" in said, place
        assert {each.name for each in (storage / "lr").iterdir()} <= {
            "manifest.json", "journal.jsonl", "trials", "best", "best.lock", "lock", "certainty.json"
        }  # fmt: skip
    assert set(storage.parent.iterdir()) == outside


@pytest.mark.parametrize("part", [0, *(pytest.param(part, marks=pytest.mark.faults) for part in range(1, 24))])
def test_any_value_in_any_place_of_a_journal(part: int, storage: Path, capsys: Shell) -> None:
    path = storage / "lr" / "journal.jsonl"
    events = [json.loads(line) for line in path.read_bytes().splitlines()]
    one_each = {event["event"]: number for number, event in reversed(list(enumerate(events)))}
    assert set(one_each) == {"trial", "attempt", "report", "end"}
    outside = set(storage.parent.iterdir())
    changes = [(number, *each) for number in one_each.values() for each in variants(events[number])]
    changes += [(0, ("event",), {"event": "taken", "trial": evil, "run": evil, "of": evil}) for evil in EVIL]
    for number, place, changed in changes[part::24]:
        path.write_text("".join(json.dumps(each) + "\n" for each in [*events[:number], changed, *events[number + 1 :]]))
        said = look(storage, capsys)
        if place[0] == "trial" and place[-1] is not True and place[-1] is not ...:
            assert "journal.jsonl: not understood" in said, (place, said)
    assert set(storage.parent.iterdir()) == outside


@pytest.mark.parametrize("name", ["manifest.json", "journal.jsonl"])
@pytest.mark.parametrize(
    "content", [b"", b"\0" * 64, b"\xff\xfe{}", DEEP.encode(), b"[]\n[]\n", b'{"format": NaN}\n{}\n', b"null\n1\n"]
)
def test_record_files_that_are_none(name: str, content: bytes, storage: Path, capsys: Shell) -> None:
    (storage / "lr" / name).write_bytes(content)
    said = look(storage, capsys)
    if name == "manifest.json" or content[:1] not in (b"", b"\0", b"\xff", b"["):
        assert name in said
    shutil.rmtree(storage / "lr" / "trials")
    (storage / "lr" / name).unlink()
    (storage / "lr" / name).mkdir()
    look(storage, capsys)


def test_an_excerpt_of_nonsense_is_not_believed(storage: Path) -> None:
    from fashion.record.excerpt import save

    run = Run.open(storage / "lr")
    save(run)
    path = storage / "lr" / "excerpt.json"
    content = json.loads(path.read_bytes())
    assert load(run.journal_path) is not None
    believed = 0
    for place, changed in variants(content):
        path.write_text(json.dumps(changed))
        found = load(run.journal_path)
        if found is not None:
            believed += 1
            for number, trial in found[0].items():
                assert isinstance(number, int), place
                assert all(isinstance(report.epoch, int) for report in trial.reports), place
    assert believed  # a reason may well be another
    path.write_text(DEEP)
    assert load(run.journal_path) is None


def test_a_run_whose_unfinished_trial_is_of_no_version_is_not_gone_on_with(tmp_path: Path, capsys: Shell) -> None:
    spec = tmp_path / "s.yaml"
    spec.write_text(f"name: lr\nstorage: {tmp_path}\ndata: {{root: d}}\nmodel: {{backbone: tiny, weights: none}}\n")
    recorded = load_spec(spec).to_json()
    manifest = {"spec": recorded, "data_fingerprint": "f", "attributes": ATTRIBUTES, "label_counts": COUNTS}
    run = Run.create(tmp_path, "lr", manifest)
    run.record_trial(0, {"data": {"root": "d"}, "model": {"backbone": "tiny"}, "train": {"lr": "fast"}})
    run.close()
    before = tree(tmp_path)
    said = told(capsys, "run", str(spec))
    assert f"{run.journal_path}: trial 0, train.lr: Input should be a valid number" in said
    assert 'got "fast"' in said
    assert tree(tmp_path) == before


@pytest.mark.parametrize("storage", ["taken", "taken/deeper", "x" * 300])
def test_a_storage_that_can_be_no_folder(storage: str, tmp_path: Path, capsys: Shell, demo_root: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    spec = tmp_path / "s.yaml"
    spec.write_text(f"data: {{root: {demo_root}}}\nmodel: {{backbone: tiny, weights: none}}\n")
    before = tree(tmp_path)
    for more in ([], ["--trials", "+2"]):
        said = told(capsys, "run", str(spec), "--storage", str(tmp_path / storage), *more)
        assert "storage: must be a folder; got" in said
    assert tree(tmp_path) == before


# -- checkpoints


def test_a_best_epochs_file_with_any_byte_changed(storage: Path, capsys: Shell) -> None:
    path = storage / "lr" / "trials" / "0000" / "best-0002.safetensors"
    whole = path.read_bytes()
    chance = random.Random(0)
    told(capsys, "best", "lr", "--storage", str(storage), code=0)
    promoted = tree(storage / "lr" / "best")
    refused = 0
    for _ in range(150):
        at = chance.randrange(len(whole) - 16)
        content = bytearray(whole)
        content[at : at + chance.choice([1, 1, 8])] = chance.randbytes(chance.choice([1, 8]))
        path.write_bytes(content)
        said = told(capsys, "best", "lr", "--storage", str(storage), code=(0, 2))
        if "Error: " in said:
            refused += 1
            assert str(path) in said
            assert tree(storage / "lr" / "best").keys() == promoted.keys()
    assert refused > 75
    assert not list((storage / "lr").glob(".best*"))


def damaged_headers() -> list[bytes]:
    headers = [
        "[]", "{}", "null", DEEP, '{"w": 1}', '{"w": {"data_offsets": ["a", "b"]}}', '{"w": {"data_offsets": []}}',
        '{"__metadata__": [], "w": {"data_offsets": [0, 0]}}', '{"__metadata__": {"fashion": 1}}',
        '{"__metadata__": {"fashion": "[]"}}', json.dumps({"__metadata__": {"fashion": DEEP}}),
        '{"__metadata__": {"fashion": "{\\"report\\": []}"}}', '{"w": {"data_offsets": [0, 1e400]}}',
    ]  # fmt: skip
    return [len(header).to_bytes(8, "little") + header.encode() for header in headers]


def test_made_up_headers_of_a_best_epochs_file(storage: Path, capsys: Shell) -> None:
    path = storage / "lr" / "trials" / "0000" / "best-0002.safetensors"
    for content in damaged_headers():
        path.write_bytes(content)
        said = told(capsys, "best", "lr", "--storage", str(storage))
        assert f"Error: {path}: " in said
        assert not (storage / "lr" / "best").exists()
    path.unlink()
    path.mkdir()
    assert "is no safetensors file; got a folder" in told(capsys, "best", "lr", "--storage", str(storage))


def test_a_probes_backbone_that_is_none(storage: Path, capsys: Shell) -> None:
    path = storage / "lr" / "trials" / "0000" / "best-0002.safetensors"
    header = json.loads(path.read_bytes()[8 : 8 + int.from_bytes(path.read_bytes()[:8], "little")])
    meta = json.loads(header["__metadata__"]["fashion"])
    for name, rule in (
        ("../manifest.json", "backbone is missing"),
        ("..", "backbone is missing"),
        ("b", "whole safetensors"),
    ):
        save_file({"w": torch.zeros(2)}, path, {"fashion": json.dumps({**meta, "backbone": name})})
        (storage / "lr" / "trials" / "b").write_bytes(b"half")
        assert rule in told(capsys, "best", "lr", "--storage", str(storage))
        assert not (storage / "lr" / "best").exists()


@pytest.mark.faults
def test_any_value_in_any_place_of_a_promoted_models_description(trained: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(trained / "best", tmp_path / "best"))
    path = folder / "model.json"
    content = json.loads(path.read_bytes())
    needed = {key: content[key] for key in ("format", "run", "trial", "epoch", "attributes", "data_fingerprint", "metrics",
                                            "weights")}  # fmt: skip
    refused = 0
    for number, (place, changed) in enumerate(variants(needed)):
        if number % 3 and place[0] == "metrics":
            continue
        path.write_text(json.dumps({**content, **dict.fromkeys(needed.keys() - changed.keys()), **changed}))
        try:
            load_promoted(folder)
        except CheckpointError as error:
            refused += 1
            assert str(folder) in str(error)
    assert refused > 200
    for text in (DEEP, "[]", '{"format": 1, "trial": Infinity}', "\0"):
        path.write_text(text)
        with pytest.raises(CheckpointError, match=r"model\.json"):
            load_promoted(folder)


@pytest.fixture(scope="module")
def trained(demo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one real trial, promoted."""
    from tests.support.foreign import promoted_run

    return promoted_run(demo_root, tmp_path_factory.mktemp("trained")).path


def test_a_resumable_state_that_is_another_trials_or_none(demo_root: Path, tmp_path: Path) -> None:
    from tests.support.trained import NONE, config, packs

    wanted = config(demo_root, epochs=3)
    data, folder = packs(demo_root, wanted), tmp_path / "0000"
    with closing(cast(Generator[EpochReport, None, None], fit(TrialInputs(wanted, data, NONE, folder)))) as first:
        next(first)
    path = folder / LAST
    state = torch.load(path, weights_only=True)
    row = state["history"][0]
    before = sorted(each.name for each in tmp_path.rglob("*"))
    for name, value in {
        "history": [],
        "setting": {"bf15": True},
        "model": {},
        "optimizer": {"state": {}, "param_groups": []},
        "rng": torch.zeros(3),
        "attempt": "many",
        "schedule": [],
    }.items():
        torch.save({**state, name: value}, path)
        with pytest.raises(CheckpointError, match=r"(?s)last\.pt: does not hold this trial's state .*Delete it"):
            list(fit(TrialInputs(wanted, data, NONE, folder)))
    changes: tuple[dict[str, Any], ...] = (
        {"trial": 5}, {"epoch": 2}, {"epochs": 9}, {"epoch": "../../x"}, {"trial": True}, {"metrics": {}}, {"time": 3},
        {"metrics": {"val_loss": "low"}}, {"seconds": float("nan")},
    )  # fmt: skip
    for change in changes:
        torch.save({**state, "history": [{**row, **change}]}, path)
        with pytest.raises(CheckpointError, match="does not hold this trial's state"):
            list(fit(TrialInputs(wanted, data, NONE, folder)))
    for name in state:
        torch.save({key: value for key, value in state.items() if key not in (name, "ema")}, path)
        if name != "ema":
            with pytest.raises(CheckpointError):
                list(fit(TrialInputs(wanted, data, NONE, folder)))
    assert sorted(each.name for each in tmp_path.rglob("*")) == before
    torch.save(state, path)
    assert [report.epoch for report in fit(TrialInputs(wanted, data, NONE, folder))] == [1, 2, 3]


# -- predictions

CLASSES = np.array([[0, 1], [2, 0], [1, 1]])


def test_prediction_files_with_any_byte_changed(tmp_path: Path) -> None:
    written = write_submission(CLASSES, tmp_path)
    chance = random.Random(1)
    for path in (written.text, written.archive):
        whole, refused = path.read_bytes(), 0
        for _ in range(400):
            content = bytearray(whole)
            at = chance.randrange(len(content))
            if chance.random() < 0.3:
                del content[at : at + chance.randrange(1, 9)]
            else:
                content[at] ^= chance.randrange(1, 256)
            path.write_bytes(content)
            try:
                validate_submission(path, 3, (3, 2), expected=CLASSES)
            except SubmissionError as error:
                refused += 1
                assert all(problem.place and problem.rule for problem in error.problems)
        assert refused > 200
        path.write_bytes(whole)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, zipfile.ZIP_STORED])
def test_archives_of_other_compressions_with_any_byte_changed(tmp_path: Path, method: int) -> None:
    path = tmp_path / "prediction.txt.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("prediction.txt", "0 1\n2 0\n1 1\n")
    validate_submission(path, 3, (3, 2), expected=CLASSES)
    whole, chance = path.read_bytes(), random.Random(2)
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ chance.randrange(1, 256)]) + whole[at + 1 :])
        try:
            validate_submission(path, 3, (3, 2), expected=CLASSES)
        except SubmissionError as error:
            assert "prediction.txt" in str(error)


@pytest.mark.parametrize(
    "member", ["../prediction.txt", "/prediction.txt", "..\\prediction.txt", "a/../prediction.txt"]
)
def test_archives_whose_member_leads_out_are_refused_and_not_unpacked(tmp_path: Path, member: str) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    path = folder / "prediction.txt.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, "0 1\n2 0\n1 1\n")
    with pytest.raises(SubmissionError, match=r"must hold the single file prediction\.txt at its root; got"):
        validate_submission(path, 3, (3, 2))
    assert sorted(each.name for each in tmp_path.rglob("*")) == ["in", "prediction.txt.zip"]


@pytest.mark.faults
def test_prediction_texts_that_are_meant_to_hurt(tmp_path: Path) -> None:
    path = tmp_path / "prediction.txt"
    path.write_bytes(b"9" * 5000 + b" 1\n")
    with pytest.raises(SubmissionError, match=r"prediction\.txt:1, column 1: must be 0 to 2"):
        validate_submission(path, 1, (3, 2))
    with open(path, "wb") as file:
        file.truncate(1 << 40)  # a terabyte of zeros on no disk space
    with pytest.raises(SubmissionError, match="must be at most 1 GiB; got 1099511627776 bytes"):
        validate_submission(path, 1, (3, 2))
    bomb = io.BytesIO()
    with (
        zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("prediction.txt", "w", force_zip64=True) as out,
    ):
        for _ in range(1030):
            out.write(b"0" * (1 << 20))
    (tmp_path / "p.zip").write_bytes(bomb.getvalue())
    assert len(bomb.getvalue()) < 2_000_000
    with pytest.raises(SubmissionError, match="must be at most 1 GiB"):
        validate_submission(tmp_path / "p.zip", 1, (3, 2))


def test_tables_of_probabilities_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    values = [np.eye(3, dtype=np.float32)[CLASSES[:, 0]], np.eye(2, dtype=np.float32)[CLASSES[:, 1]]]
    attributes = [("sleeve", ("a", "b", "c")), ("fit", ("x", "y"))]
    images = ["1.png", "2.png", "3.png"]
    write_probabilities(path, images, attributes, values)
    validate_probabilities(path, images, CLASSES)
    whole, chance = path.read_bytes(), random.Random(3)
    for _ in range(400):
        content = bytearray(whole)
        content[chance.randrange(len(content))] ^= chance.randrange(1, 256)
        path.write_bytes(content)
        try:
            validate_probabilities(path, images, CLASSES)
        except SubmissionError as error:
            assert "p.parquet" in str(error)

    def column(kind: pa.DataType, rows: list[Any], classes: str = '["a", "b", "c"]') -> pa.Table:
        fields = [pa.field("image", pa.string()), pa.field("sleeve", kind, metadata={"classes": classes})]
        return pa.table([pa.array(images), pa.array(rows, kind)], schema=pa.schema(fields))

    good = [[1.0, 0.0, 0.0]] * 3
    for table in (
        column(pa.int64(), [1, 2, 3]),
        column(pa.list_(pa.string()), [["a", "b", "c"]] * 3),
        column(pa.list_(pa.float32()), [[1.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0, 0.0]]),
        column(pa.list_(pa.float32()), [None, *good[1:]]),
        column(pa.list_(pa.float32()), good, "5"),
        column(pa.list_(pa.float32()), good, DEEP),
        column(pa.list_(pa.float32()), good).append_column("sleeve", pa.array([[1.0]] * 3)),
        column(pa.list_(pa.float32()), good).rename_columns(["picture", "sleeve"]),
        pa.table({"image": pa.array([1, 2, 3])}),
    ):
        pq.write_table(table, path)
        with pytest.raises(SubmissionError, match=r"p\.parquet"):
            read_probabilities(path)
            validate_probabilities(path, images, CLASSES[:, :1])
    pq.write_table(column(pa.list_(pa.float32()), good), path)
    with pytest.raises(SubmissionError, match="must have a column for each of the 2 attributes; got sleeve"):
        validate_probabilities(path, images, CLASSES)
    with pytest.raises(SubmissionError, match="must have a probability for class 7, which is predicted; got 3 classes"):
        validate_probabilities(path, images, np.array([[7], [0], [0]]))


# -- images and data sets


def picture(form: str, mode: str = "RGB") -> bytes:
    image = Image.new("RGB", (24, 18), "orange")
    ImageDraw.Draw(image).ellipse((3, 3, 20, 15), "navy")
    out = io.BytesIO()
    image.convert(mode).save(out, form)
    return out.getvalue()


@pytest.mark.parametrize(
    ("form", "mode"),
    [("JPEG", "RGB"), ("JPEG", "CMYK"), ("PNG", "RGBA"), ("PNG", "P"), ("WEBP", "RGB"), ("BMP", "RGB"), ("GIF", "P"),
     ("TIFF", "RGB"), ("TIFF", "F"), ("TIFF", "I;16")],
)  # fmt: skip
def test_images_with_any_bytes_changed(tmp_path: Path, form: str, mode: str) -> None:
    whole, chance = picture(form, mode), random.Random(form + mode)
    path = tmp_path / "x.img"
    refused = 0
    for _ in range(300):
        content = bytearray(whole)
        for _ in range(chance.choice([1, 1, 3])):
            at = chance.randrange(min(len(content), 400))
            content[at : at + chance.choice([1, 2, 4])] = chance.choice(
                [b"\xff\xff\xff\xff", b"\0", chance.randbytes(2)]
            )
        path.write_bytes(content[: chance.choice([len(content), len(content), chance.randrange(1, len(content))])])
        try:
            image = load_rgb(path)
        except DataError as error:
            refused += 1
            assert error.problems[0].place == str(path)
        else:
            assert image.mode == "RGB"
    assert refused > 40


def breakages() -> dict[str, tuple[str, bytes | None, str]]:
    """name -> (file, new content or None to remove it, what is said of it)"""
    lists = "split/train.txt"
    labels = "split/train_attr.txt"
    return {
        "no list": (lists, None, "split/train.txt: the file must exist"),
        "no labels": (labels, None, "split/train_attr.txt: the file must exist"),
        "empty list": (lists, b"", "split/train.txt: must not be empty"),
        "a list of NULs": (lists, b"\0" * 100, "split/train.txt: must be text; got a NUL character"),
        "UTF-16": (lists, "img/0.png\n".encode("utf-16"), "split/train.txt: must be UTF-8 text; got byte 0xff at 0"),
        "a line longer than any name": (lists, b"x" * 5000 + b"\n", "split/train.txt"),
        "names longer than any name": (lists, b"img/" + b"x" * 5000 + b".png\n", "split/train.txt:1: the image file must exist"),
        "a folder in a list": (lists, b"img/\nimg\n", "split/train.txt:1: the image file must exist; got img/"),
        "an escape sequence": (lists, b"img/\x1b]0;owned\x07.png\n", "got img/\\x1b]0;owned\\x07.png"),
        "labels of words": (labels, b"0 0\n1 one\n0 2\n1 0\n", "split/train_attr.txt:2: labels are integers; got 'one'"),
        "labels of fractions": (labels, b"0 0\n1 1.5\n0 2\n1 0\n", "split/train_attr.txt:2: labels are integers; got '1.5'"),
        "ragged labels": (labels, b"0 0\n1\n0 2\n1 0\n", "split/train_attr.txt:2: has 2 labels, like the first line; got 1 labels"),
        "a label too high": (labels, b"0 0\n1 7\n0 2\n1 0\n", "split/train_attr.txt:2: labels of attribute2 are 0 to 2; got 7"),
        "a label below 0": (labels, b"0 0\n-1 1\n0 2\n1 0\n", "split/train_attr.txt:2: labels of attribute1 are 0 to 1; got -1"),
        "a label of ten digits": (labels, b"0 0\n1 9999999999\n0 2\n1 0\n", "split/train_attr.txt:2: labels are integers; got"),
        "too few labels": (labels, b"0 0\n", "one line of labels per image (4 in split/train.txt); got 1 lines"),
        "groups with a gap": ("split/list_attr_cloth.txt", b"a 1\nb 3\n", "groups are numbered 1, 2, 3 ... without gaps"),
        "groups of nothing": ("split/list_attr_cloth.txt", b"\n\n", "split/list_attr_cloth.txt: must not be empty"),
        "an escape in a class": ("split/list_attr_cloth.txt", b"re\x1bd 1\ng 1\nh 2\nw 2\nc 2\n", "a class name holds no control"),
        "an attribute called image": ("split/attribute_names.txt", b"hue\nimage\n", "split/attribute_names.txt: this name is taken by the column of images"),
        "an escape in an attribute": ("split/attribute_names.txt", b"hue\nhe\x1bat\n", "hold no blanks or slashes; got 'he\\x1bat'"),
        "half an image": ("img/1.png", b"\x89PNG\r\n\x1a\n", "img/1.png"),
        "no image": ("img/1.png", b"#!/bin/sh\n", "img/1.png"),
        "PostScript": ("img/1.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "img/1.png"),
    }  # fmt: skip


@pytest.mark.parametrize("name", breakages())
def test_broken_data_sets(name: str, tmp_path: Path, capsys: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.support.layouts import small

    root, cache = small(tmp_path / "data"), tmp_path / "cache"
    monkeypatch.setenv("FASHION_CACHE", str(cache))
    file, content, expected = breakages()[name]
    (root / file).unlink(missing_ok=True)
    if content is not None:
        (root / file).write_bytes(content)
    spec = tmp_path / "s.yaml"
    spec.write_text(
        f"storage: {tmp_path / 'runs'}\ndata: {{root: {root}, resize: 8, crop: 8}}\nmodel: {{backbone: tiny, weights: none}}\n"
    )
    before = tree(tmp_path)
    commands = [["data", "check", str(root)], ["data", "pack", str(root), "--resize", "8"], ["run", str(spec)]]
    if not file.startswith("img/"):
        commands += [["data", "stats", str(root), "--json"], ["model", "tiny", "--data", str(root)]]
    for command in commands:
        said = told(capsys, *command)
        assert expected in said, (command, said)
        assert "\x1b" not in said
    after = tree(tmp_path)
    assert {path: after[path] for path in before} == before
    assert all((path.startswith("cache/") and path.endswith((".lock",))) or "/contents/" in path for path in after.keys() - before.keys())  # fmt: skip


def test_one_wrong_label_does_not_make_a_billion_classes(tmp_path: Path, capsys: Shell) -> None:
    from tests.support.layouts import small

    root = small(tmp_path / "data", names=None)
    (root / "split/train_attr.txt").write_text("0 0\n1 999999999\n0 2\n1 0\n")
    said = told(capsys, "data", "check", str(root))
    assert "split/train_attr.txt:2: labels without split/list_attr_cloth.txt are 0 to 9999; got 999999999" in said


def test_a_figure_of_too_many_classes(tmp_path: Path, capsys: Shell) -> None:
    from tests.support.layouts import small

    root = small(tmp_path / "data", names=None)
    (root / "split/train_attr.txt").write_text("0 0\n1 9999\n0 2\n1 0\n")
    said = told(capsys, "data", "stats", str(root), "--figure", str(tmp_path / "f.png"))
    assert "inches high: too many classes to be readable" in said
    assert not (tmp_path / "f.png").exists()


def test_a_name_that_is_no_text_in_a_folder_of_images(tmp_path: Path) -> None:
    try:
        (tmp_path / "caf\udce9.png").write_bytes(picture("PNG"))
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    with pytest.raises(DataError, match=r"a file's name must be UTF-8; got 'caf\\udce9\.png'"):
        find_pictures(tmp_path)


def test_damaged_notes_of_who_holds_a_run(tmp_path: Path) -> None:
    run = Run.create(tmp_path, "lr", {"spec": {}, "data_fingerprint": "f", "attributes": [], "label_counts": {}})
    with run.lock():
        for content in (b"", b"[]", b"{}", b"\xff", DEEP.encode()):
            (run.path / "driver.json").write_bytes(content)
            with pytest.raises(RunError, match="another sweep is running .*its process is not known"):
                run.lock().acquire()
