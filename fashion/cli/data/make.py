"""`fashion-sweep data demo` and `convert`: data sets that are made."""

from __future__ import annotations

import click

from fashion.cli.data.options import follow_links_option, reading_of, reading_options, tell_rule
from fashion.cli.options import LocalPath


@click.command()
@click.argument("root", type=LocalPath())
@click.option("--train", default=600, show_default=True, help="Draw this many training images.")
@click.option("--val", default=150, show_default=True, help="Draw this many validation images.")
@click.option("--test", default=150, show_default=True, help="Draw this many test images.")
@click.option("--size", default=96, show_default=True, help="Make them this many pixels wide and high.")
@click.option(
    "--seed", default=0, show_default=True, type=click.IntRange(min=0), help="Another seed draws other garments."
)
@click.option(
    "--attributes",
    "as_labels",
    is_flag=True,
    help="Write a label file without splits instead of the challenge's layout: an attribute is multi-label, some "
    "labels are missing, and the images are of groups.",
)
def demo(root: str, train: int, val: int, test: int, size: int, seed: int, as_labels: bool) -> None:
    """Draw a licence-free data set of garments in the new folder ROOT.

    \b
    Example:
      fashion-sweep data demo data/demo
      fashion-sweep data demo data/people --attributes
    """
    from fashion.data.convert.demo_labels import write_label_demo
    from fashion.data.demo import write_demo
    from fashion.display.progress import Bars

    if as_labels:
        with Bars() as bars:
            file = write_label_demo(root, train + val + test, size, seed, bars.of("drawing"))
        click.echo(f"{file}: {train + val + test:,} images of {size} px")
        return

    with Bars() as bars:
        write_demo(root, train, val, test, size, seed, bars.of("drawing"))
    click.echo(f"{root}: train {train:,}, val {val:,}, test {test:,} images of {size} px")


@click.command()
@click.argument("source", metavar="FROM", type=LocalPath())
@click.argument("target", metavar="TO", type=LocalPath())
@follow_links_option
@reading_options
def convert(
    source: str, target: str, follow_links: bool, attributes: str | None, missing: str | None, rule: str | None
) -> None:
    """Write the labels of FROM in another form. No image is copied.

    FROM is any data set, CelebA's folder or list_attr_celeba.txt, or a multi-task JSON file of mmpretrain. TO is a
    label file that ends in .csv, .tsv, .jsonl or .parquet, beside which labels.json names the folder of the images;
    or that folder, for the challenge's layout.

    \b
    Example:
      fashion-sweep data convert data/FashionDataset labels.csv
    """
    from fashion.data.convert.convert import convert as convert_labels
    from fashion.data.lists import looking_with
    from fashion.display.progress import Bars

    with Bars() as bars:
        reading = reading_of(attributes, missing, rule)
        done = convert_labels(source, target, follow_links, reading, looking_with(bars))
    tell_rule(done.rule)
    for path in done.files:
        click.echo(str(path))
    click.echo(f"{done.images:,} images, {done.attributes} attribute{'s' if done.attributes != 1 else ''}")
