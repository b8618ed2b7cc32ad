"""`fashion-sweep submit`: a sweep on a cluster, from a machine that may go away."""

from __future__ import annotations

import click

from fashion.cli.completion.words import complete_file
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
from fashion.cli.watch import address_option, command, follow_job, say_how


@click.command()
@click.argument("spec", metavar="[SPEC]", required=False, shell_complete=complete_file)
@data_option("submit it; the data must be readable here and on the cluster in the same place")
@address_option
@click.option("--folder", metavar="FOLDER", help="Let relative paths in the spec start in this folder of the cluster.")
@set_option
@name_option
@click.option(
    "--storage",
    metavar="FOLDER",
    help="Make run directories at this s3:// or gs:// address, or in this folder of the cluster.",
)
@trials_option
@fresh_option
@click.option("--detach", is_flag=True, help="Submit the sweep without following it.")
@plain_option
@json_option
def submit(
    spec: str | None, root: str | None, address: str | None, folder: str | None, overrides: tuple[str, ...],
    name: str | None, storage: str | None, trials: str | None, fresh: bool, detach: bool, plain: bool, as_json: bool,
) -> None:  # fmt: skip
    """Run a sweep on a cluster, or go on with it there, and follow it.

    Only the spec is sent: its paths are the cluster's. The driver runs on the cluster's head, whatever becomes of this
    machine. Ctrl-C detaches. The exit codes are those of `run`, and 0 after detaching. With --data the spec is drafted
    here, for this machine, as by `run --data`.

    \b
    Example: fashion-sweep submit sweeps/backbones.yaml --folder /mnt/fashion
    Example: fashion-sweep submit --data s3://bucket/people --storage s3://bucket/runs
    Example: fashion-sweep submit sweeps/lr.yaml --storage s3://bucket/runs --set data.root=/mnt/data --detach
    """
    from fashion.spec.sweep_spec import load_spec
    from fashion.spec.yaml_lines import read_text
    from fashion.submit.command import entrypoint

    mode = mode_of(plain, as_json)
    overrides = overrides_with(overrides, name, storage)
    spec = spec_or_draft(spec, root, overrides)
    sweep = load_spec(spec, overrides)
    entry = entrypoint(read_text(spec), sweep, overrides, trials, fresh, folder)

    from fashion.submit.job_server import JobServer

    server = JobServer(address)
    try:
        job = server.submit(sweep.name, entry)
    except KeyboardInterrupt:
        click.echo(
            f"Whether it was submitted is unknown; find out with: {command('watch', sweep.name, address)}", err=True
        )
        raise
    click.echo(f"Submitted to {server.url} as job {job.id}.", err=as_json)
    if detach:
        say_how(job, address)
    else:
        click.echo("Ctrl-C detaches, the sweep goes on.", err=True)
        follow_job(server, job, mode, address, behind=False)
