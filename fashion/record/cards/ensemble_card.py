"""The card of a promoted ensemble, `ensemble/README.md`: its members, what they are worth together, and what they cost.

Like `model_card` it begins with the front matter that model hubs read, and every word comes from the record.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fashion.record.cards.model_card import cell, classes_table, code, limits, number, percent


def ensemble_card(manifest: Mapping[str, Any], ensemble: Mapping[str, Any]) -> str:
    """The card's Markdown. manifest: the run's; ensemble: what `ensemble/model.json` says."""
    tags = "\n".join(f"- {tag}" for tag in ("fashion-sweep", "multi-head", "ensemble"))
    front = f"---\nlibrary_name: fashion-sweep\npipeline_tag: image-classification\ntags:\n{tags}\n---"
    sections = [
        front,
        f"# {cell(ensemble['run'])}, an ensemble of {len(ensemble['members'])}\n\n{_what(ensemble)}",
        f"## Members\n\n{_members(ensemble)}",
        f"## Results\n\n{_results(ensemble)}",
        f"## Cost\n\n{_cost(ensemble)}",
        f"## Classes\n\n{classes_table(manifest)}",
        f"## Use\n\n{_USE}",
        f"## Limits\n\n{limits(manifest)}",
    ]
    return "\n\n".join(sections) + "\n"


_USE = """With the package installed, from the folder that this file is in:

```python
import fashion

model = fashion.load_model(".")
model.predict(["photo.jpg"])
```

Each member has its own size of images and its own preprocessing, which `member-N.json` has, and its own weights, as a
promoted single model has them."""


def _what(ensemble: Mapping[str, Any]) -> str:
    picks = sum(int(member["count"]) for member in ensemble["members"])
    heads = len(ensemble["attributes"])
    return (
        f"Image classifiers with {heads} head{'s' if heads != 1 else ''} each, one per attribute. What they predict "
        f"together is the mean of their probabilities, in which each counts as often as it was picked ({picks} picks), "
        f"scaled by one temperature for each attribute. They were picked greedily, with replacement, by `val_loss` "
        f"(Caruana et al. 2004). Promoted {ensemble['promoted']}."
    )


def _members(ensemble: Mapping[str, Any]) -> str:
    lines = ["| file | run | trial | epoch | picked | backbone | crop | val_loss | val_accuracy | sha256 |"]
    lines += ["|---|---|---:|---:|---:|---|---:|---:|---:|---|"]
    for place, each in enumerate(ensemble["members"], start=1):
        loss, share = (math.nan if each[name] is None else float(each[name]) for name in ("val_loss", "val_accuracy"))
        lines.append(
            f"| `member-{place}` | {cell(each['run'])} | {each['trial']} | {each['epoch']} | {each['count']} | "
            f"`{code(each['backbone'])}` | {each['crop']} | {number(loss)} | {percent(share)} | "
            f"`{each['sha256'][:16]}` |"
        )
    lines += ["", "| attribute | temperature |", "|---|---:|"]
    lines += [f"| {cell(name)} | {value:.3f} |" for name, value in ensemble["temperatures"].items()]
    return "\n".join(lines)


def _results(ensemble: Mapping[str, Any]) -> str:
    single = ensemble["single"]
    lines = [
        f"On the {ensemble['images']:,} validation images, beside the best single model (`{code(single['run'])}`, "
        f"trial {single['trial']}, epoch {single['epoch']}):",
        "",
        "| metric | ensemble | single | difference | 95 % interval |",
        "|---|---:|---:|---:|---|",
    ]
    for each in ensemble["differences"]:
        if each["metric"].startswith("val_loss"):
            values = [f"{each[key]:.4f}" for key in ("second", "first")]
            values += [f"{each[key]:+.4f}" for key in ("difference", "low", "high")]
        else:
            values = [percent(each[key]) for key in ("second", "first")]
            values += [f"{100 * each[key]:+.2f}" for key in ("difference", "low", "high")]
        second, first, difference, low, high = values
        lines.append(f"| {cell(each['metric'])} | {second} | {first} | {difference} | {low} to {high} |")
    lines += [
        "",
        "The ensemble's values are cross-fitted: a fifth of the images is predicted by what was picked, and whose "
        "temperatures were fitted, on the others. The single model was chosen by these same images, which flatters it, "
        "and so was the epoch of each member.",
    ]
    return "\n".join(lines)


def _cost(ensemble: Mapping[str, Any]) -> str:
    speed, count = ensemble["images_per_second"], ensemble["parameters"]
    size = sum(int(member["bytes"]) for member in ensemble["members"])
    said = [f"{len(ensemble['members'])} passes for each image, {size / 1e6:,.1f} MB of weights"]
    said += [f"{count:,} parameters"] if count is not None else []
    start = ", ".join(said)
    if speed is None:
        return f"{start}. Images a second: not known, since the speed of some member was not measured."
    return (
        f"{start}. The members trained, validation included, at speeds that make {speed:,.1f} images a second "
        "together; to predict is quicker."
    )
