"""`fashion-sweep model`: the parts of a backbone with the data set's heads."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from fashion.cli.completion.words import complete_backbone, complete_folder
from fashion.cli.options import HomePath


@click.command()
@click.argument("backbone", required=False, shell_complete=complete_backbone)
@click.option(
    "--data",
    "root",
    type=HomePath(),
    metavar="ROOT",
    help="The data set whose attributes the heads classify.",
    shell_complete=complete_folder,
)
@click.option(
    "--size", type=click.IntRange(8, 2048), help="Side of the input in pixels. Default: the backbone's native size."
)
@click.option("--freeze", is_flag=True, help="Show the model with train.freeze_backbone.")
@click.option(
    "--freeze-stages",
    type=click.IntRange(0),
    default=0,
    metavar="N",
    help="Show the model with train.freeze_stages: N.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON to stdout.")
@click.option("--list", "listing", is_flag=True, help="List the backbones instead.")
def model(
    backbone: str | None,
    root: str | None,
    size: int | None,
    freeze: bool,
    freeze_stages: int,
    as_json: bool,
    listing: bool,
) -> None:
    """Show the stages, output shapes and parameters of BACKBONE, and with --data those of a head for each attribute.

    No weights are needed or downloaded.

    \b
    Example: fashion-sweep model resnet18
    Example: fashion-sweep model efficientnet_b3 --data data/FashionDataset
    Example: fashion-sweep model --list
    """
    if listing:
        _list(as_json)
        return
    if backbone is None:
        raise click.UsageError("Give a BACKBONE, or --list to see them.")
    from fashion.cli.data.options import dataset_at, folder_of
    from fashion.model import backbones

    row = backbones.row(backbone)  # a wrong name must not wait for torch
    attributes = dataset_at(folder_of(root)).attributes if root is not None else ()

    import torch

    from fashion.config.model import ModelConfig
    from fashion.model.classifier import build_model
    from fashion.model.network import complete_row
    from fashion.model.summary import summarize

    row = complete_row(row)
    config = ModelConfig.model_validate({"backbone": backbone, "weights": "none"})
    with torch.device("meta"):
        network = build_model(config, [len(attribute.classes) for attribute in attributes])
    if freeze:
        network.freeze_backbone()
    elif freeze_stages:
        network.freeze_stages(freeze_stages)
    names = [attribute.name for attribute in attributes]
    summary = summarize(network, size or row.native_size, row, names)
    click.echo(json.dumps(summary.to_json(), indent=2) if as_json else summary.text())
    if root is None and not as_json:
        click.echo("The backbone alone: --data ROOT adds a head for each attribute of the data set there.", err=True)


def _list(as_json: bool) -> None:
    from fashion.model.backbones import BACKBONES

    if as_json:
        click.echo(json.dumps([asdict(row) for row in BACKBONES.values()], indent=2))
        return
    click.echo(f"{'backbone':<20}  {'from':<11}  {'native px':>9}  {'parameters':>10}  ImageNet weights")
    for row in BACKBONES.values():
        weights = row.weights_name or (f"pip package {row.package}" if row.package else "none")
        note = f" ({row.note})" if row.note else ""
        click.echo(f"{row.name:<20}  {row.source:<11}  {row.native_size:>9}  {row.parameters:>10,}  {weights}{note}")
    click.echo("timm:NAME             any network of timm, with its own weights")
