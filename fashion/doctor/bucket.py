"""A bucket that a sweep reads or writes, examined from one node: reached, listed, written, how fast, and its clock."""

from __future__ import annotations

import os
import posixpath
import shutil
import statistics
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from fashion.bucket.address import Address
from fashion.bucket.store import PART, NotThereError, Store, TakenError
from fashion.data.lists import LABELLED
from fashion.data.pushed import MANIFEST, Form, Pushed
from fashion.data.remote.listing import lists
from fashion.data.remote.local_copy import Copy
from fashion.doctor.folder import LEAST_FREE, LEAST_SPEED, SCRATCH, Finding, existing
from fashion.errors import DataError, Problem, StorageError

PATIENCE = 6.0  # seconds without an answer until that is a finding
MOST_LATENCY = 1.0  # seconds of one small request; a report makes a handful
ASKED = 3  # times
FIRST = 1 << 20  # bytes: on a line that takes a second for these, no more are sent to measure it
LEAST_LEFT = timedelta(hours=1)  # of credentials that nothing renews
OTHERWISE = "Mend that, and examine again"
# Far below what stores refuse (15 minutes) and what tells a driver that renews its lease from one that is gone.
MOST_SKEW = 10.0


@dataclass(frozen=True)
class Bucket:
    """An address that a spec names. cache: this machine's folder for copies. Of packed images these `forms` are needed."""

    name: str
    address: Address
    cache: Path
    writes: bool = False
    forms: tuple[Form, ...] = ()

    @property
    def place(self) -> str:
        return f"{self.name} {self.address}"


def examine_bucket(node: str, bucket: Bucket) -> list[Finding]:
    """Nothing stays in the bucket but what a store that fails meanwhile keeps from being removed."""
    rule = "a bucket that answers and may be listed with the credentials here"
    try:
        store = Store(bucket.address, PATIENCE, PATIENCE)
        store.require()
    except StorageError as error:
        return [_refused(node, "bucket", bucket, rule, error)]
    found = [Finding("bucket", node, True, Problem(bucket.place, rule)), *_credentials(node, bucket)]
    return found + (_written(node, bucket, store) if bucket.writes else _data(node, bucket, store))


def _refused(node: str, check: str, bucket: Bucket, rule: str, error: StorageError) -> Finding:
    told = error.problems[0]
    return Finding(check, node, False, Problem(bucket.place, rule, _what(told), told.fix or OTHERWISE))


def _what(wrong: Problem) -> str:
    return f"{wrong.value} ({wrong.rule})" if wrong.value else wrong.rule


def _credentials(node: str, bucket: Bucket) -> list[Finding]:
    """Until when they are good, as far as boto3 or the environment tell."""
    if bucket.address.scheme != "s3":
        return []
    try:
        import boto3
    except ImportError:
        return []
    credentials = boto3.Session().get_credentials()
    if credentials is None:
        return []
    rule = f"good for {LEAST_LEFT.total_seconds() / 3600:g} hour or more, or renewed"
    place, fix = f"credentials for {bucket.place}", "Get new ones, or use a profile or a role, which are renewed"
    until = getattr(credentials, "_expiry_time", None)  # botocore has no public name for it
    if not isinstance(until, datetime):
        kind = "temporary, nothing tells until when" if credentials.token else "lasting"
        return [Finding("credentials", node, True, Problem(place, rule, f"from {credentials.method}, {kind}"))]
    renewed = credentials.method != "env"  # an environment stays as it is
    ok = renewed or until - datetime.now(UTC) >= LEAST_LEFT
    kind = "renewed after" if renewed else "until"
    value = f"from {credentials.method}, {kind} {until.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    return [Finding("credentials", node, ok, Problem(place, rule, value, "" if ok else fix))]


def _data(node: str, bucket: Bucket, store: Store) -> list[Finding]:
    """That its lists are there, with the last image of each or the packed images that the spec needs."""
    rule = "a data set that can be fetched"
    try:
        there = lists(store)
        pushed = Pushed.from_json(store.get(MANIFEST)) if MANIFEST in there else None
        if pushed is not None and pushed.packs:
            return _packed(node, bucket, store, pushed, rule)
        missing = [name for split in LABELLED for name in _absent(store, split)]
    except DataError as error:
        wrong = error.problems[0]
        return [Finding("data", node, False, Problem(bucket.place, rule, _what(wrong), wrong.fix or OTHERWISE))]
    except StorageError as error:
        return [_refused(node, "data", bucket, rule, error)]
    except ValueError as error:
        problem = Problem(bucket.place, rule, f"{MANIFEST}: {error}", "Push the data set again")
        return [Finding("data", node, False, problem)]
    if missing:
        problem = Problem(bucket.place, rule, f"no {', no '.join(missing)}", "Push the data set again")
        return [Finding("data", node, False, problem)]
    return [Finding("data", node, True, Problem(bucket.place, rule, "images as they are"))]


