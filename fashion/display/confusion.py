"""Confusion matrices as pictures among TensorBoard's: `tensorboard --logdir runs/NAME`, Images, `confusion/…`.

They are in a folder of their own, `tb/winner`, that is written anew each time: no trial's events are touched.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary

from fashion.files import new_folder, rename_folder
from fashion.reading.confusion import Confusion

WINNER = "winner"
DOTS = 100  # an inch
LONGEST = 20  # characters of a class's name
MOST_NUMBERS = 20  # classes up to which each cell has its number, and each class its name


def write_confusions(folder: Path, title: str, epoch: int, time: float, confusions: Sequence[Confusion]) -> Path:
    """Replace `folder`/winner by an event file with a picture of each single-label attribute's matrix. time: seconds
    since 1970."""
    target = folder / WINNER
    folder.mkdir(parents=True, exist_ok=True)
    fresh = new_folder(target)
    try:
        writer = EventsWriter(str(fresh / "events"))
        for each in confusions:
            content, width, height = picture(each, title)
            image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=content)
            summary = Summary(value=[Summary.Value(tag=f"confusion/{each.attribute}", image=image)])
            writer.write_event(Event(summary=summary, step=epoch, wall_time=time))
        writer.close()
        shutil.rmtree(target, ignore_errors=True)
        rename_folder(fresh, target, last="")
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    return target


def picture(each: Confusion, title: str) -> tuple[bytes, int, int]:
    """A PNG of a single-label attribute's matrix, and its width and height in pixels. Colours are shares of the true
    class; numbers are images. Raises ValueError for a multi-label attribute, which has no matrix."""
    from fashion.data.stats import without_markup

    if each.counts is None:
        raise ValueError(f"{each.attribute} has several labels for an image")
    buffer = io.BytesIO()
    with without_markup():
        figure = _drawn(each, each.counts, title)
        figure.savefig(buffer, format="png", dpi=DOTS)
    width, height = (round(inches * DOTS) for inches in figure.get_size_inches())
    return buffer.getvalue(), width, height


def _drawn(each: Confusion, counts: NDArray[np.int64], title: str) -> Any:
    """The matplotlib figure of a matrix (classes, classes)."""
    from matplotlib.figure import Figure  # without pyplot: no display, no global state

    from fashion.data.stats import shortened

    names = [shortened(found.name, LONGEST) for found in each.classes]
    count = len(names)
    side = min(3.0 + 0.5 * count, 12.0)
    totals = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(totals, 1)
    figure = Figure(figsize=(side + 1.0, side), dpi=DOTS, layout="constrained")
    panel = figure.subplots()
    panel.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    if count <= MOST_NUMBERS:
        ticks = range(count)
        panel.set_xticks(ticks, names, rotation=45, ha="right")
        panel.set_yticks(ticks, [f"{name} ({total})" for name, total in zip(names, totals[:, 0], strict=True)])
        for row, column in np.ndindex(count, count):
            colour = "white" if shares[row, column] > 0.5 else "0.2"
            panel.text(column, row, str(counts[row, column]), ha="center", va="center", color=colour, fontsize=9)
    panel.set_xlabel("predicted")
    panel.set_ylabel("true class (images)")
    right = f"{int(np.trace(counts)):,} of {int(counts.sum()):,} right"
    panel.set_title(f"{shortened(each.attribute)}: {right}\n{title}", fontsize=10)
    return figure
