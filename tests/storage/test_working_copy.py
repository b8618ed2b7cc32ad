"""A run in a bucket and its working copy: brought up to date, told apart, set aside, read while it is merged."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fashion.bucket.address import Address, parse_address
from fashion.bucket.store import Store
from fashion.errors import RunError, StorageError
from fashion.record.lock import RunLock
from fashion.record.run import Run
from fashion.storage.segments import mark, segment_name
from fashion.storage.working_copy import Held, NoRunError, brought, find, held, push_folder, push_manifest, working_copy
from tests.support.servers.s3_server import Server
from tests.support.stored_runs import STORAGE, another_machine, config, create

pytestmark = pytest.mark.usefixtures("machine")


@pytest.fixture
def address(s3: Server) -> Address:
    return parse_address(STORAGE) / "run"


def upload(run: Run, address: Address, start: int, end: int | None = None) -> None:
    """Put the journal's bytes from `start` on as an object."""
    content = run.journal_path.read_bytes()[start:end]
    Store(address).put(segment_name(start), content, create=True)


def size(run: Run) -> int:
    return run.journal_path.stat().st_size


@pytest.fixture
def run(address: Address) -> Iterator[Run]:
    """Two trials, each recorded in an object of its own."""
    run = create(address)
    run.record_trial(0, config(0))
    upload(run, address, 0)
    middle = size(run)
    run.record_trial(1, config(1))
    upload(run, address, middle)
    yield run
    run.close()


def told(address: Address) -> tuple[Run, list[str]]:
    notes: list[str] = []
    with held(STORAGE, address.name, notes.append) as bucket:
        assert bucket is not None
        assert bucket.path == working_copy(address)
    return Run.open(working_copy(address)), notes