def _absent(store: Store, split: str) -> list[str]:
    """What is not there of a split's lists and the last image of them."""
    name = f"split/{split}.txt"
    try:
        lines = store.get(name).decode("utf-8-sig").splitlines()
        name = f"split/{split}_attr.txt"
        store.get(name)
        name = posixpath.normpath(next((line.strip() for line in reversed(lines) if line.strip()), "image"))
        store.get(name)
    except NotThereError:
        return [name]
    return []


def _packed(node: str, bucket: Bucket, store: Store, pushed: Pushed, rule: str) -> list[Finding]:
    wanted = pushed.wanted(LABELLED, bucket.forms, str(bucket.address))
    there = {each.name: each.size for each in store.objects("packs")}
    if wrong := [pack.path for pack in wanted if there.get(pack.path) != pack.size]:
        problem = Problem(bucket.place, rule, f"{wrong[0]} is missing or cut off", "Push the data set again")
        return [Finding("data", node, False, problem)]
    size = sum(pack.size for pack in wanted)
    value = f"packed images, {len(wanted)} files of {size / 1e9:.2f} GB for this spec"
    root = Copy(bucket.address, bucket.cache).root
    need = sum(pack.size for pack in wanted if not (root / pack.path).is_file()) + LEAST_FREE
    free = shutil.disk_usage(existing(root)).free
    fix = "" if free >= need else "Free some space, or set FASHION_CACHE to another folder"
    room = Problem(f"cache {root}", f"has {need / 1e9:.1f} GB free for the data set", f"{free / 1e9:.1f} GB", fix)
    found = Finding("data", node, True, Problem(bucket.place, rule, value))
    return [found, Finding("free", node, free >= need, room)]


def _written(node: str, bucket: Bucket, store: Store) -> list[Finding]:
    """An object made, read, refused a second time and removed; how long that took, and when the store says it was."""
    name = f"{SCRATCH}{uuid.uuid4().hex}"
    rule = "takes objects, gives them back, refuses to make one twice, and removes them"
    made: list[str] = []
    try:
        try:
            found = [*_clock(node, bucket, store, name, made), *_speed(node, bucket, store, f"{name}-speed", made)]
            wrong = _unconditional(store, name)
        finally:
            store.delete(made)
    except StorageError as error:
        return [_refused(node, "writable", bucket, rule, error)]
    fix = "Use a store that has conditional writes (S3 and Google Cloud Storage have)" if wrong else ""
    return [Finding("writable", node, not wrong, Problem(bucket.place, rule, wrong, fix)), *found]


def _unconditional(store: Store, name: str) -> str:
    """What is wrong with the conditional writes that keep two drivers from one run, if anything."""
    if store.get(name) != name.encode():
        return "another object came back than the one that was put"
    for condition in ({"create": True}, {"version": '"0123456789abcdef0123456789abcdef"'}):
        try:
            store.put(name, b"second", **condition)  # type: ignore[arg-type]  # one of two keywords
        except TakenError:
            continue
        return "a write under a condition that does not hold was carried out"
    return ""


def _clock(node: str, bucket: Bucket, store: Store, name: str, made: list[str]) -> list[Finding]:
    """By the time that the store gives the object, in whole seconds."""
    made.append(name)
    before = time.time()
    store.put(name, name.encode(), create=True)
    after = time.time()
    begun = next(each.modified for each in store.objects(after=name[:-1]) if each.name == name).timestamp()
    low, high = begun - after, begun + 1 - before
    ok = low <= MOST_SKEW and high >= -MOST_SKEW
    value = f"{(low + high) / 2:+.1f} s, give or take {(high - low) / 2:.1f}"
    fix = "" if ok else "Let NTP set this machine's clock (chrony, systemd-timesyncd)"
    rule = f"within {MOST_SKEW:g} s of this node's"
    return [Finding("clock", node, ok, Problem(f"clock of {bucket.place}", rule, value, fix))]


def _speed(node: str, bucket: Bucket, store: Store, name: str, made: list[str]) -> list[Finding]:
    made.append(name)
    latency = statistics.median(_seconds(lambda: store.put(name, b"x")) for _ in range(ASKED))
    content = os.urandom(FIRST)
    up = _seconds(lambda: store.put(name, content))
    if up < 1:
        content = os.urandom(PART)
        up = _seconds(lambda: store.put(name, content))
    down = _seconds(lambda: store.get(name))
    rates = [len(content) / seconds for seconds in (up, down)]
    fast = min(rates) >= LEAST_SPEED
    near = "Run the trials in the bucket's region, or use a bucket that is nearer"
    rule = f"takes and gives {LEAST_SPEED / 1e6:g} MB/s or more"
    value = f"{rates[0] / 1e6:.1f} MB/s up, {rates[1] / 1e6:.1f} MB/s down"
    quick = latency <= MOST_LATENCY
    return [
        Finding("speed", node, fast, Problem(bucket.place, rule, value, "" if fast else near)),
        Finding(
            "latency", node, quick,
            Problem(bucket.place, f"carries a small write out within {MOST_LATENCY:g} s", f"{latency * 1000:.0f} ms",
                    "" if quick else near),
        ),
    ]  # fmt: skip


def _seconds(act: Callable[[], object]) -> float:
    start = time.perf_counter()
    act()
    return time.perf_counter() - start
