"""The commands `fashion-sweep data ...`, which translate between the terminal and `fashion.data`."""

from __future__ import annotations

import click

from fashion.cli.data.look import check, explain, stats
from fashion.cli.data.make import convert, demo
from fashion.cli.data.ship import pack, push
from fashion.cli.options import SuggestingGroup


@click.group(cls=SuggestingGroup)
def data() -> None:
    """Check, describe, convert, generate and cache data sets.

    \b
    Example:
      fashion-sweep data check data/FashionDataset
    """


for command in (check, stats, explain, convert, demo, pack, push):
    data.add_command(command)
