"""Exact metrics: summed and counted over samples, batches and ranks, divided once at the end."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from fashion.model.loss import columns_of_heads, cross_entropy, label_cross_entropy, report_loss

# A sample's loss is rounded to a multiple of 2^-30, so that float64 adds losses up to 2^23 without rounding: the sum
# does not depend on how samples are split over batches and ranks.
LOSS_UNIT = 2.0**-30


def make_meter(
    class_counts: Sequence[int],
    device: torch.device | str = "cpu",
    multi_label: Sequence[bool] = (),
    complete: bool = True,
) -> Meter:
    """The meter of a split's labels. multi_label: which heads are; by default none. complete: whether all labels are
    known; it must be alike on all ranks."""
    if complete and not any(multi_label):
        return Meter(class_counts, device)
    return LabelMeter(class_counts, device, multi_label)


class Meter:
    """Collects logits and targets; nothing leaves the device before `compute`. Every head has one label for every
    sample; `LabelMeter` is for other labels.

    One float64 vector holds everything: the samples, loss, report loss and exact matches, then the hits and the labels
    of every class, head after head.
    """

    def __init__(self, class_counts: Sequence[int], device: torch.device | str = "cpu") -> None:
        self.class_counts = tuple(class_counts)
        classes = sum(self.class_counts)
        self._sums = torch.zeros(4 + 2 * classes, dtype=torch.float64, device=device)
        starts = torch.tensor([sum(self.class_counts[:head]) for head in range(len(self.class_counts))])
        self._starts = starts.to(device)
        self._classes = classes
        self._reduced = False

    @torch.no_grad()
    def update(self, logits: Sequence[Tensor], targets: Tensor) -> None:
        """Count a batch: logits (n, k_h) of each head (or log-probabilities), targets (n, H) int64. The device is not
        waited for."""
        right = torch.stack([head.argmax(1) for head in logits], dim=1) == targets
        # Cross entropy can be finite although some logits are infinite; the loss must show that a model is broken.
        broken = torch.stack([(head.float() * 0).sum(1) for head in logits]).sum(0)
        losses = [cross_entropy(logits, targets), report_loss(logits, targets, max(self.class_counts))]
        self._sums[0] += targets.shape[0]
        for index, loss in enumerate(losses, start=1):
            self._sums[index] += ((loss + broken).double() / LOSS_UNIT).round().sum() * LOSS_UNIT
        self._sums[3] += right.all(1).sum()
        classes = (targets + self._starts).flatten()
        hits, labels = self._sums[4:].split(self._classes)
        hits.index_add_(0, classes, right.flatten().double())
        labels.index_add_(0, classes, torch.ones_like(classes, dtype=torch.float64))

    @property
    def sums(self) -> Tensor:
        """What has been counted so far; `restore` continues from it."""
        return self._sums

    def restore(self, sums: Tensor) -> None:
        """Continue from another meter's sums. Raises RuntimeError if that meter had other classes."""
        self._sums.copy_(sums)

    def reduce(self) -> None:
        """Add up over all ranks, once per meter; every rank then has the total. Does nothing without a process group.

        Raises RuntimeError when called twice."""
        if self._reduced:
            raise RuntimeError("this meter was reduced before: its sums are already those of all ranks")
        self._reduced = True
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(self._sums, op=dist.ReduceOp.SUM)

    def compute(self, attribute_names: Sequence[str]) -> dict[str, float]:
        """The metrics by name, which the caller prefixes with `train_` or `val_`; accuracies are from 0 to 1.

        `loss` is plain cross entropy, mean over heads, and `loss_report` the report's; both are NaN or infinite if any
        logit was. `accuracy` is the share of labels that are right, `accuracy/<name>` that of one head, `exact_match`
        the share of samples with every label right, `balanced_accuracy` the mean over heads of the mean recall of those
        classes that occur. Raises ValueError if nothing was counted, or for another number of names than heads.
        """
        values = self._sums.tolist()
        count, loss, loss_report, exact = values[:4]
        if not count:
            raise ValueError("no samples were counted")
        names = list(attribute_names)
        if len(names) != len(self.class_counts):
            raise ValueError(f"{len(self.class_counts)} heads, but {len(names)} attribute names")
        hits, labels = values[4 : 4 + self._classes], values[4 + self._classes :]
        accuracies, recalls, start = [], [], 0
        for size in self.class_counts:
            head = [(hits[c], labels[c]) for c in range(start, start + size)]
            accuracies.append(sum(hit for hit, _ in head) / count)
            present = [hit / label for hit, label in head if label]
            recalls.append(sum(present) / len(present))
            start += size
        heads = len(names)
        return {
            "loss": loss / count,
            "accuracy": sum(hits) / (count * heads),
            "balanced_accuracy": sum(recalls) / heads,
            "exact_match": exact / count,
            "loss_report": loss_report / count,
            **{f"accuracy/{name}": accuracy for name, accuracy in zip(names, accuracies, strict=True)},
        }


