"""Label files: what their columns and cells mean, in every format alike, and what is refused."""

from __future__ import annotations

import random
from pathlib import Path

import pandas
import pytest

from fashion.cli.main import main
from fashion.config.data import LabelReading, SplitRule
from fashion.data.check import check
from fashion.data.convert.convert import convert
from fashion.data.forms.explain import explain
from fashion.data.forms.table import scan_layout
from fashion.data.layout import majority_baseline, read_dataset
from fashion.data.lists import Attribute
from fashion.data.stats import distribution
from fashion.errors import DataError, Problem, UserError
from tests.support.label_files import WHOLE, labelled, pictures

AS_WRITTEN = LabelReading()


def test_three_lines_are_a_data_set(tmp_path: Path) -> None:
    path = labelled(tmp_path, "image,label,split\nimg/0.png,cat,train\nimg/1.png,dog,val\n", 2)
    dataset = read_dataset(path)
    assert (dataset.form, dataset.source, dataset.rule) == ("label file", "labels.csv", None)
    assert dataset.attributes == (Attribute("label", ("cat", "dog")),)
    assert [split.images for split in dataset.splits.values()] == [("img/0.png",), ("img/1.png",)]
    assert read_dataset(tmp_path).fingerprint() == dataset.fingerprint()


def test_cells_are_classes_several_or_missing(tmp_path: Path) -> None:
    dataset = read_dataset(labelled(tmp_path, WHOLE))
    assert dataset.attributes == (Attribute("size", ("l", "m", "s")), Attribute("colour", ("blue", "red"), True))
    assert dataset.labels("train").tolist() == [[2, 1, 1], [1, 0, 1], [-1, 0, 0], [0, -1, -1]]
    assert dataset.labels("val").tolist() == [[2, 1, 0], [1, 0, 1]]
    assert len(dataset.splits["test"]) == 2
    assert [counts.tolist() for counts in dataset.label_counts("train")] == [[1, 1, 1], [1, 2]]
    assert dataset.missing_counts("train") == [1, 1]
    # Of size l is guessed: no val image has it. Red is guessed, blue is not: one of four decisions is wrong twice.
    baseline = majority_baseline(dataset)
    assert baseline.accuracies == (0.0, 0.5)
    assert baseline.overall == pytest.approx(2 / 6)
    assert distribution(dataset).to_json()["attributes"][0]["missing"] == {"train": 1, "val": 0, "test": 0}
    assert "(missing)" in distribution(dataset).table()


@pytest.mark.parametrize("name", ["labels.tsv", "metadata.jsonl", "labels.parquet"])
def test_every_format_says_the_same(tmp_path: Path, name: str) -> None:
    first = read_dataset(labelled(tmp_path / "a", WHOLE))
    pictures(tmp_path / "b", [f"img/{number}.png" for number in range(8)])
    convert(tmp_path / "a", tmp_path / "b" / name, False, AS_WRITTEN)
    # The images are those of the other folder, as labels.json says.
    assert read_dataset(tmp_path / "b").fingerprint() == first.fingerprint()
    (tmp_path / "b/labels.json").write_text('{"attributes": []}')
    again = read_dataset(tmp_path / "b")
    assert again.root == (tmp_path / "b").resolve()
    assert again.fingerprint() == first.fingerprint()


def test_pandas_files_are_read_as_pandas_wrote_them(tmp_path: Path) -> None:
    frame = pandas.DataFrame({"path": [f"img/{n}.png" for n in range(8)], "kind": [0, 1, None, 10, 2, 1, 0, 2]})
    frame["split"] = ["train"] * 5 + ["val"] * 3
    labelled(tmp_path, "")
    frame.to_csv(tmp_path / "labels.csv")  # with row numbers, and floats since a label is missing
    ours = read_dataset(tmp_path)
    assert ours.attributes == (Attribute("kind", ("0", "1", "2", "10")),)
    assert ours.labels("train")[:, 0].tolist() == [0, 1, -1, 3, 2]
    (tmp_path / "labels.csv").unlink()
    frame.to_parquet(tmp_path / "labels.parquet")
    assert read_dataset(tmp_path).fingerprint() == ours.fingerprint()


def test_minus_one_is_a_class_unless_it_is_said_to_be_missing(tmp_path: Path) -> None:
    rows = [f"img/{n}.png,{'val' if n > 5 else 'train'},{(-1, 1)[n % 2]}" for n in range(8)]
    path = labelled(tmp_path, "\n".join(["fname,split,smiling", *rows]))
    assert read_dataset(path).attributes[0].classes == ("-1", "1")
    dataset = read_dataset(path, reading=LabelReading(missing=-1))
    assert dataset.attributes[0].classes == ("1",)
    assert dataset.missing_counts("train") == [3]


