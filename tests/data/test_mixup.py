"""Mixup and CutMix: shares and partners, and an objective that is the same mixture of losses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from fashion.data.augment import cutmix, mixture, mixup
from fashion.model.loss import cross_entropy, mixed
from fashion.training.loop import TrialInputs, fit
from tests.support.trained import NONE, config, packs, training


def test_each_image_is_mixed_with_another_rows_and_so_are_the_losses() -> None:
    torch.manual_seed(3)
    images = torch.eye(5)[:, :, None, None]
    targets = torch.stack([torch.arange(5), torch.arange(5) % 2], 1)
    mixtures, others, share = mixup(images, targets, 0.8)
    assert 0.5 <= share <= 1
    partner = others[:, 0]
    assert sorted(partner.tolist()) == list(range(5))
    assert torch.equal(others[:, 1], partner % 2)
    torch.testing.assert_close(mixtures, share * images + (1 - share) * images[partner])
    logits = [torch.randn(5, 5), torch.randn(5, 2)]
    found = mixed(cross_entropy, share)(logits, torch.cat([targets, others], 1))
    torch.testing.assert_close(
        found, share * cross_entropy(logits, targets) + (1 - share) * cross_entropy(logits, others)
    )


def test_the_shares_are_those_of_the_beta_distribution() -> None:
    torch.manual_seed(0)
    nothing = torch.zeros(2, 1), torch.zeros(2, 1, dtype=torch.int64)
    shares = np.array([mixup(*nothing, 0.4)[2] for _ in range(400)])
    beta = stats.beta(0.4, 0.4)
    folded = stats.ks_1samp(shares, lambda x: beta.cdf(x) - beta.cdf(1 - x))
    assert folded.pvalue > 1e-3


def test_a_box_of_each_image_is_anothers_and_the_share_is_what_is_left() -> None:
    torch.manual_seed(5)
    images = torch.arange(6.0)[:, None, None, None].expand(6, 2, 20, 30)
    targets = torch.arange(6)[:, None]
    shares = []
    for _ in range(300):
        mixed_images, others, share = cutmix(images, targets, 1.0)
        partner = others[:, 0]
        taken = mixed_images[0, 0] != images[0, 0] if partner[0] != 0 else torch.zeros(20, 30, dtype=torch.bool)
        if partner[0] != 0:
            assert share == pytest.approx(1 - float(taken.float().mean()), abs=1e-6)
            rows, columns = taken.any(1).nonzero(), taken.any(0).nonzero()
            if len(rows):  # one box, without holes
                assert taken[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        inside = torch.where(taken, partner[0].float(), 0.0)
        assert torch.equal(mixed_images[0, 1], inside)
        assert sorted(partner.tolist()) == list(range(6))
        shares.append(share)
    # Half the area on average, and more is kept where the box reaches out of the image.
    assert 0.5 < np.mean(shares) < 0.75
    assert images[3].unique().tolist() == [3.0], "the images that were given stay as they are"


def test_with_both_a_batch_takes_one_of_them() -> None:
    torch.manual_seed(0)
    images, targets = torch.eye(16).reshape(2, 1, 16, 8), torch.arange(2)[:, None]
    whole = 0
    for _ in range(100):
        found = mixture(images, targets, 0.4, 1.0)[0]
        whole += bool(((found == 0) | (found == 1)).all())
    assert 30 < whole < 90  # CutMix's pixels are some image's; mixup's are between, but for shares of nearly 1


@pytest.mark.parametrize("field", ["mixup", "cutmix"])
@pytest.mark.parametrize("stop", [0, 1])
def test_a_trial_goes_on_to_the_same_numbers(demo_root: Path, tmp_path: Path, stop: int, field: str) -> None:
    wanted = config(demo_root, **{field: 0.4}, epochs=2, optimizer="adamw", lr=0.003)
    data = packs(demo_root, wanted)
    whole = [report.metrics for report in fit(TrialInputs(wanted, data, NONE, tmp_path / "whole"))]
    first = training(TrialInputs(wanted, data, NONE, tmp_path / "again"))
    for _ in range(stop):
        next(first)
    first.close()
    assert [report.metrics for report in fit(TrialInputs(wanted, data, NONE, tmp_path / "again"))] == whole
    plain = config(demo_root, epochs=2, optimizer="adamw", lr=0.003)
    (report, *_) = fit(TrialInputs(plain, data, NONE, tmp_path / "plain"))
    assert report.metrics["train_loss"] != whole[0]["train_loss"]
