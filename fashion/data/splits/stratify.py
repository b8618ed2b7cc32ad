"""Iterative stratification: several sets in which every label has its share, however many labels an example has.

Sechidis, Tsoumakas & Vlahavas, On the Stratification of Multi-Label Data, ECML PKDD 2011, algorithm 1. Where the paper
draws lots, the order of the examples decides, so that the same input has the same output on every machine: there are
no random numbers, and the only arithmetic on fractions is one product for each label and set, and differences.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def stratify(labels: Sequence[Mapping[int, int]], sizes: Sequence[int], shares: Sequence[float]) -> list[int]:
    """The set of each example, an index into `shares`, which add up to 1.

    labels[i]: how many images of example i have each label; an example is a group of images that stay together. sizes:
    the number of images of each. Examples are given out label by label, beginning with the one that the fewest images
    still to be given out have; within a label the largest first, and otherwise in their order.
    """
    left: dict[int, int] = {}
    holders: dict[int, list[int]] = {}
    for example, counts in enumerate(labels):
        for label, count in counts.items():
            left[label] = left.get(label, 0) + count
            holders.setdefault(label, []).append(example)
    wanted = {label: [count * share for share in shares] for label, count in left.items()}
    room = [sum(sizes) * share for share in shares]
    chosen = [-1] * len(sizes)

    def give(example: int, to: int) -> None:
        chosen[example] = to
        room[to] -= sizes[example]
        for label, count in labels[example].items():
            wanted[label][to] -= count
            left[label] -= count

    sets = range(len(shares))
    open_labels = set(left)
    while open_labels:
        rarest = min(open_labels, key=lambda label: (left[label], label))
        open_labels.remove(rarest)
        mine = [example for example in holders[rarest] if chosen[example] < 0]
        for example in sorted(mine, key=lambda each: -labels[each][rarest]):  # stable: otherwise in their order
            need = wanted[rarest]
            give(example, max(sets, key=lambda each: (need[each], room[each], -each)))
    for example in sorted((each for each, to in enumerate(chosen) if to < 0), key=lambda each: -sizes[each]):
        give(example, max(sets, key=lambda each: (room[each], -each)))
    return chosen