def test_labels_json_has_the_images_and_the_order_of_the_classes(tmp_path: Path) -> None:
    pictures(tmp_path / "pictures", ["0.png", "1.png"])
    (tmp_path / "labels.csv").write_text("file_name,size,split\n0.png,s,train\n1.png,1,val\n")
    about = '{"images": "pictures", "attributes": [{"name": "size", "classes": ["s", "m", "l"]}]}'
    (tmp_path / "labels.json").write_text(about)
    dataset = read_dataset(tmp_path)
    assert dataset.class_counts == (3,)
    assert dataset.labels("val").tolist() == [[1]], "a whole number is the index of a class that is none itself"
    (tmp_path / "labels.csv").write_text("file_name,size,split\n0.png,s,train\n1.png,xl,val\n")
    with pytest.raises(DataError, match=r"labels.csv:3, size: labels of size are s, m, l; got 'xl'"):
        read_dataset(tmp_path)


def test_all_mistakes_are_told_at_once_with_line_and_column(tmp_path: Path) -> None:
    text = (
        "file_name,split,size\nimg/0.png,train,s\n/etc/passwd,train,s\n../x.png,val,s\nimg/9.png,val,m\n"
        "img/1.png,later,m\nimg/2.png,,m\n,train,s\nimg/3.png,train\n\nimg/4.png,val,s\n"
    )
    labelled(tmp_path, text)
    with pytest.raises(DataError) as caught:
        read_dataset(tmp_path)
    told = str(caught.value)
    for part in (
        "labels.csv:3, file_name: an image's path is relative", "labels.csv:4, file_name: an image's path is relative",
        "labels.csv:5, file_name: the image file must exist; got img/9.png", "labels.csv:6, split: a split is one of",
        "'later'", "labels.csv:7, split", "labels.csv:8, file_name: every row names an image",
        "labels.csv:9: has 3 cells, like the first line; got 2 cells",
        "labels.csv:10, file_name: every row names an image",
    ):  # fmt: skip
        assert part in told, (part, told)
    assert len(caught.value.problems) == 8


@pytest.mark.parametrize("end", ["\n\n\n", "\n,,\n\n", "\r\n\r\n"])
def test_empty_lines_at_the_end_are_no_mistake(tmp_path: Path, end: str) -> None:
    path = labelled(tmp_path, "file_name,split,size\nimg/0.png,train,s\nimg/1.png,val,s")
    fingerprint = read_dataset(path).fingerprint()
    path.write_bytes(path.read_bytes() + end.encode())
    assert read_dataset(path).fingerprint() == fingerprint
    path.write_bytes(path.read_bytes() + b"\nimg/2.png,val,m")
    with pytest.raises(DataError, match=r"labels.csv:\d, file_name: every row names an image"):
        read_dataset(path)


