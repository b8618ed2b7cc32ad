from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from PIL import Image

from fashion.cli.data.group import data
from fashion.data.demo import write_demo
from fashion.data.layout import majority_baseline, read_dataset
from fashion.data.stats import distribution, figure
from fashion.errors import DataError, UserError
from tests.support.servers.s3_server import Server


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(data, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout


def test_check_exits_with_0_or_2(demo_root: Path, tmp_path: Path) -> None:
    code, text = run("check", str(demo_root))
    assert code == 0
    assert "train 96, val 32, test 24: 0 errors, 0 warnings" in text
    shutil.copytree(demo_root, tmp_path / "copy")
    (tmp_path / "copy" / read_dataset(demo_root).splits["val"].images[0]).unlink()
    code, text = run("check", str(tmp_path / "copy"), "--json")
    assert code == 2
    report = json.loads(text)
    assert not report["ok"]
    assert report["findings"][0]["kind"] == "missing"


def test_check_shows_three_of_a_kind_or_all(demo_root: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(demo_root, tmp_path / "copy")
    images = read_dataset(demo_root).splits["train"].images[:5]
    for image in images:
        (copy / image).write_bytes(b"no picture")
    code, text = run("check", str(copy))
    assert code == 2
    assert "error: 5 files that can't be read or decoded [unreadable] (--all shows each)" in text
    assert sum(image in text for image in images) == 3
    code, text = run("check", str(copy), "--all")
    assert sum(image in text for image in images) == 5


def test_stats_prints_and_draws(demo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    dataset = read_dataset(demo_root)
    code, text = run("stats", str(demo_root))
    assert code == 0
    assert f"{majority_baseline(dataset).overall:.2%}" in text
    assert all(name in text for attribute in dataset.attributes for name in attribute.classes)
    assert "* the most frequent class of train" in text
    assert not list(Path().glob("data-stats*")), "no figure unless it is asked for"
    code, text = run("stats", str(demo_root), "--figure", "classes.png")
    assert code == 0
    with Image.open("classes.png") as drawn:
        assert min(drawn.size) > 600
        assert len(drawn.convert("RGB").getcolors(1 << 20) or []) > 20


def test_stats_json_is_the_counts(demo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, text = run("stats", str(demo_root), "--json")
    assert code == 0
    assert not list(tmp_path.iterdir())
    shown = json.loads(text)
    dataset = read_dataset(demo_root)
    for split in ("train", "val", "test"):
        expected = [counts.tolist() for counts in dataset.label_counts(split)]
        assert [attribute["counts"][split] for attribute in shown["attributes"]] == expected
        assert shown["baseline"][split] == majority_baseline(dataset, split).overall


@pytest.mark.parametrize("suffix", [".svg", ".pdf"])
def test_other_figure_formats_are_written_whole(demo_root: Path, tmp_path: Path, suffix: str) -> None:
    path = figure(read_dataset(demo_root), tmp_path / "new" / f"classes{suffix}")
    assert path.stat().st_size > 5000
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_figure_that_cant_be_is_a_user_error(demo_root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="png"):
        figure(read_dataset(demo_root), tmp_path / "classes.docx")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="can't be written"):
        figure(read_dataset(demo_root), tmp_path / "file" / "classes.png")


def test_figures_of_one_attribute_and_of_four(demo_root: Path, tmp_path: Path) -> None:
    for heads in (1, 4):
        root = tmp_path / str(heads)
        shutil.copytree(demo_root, root)
        (root / "split/list_attr_cloth.txt").unlink()
        (root / "split/attribute_names.txt").unlink()
        for split in ("train", "val", "test"):
            path = root / f"split/{split}_attr.txt"
            path.write_text("\n".join(" ".join(line.split()[:heads]) for line in path.read_text().splitlines()))
        assert figure(read_dataset(root), tmp_path / f"{heads}.png").exists()
        assert distribution(read_dataset(root)).table().count("attribute") == heads


def test_demo_and_pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASHION_CACHE", str(tmp_path / "cache"))
    root = str(tmp_path / "demo")
    code, _ = run("demo", root, "--train", "9", "--val", "6", "--test", "6", "--size", "32")
    assert code == 0
    code, text = run("pack", root, "--resize", "16", "--json")
    assert code == 0
    assert {pack["split"]: pack["images"] for pack in json.loads(text)} == {"train": 9, "val": 6, "test": 6}
    assert all(Path(pack["path"]).parent == tmp_path / "cache" for pack in json.loads(text))
    code, text = run("pack", root, "--resize", "16", "--fit", "pad", "--split", "val", "--verify")
    assert code == 0
    assert text.startswith("val: 6 images")
    with pytest.raises(DataError, match="new or empty"):
        run("demo", root)


@pytest.mark.parametrize("name", sorted(data.commands))
def test_every_command_has_help_with_an_example(name: str) -> None:
    command = data.commands[name]
    code, text = run(name, "--help")
    assert code == 0
    assert f"fashion-sweep data {name} " in text
    assert all(option.help for option in command.params if isinstance(option, click.Option))


def test_data_modules_load_no_torch_ray_or_pyplot() -> None:
    code = (
        "import sys, fashion.cli.data.group\n"
        "import fashion.data.check, fashion.data.stats, fashion.data.demo, fashion.data.pack\n"
        "assert not {'torch', 'ray', 'matplotlib'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


@pytest.mark.real
def test_real_baseline(real_root: Path) -> None:
    assert "59.73%" in distribution(read_dataset(real_root)).table()


def test_push_and_the_commands_that_take_an_address(
    s3: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASHION_CACHE", str(tmp_path / "cache"))
    small = write_demo(tmp_path / "small", train=8, val=6, test=5, size=24)
    fingerprint = read_dataset(small).fingerprint()
    code, text = run("push", str(small), "s3://sweeps/packed", "--resize", "20", "--resize", "16", "--fit", "pad")
    assert code == 0
    assert f"s3://sweeps/packed: data set {fingerprint}, 16 px pad bicubic, 20 px pad bicubic" in text
    assert "sent 14 objects" in text
    code, text = run("push", str(small), "s3://sweeps/folder", "--json")
    told = json.loads(text)
    assert (told["address"], told["fingerprint"], told["sent"], told["forms"]) == (
        "s3://sweeps/folder",
        fingerprint,
        27,
        [],
    )
    here = run("stats", str(small), "--json")
    for name in ("packed", "folder"):
        assert run("stats", f"s3://sweeps/{name}", "--json") == here
        _, there = run("explain", f"s3://sweeps/{name}")
        assert there.splitlines()[0] == f"s3://sweeps/{name}: the challenge's layout"
        assert there.splitlines()[2:] == run("explain", str(small))[1].splitlines()[2:]
        code, text = run("check", f"s3://sweeps/{name}")
        assert code == 0
        assert ("[packed]" in text) == (name == "packed")
    code, text = run("pack", "s3://sweeps/packed", "--resize", "20", "--fit", "pad", "--split", "val", "--json")
    (packed,) = json.loads(text)
    assert Path(packed["path"]).is_relative_to(tmp_path / "cache" / "data")
    with pytest.raises(DataError, match="--resize 18"):
        run("pack", "s3://sweeps/packed", "--resize", "18")


def test_check_of_a_broken_data_set_in_a_bucket_names_all_of_it(
    s3: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASHION_CACHE", str(tmp_path / "cache"))
    small = write_demo(tmp_path / "small", train=8, val=6, test=5, size=24)
    run("push", str(small), "s3://sweeps/folder")
    images = read_dataset(small).splits["val"].images
    s3.client().delete_object(Bucket="sweeps", Key=f"folder/{images[0]}")
    s3.write("sweeps", f"folder/{images[1]}", b"no picture")
    code, text = run("check", "s3://sweeps/folder", "--json")
    assert code == 2
    errors = [each for each in json.loads(text)["findings"] if each["severity"] == "error"]
    assert {each["kind"] for each in errors} == {"missing", "unreadable"}


@pytest.mark.parametrize(
    "arguments",
    [
        ("convert", "s3://sweeps/folder", "labels.csv"),
        ("convert", "here", "gs://sweeps/labels.csv"),
        ("demo", "s3://sweeps/demo"),
        ("push", "s3://sweeps/folder", "s3://sweeps/other"),
        ("stats", "here", "--figure", "s3://sweeps/classes.svg"),
    ],
)
def test_an_address_is_not_taken_for_a_folder_where_it_cant_be(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(data, list(arguments))
    assert result.exit_code == 2
    assert "must be a path on this machine, not in a bucket; got" in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("address", ["data/x", "s3://", "s3://bucket//x", "ftp://bucket/x"])
def test_an_address_that_is_none_is_told(demo_root: Path, address: str) -> None:
    result = CliRunner().invoke(data, ["push", str(demo_root), address])
    assert result.exit_code == 2
    assert "must" in result.stderr
    assert address in result.stderr
