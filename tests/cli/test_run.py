"""What `run` says when it ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from fashion.cli.run import _prediction
from fashion.record.run import Run
from tests.support.layouts import small
from tests.support.recorded import ATTRIBUTES, COUNTS, SPEC


@pytest.mark.parametrize(
    ("test_list", "said"), [(True, "--predict"), (False, "--predict --split val, or --predict --images FOLDER")]
)
def test_what_can_be_predicted_is_recommended(tmp_path: Path, test_list: bool, said: str) -> None:
    root = small(tmp_path / "d")
    if test_list:
        (root / "split/test.txt").write_text("img/0.png\n")
    manifest = {"spec": SPEC, "data_fingerprint": "f", "attributes": ATTRIBUTES, "label_counts": COUNTS}
    run = Run.create(tmp_path / "runs", "s", {**manifest, "data_root": str(root)})
    assert _prediction(run) == said
    run.manifest["data_root"] = "s3://bucket/data"
    assert _prediction(run) == "--predict"
