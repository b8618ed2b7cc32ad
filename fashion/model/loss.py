"""Training objectives over several heads. Each gives one value per sample: the mean over heads.

`cross_entropy` is the proper objective; `report` is the report's padded double softmax, kept for comparison. A head is
single-label (softmax over its classes; an image has one of them) or multi-label (a sigmoid for each class, which holds
or doesn't). Targets are (n, columns) int64: a single-label head has one column, the index of the class, a multi-label
one a column of 0 and 1 for each class. MISSING stands where a label is not known, and gives no gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fashion.config.train import TrainConfig
from fashion.labels import MISSING as MISSING

HeadLoss = Callable[[Tensor, Tensor, Tensor | None], Tensor]  # logits (n, k), targets (n,), class weights (k,) -> (n,)
# Of a multi-label head: logits (n, k), targets (n, k) of 0 and 1, weights (k, 2) of a label that doesn't hold and one
# that does -> (n, k).
LabelLoss = Callable[[Tensor, Tensor, Tensor | None], Tensor]
# The keys are the words that `TrainConfig.class_weighting` allows; the values are powers of a class's 1/count.
CLASS_WEIGHTINGS: Mapping[str, float] = {"none": 0.0, "inverse": 1.0, "sqrt_inverse": 0.5}


def cross_entropy(logits: Sequence[Tensor], targets: Tensor) -> Tensor:
    """Plain cross entropy per sample, mean over heads: what `val_loss` averages, whatever was trained.

    `logits` holds (n, k_h) per head, `targets` is (n, H) int64; the result is (n,) float32.
    """
    return torch.stack([_plain(head, target, None) for head, target in _pairs(logits, targets)]).mean(0)


def report_loss(logits: Sequence[Tensor], targets: Tensor, pad_to: int) -> Tensor:
    """The report's loss per sample, mean over heads: softmax, zero-pad to `pad_to` classes, cross entropy of that.

    Cross entropy applies softmax again. The value of a head therefore lies between log(e + pad_to - 1) - 1 and one more
    (1.16542 to 2.16542 for 7), and its gradient vanishes for samples that are confidently wrong, too. Shapes as in
    `cross_entropy`.
    """
    return torch.stack([_padded(head, target, None, pad_to) for head, target in _pairs(logits, targets)]).mean(0)


def class_weights(counts: np.ndarray, weighting: str) -> np.ndarray:
    """Weights (k,) float64 of a head's classes by `counts`, their numbers of training images.

    A weight is a power of 1/count, scaled so that the mean weight over all images is 1: the loss keeps its size, and so
    does the learning rate that suits it. A class without images weighs 0. With `none` all weights are 1.
    """
    counts = np.asarray(counts, dtype=np.float64)
    power = CLASS_WEIGHTINGS[weighting]
    if power == 0.0:
        return np.ones_like(counts)
    raw = np.where(counts > 0, np.maximum(counts, 1.0) ** -power, 0.0)
    weights: np.ndarray = raw / ((raw * counts).sum() / counts.sum())
    return weights


class MultiHeadLoss:
    """A training objective: called with logits and targets as `cross_entropy` is, it gives (n,) float32.

    Where labels are missing, the objective of a batch is the mean over all heads of the mean over the head's labelled
    images in the global batch; for a multi-label head, over its known labels there. A head without a label in a batch
    adds nothing, and the other heads count as much as in any other batch. `scales` says what each head's labels weigh
    for that, so that the mean of the returned values over all images of the global batch is that objective, in
    whichever shards and micro-batches they come.
    """

    def __init__(
        self,
        head_loss: HeadLoss,
        weights: Sequence[Tensor] | None,
        multi_label: Sequence[bool] = (),
        label_loss: LabelLoss | None = None,
        added: Sequence[Tensor] | None = None,
    ) -> None:
        """added: (k,) for each head, what is added to its logits."""
        self._head_loss, self._label_loss = head_loss, label_loss
        self._added = list(added) if added is not None else None
        self._weights = list(weights) if weights is not None else None
        self._multi_label = tuple(multi_label) if any(multi_label) else ()

    def __call__(self, logits: Sequence[Tensor], targets: Tensor, scales: Tensor | None = None) -> Tensor:
        """`scales` (heads,): what `scales` gives for the batch; None where all labels are known."""
        if self._weights is not None and self._weights[0].device != targets.device:
            self._weights = [weight.to(targets.device) for weight in self._weights]
        if self._added is not None:
            self._added = [each.to(targets.device) for each in self._added]
            logits = [head.float() + each for head, each in zip(logits, self._added, strict=True)]
        weights: Sequence[Tensor | None] = self._weights or [None] * len(logits)
        if scales is None and not self._multi_label:
            pairs = zip(_pairs(logits, targets), weights, strict=True)
            return torch.stack([self._head_loss(head, target, weight) for (head, target), weight in pairs]).mean(0)
        columns = columns_of_heads(targets, [head.shape[1] for head in logits], self._multi_label)
        rows = [self._known(*each) for each in zip(logits, columns, weights, strict=True)]
        heads = torch.stack(rows)
        return heads.mean(0) if scales is None else (heads * scales[:, None]).mean(0)

    def of_batch(
        self, known: Tensor | None, images: int, class_counts: Sequence[int]
    ) -> Callable[[Sequence[Tensor], Tensor], Tensor]:
        """The objective of a global batch, called with logits and targets. known: as for `scales`; None where no label
        of the split is missing."""
        return self if known is None else partial(self, scales=self.scales(known, images, class_counts))

    def _known(self, logits: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
        """One head's losses (n,), 0 where the label is not known; of a multi-label head the mean over its classes."""
        if target.ndim == 1:
            return torch.where(target >= 0, self._head_loss(logits.float(), target.clamp_min(0), weight), 0.0)
        assert self._label_loss is not None, "build_loss refuses other objectives"
        return torch.where(target >= 0, self._label_loss(logits.float(), target.clamp_min(0), weight), 0.0).mean(1)

    def scales(self, known: Tensor, images: int, class_counts: Sequence[int]) -> Tensor:
        """(heads,) float32: images / labelled images of each head in the global batch of `images`, 0 where there are
        none. known: (columns,) how many of the batch's labels are known; a multi-label head's labelled images are the
        mean over its columns."""
        columns = columns_of_heads(known.float()[None], class_counts, self._multi_label)
        labelled = torch.stack([column.mean() for column in columns])
        return torch.where(labelled > 0, images / labelled.clamp_min(1e-9), 0.0)


