"""A bucket that a sweep reads or writes, examined from one node: access, conditional writes, speed and clock."""

from __future__ import annotations

import os
import posixpath
import shutil
import statistics
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from fashion.bucket.address import Address
from fashion.bucket.store import PART, NotThereError, Object, Store, TakenError
from fashion.config.data import Form
from fashion.data.lists import LABELLED, parse_lines, without_header
from fashion.data.remote.listing import LISTS, exists, lists
from fashion.data.remote.local_copy import LocalCopy
from fashion.data.remote.pushed import MANIFEST, Pushed
from fashion.doctor.diagnosis import ClockOffset, Diagnosis
from fashion.doctor.folder import LEAST_FREE, LEAST_SPEED, SCRATCH, existing
from fashion.errors import DataError, Problem, StorageError

PATIENCE = 6.0  # seconds without an answer before that is a fault
MOST_LATENCY = 1.0  # seconds for one small request; a report makes a handful of them
REPEATS = 3  # measurements of the latency
FIRST = 1 << 20  # bytes; where these take a second, no more are sent to measure the speed
LEAST_LEFT = timedelta(hours=1)  # until credentials that nothing renews expire
DEFAULT_FIX = "Mend that, and run doctor again"
# Seconds. Stores refuse requests only at 15 minutes, and a lease that is not renewed ends after longer than this, too.
MOST_SKEW = 10.0


@dataclass(frozen=True)
class Bucket:
    """An address that a spec names as `name`.

    `cache` is this machine's folder for copies. `forms` are those in which the spec needs packed images.
    """

    name: str
    address: Address
    cache: Path
    writes: bool = False
    forms: tuple[Form, ...] = ()

    @property
    def place(self) -> str:
        return f"{self.name} {self.address}"


def examine_bucket(node: str, bucket: Bucket) -> list[Diagnosis]:
    """Examine a bucket. All objects made for that are removed, unless the store fails meanwhile."""
    rule = "a bucket that answers and lets these credentials list it"
    try:
        store = Store(bucket.address, PATIENCE, PATIENCE)
        store.require()
    except StorageError as error:
        return [_refused(node, "bucket", bucket, rule, error)]
    found = [Diagnosis("bucket", node, True, Problem(bucket.place, rule)), *_credentials(node, bucket)]
    return found + (_written(node, bucket, store) if bucket.writes else _data(node, bucket, store))


def _refused(node: str, check: str, bucket: Bucket, rule: str, error: StorageError) -> Diagnosis:
    told = error.problems[0]
    return Diagnosis(check, node, False, Problem(bucket.place, rule, _summary(told), told.fix or DEFAULT_FIX))


def _summary(wrong: Problem) -> str:
    return f"{wrong.value} ({wrong.rule})" if wrong.value else wrong.rule


def _credentials(node: str, bucket: Bucket) -> list[Diagnosis]:
    """When the credentials expire, as far as boto3 or the environment say."""
    if bucket.address.scheme != "s3":
        return []
    try:
        import boto3
    except ImportError:
        return []
    credentials = boto3.Session().get_credentials()
    if credentials is None:
        return []
    rule = f"valid for {LEAST_LEFT.total_seconds() / 3600:g} hour or more, or renewed automatically"
    place, fix = (
        f"credentials for {bucket.place}",
        "Get new ones, or use a profile or a role, whose credentials are renewed",
    )
    until = getattr(credentials, "_expiry_time", None)  # botocore has no public name for it
    if not isinstance(until, datetime):
        kind = "temporary, of unknown expiry" if credentials.token else "permanent"
        return [Diagnosis("credentials", node, True, Problem(place, rule, f"from {credentials.method}, {kind}"))]
    renewed = credentials.method != "env"  # variables of the environment stay as they are
    ok = renewed or until - datetime.now(UTC) >= LEAST_LEFT
    kind = "renewed at" if renewed else "expiring at"
    value = f"from {credentials.method}, {kind} {until.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    return [Diagnosis("credentials", node, ok, Problem(place, rule, value, "" if ok else fix))]


def _data(node: str, bucket: Bucket, store: Store) -> list[Diagnosis]:
    """Are the lists there, and the last image of each, or the packed images that the spec needs?"""
    rule = "a data set that can be fetched"
    try:
        there = lists(store)
        pushed = Pushed.from_json(store.get(MANIFEST)) if MANIFEST in there else None
        if pushed is not None and pushed.packs:
            return _packed(node, bucket, store, pushed, rule)
        missing = [name for split in LABELLED for name in _absent(store, split, there)]
    except DataError as error:
        wrong = error.problems[0]
        return [Diagnosis("data", node, False, Problem(bucket.place, rule, _summary(wrong), wrong.fix or DEFAULT_FIX))]
    except StorageError as error:
        return [_refused(node, "data", bucket, rule, error)]
    except ValueError as error:
        problem = Problem(bucket.place, rule, f"{MANIFEST}: {error}", "Push the data set again")
        return [Diagnosis("data", node, False, problem)]
    if missing:
        problem = Problem(bucket.place, rule, f"no {', no '.join(missing)}", "Push the data set again")
        return [Diagnosis("data", node, False, problem)]
    return [Diagnosis("data", node, True, Problem(bucket.place, rule, "images as they are"))]


