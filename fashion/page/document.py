"""The page: one HTML file that opens from a disk, asks for nothing, and runs no script but its own.

The content security policy names the style and each script by its hash. Data stand in a script element of type
application/json, which no browser runs.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from importlib.resources import files
from string import Template

from fashion.page import details, panels
from fashion.page.gather import PageRun
from fashion.page.html import Markup, joined, tag, text
from fashion.page.payload import distinct_names, payload, to_script

# In the order in which they run: a script uses what stands before it.
SCRIPTS = ("dom", "scales", "state", "plot", "parallel", "curves", "slices", "filters", "table", "main")
CONTENTS = (
    ("answer", "Answer"), ("runs", "Side by side"), ("leaderboard", "Leaderboard"),
    ("coordinates", "Parallel coordinates"), ("learning", "Learning curves"), ("all-trials", "Trials"),
    ("mattered", "What mattered"), ("attributes", "By attribute"), ("wrong", "Mistakes"), ("classes", "Classes"),
    ("model", "Model"), ("cost", "Cost"), ("record", "Record"),
)  # fmt: skip
HEAT = 8  # steps of a confusion's shade
Panel = Callable[[PageRun], Markup]


def page_html(runs: Sequence[PageRun], thumbnails: bool = False, watch: float = 0.0) -> str:
    """The whole page of one run, or of several side by side.

    thumbnails: with small pictures of validation images. watch: seconds after which the open page loads itself again;
    0 for never.
    """
    wrong = partial(details.wrong_panel, thumbnails=thumbnails)
    first: list[Panel] = [panels.answer_panel, panels.leaderboard_panel]
    rest: list[Panel] = [
        panels.winner_curves_panel, panels.mattered_panel, details.attributes_panel, wrong, details.distributions_panel,
        details.model_panel, details.cost_panel, details.record_panel,
    ]  # fmt: skip
    above = joined(_of_each(runs, panel) for panel in first)
    if len(runs) > 1:
        above = joined([panels.side_by_side_panel(runs), above])
    below = joined(_of_each(runs, panel) for panel in rest)
    style = _asset("page.css") + "".join(
        f".heat{step}{{background:rgba(var(--heat),{0.055 * step:.3f})}}" for step in range(1, HEAT + 1)
    )
    scripts = [_asset(f"{name}.js") for name in SCRIPTS]
    policy = (
        f"default-src 'none'; img-src data:; style-src {_hashed(style)}; script-src {' '.join(map(_hashed, scripts))}; "
        "base-uri 'none'; form-action 'none'"
    )
    whole = joined([above, below])
    links = [tag("a", words, href=f"#{name}") for name, words in CONTENTS
             if f'id="{name}"' in whole or name in ("coordinates", "learning", "all-trials")]  # fmt: skip
    box = '<label><input type="checkbox" id="follow" checked>Follow the sweep</label>'
    return Template(_asset("page.html")).substitute(
        policy=policy,
        title=text(f"{' and '.join(distinct_names(runs))}: sweep"),
        style=style,
        heading=panels.heading(runs),
        contents=joined(links),
        follow=box if watch else "",
        first=above,
        rest=below,
        data=to_script(payload(runs, watch)),
        scripts="\n".join(f"<script>{script}</script>" for script in scripts),
    )


def _of_each(runs: Sequence[PageRun], panel: Panel) -> Markup:
    """A panel of each run: of several runs side by side, below their names, and with ids of the first one only."""
    if len(runs) == 1:
        return panel(runs[0])
    columns = []
    for place, (name, run) in enumerate(zip(distinct_names(runs), runs, strict=True)):
        made = panel(run)
        if place:
            made = Markup(made.replace(' id="', ' data-panel="'))
        made = Markup(made.replace(' aria-label="', f' aria-label="{text(name)}: '))
        columns.append(tag("article", tag("h2", name), made, class_="card"))
    return tag("div", *columns, class_="runs")


def _asset(name: str) -> str:
    return files("fashion.page").joinpath("assets", name).read_text("utf-8")


def _hashed(content: str) -> str:
    digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
    return f"'sha256-{digest}'"
