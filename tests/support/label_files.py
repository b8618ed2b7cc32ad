"""Small data sets in the forms of label files and folders of classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image


def pictures(root: Path, names: Sequence[str]) -> Path:
    """Pictures of 4 px below `root`, each of another colour."""
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (number % 256, number // 256, 7)).save(root / name)
    return root


def labelled(root: Path, text: str, images: int = 8, name: str = "labels.csv") -> Path:
    """A label file with the pictures img/0.png, img/1.png ... beside it."""
    pictures(root, [f"img/{number}.png" for number in range(images)])
    (root / name).write_text(text)
    return root / name


WHOLE = """\
file_name,split,size,colour
img/0.png,train,s,red|blue
img/1.png,train,m,red
img/2.png,train,,|
img/3.png,training,l,
img/4.png,val,s,blue
img/5.png,dev,m,red
img/6.png,test,l,red
img/7.png,2,s,red
"""
