"""The promoted model as one ONNX file, compared with PyTorch before it takes its name."""

from __future__ import annotations

import json
import logging
import warnings
from pathlib import Path

import torch

from fashion.api.recorded_run import RecordedRun
from fashion.errors import Problem, UserError
from fashion.export.portable_model import CHECKED, INPUT, TOLERANCE, PortableExport, largest_difference, portable
from fashion.export.targets import Exported, Progress, imported
from fashion.files import write_atomic

METADATA = "fashion-sweep"  # the key of the description among the file's metadata
OPSET = 20
LARGEST = 2_000_000_000  # bytes of weights: an ONNX file is a protocol buffer, which holds less than 2 GiB


def write_onnx(run: RecordedRun, path: Path, progress: Progress) -> Exported:
    """Write the model with its preprocessing, class names and temperatures. Any number of images is one batch.

    Raises UserError where the weights are too large for one file, or ONNX Runtime computes something else than PyTorch.
    """
    export = portable(run)
    size = sum(each.numel() * each.element_size() for each in export.module.state_dict().values())
    if size > LARGEST:
        rule = "holds at most 2 GB of weights in one file"
        raise UserError(Problem("--to onnx", rule, f"{size / 1e9:.1f} GB", "Export it with --to torch"))
    content = _converted(export)
    difference = _difference(export, content)
    if not difference <= TOLERANCE:
        rule = f"must agree with PyTorch to {TOLERANCE}"
        raise UserError(Problem("--to onnx", rule, f"{difference:.2g}", "Export it with --to torch"))
    write_atomic(path, content)
    meta = export.promoted
    said = f"trial {meta.trial}, epoch {meta.epoch}: {len(content) / 1e6:,.1f} MB, within {difference:.1g} of PyTorch"
    return Exported((path,), f"{said}; {export.note}" if export.note else said)


def _converted(export: PortableExport) -> bytes:
    """The ONNX file's bytes, checked by onnx itself."""
    onnx = imported("onnx")
    batch = torch.export.Dim("images")
    level = logging.getLogger("torch.onnx").level
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # what it tells is for who develops exporters
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                export.module, (export.example(2),), dynamo=True, opset_version=OPSET, verbose=False,
                input_names=[INPUT], output_names=export.output_names,
                dynamic_shapes={INPUT: {0: batch}},
            )  # fmt: skip
    finally:
        logging.getLogger("torch.onnx").setLevel(level)
    assert program is not None
    model = program.model_proto
    entry = model.metadata_props.add()
    entry.key, entry.value = METADATA, json.dumps(export.description(), allow_nan=False)
    model.producer_name = "fashion-sweep"
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def _difference(export: PortableExport, content: bytes) -> float:
    """The largest difference of a probability from PyTorch's, over several batch sizes."""
    session = imported("onnxruntime").InferenceSession(content, providers=["CPUExecutionProvider"])
    found = []
    for images in map(export.example, CHECKED):
        with torch.inference_mode():
            expected = export.module(images)
        found.append(largest_difference(expected, session.run(None, {INPUT: images.numpy()})))
    return max(found)
