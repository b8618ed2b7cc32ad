"""One epoch, or one prediction, as a plain script does it: no sweep, no record, no cache.

    python -m benchmarks.once FILE        (see `child.module`)

"train": an epoch of `plain.epochs`, noted as "report" when its val_loss is known; the weights are saved. "predict":
load those weights and write the class indices of the test images, as the challenge wants them.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch.utils.data import DataLoader

from benchmarks.child import arguments_of, note
from benchmarks.plain import LOADER_PROCESSES, Network, Photos, Settings, epochs
from fashion.data.layout import read_dataset


def train(settings: Settings, root: Path, weights: Path, notes: Path) -> None:
    for epoch, val_loss, model in epochs(settings, root):
        note(notes, event="report", epoch=epoch, val_loss=val_loss)
        torch.save(model.state_dict(), weights)


@torch.inference_mode()
def predict(settings: Settings, root: Path, weights: Path) -> None:
    dataset = read_dataset(root)
    model = Network(dataset.class_counts, settings.dropout)
    model.load_state_dict(torch.load(weights, weights_only=True))
    model.eval()
    photos = Photos(root, dataset.splits["test"], settings.side, train=False)
    with open(weights.with_suffix(".txt"), "w") as file:
        for images, _ in DataLoader(photos, settings.batch_size, num_workers=LOADER_PROCESSES):
            classes = torch.stack([head.argmax(1) for head in model(images)], dim=1)
            file.writelines(" ".join(map(str, row)) + "\n" for row in classes.tolist())


if __name__ == "__main__":
    given = arguments_of()
    chosen, place, saved = Settings(**given["settings"]), Path(given["root"]), Path(given["weights"])
    if given["mode"] == "train":
        train(chosen, place, saved, Path(given["notes"]))
    else:
        predict(chosen, place, saved)
