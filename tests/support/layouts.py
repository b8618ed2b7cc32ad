"""Small data sets in the challenge's layout, with or without mistakes."""

from __future__ import annotations

from pathlib import Path

from PIL import Image


def small(
    root: Path,
    header: bool = False,
    newline: str = "\n",
    end: str = "\n",
    names: str | None = "red 1\ngreen 1\nhot 2\nwarm 2\ncold 2",
) -> Path:
    """Two attributes with 2 and 3 classes; 4 training and 2 validation images."""
    (root / "img").mkdir(parents=True)
    (root / "split").mkdir()
    for number in range(6):
        Image.new("RGB", (8, 8), (number * 40, 0, 0)).save(root / f"img/{number}.png")
    for split, numbers, labels in (
        ("train", range(4), ["0 0", "1 1", "0 2", "1 0"]),
        ("val", range(4, 6), ["0 1", "1 2"]),
    ):
        head = ["picture_filename"] if header else []
        (root / f"split/{split}.txt").write_bytes(
            (newline.join([*head, *(f"img/{n}.png" for n in numbers)]) + end).encode()
        )
        head = ["colour  heat"] if header else []
        (root / f"split/{split}_attr.txt").write_bytes((newline.join([*head, *labels]) + end).encode())
    if names is not None:
        (root / "split/list_attr_cloth.txt").write_text(names)
    return root
