"""The data set of a sweep, its caches, and what the data and the spec tell together: without torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fashion.bucket.address import Address
from fashion.config.data import Form
from fashion.config.trial import TrialConfig
from fashion.data.contents import default_cache_dir
from fashion.data.layout import Dataset, read_dataset
from fashion.data.lists import looking_with
from fashion.data.pack import Pack
from fashion.data.remote.local_copy import DataRoot, on_this_machine, parse_root
from fashion.data.splits.joined import JOINED, joined_pack
from fashion.errors import Problem, SpecError
from fashion.spec.sweep_spec import SweepSpec
from fashion.spec.trials.possible import MOST_DRAWN, few
from fashion.sweep.foresee import foreseen
from fashion.sweep.labelled import require_labels, unfit_for_labels

# label, done, total
Progress = Callable[[str, int, int], None]

# Under an adaptive method configurations are not known beforehand; this many draws show what they can be made of.
ADAPTIVE_DRAWS = 300


@dataclass(frozen=True)
class DataRead:
    """configs: trials of the sweep, all of them or a wide sample. packs: their packed training and validation images.
    root: the data set's folder on this machine; source: where the spec says it is."""

    configs: tuple[TrialConfig, ...]
    source: DataRoot
    root: Path
    cache_dir: Path
    dataset: Dataset
    packs: Mapping[Form, tuple[Pack, ...]]


def read_data(spec: SweepSpec, progress: Progress, begun: Sequence[TrialConfig] = ()) -> DataRead:
    """Read the data set, and build the caches that this spec's trials need, and those `begun` before it was edited.

    Raises:
        DataError, SpecError: with everything that is wrong.
        StorageError: the data set is in a bucket that can't be read.
    """
    configs = [*possible_trials(spec), *begun]
    cache_dir = default_cache_dir().absolute()
    forms = sorted({c.data.form for c in configs})
    data = configs[0].data  # where and how the data set is read is the same in every trial
    source = parse_root(data.root)
    if isinstance(source, Address):  # before anything is fetched
        _require(foreseen(spec, None, progress), spec)
    root = on_this_machine(source, cache_dir, forms, progress=progress, reading=data.label_reading)
    watched = partial(progress, "images that can't be decoded")
    dataset = read_dataset(root, data.follow_links, data.on_error, watched, data.label_reading, looking_with(progress))
    require_labels(dataset)
    problems = [*foreseen(spec, dataset.training_images, progress), *unfit_for_labels(spec, dataset)]
    _require(problems, spec)
    dataset.fingerprint(partial(progress, "contents of all images"))
    packs = {
        form: tuple(
            Pack.open_or_build(
                dataset, split, *form, cache_dir=cache_dir,
                progress=partial(progress, f"{split} images at {form.resize} px"), verify=True,
            )
            for split in dataset.packed_splits
        )
        for form in forms
    }  # fmt: skip
    for form in {config.data.form for config in configs if config.train.fit_on == JOINED}:
        train, val = packs[form]
        joining = partial(progress, f"{JOINED} images at {form.resize} px")
        packs[form] = (joined_pack(train, val, cache_dir, joining, verify=True), val)
    return DataRead(tuple(configs), source, root, cache_dir, dataset, packs)


def possible_trials(spec: SweepSpec) -> list[TrialConfig]:
    """Every configuration of a sweep whose trials are known and few; of any other a wide sample, whose caches are built
    beforehand. A trial builds what it finds missing."""
    if few(spec):
        return [spec.trial(number) for number in range(spec.total_trials)]
    return [spec.drawn(number) for number in range(ADAPTIVE_DRAWS if spec.search.adaptive else MOST_DRAWN)]


def _require(problems: list[Problem], spec: SweepSpec) -> None:
    if problems:
        raise SpecError(f"{spec.name} can't be trained:", problems)
