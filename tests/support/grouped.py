"""Photographs of people, drawn: everyone has a wall of their own behind them, and one label, of which the shape in
front tells only a part."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

SHOWN = 0.7  # of the images whose shape is that of their label


def draw_people(root: Path, people: int, each: int = 6, side: int = 12, seed: int = 0, told: bool = True) -> Path:
    """`root`/labels.csv with the columns file_name, person (unless not `told`) and label, `a` or `b`."""
    draw = np.random.default_rng(seed)
    (root / "img").mkdir(parents=True)
    lines = ["file_name,person,label" if told else "file_name,label"]
    for person in range(people):
        label, wall = int(draw.integers(2)), draw.integers(0, 255, 3)
        for number in range(each):
            shape = label if draw.random() < SHOWN else 1 - label
            pixels = np.clip(wall + draw.normal(0, 6, (side, side, 3)), 0, 255).astype(np.uint8)
            a, b = side // 3, 2 * side // 3
            pixels[(slice(a, b), slice(2, -2)) if shape else (slice(2, -2), slice(a, b))] = 250
            name = f"img/{person:03d}-{number}.png"
            Image.fromarray(pixels).save(root / name)
            who = f"person-{person:03d}," if told else ""
            lines.append(f"{name},{who}{'ab'[label]}")
    (root / "labels.csv").write_text("\n".join([*lines, ""]))
    return root / "labels.csv"
