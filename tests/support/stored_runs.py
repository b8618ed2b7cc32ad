"""Runs in the tests' bucket."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from fashion.bucket.address import Address, parse_address
from fashion.bucket.store import Store
from fashion.record.run import Run
from fashion.storage.record_upload import Mirror
from fashion.storage.working_copy import held, push_manifest, working_copy
from tests.support.recorded import ATTRIBUTES, COUNTS, SPEC, record

_objects: dict[str, dict[str, bytes]] = {}  # storage -> name -> content, of the run `lr` as it was recorded first


def record_lr(storage: str) -> None:
    """The run `lr` of `recorded`, with this bucket as its storage; no machine has a working copy that a test may use.

    It is driven once a session, which takes a second. After that its objects are put as they were.
    """
    store = Store(parse_address(storage) / "lr")
    if storage in _objects:
        for name, content in _objects[storage].items():
            store.put(name, content)
        return
    _drive_lr(storage, store)
    _objects[storage] = {each.name: store.get(each.name) for each in store.objects()}


def _drive_lr(storage: str, store: Store) -> None:
    with held(storage, "lr", pytest.fail) as there:
        assert there is not None
        there.path.parent.mkdir(parents=True, exist_ok=True)
        manifest = {
            "spec": SPEC,
            "data_fingerprint": "f",
            "attributes": ATTRIBUTES,
            "label_counts": COUNTS,
            "name": "lr",
        }
        run = Run.create(there.path.parent, there.path.name, manifest)
        push_manifest(store, run.path)
        with Mirror(there, pytest.fail) as mirror:
            mirror.start(pytest.fail, lambda number: pytest.fail(str(number)))
            record(run, 0, [0.9, 0.4, 0.5, 0.6])
            run.record_end(0, "completed")
            record(run, 1, [1.5], "s")
            run.record_end(1, "stopped", "val_loss at epoch 1 of 4")
            record(run, 2, [0.5, math.nan])
            run.record_end(2, "failed", "epoch 2: val_loss is nan")
            for path in run.path.glob("trials/*/best-*"):
                store.put(str(path.relative_to(run.path)), path)
            assert mirror.flush() == ""
        run.close()


STORAGE = "s3://sweeps/all"
MANIFEST: dict[str, Any] = {
    "spec": {"search": {"trials": 3}},
    "data_fingerprint": "f",
    "attributes": [],
    "label_counts": {},
}


def another_machine(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    monkeypatch.setenv("FASHION_CACHE", str(path))


def create(address: Address, number: str = "1") -> Run:
    """A run's working copy, and its manifest in the bucket."""
    path = working_copy(address)
    path.parent.mkdir(parents=True, exist_ok=True)
    run = Run.create(path.parent, path.name, {**MANIFEST, "name": address.name, "id": number})
    push_manifest(Store(address), path)
    return run


def config(number: int) -> dict[str, Any]:
    return {"train": {"epochs": 3, "lr": number}}
