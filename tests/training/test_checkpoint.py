"""What a trial leaves on disk: whole or not at all, readable by others, and never executed."""

from __future__ import annotations

import math
import os
import pickle
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors import safe_open

from fashion.errors import BlockedError, CheckpointError, Superseded
from fashion.record.trial_files import CLAIM, LAST, PREVIOUS, best_path, predictions_path, prune, read_header
from fashion.training.checkpoint import Mended, claimed, load_last, mend_last, save_last, save_predictions, save_weights
from tests.support.machines.disks import tmpfs


class Trap:
    """Unpickling it leaves a file behind."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


def test_weights_carry_what_explains_them(tmp_path: Path) -> None:
    net = torch.nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    meta = {
        "format": 1,
        "config": {},
        "data_fingerprint": "f",
        "report": {"trial": 0, "epoch": 4, "metrics": {"val_loss": 0.5}},
        "attributes": [{"name": "größe"}],
    }
    path = best_path(tmp_path / "trial", 4)
    save_weights(path, net.state_dict(), meta)
    assert path.name == "best-0004.safetensors"
    with safe_open(path, framework="np") as file:
        assert set(file.keys()) == {"weight", "bias"}
        np.testing.assert_array_equal(file.get_tensor("weight"), net.weight.detach().numpy())
    assert read_header(path) == meta  # the reader that needs neither torch nor safetensors
    assert os.listdir(path.parent) == [path.name]


def test_predictions_are_a_plain_table(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    shares = [generator.dirichlet(np.ones(classes), size=5).astype(np.float32) for classes in (2, 4)]
    path = predictions_path(tmp_path, 12)
    save_predictions(
        path, [f"img/{i}.png" for i in range(5)], ["hue", "cut"], [shares[0], np.asfortranarray(shares[1])]
    )
    table = pq.read_table(path)
    assert path.name == "val-0012.parquet"
    assert table.column_names == ["image", "hue", "cut"]
    assert table.column("image").to_pylist() == [f"img/{i}.png" for i in range(5)]
    for name, expected in zip(("hue", "cut"), shares, strict=True):
        np.testing.assert_array_equal(np.array(table.column(name).to_pylist(), np.float32), expected)


def test_the_resumable_state_comes_back(tmp_path: Path) -> None:
    net = torch.nn.Linear(2, 2)
    state: dict[str, Any] = {
        "model": net.state_dict(),
        "rng": torch.get_rng_state(),
        "best_loss": float("inf"),
        "ema": None,
    }
    save_last(tmp_path, state)
    found = load_last(tmp_path / LAST)
    assert found["best_loss"] == float("inf")
    assert found["ema"] is None
    assert torch.equal(found["model"]["weight"], net.weight)
    assert torch.equal(found["rng"], state["rng"])


def test_a_write_that_fails_leaves_the_former_file(tmp_path: Path) -> None:
    save_last(tmp_path, {"epoch": 1})
    before = (tmp_path / LAST).read_bytes()
    with pytest.raises((pickle.PicklingError, AttributeError), match="lambda"):
        save_last(tmp_path, {"epoch": 2, "tensor": torch.zeros(10_000), "unsaveable": lambda: None})
    assert (tmp_path / LAST).read_bytes() == before
    shared = torch.zeros(3)
    with pytest.raises(Exception, match="memory"):  # two names for one tensor: safetensors refuses
        save_weights(best_path(tmp_path, 1), {"a": shared, "b": shared}, {})
    assert os.listdir(tmp_path) == [LAST]


@pytest.mark.parametrize("form", ["torch", "torch legacy", "plain pickle"])
def test_a_malicious_checkpoint_is_not_executed(tmp_path: Path, form: str) -> None:
    marker, path = tmp_path / "executed", tmp_path / LAST
    content = {"format": 1, "history": [], "model": Trap(marker)}
    if form == "plain pickle":
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "torch")
    with pytest.raises(CheckpointError, match=r"last\.pt: .*Delete it to start this trial again"):
        load_last(path)
    assert not marker.exists()
    torch.load(path, weights_only=False) if form != "plain pickle" else pickle.loads(path.read_bytes())
    assert marker.exists()  # it would have worked


def test_damaged_checkpoints_are_refused_in_words(tmp_path: Path) -> None:
    path = tmp_path / LAST
    save_last(tmp_path, {"model": torch.nn.Linear(30, 30).state_dict(), "history": [{"epoch": 1}]})
    whole = path.read_bytes()
    damaged = [whole[:length] for length in range(0, len(whole), 97)] + [whole[200:], b"\0" * 500, b"text\n", b"PK"]
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match="Delete it to start this trial again"):
            load_last(path)
    for other in ({"format": 0}, [1, 2], torch.zeros(2)):  # readable, but something else
        torch.save(other, path)
        with pytest.raises(CheckpointError, match="format 1 expected"):
            load_last(path)
    with pytest.raises(CheckpointError, match="not a readable checkpoint"):
        load_last(tmp_path / "missing.pt")


def test_pruning_touches_nothing_else(tmp_path: Path) -> None:
    kept = ["best-0003.safetensors", "val-0003.parquet", "last.pt", "progress.json", "best-notes.txt", "val-1.parquet"]
    gone = ["best-0001.safetensors", "val-0001.parquet", "best-12345.safetensors"]
    for name in (*kept, *gone):
        (tmp_path / name).write_bytes(b"")
    prune(tmp_path, {3})
    assert sorted(os.listdir(tmp_path)) == sorted(kept)


def saved(folder: Path, *epochs: int) -> None:
    """Resumable states of these epochs, as training leaves them, and the best weights, of the last of them."""
    for epoch in epochs:
        state = {"history": [{"epoch": number} for number in range(1, epoch + 1)], "model": torch.ones(1000)}
        save_last(folder, state)
    report = {"trial": 0, "epoch": epochs[-1], "metrics": {"val_loss": 0.25}}
    meta = {"format": 1, "config": {}, "data_fingerprint": "f", "report": report, "attributes": []}
    save_weights(best_path(folder, epochs[-1]), {"w": torch.ones(2)}, meta)


def epoch_of(folder: Path) -> int:
    epoch: int = load_last(folder / LAST)["history"][-1]["epoch"]
    return epoch


def test_the_checkpoint_before_stays_beside_the_last(tmp_path: Path) -> None:
    saved(tmp_path, 1, 2, 3)
    assert (epoch_of(tmp_path), load_last(tmp_path / PREVIOUS)["history"][-1]["epoch"]) == (3, 2)
    assert mend_last(tmp_path) == Mended()
    assert epoch_of(tmp_path) == 3


@pytest.mark.parametrize("length", [0, 1000, -1])
def test_a_truncated_checkpoint_gives_way_to_the_one_before(tmp_path: Path, length: int) -> None:
    saved(tmp_path, 1, 2, 3)
    (tmp_path / LAST).write_bytes((tmp_path / LAST).read_bytes()[:length])
    mended = mend_last(tmp_path)
    assert "last.pt: not a readable checkpoint" in mended.told
    assert mended.told.endswith("it goes on from the checkpoint before, epoch 2")
    assert (mended.best_epoch, mended.best_loss) == (3, 0.25)  # recorded: it stands when epoch 3 is trained again
    assert epoch_of(tmp_path) == 2
    assert not (tmp_path / PREVIOUS).exists()
    assert mend_last(tmp_path).told == ""


def test_without_one_before_the_trial_starts_again(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    (tmp_path / LAST).write_bytes(b"PK")
    mended = mend_last(tmp_path)
    assert mended.told.endswith("there is none before it: the trial starts again")
    assert (mended.best_epoch, mended.best_loss) == (1, 0.25)
    saved(tmp_path, 1, 2)
    for name in (LAST, PREVIOUS):
        (tmp_path / name).write_bytes(b"PK")
    best_path(tmp_path, 1).write_bytes(b"damaged, too")
    best_path(tmp_path, 2).unlink()
    mended = mend_last(tmp_path)
    assert (mended.best_epoch, mended.best_loss) == (0, math.inf)
    assert not (tmp_path / LAST).exists()
    assert not (tmp_path / PREVIOUS).exists()
    assert mend_last(tmp_path) == Mended()


def test_a_kill_between_the_two_renames_costs_one_epoch(tmp_path: Path) -> None:
    saved(tmp_path, 1, 2)
    (tmp_path / LAST).rename(tmp_path / PREVIOUS)
    assert mend_last(tmp_path) == Mended()
    assert epoch_of(tmp_path) == 2


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    with tmpfs(tmp_path / "small", "1m") as place:
        yield place


def test_a_full_disk_is_told_and_leaves_the_former_files(small_disk: Path) -> None:
    saved(small_disk, 1, 2)
    before = {path.name: path.read_bytes() for path in small_disk.iterdir()}
    many = torch.ones(1 << 19)
    frame = [np.random.default_rng(0).random((200_000, 2), np.float32)]
    meta = {"format": 1}
    writes: list[Callable[[], object]] = [
        lambda: save_last(small_disk, {"history": [], "model": many}),
        lambda: save_weights(best_path(small_disk, 3), {"w": many}, meta),
        lambda: save_predictions(predictions_path(small_disk, 3), ["i"] * 200_000, ["a"], frame),
    ]
    for write in writes:
        with pytest.raises(BlockedError, match=r"small/.*: No space left on device\. Free some space; then the same"):
            write()
        assert {path.name: path.read_bytes() for path in small_disk.iterdir()} == before


def test_a_read_only_disk_is_told(small_disk: Path) -> None:
    saved(small_disk, 1)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    writes: list[Callable[[], object]] = [
        lambda: save_last(small_disk, {"history": []}),
        lambda: save_weights(best_path(small_disk, 3), {"w": torch.ones(2)}, {}),
    ]
    for write in writes:
        with pytest.raises(BlockedError, match=r"Read-only file system\. Make it writable"):
            write()
    assert epoch_of(small_disk) == 1


def test_who_lost_the_claim_writes_no_more(tmp_path: Path) -> None:
    """A process on a machine that was cut off wakes up, while its trial goes on elsewhere."""
    state = {"config": "{}", "history": [], "epoch": 2}
    with claimed(tmp_path):
        save_last(tmp_path, {**state, "epoch": 1})
        (tmp_path / CLAIM).write_text("another process")
        with pytest.raises(Superseded, match="another process has taken over"):
            save_last(tmp_path, state)
        (tmp_path / CLAIM).unlink()  # the trial has ended, and the driver has cleared up
        with pytest.raises(Superseded):
            save_last(tmp_path, state)
    assert load_last(tmp_path / LAST)["epoch"] == 1
    assert os.listdir(tmp_path) == [LAST]
    with claimed(tmp_path):  # the next process
        save_last(tmp_path, state)
    assert load_last(tmp_path / LAST)["epoch"] == 2