class LabelMeter(Meter):
    """A meter for labels of which some are missing, and for multi-label heads. It counts what is known.

    Its float64 vector holds the fully labelled samples and those of them with every label right, then the loss and the
    report loss of each head, then hits and labels of each class; for a multi-label head of each class's two values, "it
    doesn't hold" and "it does".
    """

    def __init__(
        self, class_counts: Sequence[int], device: torch.device | str = "cpu", multi_label: Sequence[bool] = ()
    ) -> None:
        super().__init__(class_counts, device)
        self.multi_label = tuple(multi_label) or (False,) * len(self.class_counts)
        heads = zip(self.class_counts, self.multi_label, strict=True)
        self._cells = [2 * count if multi else count for count, multi in heads]
        self._sums = torch.zeros(
            2 + 2 * len(self._cells) + 2 * sum(self._cells), dtype=torch.float64, device=self._sums.device
        )

    @torch.no_grad()
    def update(self, logits: Sequence[Tensor], targets: Tensor) -> None:
        """Count a batch: logits (n, k_h) of each head (a single-label one's may be log-probabilities), targets (n,
        columns) int64, MISSING where they are not known. The device is not waited for."""
        whole = torch.ones(len(targets), dtype=torch.bool, device=targets.device)
        exact = whole
        heads, cells = len(self._cells), sum(self._cells)
        _, losses, reports, hits, labels = self._sums.split([2, heads, heads, cells, cells])
        columns = columns_of_heads(targets, self.class_counts, self.multi_label)
        start = 0
        for head, (outputs, target) in enumerate(zip(logits, columns, strict=True)):
            outputs, known, label = outputs.float(), target >= 0, target.clamp_min(0)
            # As in `Meter`: the loss must show that a model is broken.
            broken = (outputs * 0).sum(1)
            if self.multi_label[head]:
                right = known & ((outputs.sigmoid() > 0.5) == (label == 1))
                loss = torch.where(known, label_cross_entropy(outputs, label), 0.0).sum(1)
                cell = start + 2 * torch.arange(target.shape[1], device=target.device) + label
                whole, exact = whole & known.all(1), exact & right.all(1)
            else:
                right = outputs.argmax(1) == target
                loss = torch.where(known, cross_entropy([outputs], label[:, None]), 0.0)
                report = report_loss([outputs], label[:, None], max(self.class_counts))
                reports[head] += _exact_sum(torch.where(known, report, 0.0) + broken)
                cell = start + label
                whole, exact = whole & known, exact & right
            losses[head] += _exact_sum(loss + broken)
            hits.index_add_(0, cell.flatten(), right.flatten().double())
            labels.index_add_(0, cell.flatten(), known.flatten().double())
            start += self._cells[head]
        self._sums[0] += whole.sum()
        self._sums[1] += exact.sum()

    def compute(self, attribute_names: Sequence[str]) -> dict[str, float]:
        """The metrics by name, as `Meter.compute` gives them, over what is labelled.

        `loss` is the mean over heads of each head's mean over its labelled samples (a multi-label head's over its known
        labels), `accuracy` the share of all known labels that are right. A multi-label head's label is right where the
        probability is above 0.5 and the class holds, or not above and it doesn't. `balanced_accuracy` is the mean over
        heads of the mean recall of those classes that occur; of a multi-label head the mean over its classes of the
        mean recall of those of the two values that occur. `exact_match` is over the fully labelled samples, and left
        out where there are none; `loss_report`, where a head is multi-label. A head without a label is in no mean.
        Raises ValueError if no label was counted, or for another number of names than heads.
        """
        names = list(attribute_names)
        heads = len(self._cells)
        if len(names) != heads:
            raise ValueError(f"{heads} heads, but {len(names)} attribute names")
        whole, exact, *values = self._sums.tolist()
        cells = sum(self._cells)
        losses, reports = values[:heads], values[heads : 2 * heads]
        hits, labels = values[2 * heads : 2 * heads + cells], values[2 * heads + cells :]
        means, means_report, recalls = [], [], []
        accuracies: dict[str, float] = {}
        start = 0
        for head, size in enumerate(self._cells):
            right, counted = hits[start : start + size], labels[start : start + size]
            start += size
            if known := sum(counted):
                means.append(losses[head] / known)
                means_report.append(reports[head] / known)
                accuracies[f"accuracy/{names[head]}"] = sum(right) / known
                recalls.append(_mean_recall(right, counted, 2 if self.multi_label[head] else size))
        if not means:
            raise ValueError("no labels were counted")
        return {
            "loss": sum(means) / len(means),
            "accuracy": sum(hits) / sum(labels),
            "balanced_accuracy": sum(recalls) / len(recalls),
            **({"exact_match": exact / whole} if whole else {}),
            **({} if any(self.multi_label) else {"loss_report": sum(means_report) / len(means_report)}),
            **accuracies,
        }


def _exact_sum(losses: Tensor) -> Tensor:
    """The sum of samples' losses (n,), each rounded to a LOSS_UNIT."""
    return (losses.double() / LOSS_UNIT).round().sum() * LOSS_UNIT


def _mean_recall(hits: Sequence[float], labels: Sequence[float], size: int) -> float:
    """The mean over groups of `size` cells of the mean recall of those that occur."""
    groups = []
    for start in range(0, len(labels), size):
        cells = zip(hits[start : start + size], labels[start : start + size], strict=True)
        if present := [hit / label for hit, label in cells if label]:
            groups.append(sum(present) / len(present))
    return sum(groups) / len(groups)
