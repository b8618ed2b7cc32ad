"""Exact metrics: summed and counted over samples, batches and ranks, divided once at the end."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from fashion.model.loss import cross_entropy, report_loss

# A sample's loss is rounded to a multiple of 2^-30, so that float64 adds losses up to 2^23 without rounding: the sum
# does not depend on how samples are split over batches and ranks.
LOSS_UNIT = 2.0**-30


class Meter:
    """Collects logits and targets; nothing leaves the device before `compute`.

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
