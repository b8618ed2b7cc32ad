"""Whether a submission would fail or score low: everything that can be known without the test labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2_contingency

from fashion.data.layout import Dataset
from fashion.errors import Problem, UserError
from fashion.prediction.submission import TEXT_NAME, collapsed_heads
from fashion.prediction.submission_archive import (
    SubmissionFinding,
    error,
    info,
    read_classes,
    read_text,
    warning,
)

SURPRISE = 0.001  # probability below which shares are called different
FAR = 0.05  # share of the images that would have to change class; less than this costs little, however certain it is
FEW = 5.0  # expected images of a class, below which classes are counted together (Cochran 1954)
SURE_OF_ORDER = 3.0  # standard errors by which agreement must exceed that of lines in an unrelated order


@dataclass(frozen=True)
class SubmissionCheck:
    """What was found, errors first. classes: (N, heads) as read; None where they can't be. agreement: the share of
    equal cells with the earlier submission, in [0, 1]; None without one."""

    findings: tuple[SubmissionFinding, ...]
    classes: NDArray[np.int64] | None
    agreement: float | None = None

    @property
    def ok(self) -> bool:
        """Whether it may be uploaded: no errors (warnings are allowed)."""
        return not any(each.weight == "error" for each in self.findings)

    def to_json(self) -> dict[str, Any]:
        listed = [{"weight": each.weight, **vars(each.problem)} for each in self.findings]
        return {"ok": self.ok, "agreement": self.agreement, "findings": listed}


@dataclass(frozen=True)
class Expectation:
    """What the predictions are compared with. what: in words. classes: (M, heads) of the validation images, negative
    where not known: what the run's model predicts for them or, without a run, their labels."""

    what: str
    classes: NDArray[np.int64]


def check_submission(
    path: Path, dataset: Dataset, split: str, expected: Expectation | None = None, earlier: Path | None = None,
    written: Path | None = None,
) -> SubmissionCheck:  # fmt: skip
    """Examine the archive, or the text, at `path` as predictions of a split of the data set.

    earlier: another submission, to compare with. written: what the run's own prediction wrote, whose lines are in the
    right order.

    Raises UserError for a data set without that split or with attributes of several labels, and for an earlier file
    that is no submission.
    """
    if split not in dataset.splits:
        rule = "must be a split of the data set"
        raise UserError(Problem("--split", rule, split, f"There are: {', '.join(dataset.splits)}"))
    several = [each.name for each in dataset.attributes if each.multi_label]
    if several:
        rule = "has one class per attribute and image"
        raise UserError(Problem("a submission", rule, f"attributes with several: {', '.join(several)}"))
    rows = len(dataset.splits[split])
    others = {name: len(each) for name, each in dataset.splits.items() if name != split}
    content, findings = read_text(path)
    classes = None
    if content is not None:
        classes, inside = read_classes(content, dataset.class_counts, rows, others)
        findings += inside
    agreement = None
    if classes is not None:
        findings += _collapsed(classes, dataset)
        in_range = bool((classes < np.asarray(dataset.class_counts)).all())
        if expected is not None and in_range:
            findings += _shares(classes, expected, dataset)
        if written is not None:
            findings += _beside(classes, _read_other(written, dataset, rows, others), dataset, str(written))
        if earlier is not None:
            other = _read_other(earlier, dataset, rows, others)
            findings += _beside(classes, other, dataset, str(earlier))
            agreement = float((classes == other).mean()) if classes.shape == other.shape else None
    order = {"error": 0, "warning": 1, "info": 2}
    return SubmissionCheck(tuple(sorted(findings, key=lambda each: order[each.weight])), classes, agreement)


def _collapsed(classes: NDArray[np.int64], dataset: Dataset) -> list[SubmissionFinding]:
    """Columns that say nothing."""
    if (classes >= np.asarray(dataset.class_counts)).any():
        return []
    names = [[str(name) for name in each.classes] for each in dataset.attributes]
    said = collapsed_heads(classes, dataset.class_counts, dataset.attribute_names, names)
    fix = "Look at that head: fashion-sweep show, and the class counts of data stats"
    return [warning(TEXT_NAME, sentence, fix=fix) for sentence in said]


