"""What the cache folder holds, what may go, and that nothing goes that is in use."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fashion.data.cache.entries import LIMIT, CacheEntry, entries, make_room, named, remove, total, trim
from fashion.data.cache.use import note_user, use_path
from fashion.data.layout import Dataset, read_dataset
from fashion.data.pack import Pack
from fashion.errors import BlockedError, UserError
from fashion.files import KernelLock

Build = Callable[..., Pack]
EACH = 96 * 20 * 20 * 3  # bytes of the pixels of the training images at 20 px


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def build(demo_root: Path, folder: Path) -> Build:
    dataset: Dataset = read_dataset(demo_root)

    def build(split: str = "train", resize: int = 20, used: float | None = None) -> Pack:
        pack = Pack.open_or_build(dataset, split, resize, cache_dir=folder)
        if used is not None:
            for path in (pack.path, use_path(pack.path)):
                os.utime(path, (used, used))
        return pack

    return build


def listed(folder: Path) -> list[str]:
    return [entry.what for entry in entries(folder)]


def test_the_list_says_what_is_there_and_who_uses_it(build: Build, folder: Path) -> None:
    assert entries(folder) == []
    first, second = build(used=2000.0), build(resize=24, used=1000.0)
    note_user(first.path, "runs/lr")
    (folder / "contents").mkdir()
    (folder / "speed-0.json").write_text("{}")  # neither is a cache file
    older, newer = entries(folder)
    assert [each.what for each in (older, newer)] == [
        f"train at {side} px (stretch, bicubic, apply, declared)" for side in (24, 20)
    ]
    assert (older.used, older.sweep, newer.sweep) == (1000.0, "", "runs/lr")
    assert newer.used > 2000.0
    assert older.kind == newer.kind == "images"
    assert older.whole
    assert older.in_use
    assert EACH < newer.size < EACH + 10_000
    assert newer.data == read_fingerprint(first)
    del first, second
    gc.collect()
    assert [entry.in_use for entry in entries(folder)] == [False, False]


def read_fingerprint(pack: Pack) -> str:
    return pack.metadata["fingerprint"]


def test_what_is_open_in_another_process_stays(build: Build, folder: Path) -> None:
    path = build().path
    gc.collect()
    code = "import sys\nfrom fashion.data.cache.use import keep_open\nheld = type('Held', (), {})()\n"
    code += (
        f"from pathlib import Path\nkeep_open(Path({str(path)!r}), held)\nprint('held', flush=True)\nsys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        (entry,) = entries(folder)
        assert entry.in_use
        assert not remove(entry)
        assert trim(folder, 0) == []
        assert path.is_file()
        other.communicate(b"")
    assert remove(entry)
    assert not list(folder.glob("*.arrow*"))


def test_what_is_being_made_stays(build: Build, folder: Path) -> None:
    path = build().path
    gc.collect()
    with KernelLock(f"{path}.lock"):
        (entry,) = entries(folder)
        assert entry.in_use
        assert not remove(entry)
    assert remove(entry)
    path.with_name(f".{path.name}.tmp").write_bytes(b"0" * 1000)
    (left,) = entries(folder)
    assert (left.whole, left.size, left.in_use) == (False, 1000, False)
    assert remove(left)
    assert entries(folder) == []


def test_the_least_recently_used_go_first(build: Build, folder: Path) -> None:
    for resize, used in ((20, 3000.0), (24, 1000.0), (28, 2000.0)):
        build(resize=resize, used=used)
    gc.collect()
    largest = max(entry.size for entry in entries(folder))
    assert [entry.what[9:11] for entry in trim(folder, 2 * largest)] == ["24"]
    kept = build(resize=28, used=500.0)  # the oldest, but in use
    assert [entry.what[9:11] for entry in trim(folder, 1)] == ["20"]
    assert listed(folder) == ["train at 28 px (stretch, bicubic, apply, declared)"]
    assert len(kept.images) == 96


def test_a_limit_makes_room_and_never_takes_what_is_in_use(
    build: Build, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(used=1000.0)
    gc.collect()
    monkeypatch.setenv(LIMIT, str(1.5 * EACH / 1e9))
    held = build("train", 21)
    assert listed(folder) == ["train at 21 px (stretch, bicubic, apply, declared)"]
    with pytest.raises(BlockedError, match=rf"The image cache needs .* {LIMIT} allows .* are in use\. Raise {LIMIT}"):
        build("train", 22)
    assert len(held.images) == 96
    monkeypatch.delenv(LIMIT)
    build("train", 22)
    assert len(listed(folder)) == 2


@pytest.mark.parametrize("text", ["0", "-1", "ten", "nan"])
def test_a_limit_is_a_number_of_gigabytes(text: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LIMIT, text)
    with pytest.raises(UserError, match=f"{LIMIT}: must be a number of GB above 0, such as 50; got {text}"):
        make_room("A cache", 1, folder / "x.arrow")


def test_names_and_kinds(build: Build, folder: Path) -> None:
    build()
    build("val")
    found = entries(folder)
    assert named(found, ["images"]) == found
    assert named(found, [found[1].name, found[1].name]) == found[1:]
    assert named(found, ["maps"]) == []
    assert total(found) == sum(path.stat().st_size for path in folder.glob("*.arrow"))
    with pytest.raises(UserError, match=f"got {found[0].name}x. Did you mean {found[0].name}"):
        named(found, [f"{found[0].name}x"])


def test_an_entry_that_has_gone_is_no_mistake(build: Build, folder: Path) -> None:
    build()
    gc.collect()
    entry: CacheEntry
    (entry,) = entries(folder)
    assert remove(entry)
    assert remove(entry)