def mixed(
    criterion: Callable[[Sequence[Tensor], Tensor], Tensor], share: float
) -> Callable[[Sequence[Tensor], Tensor], Tensor]:
    """The objective of mixed images: `share` of the loss against their own targets, the rest against the others', which
    stand beside them, (n, 2 columns)."""

    def of_both(logits: Sequence[Tensor], targets: Tensor) -> Tensor:
        own, others = targets.chunk(2, dim=1)
        return share * criterion(logits, own) + (1 - share) * criterion(logits, others)

    return of_both


def columns_of_heads(targets: Tensor, class_counts: Sequence[int], multi_label: Sequence[bool]) -> list[Tensor]:
    """Targets (n, columns) by head: (n,) for a single-label head, (n, classes) for a multi-label one."""
    if not any(multi_label):
        return list(targets.unbind(1))
    sizes = [count if multi else 1 for count, multi in zip(class_counts, multi_label, strict=True)]
    heads = zip(targets.split(sizes, 1), multi_label, strict=True)
    return [columns if multi else columns[:, 0] for columns, multi in heads]


def build_loss(
    train: TrainConfig,
    class_counts: Sequence[int],
    train_label_counts: Sequence[np.ndarray] | None = None,
    multi_label: Sequence[bool] = (),
) -> MultiHeadLoss:
    """The objective that `train` asks for.

    `train_label_counts` holds for each head (k_h,) numbers of training images of its classes; for a multi-label one
    (k_h, 2), how many images don't have the class and how many do. Only class weighting needs it; raises ValueError if
    it is then missing or of other shapes, and for an objective that multi-label heads don't have. multi_label: which
    heads are; by default none.
    """
    multi = tuple(multi_label) or (False,) * len(class_counts)
    if any(multi) and train.loss not in LABEL_OBJECTIVES:
        raise ValueError(f"multi-label heads have no objective {train.loss}: {', '.join(LABEL_OBJECTIVES)}")
    weights: list[Tensor] | None = None
    added: list[Tensor] | None = None
    if CLASS_WEIGHTINGS[train.class_weighting] or train.logit_adjustment:
        shapes = [(count, 2) if each else (count,) for count, each in zip(class_counts, multi, strict=True)]
        if train_label_counts is None or [np.shape(counts) for counts in train_label_counts] != shapes:
            raise ValueError("weighting and adjustment need train_label_counts, one count per class of every head")
        if CLASS_WEIGHTINGS[train.class_weighting]:
            found = [_weights(np.asarray(counts), train.class_weighting) for counts in train_label_counts]
            weights = [torch.tensor(each, dtype=torch.float32) for each in found]
        if train.logit_adjustment:
            added = [
                torch.tensor(train.logit_adjustment * log_priors(counts), dtype=torch.float32)
                for counts in train_label_counts
            ]
    label_loss = LABEL_OBJECTIVES[train.loss](train) if any(multi) else None
    return MultiHeadLoss(OBJECTIVES[train.loss](train, class_counts), weights, multi, label_loss, added)


