"""Names in a data set that something would read as code, and names in Unicode's two forms."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from rich.cells import cell_len

from fashion.data.forms.images import alike
from fashion.data.layout import Attribute, Baseline, read_dataset
from fashion.data.stats import ClassDistribution, figure, without_markup
from fashion.errors import DataError
from tests.support.layouts import small

ODD = "$x_{1$ 1\n[bold]a[/b] 1\n$\\frac{1}{2}$ 2\n<b>&amp;</b> 2\n=SUM(A1) 2"


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_a_figure_draws_names_as_they_are(tmp_path: Path, suffix: str) -> None:
    path = figure(read_dataset(small(tmp_path / "d", names=ODD)), tmp_path / f"f.{suffix}")
    assert path.stat().st_size > 1000


def test_no_name_is_a_formula() -> None:
    from matplotlib.text import Text

    with without_markup():
        assert not Text(0, 0, "$x$").get_parse_math()
    assert Text(0, 0, "$x$").get_parse_math()


def test_classes_that_differ_in_their_form_alone_are_refused(tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "été") for form in ("NFC", "NFD"))
    assert composed != decomposed
    assert alike(composed, decomposed)
    root = small(tmp_path / "d", names=f"{composed} 1\n{decomposed} 1\nhot 2\nwarm 2\ncold 2")
    with pytest.raises(DataError, match=r"differ in more than the form of their Unicode characters.*u0301.*xe9t"):
        read_dataset(root)
    root = small(tmp_path / "e", names=f"{composed} 1\nred 1\n{decomposed} 2\nwarm 2\ncold 2")
    assert read_dataset(root).attributes[1].classes[0] == decomposed


def test_attributes_that_differ_in_their_form_alone_are_refused(tmp_path: Path) -> None:
    root = small(tmp_path / "d")
    (root / "split/attribute_names.txt").write_text("\u00e9\ne\u0301\n")
    with pytest.raises(DataError, match="attribute names differ"):
        read_dataset(root)


@pytest.mark.parametrize(("listed", "there", "word"), [("NFC", "NFD", "decomposed"), ("NFD", "NFC", "composed")])
def test_an_image_under_its_names_other_form_is_named(tmp_path: Path, listed: str, there: str, word: str) -> None:
    root = small(tmp_path / "d")
    name = "img/\u00e9t\u00e9.png"
    (root / "img/0.png").rename(root / unicodedata.normalize(there, name))  # type: ignore[arg-type]
    lists = root / "split/train.txt"
    lists.write_text(lists.read_text().replace("img/0.png", unicodedata.normalize(listed, name)))  # type: ignore[arg-type]
    with pytest.raises(DataError, match=f"It is there in Unicode's {word} form"):
        read_dataset(root)


def test_a_table_is_aligned_whatever_its_names_are_written_in() -> None:
    attributes = (Attribute("袖", ("長い袖", "short", "a\u0301", "👗")),)
    shown = ClassDistribution(
        attributes, {"train": 4}, {"train": [[1, 1, 1, 1]]}, {"train": Baseline((1,), (0.25,), 0.25)}
    )
    lines = [line for line in shown.table().splitlines() if line.endswith("25.0%")]
    assert len(lines) == 4
    assert len({cell_len(line) for line in lines}) == 1
