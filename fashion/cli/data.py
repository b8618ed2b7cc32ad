"""The commands `fashion-sweep data ...`, which translate between the terminal and `fashion.data`."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fashion.cli.options import HomePath, SuggestingGroup

if TYPE_CHECKING:
    from fashion.config import Form

SPLITS = ("train", "val", "test")


@click.group(cls=SuggestingGroup)
def data() -> None:
    """Check, describe, generate and cache data sets.

    \b
    Example:
      fashion-sweep data check data/FashionDataset
    """


_follow_links = click.option(
    "--follow-links", is_flag=True, help="Read through links that lead out of ROOT, like data.follow_links in a spec."
)


@data.command()
@click.argument("root", type=HomePath())
@_follow_links
@click.option("--all", "everything", is_flag=True, help="Every finding, not three of each kind.")
@click.option("--json", "as_json", is_flag=True, help="Print all findings as JSON.")
def check(root: str, follow_links: bool, everything: bool, as_json: bool) -> None:
    """Find everything that is wrong with the data set at ROOT, a folder or s3://... or gs://..., in one pass.

    Prints each kind of finding with its number and examples. Exits with 0 if training may go on (warnings are
    allowed), with 2 if it may not.

    \b
    Example:
      fashion-sweep data check data/FashionDataset
    """
    from fashion.data.check import check as check_data
    from fashion.data.contents import default_cache_dir
    from fashion.data.remote.local_copy import fetch_unread, parse_root
    from fashion.display.progress import Bars

    named = parse_root(root)
    with Bars() as bars:
        folder = root if isinstance(named, Path) else fetch_unread(named, default_cache_dir().absolute(), bars)
        result = check_data(folder, bars.of("reading images"), follow_links)
    if as_json:
        click.echo(json.dumps(result.to_json(), indent=2))
    else:
        for line in map(str, result.findings) if everything else result.lines():
            click.echo(line)
        count = Counter(finding.severity for finding in result.findings)
        listed = ", ".join(f"{split} {images:,}" for split, images in result.images.items()) or "no images"
        verdict = "training may go on" if result.ok else "training may not go on"
        click.echo(f"{listed}: {count['error']} errors, {count['warning']} warnings, {count['info']} notes; {verdict}")
    sys.exit(0 if result.ok else 2)


@data.command()
@click.argument("root", type=HomePath())
@_follow_links
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of the table.")
@click.option("--figure", "path", type=HomePath(), help="Also draw a figure into this file (.png, .svg or .pdf).")
def stats(root: str, follow_links: bool, as_json: bool, path: str | None) -> None:
    """Print how often each class occurs in each split of ROOT, a folder or s3://... or gs://..., and draw it if asked.

    \b
    Example:
      fashion-sweep data stats data/FashionDataset --figure classes.svg
    """
    from fashion.data.layout import read_dataset
    from fashion.data.stats import distribution, figure

    dataset = read_dataset(folder_of(root), follow_links)
    shown = distribution(dataset)
    click.echo(json.dumps(shown.to_json(), indent=2) if as_json else shown.table())
    if path is not None:
        click.echo(f"figure: {figure(dataset, path)}", err=True)


@data.command()
@click.argument("root", type=HomePath())
@click.option("--train", default=600, show_default=True, help="Draw this many training images.")
@click.option("--val", default=150, show_default=True, help="Draw this many validation images.")
@click.option("--test", default=150, show_default=True, help="Draw this many test images.")
@click.option("--size", default=96, show_default=True, help="Make them this many pixels wide and high.")
@click.option(
    "--seed", default=0, show_default=True, type=click.IntRange(min=0), help="Another seed draws other garments."
)
def demo(root: str, train: int, val: int, test: int, size: int, seed: int) -> None:
    """Draw a licence-free data set of garments in the new folder ROOT.

    \b
    Example:
      fashion-sweep data demo data/demo
    """
    from fashion.data.demo import write_demo
    from fashion.display.progress import Bars

    with Bars() as bars:
        write_demo(root, train, val, test, size, seed, bars.of("drawing"))
    click.echo(f"{root}: train {train:,}, val {val:,}, test {test:,} images of {size} px")


_fit = click.option(
    "--fit",
    default="stretch",
    show_default=True,
    type=click.Choice(["stretch", "pad"]),
    help="Ignore the aspect ratio, or pad to a square.",
)
_interpolation = click.option(
    "--interpolation",
    default="bicubic",
    show_default=True,
    type=click.Choice(["bicubic", "bilinear"]),
    help="Resize with this filter.",
)
_orientation = click.option(
    "--orientation",
    default="apply",
    show_default=True,
    type=click.Choice(["apply", "ignore"]),
    help="Turn images as their EXIF orientation says, or leave them as they are stored.",
)
_depth = click.option(
    "--depth",
    default="declared",
    show_default=True,
    type=click.Choice(["declared", "maximum"]),
    help="How deep greys become bytes, like data.depth in a spec.",
)


@data.command()
@click.argument("root", type=HomePath())
@click.option(
    "--resize",
    default=320,
    show_default=True,
    type=click.IntRange(8, 2048),
    help="Resize to so many pixels, like data.resize in a spec.",
)
@_fit
@_interpolation
@_orientation
@_depth
@_follow_links
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
    splits: tuple[str, ...],
    verify: bool,
    as_json: bool,
) -> None:
    """Build or fetch the image cache of ROOT before a sweep does, in $FASHION_CACHE or else ~/.cache/fashion-sweep.

    \b
    Example:
      fashion-sweep data pack data/FashionDataset --resize 180
    """
    from fashion.config import Form
    from fashion.data.layout import read_dataset
    from fashion.data.pack import Pack
    from fashion.display.progress import Bars
    from fashion.errors import UserError

    form = Form(resize, fit, interpolation, orientation, depth)
    dataset = read_dataset(folder_of(root, [form], splits or SPLITS), follow_links)
    missing = [split for split in splits if split not in dataset.splits]
    if missing:
        raise UserError(f"{root} has no split {missing[0]!r}; it has {', '.join(dataset.splits)}.")
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


@data.command()
@click.argument("root", type=HomePath())
@click.argument("address")
@click.option(
    "--resize",
    "sizes",
    multiple=True,
    type=click.IntRange(8, 2048),
    help="Push the image cache of this size instead of the images. May be repeated.",
)
@_fit
@_interpolation
@_orientation
@_depth
@_follow_links
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
    replace: bool,
    as_json: bool,
) -> None:
    """Put the data set in the folder ROOT at ADDRESS, s3://BUCKET/PREFIX or gs://BUCKET/PREFIX.

    A spec may then name ADDRESS as its data.root. With --resize, image caches are put there, which every machine maps
    as they are: few objects, and nothing to decode. Without it, the folder is put there as it is, and each machine
    builds its caches from it. What is there already is not sent again.

    \b
    Example:
      fashion-sweep data push data/FashionDataset s3://my-bucket/FashionDataset --resize 320
    """
    from fashion.bucket.address import parse_address
    from fashion.config import Form
    from fashion.data.layout import read_dataset
    from fashion.data.remote.push import push as push_data
    from fashion.display.progress import Bars

    try:
        target = parse_address(address)
    except ValueError as error:
        raise click.BadParameter(f"must {error}; got {address}", param_hint="ADDRESS") from None
    dataset = read_dataset(root, follow_links)
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


def folder_of(root: str, forms: Sequence[Form] = (), splits: Sequence[str] = SPLITS) -> Path:
    """The folder itself, or this machine's copy of the data set at an address, with packed images in these forms."""
    from fashion.data.contents import default_cache_dir
    from fashion.data.remote.local_copy import on_this_machine, parse_root
    from fashion.display.progress import Bars

    with Bars() as bars:
        return on_this_machine(parse_root(root), default_cache_dir().absolute(), forms, splits, progress=bars)
