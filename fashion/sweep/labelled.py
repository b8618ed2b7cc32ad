"""What a sweep needs of its data set's labels, which may be missing in part, or multi-label."""

from __future__ import annotations

from collections.abc import Iterator

from fashion.data.layout import Dataset
from fashion.data.lists import LABELLED, MISSING
from fashion.errors import DataError, Problem
from fashion.spec.sweep_spec import SweepSpec
from fashion.spec.trials.possible import every, together


def require_labels(dataset: Dataset) -> None:
    """Raise DataError unless each attribute is labelled somewhere in train and somewhere in val: it could not be
    trained, and `val_loss` would not tell of it."""
    problems = []
    for split in LABELLED:
        for attribute, columns in dataset.by_attribute(split):
            if (columns == MISSING).all():
                rule = f"must be labelled for some image of {split}"
                fix = f"Label images of {split}, or leave the attribute out"
                images = f"0 of {len(dataset.splits[split]):,} images"
                problems.append(Problem(f"attribute {attribute.name}", rule, images, fix))
    if problems:
        raise DataError(f"The data set at {dataset.root} can't be used:", problems)


def unfit_for_labels(spec: SweepSpec, dataset: Dataset) -> list[Problem]:
    """What the spec asks for that these labels don't have."""
    return list(_unfit(spec, dataset))


def _unfit(spec: SweepSpec, dataset: Dataset) -> Iterator[Problem]:
    multi = ", ".join(attribute.name for attribute in dataset.attributes if attribute.multi_label)
    if multi:
        from fashion.model.loss import LABEL_OBJECTIVES  # loads torch, for data that have such attributes

        for loss in sorted({str(each["train.loss"]) for each in together(spec, ("train.loss",), every)}):
            if loss not in LABEL_OBJECTIVES:
                rule = f"is for one class of several, and an image may have several of the classes of {multi}"
                yield Problem("train.loss", rule, loss, f"Use {' or '.join(LABEL_OBJECTIVES)}")
        if spec.scheduler.metric == "val_loss_report":
            rule = f"can't be val_loss_report: the multi-label attributes ({multi}) have none"
            yield Problem("scheduler.metric", rule, spec.scheduler.metric, "Use val_loss")
    if spec.scheduler.metric == "val_exact_match" and not (dataset.labels("val") != MISSING).all(1).any():
        rule = "can't be val_exact_match: no validation image has a label for every attribute"
        yield Problem("scheduler.metric", rule, spec.scheduler.metric, "Use val_loss or val_accuracy")
