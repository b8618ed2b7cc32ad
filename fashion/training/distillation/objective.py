"""Knowledge distillation (Hinton, Vinyals and Dean 2015): the objective is mixed with a cross entropy against what a
teacher says of the image.

An image's soft labels are found by its row in the training images, which travels as a further column of the targets:
so it goes wherever they go, through mixtures and micro-batches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

Criterion = Callable[[Sequence[Tensor], Tensor], Tensor]


class Distillation:
    """What `train.teacher` adds to an objective.

    soft (N, all classes): the teacher's probabilities of the training images; NaN for one that it does not know, which
    has its labels alone. weight: the share of the objective that they have. temperature: by which the logarithms of
    both sides' probabilities are divided; the loss is multiplied by its square, so that its gradients keep their size.
    """

    def __init__(
        self, soft: NDArray[np.float32], class_counts: Sequence[int], multi_label: Sequence[bool], weight: float,
        temperature: float, device: torch.device,
    ) -> None:  # fmt: skip
        self.temperature = temperature
        self.multi_label = tuple(multi_label) or (False,) * len(class_counts)
        given = torch.from_numpy(soft)
        known = given.isfinite().all(dim=1)
        self.weights = (weight * known).to(device)
        heads = given.where(known[:, None], 0.5).split(list(class_counts), dim=1)
        pairs = zip(heads, self.multi_label, strict=True)
        self.soft = [_softened(head, temperature, multi).to(device) for head, multi in pairs]

    @staticmethod
    def with_rows(targets: Tensor, rows: Tensor) -> Tensor:
        """Targets (n, columns) and the images' rows (n,) as (n, columns + 1)."""
        return torch.cat([targets, rows.to(targets.device, non_blocking=True)[:, None]], dim=1)

    def beside(self, criterion: Criterion) -> Criterion:
        """The objective for targets `with_rows`, of which `criterion` is what the labels say, (n,)."""

        def both(logits: Sequence[Tensor], targets: Tensor) -> Tensor:
            labels, rows = targets[:, :-1], targets[:, -1]
            return torch.lerp(criterion(logits, labels), self.losses(logits, rows), self.weights[rows])

        return both

    def losses(self, logits: Sequence[Tensor], rows: Tensor) -> Tensor:
        """(n,) float32: the mean over heads of the cross entropy against the teacher; of a multi-label head the mean
        over its classes."""
        found = []
        for head, soft, multi in zip(logits, self.soft, self.multi_label, strict=True):
            cooled, wanted = head.float() / self.temperature, soft[rows]
            if multi:
                found.append(F.binary_cross_entropy_with_logits(cooled, wanted, reduction="none").mean(1))
            else:
                found.append(F.cross_entropy(cooled, wanted, reduction="none"))
        return torch.stack(found).mean(0) * self.temperature**2


def _softened(probabilities: Tensor, temperature: float, multi_label: bool) -> Tensor:
    """What the teacher's logits would have given at this temperature."""
    powers = probabilities.double() ** (1 / temperature)
    total = powers + (1 - probabilities.double()) ** (1 / temperature) if multi_label else powers.sum(1, keepdim=True)
    return (powers / total).float()