def _shares(classes: NDArray[np.int64], expected: Expectation, dataset: Dataset) -> list[SubmissionFinding]:
    """Attributes whose classes are predicted far more or less often than the validation images let expect."""
    found = []
    for head, attribute in enumerate(dataset.attributes):
        known = expected.classes[:, head]
        known = known[known >= 0]
        count = len(attribute.classes)
        if count < 2 or not len(known):
            continue
        mine, theirs = (np.bincount(values, minlength=count)[:count] for values in (classes[:, head], known))
        chance = _chance(mine, theirs)
        shares = mine / mine.sum(), theirs / theirs.sum()
        apart = float(np.abs(shares[0] - shares[1]).sum() / 2)
        if chance < SURPRISE and apart > FAR:
            widest = int(np.abs(shares[0] - shares[1]).argmax())
            rule = (
                f"{attribute.name}: classes should be predicted about as often as {expected.what} (chance of this: "
                f"{'below 1 in a million' if chance < 1e-6 else f'{chance:.2g}'})"
            )
            shown = f"{attribute.classes[widest]} for {shares[0][widest]:.1%} instead of {shares[1][widest]:.1%}"
            fix = "Check that the columns and the images are in order, and that the preprocessing is validation's"
            found.append(warning(TEXT_NAME, rule, shown, fix))
    return found


def _chance(mine: NDArray[np.int64], theirs: NDArray[np.int64]) -> float:
    """The probability of shares that differ this much if both are of one population: a chi-square test, with rare
    classes counted together."""
    table = np.stack([mine, theirs])
    smallest = table.sum(axis=0) * table.sum(axis=1).min() / table.sum()
    rare = smallest < FEW
    table = np.column_stack([table[:, ~rare], table[:, rare].sum(axis=1)])
    table = table[:, table.sum(axis=0) > 0]
    return float(chi2_contingency(table, correction=False).pvalue) if table.shape[1] > 1 else 1.0


def _read_other(path: Path, dataset: Dataset, rows: int, others: dict[str, int]) -> NDArray[np.int64]:
    """The class indices of another submission. Raises UserError where it is none."""
    content, findings = read_text(path)
    classes = None
    if content is not None:
        classes, inside = read_classes(content, dataset.class_counts, rows, others)
        findings += inside
    wrong = [each.problem for each in findings if each.weight == "error"]
    if classes is None or wrong:
        problem = wrong[0] if wrong else Problem(str(path), "must be a submission")
        raise UserError(Problem(str(path), "must itself be a valid submission to compare with", str(problem)))
    return classes


def _beside(
    classes: NDArray[np.int64], other: NDArray[np.int64], dataset: Dataset, name: str
) -> list[SubmissionFinding]:
    """How far two submissions agree, and whether their lines are in one order."""
    if classes.shape != other.shape:
        return []
    same = classes == other
    each = ", ".join(
        f"{attribute} {share:.1%}" for attribute, share in zip(dataset.attribute_names, same.mean(axis=0), strict=True)
    )
    if same.all():
        return [info(TEXT_NAME, f"says the same as {name}: it will score the same")]
    if sorted(map(tuple, classes.tolist())) == sorted(map(tuple, other.tolist())):
        rule = f"must have its lines in the order of the split's list, as {name} has"
        return [error(TEXT_NAME, rule, f"the same lines in another order ({same.mean():.1%} agree)", "Don't sort them")]
    if _unrelated(classes, other):
        rule = f"should agree with {name} more than lines in an unrelated order would"
        fix = "Its lines, or the earlier one's, may be in another order than the split's list"
        return [warning(TEXT_NAME, rule, f"{same.mean():.1%} ({each})", fix)]
    return [info(TEXT_NAME, f"agrees with {name} on {same.mean():.1%} of the labels ({each})")]


def _unrelated(classes: NDArray[np.int64], other: NDArray[np.int64]) -> bool:
    """Whether two submissions agree no more than they would with the lines of one of them shuffled."""
    rows, heads = classes.shape
    by_chance = []
    for head in range(heads):
        size = int(max(classes[:, head].max(), other[:, head].max())) + 1
        one, two = (np.bincount(each[:, head], minlength=size) / rows for each in (classes, other))
        by_chance.append(float((one * two).sum()))
    expected = float(np.mean(by_chance))
    # Heads of one image are correlated, so that images are counted, not labels.
    spread = float(np.sqrt(max(expected * (1.0 - expected), 1e-12) / rows))
    return float((classes == other).mean()) < expected + SURE_OF_ORDER * spread and expected < 1.0


def labels_of_validation(dataset: Dataset) -> Expectation:
    """The validation labels themselves: without a run nothing better is known. A model names frequent classes more
    often than they occur, so that this is a coarse measure."""
    return Expectation("in the validation labels", dataset.labels("val"))


def predictions_of_validation(columns: Sequence[NDArray[np.int64]]) -> Expectation:
    """What a run's model predicts for the validation images, one column (M,) per attribute."""
    return Expectation("by the run's model for the validation images", np.stack(list(columns), axis=1))
