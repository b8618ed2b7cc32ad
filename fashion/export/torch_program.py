"""The promoted model as a torch.export program: `torch.export.load` runs it without this package."""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path

import torch

from fashion.api.recorded_run import RecordedRun
from fashion.errors import Problem, UserError
from fashion.export.portable_model import CHECKED, INPUT, TOLERANCE, largest_difference, portable
from fashion.export.targets import Exported, Progress
from fashion.files import write_atomic

DESCRIPTION = "fashion-sweep.json"  # the extra file in the archive that describes input and outputs


def write_program(run: RecordedRun, path: Path, progress: Progress) -> Exported:
    """Write the model with its preprocessing, class names and temperatures. Any number of images is one batch.

    Raises UserError where the program, read back, computes something else than the model.
    """
    export = portable(run)
    batch = torch.export.Dim("images")
    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # about what a program does not keep, such as hooks
        program = torch.export.export(export.module, (export.example(2),), dynamic_shapes={INPUT: {0: batch}})
        text = json.dumps(export.description(), allow_nan=False)
        torch.export.save(program, buffer, extra_files={DESCRIPTION: text})
        loaded = torch.export.load(io.BytesIO(buffer.getvalue())).module()
        difference = max(
            largest_difference(export.module(images), loaded(images)) for images in map(export.example, CHECKED)
        )
    if not difference <= TOLERANCE:
        rule = f"must agree with the model to {TOLERANCE}"
        raise UserError(Problem("--to torch", rule, f"{difference:.2g}", "Use the weights in best/ instead"))
    write_atomic(path, buffer.getvalue())
    meta, size = export.promoted, len(buffer.getvalue()) / 1e6
    said = f"trial {meta.trial}, epoch {meta.epoch}: {size:,.1f} MB, read back within {difference:.1g}"
    return Exported((path,), f"{said}; {export.note}" if export.note else said)