def test_an_empty_machine_gets_the_whole_record(
    run: Run, address: Address, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    another_machine(monkeypatch, tmp_path / "other")
    copy = brought(address)
    assert (copy.driven, copy.notes) == (False, ())
    assert copy.path != run.path
    assert (copy.path / "journal.jsonl").read_bytes() == run.journal_path.read_bytes()
    assert (copy.path / "manifest.json").read_bytes() == (run.path / "manifest.json").read_bytes()
    found = copy.of(Run.open(copy.path))
    assert (found.location, found.name, sorted(found.trials)) == (f"{STORAGE}/run", "run", [0, 1])
    assert found.trials[0].status == "interrupted"


def test_what_is_new_is_fetched_and_nothing_else(
    run: Run,
    address: Address,
    s3: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mine = run.path
    another_machine(monkeypatch, tmp_path / "other")
    brought(address)
    before = size(run)
    run.record_trial(2, config(2))
    upload(run, address, before)
    asked = len(s3.requests)
    copy = brought(address)
    got = [path for method, path in s3.requests[asked:] if method == "GET" and "/journal/" in path]
    assert got == [f"/sweeps/all/run/journal/{before:015d}.jsonl"]
    assert (copy.path / "journal.jsonl").read_bytes() == (mine / "journal.jsonl").read_bytes()


def test_a_copy_that_lags_behind_is_brought_up_even_with_half_a_line(run: Run, address: Address) -> None:
    whole = run.journal_path.read_bytes()
    run.close()
    for cut in (0, 5, len(whole) // 2, len(whole) - 1):
        run.journal_path.write_bytes(whole[:cut])
        found, notes = told(address)
        assert (found.journal_path.read_bytes(), notes) == (whole, [])


@pytest.mark.parametrize("marked", [True, False])
def test_a_copy_that_is_ahead_keeps_what_it_has(run: Run, address: Address, marked: bool) -> None:
    before = size(run)
    run.record_trial(2, config(2))
    mark(run.path, before if marked else 0)
    with held(STORAGE, "run", pytest.fail) as bucket:
        assert bucket is not None
        assert bucket.uploaded == before
    assert sorted(Run.open(run.path).trials) == [0, 1, 2]


@pytest.mark.parametrize("marked", [True, False])
def test_a_copy_that_went_another_way_is_set_aside(
    run: Run, address: Address, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, marked: bool
) -> None:
    before, mine = size(run), working_copy(address)
    run.record_trial(2, {"train": {"lr": 111}})  # never uploaded: this machine was killed
    mark(run.path, before if marked else 0)
    another_machine(monkeypatch, tmp_path / "other")
    other = Run.open(brought(address).path)
    other.record_trial(2, {"train": {"lr": 222}})
    upload(other, address, before)
    another_machine(monkeypatch, tmp_path / "machine")
    found, notes = told(address)
    assert found.path == mine
    assert found.trials[2].config == {"train": {"lr": 222}}
    assert len(notes) == 1
    assert "was continued by another machine" in notes[0]
    aside = Path(notes[0].rpartition(" ")[2])
    assert Run.open(aside).trials[2].config == {"train": {"lr": 111}}


def test_a_run_that_was_replaced_by_another_of_its_name(
    run: Run, address: Address, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(address)
    store.delete([each.name for each in store.objects()])
    another_machine(monkeypatch, tmp_path / "other")
    other = create(address, "2")
    other.record_trial(0, config(7))
    upload(other, address, 0)
    another_machine(monkeypatch, tmp_path / "machine")
    found, notes = told(address)
    assert found.trials[0].config == config(7)
    assert "is another run now" in notes[0]


def test_a_run_that_was_deleted_is_set_aside_and_begun_anew(run: Run, address: Address) -> None:
    store = Store(address)
    store.delete([each.name for each in store.objects()])
    notes: list[str] = []
    with held(STORAGE, "run", notes.append) as bucket:
        assert bucket is not None
        assert bucket.uploaded == 0
        assert not bucket.path.exists()
    assert "no longer exists" in notes[0]
    with pytest.raises(NoRunError, match="is no run"):
        brought(address)


def test_merged_objects_are_read_as_their_parts(
    run: Run, address: Address, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As a driver leaves it that was killed between the two steps of a merge.
    Store(address).put(segment_name(0), run.journal_path.read_bytes())
    another_machine(monkeypatch, tmp_path / "other")
    assert (brought(address).path / "journal.jsonl").read_bytes() == run.journal_path.read_bytes()


def test_a_record_with_a_hole_is_refused(
    run: Run, address: Address, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Store(address).delete([segment_name(0)])
    another_machine(monkeypatch, tmp_path / "other")
    with pytest.raises(RunError, match=r"s3://sweeps/all/run/journal: parts of the record are missing .*byte 0"):
        brought(address)


def test_an_object_that_ends_within_a_line_is_refused(
    run: Run, address: Address, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Store(address).put(segment_name(size(run)), b'{"event": "trial"')
    another_machine(monkeypatch, tmp_path / "other")
    with pytest.raises(RunError, match="ends within a line"):
        brought(address)


def test_readers_see_whole_events_while_a_driver_appends_and_merges(
    run: Run, address: Address, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    another_machine(monkeypatch, tmp_path / "other")
    over, failed = threading.Event(), list[BaseException]()

    def drive() -> None:
        try:
            store, begin = Store(address), size(run)
            for round_ in range(12):
                starts = []
                for number in range(4):
                    starts.append(size(run))
                    run.record_note(0, f"{round_} {number} " + "x" * 500)
                    upload(run, address, starts[-1])
                store.put(segment_name(begin), run.journal_path.read_bytes()[begin:])
                store.delete([segment_name(start) for start in starts if start != begin])
        except BaseException as error:
            failed.append(error)
        over.set()

    thread = threading.Thread(target=drive)
    thread.start()
    seen = 0
    while not over.is_set():
        shutil.rmtree(working_copy(address), ignore_errors=True)  # from nothing each time: the hardest
        found = Run.open(brought(address).path)
        content = found.journal_path.read_bytes()
        assert content == run.journal_path.read_bytes()[: len(content)]
        assert len(found.trials[0].notes) >= seen
        seen = len(found.trials[0].notes)
    thread.join()
    assert not failed
    assert len(Run.open(brought(address).path).trials[0].notes) == 48


def test_a_copy_that_this_machine_drives_is_read_without_the_bucket(
    run: Run,
    address: Address,
    s3: Server,
) -> None:
    with held(STORAGE, "run", pytest.fail), RunLock(run.path):
        s3.faults.refuse()
        copy = brought(address)
        s3.faults.heal()
    assert (copy.driven, copy.path) == (True, run.path)


def test_a_reader_leaves_a_copy_alone_that_a_driver_is_about_to_use(run: Run, address: Address) -> None:
    with held(STORAGE, "run", pytest.fail):
        run.record_trial(2, config(2))  # not uploaded yet
        before = run.journal_path.read_bytes()
        assert brought(address).driven
        assert run.journal_path.read_bytes() == before


def test_a_reader_elsewhere_knows_that_it_is_driven(
    run: Run, address: Address, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with held(STORAGE, "run", pytest.fail):
        another_machine(monkeypatch, tmp_path / "other")
        copy = brought(address)
        assert copy.driven
        found = copy.of(Run.open(copy.path))
        assert found.driven
        assert found.trials[0].status == "running"
    assert not brought(address).driven  # released


def test_the_second_of_two_drivers_is_refused(run: Run, address: Address) -> None:
    with (
        held(STORAGE, "run", pytest.fail),
        pytest.raises(RunError, match="another sweep is running"),
        held(STORAGE, "run", pytest.fail),
    ):
        pytest.fail("it drives")


def test_a_manifest_is_replaced_by_its_driver_alone(run: Run, address: Address, s3: Server) -> None:
    store = Store(address)
    run.update_manifest(more=1)
    push_manifest(store, run.path)
    assert json.loads(store.get("manifest.json"))["more"] == 1
    run.update_manifest(more=2)
    s3.faults.cut("after", times=1, only=("PUT",))
    push_manifest(store, run.path)
    assert json.loads(store.get("manifest.json"))["more"] == 2


def test_a_folder_is_put_whole(run: Run, address: Address) -> None:
    store = Store(address)
    store.put("best/old.bin", b"old")
    folder = run.path / "best"
    folder.mkdir()
    for name in ("model.json", "model.safetensors"):
        (folder / name).write_bytes(name.encode())
    push_folder(address, folder, last="model.json")
    assert [each.name for each in store.objects("best")] == ["best/model.json", "best/model.safetensors"]
    assert store.get("best/model.json") == b"model.json"


def test_finding_runs(run: Run, address: Address, s3: Server) -> None:
    time.sleep(1.1)  # the bucket's times are in whole seconds
    second = parse_address(STORAGE) / "second"
    later = create(second)
    later.record_trial(0, config(0))
    upload(later, second, 0)
    s3.write("sweeps", "all/data/img/1.jpg", b"no run")
    assert find(STORAGE, None) == second
    assert find(STORAGE, "run") == address
    assert find("runs", f"{STORAGE}/run/") == address
    assert find("runs", "run") is None
    assert find(STORAGE, str(run.path)) is None  # a folder that is there
    for name, message in (("secnd", "Did you mean second"), ("zzz", "There are: second, run")):
        with pytest.raises(RunError, match=message):
            find(STORAGE, name)
    with pytest.raises(RunError, match="holds no runs"):
        find("s3://sweeps/nothing", None)
    with pytest.raises(StorageError, match="no such bucket"):
        find("s3://elsewhere", None)
    with pytest.raises(RunError, match="--storage: must name a bucket"):
        find("s3://", None)


def test_storage_in_a_folder_is_held_by_nobody(tmp_path: Path) -> None:
    with held(str(tmp_path), "run", pytest.fail) as bucket:
        assert bucket is None


def test_what_is_held_is_plain(run: Run, address: Address) -> None:
    with held(STORAGE, "run", pytest.fail) as bucket:
        assert isinstance(bucket, Held)
        assert (bucket.address, bucket.uploaded) == (address, size(run))
