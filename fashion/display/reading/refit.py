"""What is said of a refit where other runs have scores."""

from __future__ import annotations

from rich.console import Console

from fashion.errors import printable
from fashion.record.cards.refit_words import refit_sentences
from fashion.record.ranking import Ranked
from fashion.record.run import Run


def print_refit(run: Run, promoted: Ranked, folder: str | None, out: Console) -> None:
    """Print what a refit is, instead of scores that it does not have. folder: where it was promoted to; None where
    that was not possible."""
    epochs = promoted.config.get("train", {}).get("epochs", "?")
    out.print(printable(f"trial {promoted.trial}, epoch {promoted.epoch} of {epochs} of {run.location}"), markup=False)
    for sentence in refit_sentences(run.manifest):
        out.print(printable(sentence), markup=False, soft_wrap=True)
    if folder is not None:
        out.print()
        out.print(f"promoted to {folder}", markup=False, soft_wrap=True)