def _absent(store: Store, split: str, there: Mapping[str, Object]) -> list[str]:
    """The first object that is missing of a split's lists and the last image that they list."""
    if LISTS[0] not in there:
        return []  # a label file: its images show when it is fetched
    name = f"split/{split}.txt"
    try:
        lines = [line for line in parse_lines(store.get(name)) if line[1]]
        images = without_header(lines, lambda image: exists(store, posixpath.normpath(image)))
        if not images:
            return [f"image in {name}"]
        name = f"split/{split}_attr.txt"
        store.get(name)
        name = posixpath.normpath(images[-1][1])
        store.get(name)
    except NotThereError:
        return [name]
    return []


def _packed(node: str, bucket: Bucket, store: Store, pushed: Pushed, rule: str) -> list[Diagnosis]:
    """Are the packed images that the spec needs there and whole, and does the cache folder have room for them?"""
    wanted = pushed.wanted(LABELLED, bucket.forms, str(bucket.address))
    there = {each.name: each.size for each in store.objects("packs")}
    if wrong := [pack.path for pack in wanted if there.get(pack.path) != pack.size]:
        problem = Problem(bucket.place, rule, f"{wrong[0]} is missing or cut off", "Push the data set again")
        return [Diagnosis("data", node, False, problem)]
    size = sum(pack.size for pack in wanted)
    value = f"packed images, {len(wanted)} files of {size / 1e9:.2f} GB for this spec"
    root = LocalCopy(bucket.address, bucket.cache).root
    need = sum(pack.size for pack in wanted if not (root / pack.path).is_file()) + LEAST_FREE
    free = shutil.disk_usage(existing(root)).free
    fix = "" if free >= need else "Free some space, or set FASHION_CACHE to another folder"
    room = Problem(f"cache {root}", f"has {need / 1e9:.1f} GB free for the data set", f"{free / 1e9:.1f} GB", fix)
    found = Diagnosis("data", node, True, Problem(bucket.place, rule, value))
    return [found, Diagnosis("free", node, free >= need, room)]


def _written(node: str, bucket: Bucket, store: Store) -> list[Diagnosis]:
    """Make an object, read it, try to make it again, remove it: permissions, conditional writes, clock, speed."""
    name = f"{SCRATCH}{uuid.uuid4().hex}"
    rule = "lets objects be made, read and removed, and refuses to make one twice"
    made: list[str] = []
    try:
        try:
            found = [*_clock(node, bucket, store, name, made), *_speed(node, bucket, store, f"{name}-speed", made)]
            wrong = _unconditional(store, name)
        finally:
            store.delete(made)
    except StorageError as error:
        return [_refused(node, "writable", bucket, rule, error)]
    fix = "Use a store with conditional writes, such as S3 and Google Cloud Storage" if wrong else ""
    return [Diagnosis("writable", node, not wrong, Problem(bucket.place, rule, wrong, fix)), *found]


def _unconditional(store: Store, name: str) -> str:
    """What is wrong with the conditional writes that keep two drivers off the same run; empty if nothing is."""
    if store.get(name) != name.encode():
        return "reading gave another content than was written"
    # Both conditions fail: the object exists, and in another version.
    for create, version in ((True, ""), (False, '"0123456789abcdef0123456789abcdef"')):
        try:
            store.put(name, b"second", create=create, version=version)
        except TakenError:
            continue
        return "a write under a condition that does not hold succeeded"
    return ""


def _clock(node: str, bucket: Bucket, store: Store, name: str, made: list[str]) -> list[Diagnosis]:
    """Compare clocks by the time of change, in whole seconds, that the store gives a new object."""
    made.append(name)
    before = time.time()
    store.put(name, name.encode(), create=True)
    after = time.time()
    begun = next(each.modified for each in store.objects(after=name[:-1]) if each.name == name).timestamp()
    offset = ClockOffset(begun - after, begun + 1 - before)
    ok = offset.may_be_within(MOST_SKEW)
    fix = "" if ok else "Let NTP set this machine's clock (chrony, systemd-timesyncd)"
    rule = f"within {MOST_SKEW:g} s of this node's clock"
    return [Diagnosis("clock", node, ok, Problem(f"clock of {bucket.place}", rule, offset.describe(1), fix))]


def _speed(node: str, bucket: Bucket, store: Store, name: str, made: list[str]) -> list[Diagnosis]:
    """Throughput of one object of 1 MiB, or of a whole part where that is quick, and latency of one of a byte."""
    made.append(name)
    latency = statistics.median(_seconds(lambda: store.put(name, b"x")) for _ in range(REPEATS))
    content = os.urandom(FIRST)
    up = _seconds(lambda: store.put(name, content))
    if up < 1:
        content = os.urandom(PART)
        up = _seconds(lambda: store.put(name, content))
    down = _seconds(lambda: store.get(name))
    rates = [len(content) / seconds for seconds in (up, down)]
    fast = min(rates) >= LEAST_SPEED
    near = "Run the trials in the bucket's region, or use a bucket that is nearer"
    rule = f"carries {LEAST_SPEED / 1e6:g} MB/s or more in both directions"
    value = f"{rates[0] / 1e6:.1f} MB/s up, {rates[1] / 1e6:.1f} MB/s down"
    quick = latency <= MOST_LATENCY
    return [
        Diagnosis("speed", node, fast, Problem(bucket.place, rule, value, "" if fast else near)),
        Diagnosis(
            "latency", node, quick,
            Problem(bucket.place, f"answers a small write within {MOST_LATENCY:g} s", f"{latency * 1000:.0f} ms",
                    "" if quick else near),
        ),
    ]  # fmt: skip


def _seconds(act: Callable[[], object]) -> float:
    start = time.perf_counter()
    act()
    return time.perf_counter() - start
