"""`fashion-sweep data pack` and `push`: image caches, and data sets in buckets."""

from __future__ import annotations

import json

import click

from fashion.cli.data.options import (
    SPLITS,
    dataset_at,
    depth_option,
    fit_option,
    folder_of,
    follow_links_option,
    interpolation_option,
    orientation_option,
    reading_of,
    reading_options,
    tell_rule,
)
from fashion.cli.options import HomePath, LocalPath


@click.command()
@click.argument("root", type=HomePath())
@click.option(
    "--resize",
    default=320,
    show_default=True,
    type=click.IntRange(8, 2048),
    help="Resize to so many pixels, like data.resize in a spec.",
)
@fit_option
@interpolation_option
@orientation_option
@depth_option
@follow_links_option
@reading_options
@click.option(
    "--split",
    "splits",
    multiple=True,
    type=click.Choice(SPLITS),
    help="Cache only this split. May be repeated.",
)
@click.option("--verify", is_flag=True, help="Compare every pixel of an existing cache with its checksum.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def pack(
    root: str,
    resize: int,
    fit: str,
    interpolation: str,
    orientation: str,
    depth: str,
    follow_links: bool,
    attributes: str | None,
    missing: str | None,
    rule: str | None,
    splits: tuple[str, ...],
    verify: bool,
    as_json: bool,
) -> None:
    """Build or fetch the image cache of ROOT before a sweep does, in $FASHION_CACHE or else ~/.cache/fashion-sweep.

    \b
    Example:
      fashion-sweep data pack data/FashionDataset --resize 180
    """
    from fashion.config.data import Form
    from fashion.data.pack import Pack
    from fashion.display.progress import Bars
    from fashion.errors import UserError

    form = Form(resize, fit, interpolation, orientation, depth)
    reading = reading_of(attributes, missing, rule)
    dataset = dataset_at(folder_of(root, [form], splits or SPLITS, reading), follow_links, reading)
    tell_rule(dataset.rule)
    absent = [split for split in splits if split not in dataset.splits]
    if absent:
        raise UserError(f"{root} has no split {absent[0]!r}; it has {', '.join(dataset.splits)}.")
    with Bars() as bars:
        dataset.fingerprint(bars.of("contents of all images"))
    packs = []
    for split in splits or tuple(dataset.splits):
        with Bars() as bars:
            built = Pack.open_or_build(dataset, split, *form, progress=bars.of(f"packing {split}"), verify=verify)
        packs.append(
            {"split": split, "images": len(built), "bytes": built.path.stat().st_size, "path": str(built.path)}
        )
        if not as_json:
            click.echo(f"{split}: {len(built):,} images, {built.path.stat().st_size / 1e6:,.0f} MB, {built.path}")
    if as_json:
        click.echo(json.dumps(packs, indent=2))


@click.command()
@click.argument("root", type=LocalPath())
@click.argument("address")
@click.option(
    "--resize",
    "sizes",
    multiple=True,
    type=click.IntRange(8, 2048),
    help="Push the image cache of this size instead of the images. May be repeated.",
)
@fit_option
@interpolation_option
@orientation_option
@depth_option
@follow_links_option
@reading_options
@click.option("--replace", is_flag=True, help="Replace another data set at ADDRESS.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def push(
    root: str,
    address: str,
    sizes: tuple[int, ...],
    fit: str,
    interpolation: str,
    orientation: str,
    depth: str,
    follow_links: bool,
    attributes: str | None,
    missing: str | None,
    rule: str | None,
    replace: bool,
    as_json: bool,
) -> None:
    """Put the data set ROOT, a folder or a label file, at ADDRESS, s3://BUCKET/PREFIX or gs://BUCKET/PREFIX.

    A spec may then name ADDRESS as its data.root. With --resize, image caches are put there, which every machine maps
    as they are: few objects, and nothing to decode. Without it, the folder is put there as it is, and each machine
    builds its caches from it. What is there already is not sent again.

    \b
    Example:
      fashion-sweep data push data/FashionDataset s3://my-bucket/FashionDataset --resize 320
    """
    from fashion.bucket.address import parse_address
    from fashion.config.data import Form
    from fashion.data.remote.push import push as push_data
    from fashion.display.progress import Bars

    try:
        target = parse_address(address)
    except ValueError as error:
        raise click.BadParameter(f"must {error}; got {address}", param_hint="ADDRESS") from None
    dataset = dataset_at(root, follow_links, reading_of(attributes, missing, rule))
    tell_rule(dataset.rule)
    forms = [Form(size, fit, interpolation, orientation, depth) for size in sizes]
    with Bars() as bars:
        sent = push_data(dataset, target, forms, replace, bars)
    if as_json:
        click.echo(json.dumps({"address": str(target), **vars(sent)}, indent=2))
        return
    what = ", ".join(f"{form.resize} px {form.fit} {form.interpolation}" for form in sent.forms) or "images as they are"
    click.echo(f"{target}: data set {sent.fingerprint}, {what}")
    click.echo(f"sent {sent.sent:,} objects ({sent.size / 1e6:,.0f} MB), {sent.kept:,} were there already")
    if sent.left:
        click.echo(f"{sent.left:,} objects there do not belong to this data set; they were left alone")
