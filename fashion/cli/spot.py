"""`fashion-sweep spot-watch`, which `cluster.yaml` starts on workers."""

from __future__ import annotations

import click


@click.command("spot-watch", hidden=True)
@click.option(
    "--node-id",
    default="",
    metavar="ID",
    help="Watch for the node with this id of Ray's; it is needed if several run here.",
)
def spot_watch(node_id: str) -> None:
    """Pass a spot machine's notice on to the Ray node on it.

    `cluster.yaml` starts it on each worker, beside `ray start`. It asks the metadata service of EC2 every 5 s, and that
    of Compute Engine every second. On a notice it drains the node, so that trials leave it at once. It ends with the
    node.

    \b
    Example: fashion-sweep spot-watch
    """
    import time

    from fashion.cluster.spot import find_cloud, find_raylet, watch

    def say(text: str) -> None:
        click.echo(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} spot-watch: {text}", err=True)

    cloud = find_cloud()
    raylet = find_raylet(node_id)
    say(f"asking {cloud.name} at {cloud.address} every {cloud.seconds:g} s for node {raylet.option('node_id')}")
    if watch(cloud, raylet, say):
        say("passed on to Ray: the node drains")
    else:
        say("the node has ended")
