"""Pictures of a run's page for the documentation:  python -m benchmarks.pictures RUN FOLDER  (needs Chromium)."""

from __future__ import annotations

import io
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from benchmarks.chromium import Chromium
from fashion.api.recorded_run import open_run
from fashion.files import write_atomic
from fashion.page.document import page_html
from fashion.page.gather import gather

WIDTH = 1100
# Name -> the id of the page's section.
PICTURES: Mapping[str, str] = {
    "answer": "answer", "leaderboard": "leaderboard", "coordinates": "coordinates", "curves": "learning",
    "mattered": "mattered", "attributes": "attributes",
}  # fmt: skip
TALLEST = 620  # pixels


def main(run: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name, Chromium() as browser:
        page = Path(name) / "page.html"
        opened = open_run(run)
        page.write_text(page_html([gather(opened)]))
        browser.look(WIDTH, 900)
        browser.open(page)
        whole = Image.open(io.BytesIO(browser.picture(whole=True))).convert("RGB")
        for name, place in PICTURES.items():
            box = browser.run(
                f"(() => {{ const box = document.getElementById('{place}').getBoundingClientRect();"
                " return [box.left, box.top + scrollY, box.right, box.bottom + scrollY]; })()"
            )
            left, top, right, bottom = map(round, box)
            part = whole.crop((left, top, right, min(bottom, top + TALLEST)))
            content = io.BytesIO()
            part.quantize(128).save(content, "PNG", optimize=True)
            write_atomic(folder / f"{name}.png", content.getvalue())


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
