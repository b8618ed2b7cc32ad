"""`fashion-sweep run`."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import click

from fashion.cli.completion.words import complete_file, complete_folder
from fashion.cli.options import (
    data_option,
    fresh_option,
    json_option,
    mode_of,
    name_option,
    overrides_with,
    plain_option,
    set_option,
    spec_or_draft,
    trials_option,
)

if TYPE_CHECKING:
    from fashion.api.recorded_run import RecordedRun
    from fashion.display.live import Mode
    from fashion.spec.sweep_spec import SweepSpec
    from fashion.sweep.outcome import SweepOutcome


@click.command()
@click.argument("spec", metavar="[SPEC]", required=False, shell_complete=complete_file)
@data_option("run it")
@set_option
@name_option
@click.option(
    "--storage", metavar="FOLDER",
    help="Keep the run directory in this folder, or at this s3:// or gs:// address, instead of the spec's.",
    shell_complete=complete_folder,
)  # fmt: skip
@trials_option
@fresh_option
@click.option(
    "--address", metavar="ADDRESS", help="Join the Ray cluster there instead of starting Ray on this machine."
)
@plain_option
@json_option
@click.option(
    "--refit",
    is_flag=True,
    help="Then train the winner again on train and val together, and promote it to RUN/refit/best.",
)
@click.option("--recorded", is_flag=True, help="With --json: print first the events that are recorded already.")
def run(
    spec: str | None,
    root: str | None,
    overrides: tuple[str, ...],
    name: str | None,
    storage: str | None,
    trials: str | None,
    fresh: bool,
    address: str | None,
    plain: bool,
    as_json: bool,
    refit: bool,
    recorded: bool,
) -> None:
    """Run a sweep, or go on with it where it stopped. SPEC is a file, or - for standard input.

    Finished and stopped trials are not repeated; interrupted ones go on from their last checkpoint. Ctrl-C stops
    cleanly, and the same command goes on. --trials +N extends a finished sweep, even after its ranges were edited;
    trials that it already has count.

    With --data no spec is needed: one with settings for these data and this machine is written into the working
    folder, and run. The same command again uses it as it then is.

    --refit gives the best model that these data make, and no score of it: nothing is left to measure it on. RUN/best
    stays what it is. A finished sweep can be refitted at any time, by the same command.

    \b
    Example: fashion-sweep run sweeps/quickstart.yaml
    Example: fashion-sweep run --data labels.csv
    Example: fashion-sweep run sweeps/lr.yaml --name lr-adam --set train.optimizer=adam
    Example: fashion-sweep run sweeps/quickstart.yaml --trials +4
    Example: fashion-sweep run sweeps/quickstart.yaml --refit
    """
    mode = mode_of(plain, as_json)
    if recorded and not as_json:
        raise click.UsageError("--recorded goes with --json.")
    overrides = overrides_with(overrides, name, storage)
    spec = spec_or_draft(spec, root, overrides)

    from fashion.api.recorded_run import RecordedRun
    from fashion.engine.start import run_spec
    from fashion.spec.sweep_spec import load_spec

    sweep = load_spec(spec, overrides) if trials is None else _with_trials(spec, overrides, trials)
    record, outcome = run_spec(
        sweep,
        address=address,
        fresh=fresh,
        mode=mode,
        recorded=recorded,
        say=lambda text: click.echo(text, err=True),
    )
    opened = RecordedRun(record)
    if outcome.kind == "completed":
        _show_confusions(opened)
    _tell_end(outcome, opened.location)
    if not as_json:
        _tell_findings(opened)
    if refit:
        _refit(opened, sweep, address, mode, as_json)


def _refit(run: RecordedRun, sweep: SweepSpec, address: str | None, mode: Mode, as_json: bool) -> None:
    """Train the winner on both splits, and say what that is and what it is not."""
    from fashion.api.sweeps import refit_winner
    from fashion.display.pages import page
    from fashion.display.reading.refit import print_refit

    def say(text: str) -> None:
        click.echo(text, err=True)

    say(f"Refit: the winner's configuration on train and val, in {run.location}/refit")
    done = refit_winner(run, sweep, address=address, mode=mode, say=say)
    _tell_end(done.outcome, done.location)
    if not as_json:
        print_refit(done.record, done.best(), f"{done.location}/best", page())
        click.echo(f"Next: fashion-sweep best {shlex.quote(done.location)} {_prediction(done)}")


def _show_confusions(run: RecordedRun) -> None:
    """Put the winner's confusion matrices among the event files, or say why that is not possible."""
    from fashion.api.confusions import show_confusions

    shown = show_confusions(run)
    if isinstance(shown, str):
        click.echo(f"TensorBoard gets no confusion matrices: {shown}", err=True)


def _tell_findings(run: RecordedRun) -> None:
    """Say who won and how sure that is, what mattered most, what it cost, and what to type next."""
    from fashion.display.pages import page
    from fashion.display.progress import Bars
    from fashion.display.reading.summary import summary_lines
    from fashion.reading.summary import summarise

    out = page()
    with Bars() as bars:
        found = summarise(run.record, run.address, bars)
    for line in summary_lines(run.record, found):
        out.print(line, markup=False)
    click.echo(f"Results: {run.location}")
    # A name alone is looked for in the folder `runs`.
    named = shlex.quote(run.name if run.location == f"runs/{run.name}" else run.location)
    click.echo(f"Next: fashion-sweep best {named} {_prediction(run)}")
    click.echo(f"      fashion-sweep report {named}")


def _prediction(run: RecordedRun) -> str:
    """The options of `best` that predict something: without a list of test images others than for one with."""
    from fashion.record.manifest import folds_of

    if "test" in run.record.manifest.get("splits", ["test"]):  # older runs recorded none
        return "--predict"
    if folds_of(run.record.manifest) is not None:  # val's images were trained on, too
        return "--predict --images FOLDER"
    return "--predict --split val, or --predict --images FOLDER"


def _tell_end(outcome: SweepOutcome, location: str) -> None:
    """Say how the sweep ended, and exit with its code unless it was completed."""
    if outcome.kind == "interrupted":
        everything = f"Everything reported is in {location}; the same command goes on from there."
        click.echo(f"Interrupted. {f'{outcome.lacking}.' if outcome.lacking else everything}", err=True)
    elif outcome.kind == "failed":
        click.echo(f"The sweep failed: {location}: {outcome.reason}", err=True)
    if outcome.exit_code:
        raise SystemExit(outcome.exit_code)


def _with_trials(path: str, overrides: tuple[str, ...], trials: str) -> SweepSpec:
    """The spec with `--trials N`, or `--trials +N` of the run that is there."""
    from fashion.spec.sweep_spec import load_spec
    from fashion.sweep.extend import total_with

    total, added = int(trials), 0
    if trials.startswith("+"):
        added = int(trials)
        total, left = total_with(added, load_spec(path, overrides))
        if left:
            click.echo(f"--trials {trials}: {left} of {total} trials are still to do; none are added.", err=True)
            added = 0
    spec = load_spec(path, (*overrides, f"search.trials={total}"))
    if added and spec.total_trials < total:
        raise click.BadParameter(
            f"search.method grid has {spec.total_trials} combinations, and all were tried.", param_hint="--trials"
        )
    return spec
