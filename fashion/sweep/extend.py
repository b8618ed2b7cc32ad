"""Going on with a sweep: with the same spec, or with more trials, drawn from edited ranges if the user edited them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fashion.bucket.address import Address, is_address, parse_address
from fashion.config.trial import TrialConfig, read_config
from fashion.errors import Problem, RunError
from fashion.files import now
from fashion.record.manifest import FORMAT
from fashion.record.run import Run
from fashion.spec.fields import SAMPLED, show
from fashion.spec.sweep_spec import SweepSpec
from fashion.storage import working_copy

ANOTHER_NAME = "Give the new sweep another name (name: in the spec, or --name)"


def total_with(added: int, spec: SweepSpec) -> tuple[int, int]:
    """How many trials `--trials +ADDED` asks for. Returns (the new total, how many of the old one are still to do).

    A sweep that is not finished gets no more trials: the command that was interrupted can be typed again as it is.
    Raises RunError when there is no such run.
    """
    none = f"there is no run {spec.storage}/{spec.name} to extend"
    if is_address(spec.storage):
        try:
            working_copy.brought(_address(spec))
        except working_copy.NoRunError:
            raise RunError(f"--trials +{added}: {none}. Without the + it is the number of trials.") from None
    elif not run_path(spec).exists():
        raise RunError(f"--trials +{added}: {none}. Without the + it is the number of trials.")
    run = known_run(spec)
    total = SweepSpec.from_json(run.manifest["spec"]).total_trials
    left = len(run.unfinished(total))
    return (total, left) if left else (total + added, 0)


@dataclass(frozen=True)
class Begun:
    """What a command finds of its sweep. spec: the command's, as the run, if there is one, was begun: what versions
    since then have added does not change it. trials: recorded configurations that are still to be trained. left: how
    many of the spec's trials are still to be done."""

    spec: SweepSpec
    trials: tuple[TrialConfig, ...]
    left: int


def begun(spec: SweepSpec) -> Begun:
    """Read the spec's run, if there is one, once. Raises RunError where it can't be gone on with."""
    if not run_path(spec).exists():
        return Begun(spec, (), spec.total_trials)
    run = known_run(spec)
    spec = spec.begun_as(SweepSpec.from_json(run.manifest["spec"]))
    return Begun(spec, tuple(_begun_trials(run)), len(run.unfinished(spec.total_trials)))


def _begun_trials(run: Run) -> Iterator[TrialConfig]:
    for trial in run.trials.values():
        if not trial.final:
            try:
                yield read_config(trial.config)
            except ValidationError as error:
                first = error.errors()[0]
                place = f"{run.journal_path}: trial {trial.number}, {'.'.join(map(str, first['loc']))}"
                raise RunError(Problem(place, first["msg"], show(first["input"]), f"{ANOTHER_NAME}.")) from error


def known_run(spec: SweepSpec) -> Run:
    """The spec's run, which must exist. For a run in a bucket, its working copy."""
    run = Run.open(run_path(spec))
    if is_address(spec.storage):
        run.kept_at(str(_address(spec)))
    return run


def _address(spec: SweepSpec) -> Address:
    return parse_address(spec.storage) / spec.name


def run_path(spec: SweepSpec) -> Path:
    """Where the spec's run is or will be. For a run in a bucket, its working copy. Raises RunError when there can be no
    folder there."""
    if is_address(spec.storage):
        return working_copy.working_copy(_address(spec))
    path = Path(os.path.expanduser(spec.storage)) / spec.name
    literal = Path(spec.storage) / spec.name
    if literal != path and (literal / "manifest.json").is_file() and not path.exists():
        rule = f"the run is in a folder that is called ~, where an earlier version put it: ./{literal}"
        raise RunError(Problem("storage", rule, show(spec.storage), f"Move it to {path}, or write ./{spec.storage}"))
    try:
        first = next(place for place in (path, *path.parents) if place.exists())
    except OSError as error:
        raise RunError(Problem("storage", "must be a folder", show(spec.storage), str(error.strerror))) from error
    if first != path and not first.is_dir():
        raise RunError(Problem("storage", "must be a folder", show(spec.storage), f"{first} is a file"))
    return path


def continue_with(
    run: Run,
    spec: SweepSpec,
    data_root: Path | Address,
    data_fingerprint: str,
    models: Callable[[], list[dict[str, Any]]] = list,
    moved: Callable[[], str] = str,
    teachers: Mapping[str, str] | None = None,
) -> None:
    """Make `spec` the run's, so that its trials are handed out from now on.

    What may differ from the recorded spec: resources, storage, where the data set lies, a larger number of trials and,
    together with it, the values and ranges of data, model and train. What was edited is noted in the manifest under
    "extensions"; trials that have begun keep their configuration. models: the manifest's entry of that name, which is
    asked for only if the manifest is written. moved: which images are in another split than they were, in a sentence,
    which is asked for only if the data set has changed. teachers: the digest of each teacher's soft labels.

    Raises:
        RunError: it is another spec, the data set or a teacher has changed, or another process drives the run. Nothing
        is written then.
    """
    path, recorded = run.location, SweepSpec.from_json(run.manifest["spec"])
    free = ("resources.", "storage:", "search.trials:", "data.root:")
    changed = [difference for difference in recorded.differences(spec) if not difference.startswith(free)]
    more = spec.total_trials > recorded.total_trials
    only_ranges = all(difference.split(".")[0] in SAMPLED for difference in changed)
    if changed and not (more and only_ranges and not spec.search.exhaustive):
        hint = ", or remove the folder."
        if only_ranges and not spec.search.exhaustive:
            hint += " To go on in the edited ranges, ask for more trials: --trials +20."
        raise RunError(f"{path}: this sweep was started with another spec ({'; '.join(changed)}). {ANOTHER_NAME}{hint}")
    if spec.total_trials < recorded.total_trials:
        raise RunError(
            f"{path}: search.trials: must not be less than the recorded {recorded.total_trials}, "
            f"got {spec.total_trials}. "
            f"{ANOTHER_NAME}."
        )
    if run.manifest["data_fingerprint"] != data_fingerprint:
        how = f" {sentence}" if (sentence := moved()) else ""
        raise RunError(
            f"{path}: the data set at {data_root} has changed since this sweep started.{how} {ANOTHER_NAME}, "
            "or put the data back."
        )
    known: dict[str, str] = run.manifest.get("teachers", {})
    for teacher, digest in (teachers or {}).items():
        if known.get(teacher, digest) != digest:
            raise RunError(f"{path}: the teacher {teacher} has changed since this sweep started. {ANOTHER_NAME}.")
    asked = recorded.to_json() != spec.to_json() or run.manifest.get("data_root") != str(data_root)
    if not asked and run.manifest["format"] == FORMAT:
        return
    extensions = run.manifest.get("extensions", [])
    if more:
        edited = [difference.split(":")[0] for difference in changed]
        extension = {"time": now(), "first_trial": recorded.total_trials, "edited": edited, "changes": changed}
        extensions = [*extensions, extension]
    with run.lock():  # the manifest of a run that another process drives is that process's
        run.update_manifest(
            format=FORMAT, spec=spec.to_json(), data_root=str(data_root), extensions=extensions, models=models(),
            teachers={**known, **(teachers or {})},
        )  # fmt: skip
