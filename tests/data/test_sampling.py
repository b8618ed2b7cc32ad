from __future__ import annotations

import numpy as np
import pytest

from fashion.data.batches import Epoch
from fashion.data.sampling import sampling_weights

COUNTS = (60, 30, 9, 1)
LABELS = np.repeat(np.arange(4), COUNTS)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_classes_of_one_attribute_are_drawn_as_in_the_paper(power: float) -> None:
    """Kang et al. 2020, equation 1: the probability of class j is n_j^q / sum n_i^q, here with q = 1 - power."""
    weights = sampling_weights([LABELS], power)
    expected = np.array(COUNTS) ** (1 - power)
    np.testing.assert_allclose(np.bincount(LABELS, weights), expected / expected.sum())
    for count, start in zip(COUNTS, np.cumsum((0, *COUNTS)), strict=False):
        assert np.ptp(weights[start : start + count]) == 0, "images of a class are drawn alike"


def test_epochs_draw_by_the_weights_with_replacement_and_alike_on_all_ranks() -> None:
    weights = sampling_weights([LABELS], 1.0)
    epochs = [Epoch(number, 10, 7, weights=weights) for number in range(1, 201)]
    drawn = np.concatenate([np.concatenate(epoch.rows(100, 1)) for epoch in epochs])
    assert len(drawn) == 20_000
    # 5,000 of each class are expected, with a standard deviation of 61.
    np.testing.assert_allclose(np.bincount(LABELS[drawn]), 5_000, atol=245)
    first, again = epochs[0].rows(100, 1), epochs[0].rows(100, 2)
    assert all(np.array_equal(one, other) for one, other in zip(first, again, strict=True))
    assert not np.array_equal(np.concatenate(first), np.concatenate(epochs[1].rows(100, 1)))


def test_drawn_rows_are_among_those_that_are_trained_on() -> None:
    among = np.arange(100, 200)
    rows = np.concatenate(Epoch(1, 10, 0, among=among, weights=sampling_weights([LABELS], 1.0)).rows(300, 1))
    assert rows.min() >= 100
    assert rows.max() < 200
    assert len(set(rows.tolist())) < 100


def test_several_attributes_have_an_equal_say() -> None:
    other = np.tile([0, 1], 50)
    both = sampling_weights([LABELS, other], 1.0)
    mean = (sampling_weights([LABELS], 1.0) + sampling_weights([other], 1.0)) / 2
    np.testing.assert_allclose(both, mean)


def test_missing_labels_are_average_and_columns_of_a_multi_label_attribute_count_once() -> None:
    some = LABELS.copy()
    some[::3] = -1
    weights = sampling_weights([some], 1.0)
    np.testing.assert_allclose(weights[some == -1], 0.01)
    known = np.bincount(some[some >= 0], weights[some >= 0])
    np.testing.assert_allclose(known, known[0])
    np.testing.assert_allclose(sampling_weights([np.full(5, -1)], 1.0), 0.2)
    pair = np.stack([np.arange(100) < 10, np.arange(100) < 50], axis=1).astype(np.int64)
    found = sampling_weights([pair], 1.0)
    np.testing.assert_allclose(found, (sampling_weights([pair[:, 0]], 1.0) + sampling_weights([pair[:, 1]], 1.0)) / 2)
