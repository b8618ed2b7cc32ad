"""What the commands `fashion-sweep data ...` share: how a data set is read, and where it is on this machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from fashion.config.data import Form, LabelReading, SplitRule
    from fashion.data.layout import Dataset

SPLITS = ("train", "val", "test")
Command = TypeVar("Command", bound=Callable[..., Any])

follow_links_option = click.option(
    "--follow-links", is_flag=True, help="Read through links that lead out of ROOT, like data.follow_links in a spec."
)
fit_option = click.option(
    "--fit",
    default="stretch",
    show_default=True,
    type=click.Choice(["stretch", "pad"]),
    help="Ignore the aspect ratio, or pad to a square.",
)
interpolation_option = click.option(
    "--interpolation",
    default="bicubic",
    show_default=True,
    type=click.Choice(["bicubic", "bilinear"]),
    help="Resize with this filter.",
)
orientation_option = click.option(
    "--orientation",
    default="apply",
    show_default=True,
    type=click.Choice(["apply", "ignore"]),
    help="Turn images as their EXIF orientation says, or leave them as they are stored.",
)
depth_option = click.option(
    "--depth",
    default="declared",
    show_default=True,
    type=click.Choice(["declared", "maximum"]),
    help="How deep greys become bytes, like data.depth in a spec.",
)


def reading_options(command: Command) -> Command:
    """The options that say how labels are read, like data.attributes, data.missing and data.split in a spec."""
    for option in (
        click.option("--divide", "rule", metavar="RULE", help="Divide data without splits, like data.split in a spec: "
                     "val=0.15,test=0.15,seed=0,group=COLUMN."),
        click.option("--missing", type=click.Choice(["-1"]), help="A label of -1 is missing, like data.missing."),
        click.option("--attributes", metavar="NAMES", help="Learn these columns of a label file, separated by commas."),
    ):  # fmt: skip
        command = option(command)
    return command


def reading_of(attributes: str | None, missing: str | None, rule: str | None) -> LabelReading:
    """What `reading_options` were given. Raises click's BadParameter for a rule that is none."""
    from pydantic import ValidationError

    from fashion.config.data import LabelReading, SplitRule

    names = tuple(name.strip() for name in attributes.split(",")) if attributes is not None else None
    split = None
    if rule is not None:
        try:
            said = dict(part.split("=", 1) for part in rule.split(","))
            values = {name.strip(): SPLIT_VALUES.get(name.strip(), str)(value) for name, value in said.items()}
            split = SplitRule.model_validate(values)
        except (ValueError, ValidationError) as error:
            lines = [each["msg"] for each in error.errors()] if isinstance(error, ValidationError) else []
            reason = "; ".join(lines) or "for example val=0.15,test=0.15,seed=0"
            raise click.BadParameter(f"must be NAME=VALUE,...: {reason}", param_hint="--divide") from None
    return LabelReading(names, None if missing is None else int(missing), split)


def tell_rule(rule: SplitRule | None) -> None:
    """Say on standard error how splits were made that the data do not have themselves."""
    if rule is not None:
        click.echo(f"The data set names no splits; it is divided by data.split: {rule}", err=True)


SPLIT_VALUES: dict[str, Callable[[str], Any]] = {"val": float, "test": float, "seed": int}


def folder_of(
    root: str, forms: Sequence[Form] = (), splits: Sequence[str] = SPLITS, reading: LabelReading | None = None
) -> Path:
    """The data set itself, or this machine's copy of the data set at an address, with packed images in these forms."""
    from fashion.data.contents import default_cache_dir
    from fashion.data.remote.local_copy import on_this_machine, parse_root
    from fashion.display.progress import Bars

    how: dict[str, Any] = {} if reading is None else {"reading": reading}
    with Bars() as bars:
        return on_this_machine(parse_root(root), default_cache_dir().absolute(), forms, splits, progress=bars, **how)


def dataset_at(folder: str | Path, follow_links: bool = False, reading: LabelReading | None = None) -> Dataset:
    """The data set in a folder or a label file of this machine. Raises DataError like `read_dataset`."""
    from fashion.data.layout import read_dataset
    from fashion.data.lists import looking_with
    from fashion.display.progress import Bars

    how: dict[str, Any] = {} if reading is None else {"reading": reading}
    with Bars() as bars:
        return read_dataset(folder, follow_links, looking=looking_with(bars), **how)


def unread_folder(root: str) -> Path:
    """Like `folder_of`, for a data set that may be unusable, to find out why."""
    from fashion.data.contents import default_cache_dir
    from fashion.data.remote.local_copy import fetch_unread, parse_root
    from fashion.display.progress import Bars

    named = parse_root(root)
    if isinstance(named, Path):
        return Path(root)
    with Bars() as bars:
        return fetch_unread(named, default_cache_dir().absolute(), bars)
