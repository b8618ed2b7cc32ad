"""A first spec for a data set, drafted for the data and the machine at hand: what `fashion-sweep run --data` writes.

Once written the draft is the user's: it is read, and never written again. It stays valid whatever backbone `--set`
names: another one than the draft's starts from random weights in the draft's own terms.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fashion.bucket.address import is_address
from fashion.config.data import DataConfig, LabelReading
from fashion.data.contents import default_cache_dir
from fashion.data.forms.label_file import NAMES
from fashion.data.layout import Dataset, read_dataset
from fashion.data.lists import SPLITS, looking_with
from fashion.data.remote.local_copy import on_this_machine, parse_root
from fashion.errors import Problem, SpecError, printable
from fashion.spec.space import to_json
from fashion.spec.sweep_spec import SweepSpec, load_spec, plain_name
from fashion.sweep.drafts.recipes import (
    Machine,
    as_pushed,
    choose_backbone,
    fine_tuned,
    from_scratch,
    probed,
    this_machine,
)
from fashion.sweep.drafts.yaml_text import yaml_lines
from fashion.sweep.labelled import require_labels

Progress = Callable[[str, int, int], None]  # label, done, total

# What --set may say of these decides how the data are read, so it belongs into the draft.
READ_BY = ("attributes", "missing", "split", "folds", "follow_links", "on_error")
ASKED = (*(f"data.{name}" for name in READ_BY), "model.backbone", "name")
MOST_NAMES = 100  # files NAME.yaml, NAME-2.yaml ... that are looked at


@dataclass(frozen=True)
class Draft:
    """path: the spec's file. written: whether it was written now, or was there. sentence: what to say of it."""

    path: Path
    written: bool
    sentence: str


def drafted(
    root: str,
    overrides: Sequence[str],
    progress: Progress,
    machine: Callable[[], Machine] = this_machine,
) -> Draft:
    """The draft for the data set at `root`, written into the working folder unless it is there.

    overrides: as `load_spec` takes them. No file is overwritten: where NAME.yaml is something else, NAME-2.yaml is
    taken. `machine` is called once the data are known to be good.

    Raises DataError where the data set can't be used, SpecError where an override is not valid, or nothing can be
    written; StorageError where a bucket can't be read. Nothing is written then.
    """
    root = root if is_address(root) else os.path.normpath(root)
    if not root.isprintable():
        raise SpecError("No spec can be drafted:", [Problem("--data", "must be printable text", ascii(root))])
    # The overrides that are asked for here, so that mistakes in them are told, and the others are not.
    minimal = f"data: {{root: {json.dumps(root, ensure_ascii=False)}}}\nmodel: {{backbone: tiny, weights: none}}"
    early = [each for each in overrides if each.partition("=")[0].strip() in ASKED]
    asked = load_spec(f"{name_for(root)}.yaml", early, minimal)
    path, there = _file(asked.name, root)
    if there:
        return Draft(path, False, f"{path}: drafted earlier for {root}, and used as it is")
    dataset = _read(asked, root, progress)
    known = machine()
    wanted = asked.fixed.get("model.backbone") if any("backbone" in each.partition("=")[0] for each in early) else None
    text = draft_text(path.stem, root, dataset, known, asked, str(wanted or ""))
    spec = load_spec(path, [each for each in overrides if each.partition("=")[0].strip() != "name"], text)
    try:
        with path.open("x", encoding="utf-8") as stream:  # x: never over another file
            stream.write(text)
    except OSError as error:
        raise SpecError("No spec can be written:", [Problem(str(path), "must be writable", str(error))]) from error
    backbone = load_spec(path, (), text).fixed["model.backbone"]
    what = f"{backbone}, {spec.total_trials} trials; {known}"
    return Draft(path, True, f"{path}: written for {root} ({what}). Edit it as you like: fashion-sweep run {path}")


def name_for(root: str) -> str:
    """The name of a data set's first sweep: of its file or folder. A file called labels or metadata has its folder's
    name, where one was typed."""
    if is_address(root):
        return plain_name(root.rstrip("/").rpartition("/")[2])[:56] or "data"
    path = Path(root)
    plain = path.stem if path.suffix else path.name or Path(os.path.abspath(root)).name
    if path.name in NAMES and path.parent.name not in ("", ".."):
        plain = path.parent.name
    return plain_name(plain)[:56] or "data"


def marker(root: str) -> str:
    """The first line of a draft, by which it is known again."""
    return f"# Drafted by: fashion-sweep run --data {printable(shlex.quote(root))}"


def _file(name: str, root: str) -> tuple[Path, bool]:
    """The first of NAME.yaml, NAME-2.yaml ... that is this data set's draft, or is not there; and whether it is."""
    for number in range(1, MOST_NAMES + 1):
        path = Path(f"{name}.yaml" if number == 1 else f"{name}-{number}.yaml")
        if not os.path.lexists(path):
            return path, False
        if path.is_file():
            with path.open(encoding="utf-8", errors="replace") as stream:
                if stream.readline(4096).rstrip() == marker(root):
                    return path, True
    fix = "Give the sweep another name: --name"
    raise SpecError("No spec can be drafted:", [Problem(f"{name}.yaml", "is there already", fix=fix)])


def _read(asked: SweepSpec, root: str, progress: Progress) -> Dataset:
    reading = LabelReading(*(asked.fixed[f"data.{name}"] for name in LabelReading._fields))  # type: ignore[arg-type]
    found = on_this_machine(
        parse_root(root), default_cache_dir().absolute(), (), SPLITS, progress=progress, reading=reading
    )
    dataset = read_dataset(
        found, bool(asked.fixed["data.follow_links"]), reading=reading, looking=looking_with(progress)
    )
    require_labels(dataset)
    return dataset


def draft_text(name: str, root: str, dataset: Dataset, machine: Machine, asked: SweepSpec, wanted: str = "") -> str:
    """The YAML of a draft. asked: how the data are read. wanted: the backbone, where the user named one."""
    backbone, pretrained = choose_backbone(wanted, machine)
    images = sum(len(split) for split in dataset.as_listed.splits.values())
    if not pretrained:
        what = from_scratch(dataset, machine)
    elif machine.gpu:
        what = fine_tuned(backbone, images)
    else:
        what = probed(backbone, images, machine)
    data, model, train, trials, cost = what
    defaults = {name: field.default for name, field in DataConfig.model_fields.items()}
    reading = {each: to_json(asked.data[each]) for each in READ_BY if asked.data[each] != defaults[each]}
    weights: Any = {"switch": "model.backbone", "cases": {backbone: "imagenet"}, "else": "none"}
    sections: dict[str, Any] = {
        "name": name,
        "data": {"root": root, **reading, **as_pushed(dataset, data)},
        "model": {"backbone": backbone, "weights": weights if pretrained else "none", **model},
        "train": train,
        "search": {"method": "random", "trials": trials, "seed": 0},
        "scheduler": {"name": "asha", "metric": "val_loss", "grace": 0.25, "reduction": 3},
    }
    again = shlex.quote(f"{name}.yaml")
    comment = [
        marker(root),
        "#",
        f"# It is for this machine ({machine}) and {images:,} images, and yours to edit. To start or go on:",
        "#",
        f"#   fashion-sweep run {again}",
        f"#   fashion-sweep best {name} --predict",
        "#",
        f"# {cost}",
    ]
    if pretrained:
        fetch = "--set model.weights=imagenet fetches its own"
        comment.append(f"# Another model.backbone starts from random weights; {fetch}.")
    return "\n".join([*comment, *yaml_lines(sections), ""])
