"""`fashion-sweep submission`: examine what is to be uploaded, and keep a ledger of what was."""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fashion.cli.completion.words import complete_file, complete_folder, complete_run, complete_split
from fashion.cli.options import HomePath, LocalPath, SuggestingGroup

if TYPE_CHECKING:
    from fashion.api.recorded_run import RecordedRun
    from fashion.prediction.submission_log import LoggedSubmission

_storage = click.option(
    "--storage", type=HomePath(), default="runs", show_default=True, metavar="DIR", shell_complete=complete_folder,
    help="The folder of the runs; the ledger is beside them.",
)  # fmt: skip
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON to stdout.")


@click.group(cls=SuggestingGroup)
def submission() -> None:
    """Examine a submission before it is uploaded, and keep a ledger of uploads and scores.

    \b
    Example:
      fashion-sweep submission check prediction.txt.zip --data data/FashionDataset
    """


@submission.command()
@click.argument("file", type=LocalPath(), shell_complete=complete_file)
@click.option("--data", "root", required=True, type=HomePath(), metavar="ROOT", help="The data set that is predicted.",
              shell_complete=complete_folder)  # fmt: skip
@click.option("--split", default="test", show_default=True, metavar="NAME", help="The split that is predicted.",
              shell_complete=complete_split)  # fmt: skip
@click.option("--run", metavar="RUN", help="Compare class shares with what this run's model predicts for validation, "
              "and lines with what it wrote.", shell_complete=complete_run)  # fmt: skip
@click.option("--earlier", type=LocalPath(), metavar="FILE", help="Compare with this submission, too.",
              shell_complete=complete_file)  # fmt: skip
@_storage
@_json
def check(file: str, root: str, split: str, run: str | None, earlier: str | None, storage: str, as_json: bool) -> None:
    """Find everything that makes FILE, a prediction.txt.zip, fail or score low. Nothing is uploaded.

    Each finding is one line with its remedy. Exits with 0 if FILE may be uploaded (warnings are allowed), with 2 if it
    may not.

    \b
    Example:
      fashion-sweep submission check prediction.txt.zip --data data/FashionDataset --run backbones
    """
    from fashion.cli.data.options import dataset_at, folder_of
    from fashion.prediction.submission import TEXT_NAME
    from fashion.prediction.submission_check import (
        check_submission,
        labels_of_validation,
        predictions_of_validation,
    )

    dataset = dataset_at(folder_of(root))
    expected, written = labels_of_validation(dataset), None
    if run is not None:
        from fashion.cli.outside.export import opened_run

        opened = opened_run(run, storage)
        promoted = opened.promoted
        found = opened.predictions(promoted[0] if promoted else None)
        if [each.name for each in found.attributes] == list(dataset.attribute_names):
            expected = predictions_of_validation([each.predicted for each in found.attributes])
        own = opened.record.predictions_dir / split / TEXT_NAME
        # What is beside FILE was written together with it.
        written = own if own.is_file() and own.parent.resolve() != Path(file).resolve().parent else None
    result = check_submission(Path(file), dataset, split, expected, None if earlier is None else Path(earlier), written)
    if as_json:
        click.echo(json.dumps(result.to_json(), indent=2))
    else:
        for line in map(str, result.findings):
            click.echo(line)
        count = Counter(each.weight for each in result.findings)
        verdict = "it may be uploaded" if result.ok else "it would fail, or score nothing"
        click.echo(f"{file}: {count['error']} errors, {count['warning']} warnings; {verdict}")
    sys.exit(0 if result.ok else 2)


@submission.group(cls=SuggestingGroup, invoke_without_command=True)
@_storage
@_json
@click.pass_context
def log(context: click.Context, storage: str, as_json: bool) -> None:
    """List the uploads and their scores, as they were entered in submissions.jsonl beside the runs.

    \b
    Example:
      fashion-sweep submission log
    """
    from fashion.prediction.submission_log import SubmissionLog

    if context.invoked_subcommand is not None:
        return
    ledger = SubmissionLog(_folder(storage))
    entries = ledger.entries()
    if as_json:
        click.echo(json.dumps([vars(entry) for entry in entries], indent=2))
    elif entries:
        _print_entries(entries)
    else:
        click.echo(f"{ledger.path} has no entries. Add one: fashion-sweep submission log add FILE --run RUN")


