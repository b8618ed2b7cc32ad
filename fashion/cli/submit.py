"""`fashion-sweep submit`, `watch` and `stop`: a sweep on a cluster, from a machine that may go away."""

from __future__ import annotations

import shlex
import time
from typing import TYPE_CHECKING

import click

from fashion.cli.options import (
    fresh_option,
    json_option,
    mode_of,
    name_option,
    overrides_with,
    plain_option,
    set_option,
    trials_option,
)

if TYPE_CHECKING:
    from fashion.display.live import Mode
    from fashion.submit.job_server import JobServer
    from fashion.submit.watch import Job

address_option = click.option(
    "--address", metavar="ADDRESS",
    help="The cluster's job server, HOST:PORT of Ray's dashboard. Default: $RAY_API_SERVER_ADDRESS, $RAY_ADDRESS, "
    "then http://127.0.0.1:8265, where `ray dashboard` puts it.",
)  # fmt: skip


@click.command()
@click.argument("spec", metavar="SPEC")
@address_option
@click.option("--folder", metavar="FOLDER", help="Where relative paths in the spec start, on the cluster.")
@set_option
@name_option
@click.option("--storage", metavar="FOLDER", help="Where run directories are made: s3://…, or a folder of the cluster.")
@trials_option
@fresh_option
@click.option("--detach", is_flag=True, help="Submit the sweep without following it.")
@plain_option
@json_option
def submit(
    spec: str, address: str | None, folder: str | None, overrides: tuple[str, ...], name: str | None, storage: str | None,
    trials: str | None, fresh: bool, detach: bool, plain: bool, as_json: bool,
) -> None:  # fmt: skip
    """Run a sweep on a cluster, or go on with it there, and follow it.

    Only the spec is sent: its paths are the cluster's. The driver runs on the cluster's head, whatever becomes of this
    machine. Ctrl-C detaches. The exit codes are those of `run`, and 0 after detaching.

    \b
    Example: fashion-sweep submit sweeps/backbones.yaml --folder /mnt/fashion
    Example: fashion-sweep submit sweeps/lr.yaml --storage s3://bucket/runs --set data.root=/mnt/data --detach
    """
    from fashion.spec.sweep_spec import load_spec
    from fashion.spec.yaml_lines import read_text
    from fashion.submit.command import entrypoint

    mode = mode_of(plain, as_json)
    overrides = overrides_with(overrides, name, storage)
    sweep = load_spec(spec, overrides)
    command = entrypoint(read_text(spec), sweep, overrides, trials, fresh, folder)

    from fashion.submit.job_server import JobServer

    server = JobServer(address)
    try:
        job = server.submit(sweep.name, command)
    except KeyboardInterrupt:
        click.echo(
            f"Whether it was submitted is unknown; find out with: {_command('watch', sweep.name, address)}", err=True
        )
        raise
    click.echo(f"Submitted to {server.url} as job {job.id}.", err=as_json)
    if detach:
        _say_how(job, address)
    else:
        click.echo("Ctrl-C detaches, the sweep goes on.", err=True)
        _follow(server, job, mode, address, behind=False)


@click.command()
@click.argument("run", required=False, metavar="[RUN]")
@address_option
@plain_option
@json_option
def watch(run: str | None, address: str | None, plain: bool, as_json: bool) -> None:
    """Follow a sweep that was submitted to a cluster, or tell how it ended.

    RUN is the sweep's name or a job's id; without it the latest. Ctrl-C detaches. Ends with the sweep's own exit code.
    --json repeats the events from the first on.

    \b
    Example: fashion-sweep watch
    Example: fashion-sweep watch backbones --address http://127.0.0.1:8265
    """
    mode = mode_of(plain, as_json)
    from fashion.submit.job_server import JobServer

    server = JobServer(address)
    _follow(server, server.find(run), mode, address, behind=True)


@click.command()
@click.argument("run", metavar="RUN")
@address_option
def stop(run: str, address: str | None) -> None:
    """Stop a submitted sweep cleanly, as Ctrl-C stops one on this machine, and wait until it has ended.

    RUN is the sweep's name or a job's id. Everything reported is kept; the same submit goes on from there.

    \b
    Example: fashion-sweep stop backbones
    """
    from fashion.submit.job_server import STOP_SECONDS, JobServer

    server = JobServer(address)
    job = server.find(run)
    if job.ended:
        click.echo(f"{job.id} has ended already: {job.status.lower()}.")
        return
    server.stop(job.id)
    click.echo(f"Stopping {job.id}; Ray kills it if it has not ended within {STOP_SECONDS} s.")
    while not (job := server.job(job.id)).ended:
        time.sleep(1.0)
    click.echo(f"{job.id} has ended: {job.status.lower()}. The same submit goes on from there.")


def _follow(server: JobServer, job: Job, mode: Mode, address: str | None, behind: bool) -> None:
    from fashion.errors import ClusterError
    from fashion.submit.job_log import Follower
    from fashion.submit.watch import account, follow

    follower = Follower(job.id, job.command, mode, behind)
    try:
        job = follow(server, job, follower, lambda text: click.echo(text, err=True))
    except KeyboardInterrupt:
        follower.leave()
        click.echo("Detached.", err=True)
        _say_how(job, address)
        return
    except ClusterError:
        follower.leave()
        _say_how(job, address)
        raise
    follower.finish(failed=job.exit_code != 0)
    click.echo(account(job, follower.location), err=mode == "json" or job.exit_code != 0)
    if job.exit_code:
        raise SystemExit(job.exit_code)


def _say_how(job: Job, address: str | None) -> None:
    click.echo(f"The sweep goes on. Follow it: {_command('watch', job.sweep, address)}", err=True)
    click.echo(f"                   Stop it:   {_command('stop', job.sweep, address)}", err=True)


def _command(name: str, sweep: str, address: str | None) -> str:
    return shlex.join(["fashion-sweep", name, sweep, *(["--address", address] if address else [])])
