"""What a sweep's page costs: its file's size, the time until a browser has drawn it, and a brush's way to the screen.

A drawn record (`page_run`) of 500 and, in the long form, 2,000 trials of 50 epochs; headless Chromium, which draws in
software. A brush is moved along an axis with the pointer, and each move is timed from its event to the frame after.

value: kB, seconds or milliseconds; wanted: at most 1 MB and 1.5 s for 500 trials, 3 s for 2,000; of 500, 100 ms in the
median and 200 ms at the 95th percentile.
"""

from __future__ import annotations

import statistics
import tempfile
from functools import partial
from pathlib import Path

from benchmarks.chromium import Chromium, find_chromium
from benchmarks.page_run import draw_run
from benchmarks.rows import Row, seconds, tell
from fashion.api.recorded_run import RecordedRun
from fashion.page.document import page_html
from fashion.page.gather import gather
from fashion.record.run import Run

READY = {500: 1.5, 2000: 3.0}  # trials -> seconds
MOVES = 60
# Resolves with the milliseconds from each of so many moves of the pointer to the end of the frame after it.
BRUSH = """new Promise((done) => {
  const area = document.querySelectorAll('#parallel .brush-area')[2];
  area.setPointerCapture = () => {};
  const box = area.getBoundingClientRect();
  const send = (kind, share) => area.dispatchEvent(new PointerEvent(kind, {pointerId: 1, bubbles: true,
    clientX: box.x + box.width / 2, clientY: box.y + box.height * share}));
  send('pointerdown', 0.85);
  const times = [];
  const step = (number) => {
    if (number === MOVES) { send('pointerup', 0.3); done(times); return; }
    const begun = performance.now();
    send('pointermove', 0.8 - 0.5 * number / MOVES);
    // The page draws within the next frame; a message is handled after that frame has been drawn.
    requestAnimationFrame(() => {
      const channel = new MessageChannel();
      channel.port1.onmessage = () => { times.push(performance.now() - begun); step(number + 1); };
      channel.port2.postMessage(0);
    });
  };
  step(0);
})"""


def run(full: bool, data: Path) -> list[Row]:
    if find_chromium() is None:
        raise RuntimeError("no Chromium on this machine: apt-get install chromium")
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="page-") as name, Chromium() as browser:
        browser.look(1400, 1000)
        for trials in (500, 2000) if full else (500,):
            tell(f"{trials} trials are drawn")
            draw_run(Path(name), f"drawn-{trials}", trials, 50, 1000, predicted=20)
            opened = RecordedRun(Run.open(Path(name) / f"drawn-{trials}"))
            page = Path(name) / f"{trials}.html"
            taken = seconds(partial(_write, opened, page))
            label = f"{trials} x 50"
            rows.append(Row("page", f"{label}: written, after the record is read", taken, "s"))
            size = page.stat().st_size / 1000
            wanted = trials == 500
            rows.append(Row("page", f"{label}: size", size, "kB", None, "value <= 1000", size <= 1000))
            ready = statistics.median(browser.open(page) for _ in range(5))
            rows.append(Row("page", f"{label}: ready", ready, "s", None, f"value <= {READY[trials]:g}",
                            ready <= READY[trials]))  # fmt: skip
            times = sorted(browser.run(BRUSH.replace("MOVES", str(MOVES))))
            for part, value, most in (("median", statistics.median(times), 100),
                                      ("95th percentile", times[int(0.95 * (len(times) - 1))], 200)):  # fmt: skip
                target, met = (f"value <= {most}", value <= most) if wanted else (None, None)
                title = f"{label}: brush to next frame, {part}"
                rows.append(Row("page", title, value, "ms", None, target, met))
    return rows


def _write(opened: RecordedRun, page: Path) -> None:
    page.write_text(page_html([gather(opened)]))