@log.command()
@click.argument("file", type=LocalPath(), shell_complete=complete_file)
@click.option("--run", metavar="RUN", help="The run that it is of.  [default: the latest]", shell_complete=complete_run)
@click.option("--trial", type=int, metavar="N", help="The trial that it is of.  [default: the one that wrote it]")
@_storage
@_json
def add(file: str, run: str | None, trial: int | None, storage: str, as_json: bool) -> None:
    """Enter FILE in the ledger: its hash, its size, and the run and trial that it is of.

    \b
    Example:
      fashion-sweep submission log add prediction.txt.zip --run backbones
    """
    from fashion.cli.outside.export import opened_run
    from fashion.prediction.submission_log import SubmissionLog

    ledger = SubmissionLog(_folder(storage))
    opened = opened_run(run, storage)
    best = None if trial is None else opened.trial(trial).best()
    origin = _origin(opened, Path(file)) if trial is None else (trial, best.epoch if best else None)
    entry, new = ledger.add(Path(file), opened.name, *origin)
    if as_json:
        click.echo(json.dumps({**vars(entry), "new": new}, indent=2))
    else:
        of = f"run {entry.run}" + (f", trial {entry.trial}" if entry.trial is not None else "")
        click.echo(f"{entry.sha256[:12]}  {entry.file}: {of}{'' if new else ' (it was entered already)'}")
        click.echo(f"when its score is known: fashion-sweep submission log score {entry.sha256[:12]} SCORE")


@log.command()
@click.argument("digest", metavar="HASH")
@click.argument("score", type=float)
@_storage
@_json
def score(digest: str, score: float, storage: str, as_json: bool) -> None:
    """Enter the SCORE, from 0 to 1, of the upload whose hash begins with HASH.

    \b
    Example:
      fashion-sweep submission log score 1f0c 0.8097
    """
    from fashion.prediction.submission_log import SubmissionLog

    entry = SubmissionLog(_folder(storage)).score(digest, score)
    if as_json:
        click.echo(json.dumps(vars(entry), indent=2))
    else:
        click.echo(f"{entry.sha256[:12]}  {entry.file}: {entry.score}")


def _folder(storage: str) -> Path:
    """Where the ledger is. Raises UsageError for a bucket: the ledger is a file that people edit."""
    from fashion.bucket.address import is_address

    if is_address(storage):
        raise click.UsageError("The ledger is kept in a folder: give --storage one.")
    return Path(storage)


def _origin(run: RecordedRun, file: Path) -> tuple[int | None, int | None]:
    """Trial and epoch of the run's own prediction that has these bytes; otherwise those of the promoted model."""
    from fashion.files import parse
    from fashion.prediction.location import SOURCE_NAME

    if file.is_file():
        wanted = hashlib.sha256(file.read_bytes()).digest()
        for written in run.record.predictions_dir.glob("*/prediction.txt*"):
            if hashlib.sha256(written.read_bytes()).digest() == wanted:
                try:
                    model = parse((written.parent / SOURCE_NAME).read_bytes())["model"]
                    if "ensemble" in model:
                        return None, None  # of several trials
                    return int(model["trial"]), int(model["epoch"])
                except (OSError, ValueError, KeyError, TypeError):
                    break  # an earlier version's prediction, which does not say whose it is
    return run.promoted or (None, None)


def _print_entries(entries: list[LoggedSubmission]) -> None:
    from fashion.display.pages import page, table
    from fashion.errors import printable

    shown = table("#", "score", "file", "added", "bytes", "run", "trial", "hash", left=("file", "added", "run", "hash"))
    scores = [entry.score for entry in entries if entry.score is not None]
    for number, entry in enumerate(entries, start=1):
        best = entry.score is not None and entry.score == max(scores)
        score = "-" if entry.score is None else f"{entry.score:.4f}{' *' if best else '  '}"
        trial = "-" if entry.trial is None else str(entry.trial)
        shown.add_row(
            str(number), score, printable(entry.file), entry.added[:16].replace("T", " "), f"{entry.bytes:,}",
            printable(entry.run), trial, entry.sha256[:12],
        )  # fmt: skip
    page().print(shown, markup=False)
