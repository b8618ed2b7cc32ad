"""`fashion-sweep watch` and `stop`: a sweep that another process drives, on this machine or on a cluster."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fashion.cli.completion.words import complete_run
from fashion.cli.options import json_option, mode_of, plain_option
from fashion.cli.reading.location import storage_option

if TYPE_CHECKING:
    from fashion.api.locate import Location
    from fashion.display.live import Mode
    from fashion.submit.job_server import JobServer
    from fashion.submit.local import Driver
    from fashion.submit.watch import Job

address_option = click.option(
    "--address", metavar="ADDRESS",
    help="Ask the cluster's job server there, HOST:PORT of Ray's dashboard. Default: $RAY_API_SERVER_ADDRESS, "
    "$RAY_ADDRESS, then http://127.0.0.1:8265, where `ray dashboard` puts it.",
)  # fmt: skip


@click.command()
@click.argument("run", required=False, metavar="[RUN]", shell_complete=complete_run)
@storage_option
@address_option
@plain_option
@json_option
def watch(run: str | None, storage: str, address: str | None, plain: bool, as_json: bool) -> None:
    """Follow a sweep that another terminal of this machine runs, or one that was submitted to a cluster.

    A sweep that has ended is told about. RUN is the sweep's name, a run's folder or a job's id; without it the latest
    sweep that runs here is followed, else the latest that was submitted. With --address it is one that was submitted.
    Ctrl-C detaches, and the sweep goes on. The exit code is the sweep's own. --json repeats the events from the first
    on.

    \b
    Example: fashion-sweep watch
    Example: fashion-sweep watch backbones --address http://127.0.0.1:8265
    """
    mode = mode_of(plain, as_json)
    here = None if address is not None else _here(storage, run)
    if here is not None and (driver := _driver(here)) is not None:
        _follow_driver(here, driver, mode)
        return
    submitted = _submitted(run, storage, address, here)
    if submitted is not None:
        follow_job(*submitted, mode, address, behind=True)
    elif here is not None:
        _tell_ended(here, as_json)


@click.command()
@click.argument("run", metavar="RUN", shell_complete=complete_run)
@storage_option
@address_option
def stop(run: str, storage: str, address: str | None) -> None:
    """Stop a sweep cleanly, as Ctrl-C in its terminal would, and wait until it has ended.

    RUN is the name or the folder of a sweep that runs on this machine, or the name or job id of one that was submitted
    to a cluster; with --address it is one that was submitted. Everything reported is kept, and the same `run` or
    `submit` goes on from there.

    \b
    Example: fashion-sweep stop backbones
    """
    here = None if address is not None else _here(storage, run)
    if here is not None and _driver(here) is not None:
        _stop_driver(here)
        return
    submitted = _submitted(run, storage, address, here)
    if submitted is None:
        if here is not None:
            click.echo(f"No process drives {here}: {_progress(here)}. The same run goes on from there.")
        return
    from fashion.submit.job_server import STOP_SECONDS

    server, job = submitted
    if job.ended:
        click.echo(f"{job.id} has ended already: {job.status.lower()}.")
        return
    server.stop(job.id)
    click.echo(f"Stopping {job.id}; Ray kills it if it has not ended within {STOP_SECONDS} s.")
    while not (job := server.job(job.id)).ended:
        time.sleep(1.0)
    click.echo(f"{job.id} has ended: {job.status.lower()}. The same submit goes on from there.")


def _here(storage: str, run: str | None) -> Location | None:
    """A recorded run of that name; without a name the latest one that a process of this machine drives."""
    from fashion.api.locate import find_location, locations
    from fashion.errors import RunError

    try:
        if run is not None:
            return find_location(storage, run)
        return next((each for each in locations(storage) if _driver(each) is not None), None)
    except RunError:
        return None  # then it is one that was submitted, or none: `_submitted` tells


def _folder(location: Location) -> Path:
    if isinstance(location, Path):
        return location
    from fashion.storage.working_copy import working_copy

    return working_copy(location)


def _driver(location: Location) -> Driver | None:
    from fashion.submit.local import driver_of

    return driver_of(_folder(location))


def _submitted(
    run: str | None, storage: str, address: str | None, here: Location | None
) -> tuple[JobServer, Job] | None:
    """The sweep's job on the cluster; None where none is found there, and `here` is a run of that name.

    Raises ClusterError where neither is found, or the cluster at a given `address` has none.
    """
    from fashion.errors import ClusterError

    try:
        from fashion.submit.job_server import JobServer

        server = JobServer(address)
        return server, server.find(run)
    except ClusterError as error:
        if address is not None:
            raise
        if here is not None:
            return None
        what = "No sweep" if run is None else f"No sweep {run}"
        raise ClusterError(
            f"{what} runs on this machine (--storage {storage}), and none was found on a cluster: {error}"
        ) from error


def _follow_driver(location: Location, driver: Driver, mode: Mode) -> None:
    from fashion.display.progress import Bars
    from fashion.submit.local import follow_driver
    from fashion.sweep.outcome import outcome_of

    click.echo(f"Process {driver.pid} on {driver.host} runs {location}. Ctrl-C detaches, the sweep goes on.", err=True)
    with Bars() as bars:
        try:
            record = follow_driver(_folder(location), driver, str(location), mode, bars)
        except KeyboardInterrupt:
            click.echo("Detached.", err=True)
            _say_how(*(shlex.join(["fashion-sweep", name, str(location)]) for name in ("watch", "stop")))
            return
    outcome = outcome_of(record, record.total_trials)
    ended = {
        "completed": f"{record.name} is done. Recorded in {location}.",
        "interrupted": f"{record.name} was interrupted. Recorded in {location}. The same run goes on from there.",
        "failed": f"{record.name} failed: {outcome.reason}",
    }
    click.echo(ended[outcome.kind], err=mode == "json" or outcome.kind != "completed")
    if outcome.exit_code:
        raise SystemExit(outcome.exit_code)


def _tell_ended(location: Location, as_json: bool) -> None:
    """How a run stands that nobody drives, with the exit code of its sweep."""
    import json

    from fashion.api.recorded_run import read_run
    from fashion.display.pages import page, print_run, run_json
    from fashion.sweep.outcome import outcome_of

    record = read_run(location).record
    if as_json:
        click.echo(json.dumps(run_json(record), allow_nan=False))
    else:
        print_run(record, page(), 20)
    click.echo(f"No process drives {location}: {_progress(location)}.", err=True)
    if code := outcome_of(record, record.total_trials).exit_code:
        raise SystemExit(code)


def _progress(location: Location) -> str:
    from fashion.api.recorded_run import read_run
    from fashion.display.pages import final, overview

    entry = overview(read_run(location).record)
    return f"{final(entry['counts'])} of {entry['trials']} trials are final"


def _stop_driver(location: Location) -> None:
    from fashion.submit.local import drives, interrupt

    path = _folder(location)
    driver = interrupt(path)
    click.echo(f"Stopping {location}: process {driver.pid} saves what is recorded and ends.")
    while drives(path, driver):
        time.sleep(0.2)
    click.echo(f"{location} has ended: {_progress(location)}. The same run goes on from there.")


def follow_job(server: JobServer, job: Job, mode: Mode, address: str | None, behind: bool) -> None:
    """Show a submitted sweep until it ends or Ctrl-C detaches, and exit with its code."""
    from fashion.errors import ClusterError
    from fashion.submit.job_log import Follower
    from fashion.submit.watch import account, follow

    follower = Follower(job.id, job.command, mode, behind)
    try:
        job = follow(server, job, follower, lambda text: click.echo(text, err=True))
    except KeyboardInterrupt:
        follower.leave()
        click.echo("Detached.", err=True)
        say_how(job, address)
        return
    except ClusterError:
        follower.leave()
        say_how(job, address)
        raise
    follower.finish(failed=job.exit_code != 0)
    click.echo(account(job, follower.location), err=mode == "json" or job.exit_code != 0)
    if job.exit_code:
        raise SystemExit(job.exit_code)


def say_how(job: Job, address: str | None) -> None:
    """How to follow and to stop a submitted sweep that goes on."""
    _say_how(command("watch", job.sweep, address), command("stop", job.sweep, address))


def command(name: str, sweep: str, address: str | None) -> str:
    """What to type to `watch` or `stop` a submitted sweep."""
    return shlex.join(["fashion-sweep", name, sweep, *(["--address", address] if address else [])])


def _say_how(watch: str, stop: str) -> None:
    click.echo(f"The sweep goes on. Follow it: {watch}", err=True)
    click.echo(f"                   Stop it:   {stop}", err=True)