def test_every_line_that_is_not_utf_8_is_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Whole lines by their cell, broken ones by the byte, beside the other mistakes, and nothing else is printed."""
    path = labelled(tmp_path, "")
    rows = b"img/0.png,train,s\nimg/1.png,val,caf\xe9\nimg/2.png,val\xe9\nimg/3.png,train,m\nimg/9.png,train,\xc3\xa9\n"
    path.write_bytes(b"file_name,split,size\n" + rows)
    with pytest.raises(DataError) as caught:
        read_dataset(path)
    assert [(each.place, each.rule, each.value) for each in caught.value.problems] == [
        ("labels.csv:3, size", "must be UTF-8 text", r"b'caf\xe9'"),
        ("labels.csv:4", "must be UTF-8 text", "byte 0xe9"),
        ("labels.csv:4", "has 3 cells, like the first line", "2 cells"),
        ("labels.csv:6, file_name", "the image file must exist", "img/9.png"),
    ]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file_name;label\nimg/0.png;a\n", "columns are separated by commas"),
        ("img/0.png,a\nimg/1.png,b\n", "a column holds the images' files"),
        ("filename,label\nimg/0.png,a\n", "Did you mean file_name"),
        ("file_name,a,a\nimg/0.png,1,2\n", "differ from one another; got 'a'"),
        ("file_name,split\nimg/0.png,train\n", "besides the images' files, a column holds labels"),
        ("file_name,the size\nimg/0.png,1\n", "attribute names differ from one another and hold no blanks"),
        ("file_name,label\n", "must have rows"),
        ("", "has from 1 to"),
    ],
)
def test_what_is_no_label_file_is_refused(tmp_path: Path, text: str, said: str) -> None:
    labelled(tmp_path, text)
    with pytest.raises(DataError, match=said):
        read_dataset(tmp_path)


def test_numbers_and_descriptions_are_not_taken_for_classes(tmp_path: Path) -> None:
    numbers = [f"img/0.png,{'val' if n % 2 else 'train'},{n / 7:.4f},it is number {n}" for n in range(1, 300)]
    labelled(tmp_path, "\n".join(["file_name,split,weight,text", *numbers]))
    with pytest.raises(DataError, match="are a regression") as caught:
        read_dataset(tmp_path)
    assert "not a description or an identifier" in str(caught.value)
    assert len(caught.value.problems) == 2


def test_attributes_are_chosen(tmp_path: Path) -> None:
    path = labelled(tmp_path, WHOLE)
    assert read_dataset(path, reading=LabelReading(attributes=("colour",))).attribute_names == ("colour",)
    with pytest.raises(DataError, match=r"data\.attributes: names columns of labels.csv; got sise. Did you mean size"):
        read_dataset(path, reading=LabelReading(attributes=("sise",)))


def test_links_that_lead_out_are_refused_once(tmp_path: Path) -> None:
    path = labelled(tmp_path / "d", WHOLE)
    pictures(tmp_path / "elsewhere", ["a.png"])
    for number in (1, 2):
        (tmp_path / f"d/img/{number}.png").unlink()
        (tmp_path / f"d/img/{number}.png").symlink_to(tmp_path / "elsewhere/a.png")
    with pytest.raises(DataError, match=r"an image must lie in .*\(and 1 more images\)"):
        read_dataset(path)
    assert len(read_dataset(path, follow_links=True).splits["train"]) == 4


def test_check_counts_what_is_missing_and_speaks_of_classes(tmp_path: Path) -> None:
    path = labelled(tmp_path, WHOLE)
    (tmp_path / "img/4.png").write_bytes((tmp_path / "img/5.png").read_bytes())
    result = check(path)
    assert result.ok
    told = {finding.kind: finding for finding in result.findings}
    assert told["unlabelled"].message == "colour is missing for 1 of 4 images"
    assert told["conflict"].message.endswith("m, red and s, blue")


def test_explain_tells_the_form_or_the_nearest_one(tmp_path: Path) -> None:
    lines, ok = explain(labelled(tmp_path / "a", WHOLE), False, AS_WRITTEN)
    assert ok
    assert "attribute colour: multi-label, 2 classes (blue, red); missing for 1 images" in lines
    pictures(tmp_path / "b", ["x.jpg"])
    lines, ok = explain(tmp_path / "b", False, AS_WRITTEN)
    assert not ok
    assert "found: no folder split/ and no label file, but 1 .jpg" in lines
    assert lines[-1].startswith("to mend it: Put the images of each class into a folder")
    (tmp_path / "c.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"got an archive \(.zip\). Unpack it"):
        read_dataset(tmp_path / "c.zip")
    with pytest.raises(DataError, match="got nothing there"):
        read_dataset(tmp_path / "nowhere")


def problems_of(path: Path, reading: LabelReading) -> list[Problem]:
    try:
        read_dataset(path, reading=reading)
    except DataError as error:
        return list(error.problems)
    return []


def test_broken_files_are_refused_and_nothing_else_happens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """200 files by mutation, of every format: each is read, or refused with problems that have a place, by the command
    with exit code 2."""
    rule = LabelReading(split=SplitRule(val=0.3, test=0.0))
    labelled(tmp_path / "csv", WHOLE.replace(",|\n", ",red\n"))
    sources = [tmp_path / "csv/labels.csv"]
    for ending in ("tsv", "jsonl", "parquet"):
        target = tmp_path / ending / f"labels.{ending}"
        convert(sources[0], target, False, AS_WRITTEN)
        (target.parent / "labels.json").write_text('{"images": "../csv"}')
        sources.append(target)
    draw, problems, refused = random.Random(0), list[Problem](), 0
    wholes = [path.read_bytes() for path in sources]
    inserts = [
        b"\x00",
        b"\xff\xfe",
        b'"',
        b"\n",
        b"\r",
        b",,",
        b"|",
        b"../",
        b"{",
        b"]",
        b"\xc3",
        b"1e999",
        b"\t",
        b"NaN",
    ]
    for number in range(200):
        path, whole = sources[number % 4], wholes[number % 4]
        at, length = draw.randrange(len(whole)), draw.choice([0, 1, 5, 40])
        path.write_bytes(whole[:at] + draw.choice(inserts) * draw.choice([0, 1, 3]) + whole[at + length :])
        of_file = {reading: problems_of(path, reading) for reading in (AS_WRITTEN, rule)}
        problems += [problem for found in of_file.values() for problem in found]
        if of_file[AS_WRITTEN]:
            with pytest.raises(SystemExit) as end:
                main(["data", "stats", str(path), "--json"])
            shown = capsys.readouterr()
            assert (end.value.code, shown.out) == (2, "")
            assert all(problem.rule in shown.err for problem in of_file[AS_WRITTEN])
            refused += 1
    assert all(problem.place and problem.rule for problem in problems)
    assert len(problems) > 200
    assert refused > 40


def test_a_label_file_is_not_written_over_another(tmp_path: Path) -> None:
    path = labelled(tmp_path, WHOLE)
    with pytest.raises(UserError, match="must not exist yet"):
        convert(path, path, False, AS_WRITTEN)
    assert path.read_text() == WHOLE


def test_many_lines_stream(tmp_path: Path) -> None:
    """Lines are told rightly beyond the first block, and broken ones shift none."""
    rows = [f"img/{n % 8}.png,{'val' if n % 3 else 'train'},{'abc'[n % 3]}{'x' * 40}" for n in range(60_000)]
    rows[10] = "img/1.png,val"
    rows[59_000] = "img/1.png,later,c"
    scan = scan_layout(labelled(tmp_path, "\n".join(["path,split,kind", *rows])))
    assert [problem.place for _, problem in scan.problems] == ["labels.csv:12", "labels.csv:59002, split"]