def log_priors(counts: np.ndarray) -> np.ndarray:
    """The logits (k,) of a head that says how often its classes occur, whatever it sees: logarithms of their shares; of
    a multi-label head, log odds. counts: (k,) training images of each class, of a multi-label head (k, 2), those that
    don't have it and those that do. One of each is added, so that a class without images has a finite logit."""
    logs = np.log(np.asarray(counts, float) + 1)
    priors: np.ndarray = logs[:, 1] - logs[:, 0] if logs.ndim == 2 else logs - np.log(np.exp(logs).sum())
    return priors


def _weights(counts: np.ndarray, weighting: str) -> np.ndarray:
    """`class_weights` of a head; for a multi-label one of each class by itself, as of two classes."""
    if counts.ndim == 1:
        return class_weights(counts, weighting)
    return np.stack([class_weights(pair, weighting) if pair.any() else np.ones(2) for pair in counts])


def _pairs(logits: Sequence[Tensor], targets: Tensor) -> list[tuple[Tensor, Tensor]]:
    # Autocast hands over bf16 logits; every loss is computed in float32.
    return list(zip((head.float() for head in logits), targets.unbind(1), strict=True))


def _plain(logits: Tensor, target: Tensor, weight: Tensor | None, smoothing: float = 0.0) -> Tensor:
    return F.cross_entropy(logits, target, weight=weight, reduction="none", label_smoothing=smoothing)


def _padded(logits: Tensor, target: Tensor, weight: Tensor | None, pad_to: int) -> Tensor:
    missing = pad_to - logits.shape[1]
    padded = F.pad(logits.softmax(1), (0, missing))
    return F.cross_entropy(
        padded, target, weight=None if weight is None else F.pad(weight, (0, missing)), reduction="none"
    )


def _focal(logits: Tensor, target: Tensor, weight: Tensor | None, gamma: float, smoothing: float) -> Tensor:
    """Focal loss (Lin et al. 2017), sum over classes of q (1 - p)^gamma (-log p), q the smoothed target.

    gamma 0 gives cross entropy with the same smoothing and weights.
    """
    log_p = logits.log_softmax(1)
    # A probability of exactly 1 would give 0 * infinity in the gradient when gamma < 1.
    focus = (1 - log_p.exp()).clamp_min(1e-6) ** gamma
    terms = -log_p * focus
    if weight is not None:
        terms = terms * weight
    hard = terms.gather(1, target[:, None])[:, 0]
    return hard if smoothing == 0 else (1 - smoothing) * hard + smoothing * terms.mean(1)


def label_cross_entropy(
    logits: Tensor, targets: Tensor, weight: Tensor | None = None, smoothing: float = 0.0, gamma: float = 0.0
) -> Tensor:
    """Binary cross entropy of each label of a multi-label head: logits (n, k), targets (n, k) of 0 and 1 -> (n, k).

    It is `_focal` (gamma > 0) and `_plain` (gamma 0) of two classes, of which one is "doesn't hold", in smoothing and
    weights as well: weight (k, 2).
    """
    holds = (1 - smoothing) * targets.to(logits.dtype) + smoothing / 2
    if weight is None and gamma == 0:
        return F.binary_cross_entropy_with_logits(logits, holds, reduction="none")
    log_p = torch.stack([F.logsigmoid(-logits), F.logsigmoid(logits)], dim=-1)
    terms = -log_p * torch.stack([1 - holds, holds], dim=-1)
    if gamma:
        terms = terms * (1 - log_p.exp()).clamp_min(1e-6) ** gamma
    return (terms if weight is None else terms * weight).sum(-1)


# The keys are the words that `TrainConfig.loss` allows; a row makes the loss of one head from the settings and the
# numbers of classes of all heads.
Objective = Callable[[TrainConfig, Sequence[int]], HeadLoss]
OBJECTIVES: Mapping[str, Objective] = {
    "cross_entropy": lambda train, counts: partial(_plain, smoothing=train.label_smoothing),
    "focal": lambda train, counts: partial(_focal, gamma=train.focal_gamma, smoothing=train.label_smoothing),
    "report": lambda train, counts: partial(_padded, pad_to=max(counts)),
}
# The same for multi-label heads. `report` has no row: it is a softmax over the classes of all heads.
LABEL_OBJECTIVES: Mapping[str, Callable[[TrainConfig], LabelLoss]] = {
    "cross_entropy": lambda train: partial(label_cross_entropy, smoothing=train.label_smoothing),
    "focal": lambda train: partial(label_cross_entropy, smoothing=train.label_smoothing, gamma=train.focal_gamma),
}
