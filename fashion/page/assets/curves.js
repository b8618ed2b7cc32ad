"use strict";
/* Learning curves of all trials, with the scheduler's rungs, stops and the epoch at which a trial failed. */

function curvesPanel() {
  const plot = makePlot("curves");
  const losses = data.trials.flatMap((trial) => trial.curve.filter((each) => each !== null)).sort((a, b) => a - b);
  const quantile = (/** @type {number} */ share) => losses[Math.floor(share * (losses.length - 1))];
  let low = losses.length ? losses[0] : 0;
  const top = losses.length ? losses[losses.length - 1] : 1;
  // A few losses of a first epoch, or of a trial that diverged, would flatten everything else.
  const high = losses.length ? Math.min(top, quantile(0.95) + 0.6 * (quantile(0.95) - low)) : 1;
  const flat = !(high > low); // a single loss lies in the middle
  const margins = flat ? 0.1 * Math.abs(low) || 1 : 0;
  low -= margins;
  /** @type {Axis} */
  const vertical = { name: "", kind: "linear", values: [], labels: [], low, high: high + margins, open: high < top };
  const longest = Math.max(1, ...data.trials.map((trial) => (data.fraction ? 100 : trial.curve.length)));
  const first = data.fraction ? 0 : 1;
  const margin = { top: 20, right: 14, bottom: 40, left: 52 };

  /** @param {number} at epoch, or % of the schedule */
  const x = (at) => margin.left
    + ((at - first) / Math.max(longest - first, 1e-9)) * (plot.width - margin.left - margin.right);
  /** @param {number} value */
  const y = (value) => plot.height - margin.bottom
    - positionOf(vertical, value) * (plot.height - margin.bottom - margin.top);
  /** @param {TrialRow} trial @param {number} index */
  const place = (trial, index) => x(data.fraction ? (100 * (index + 1)) / trial.epochs : index + 1);

  function lay() {
    fit(plot);
    drawAxes();
    lines.all();
  }

  function drawAxes() {
    const [left, right, bottom] = [margin.left, plot.width - margin.right, plot.height - margin.bottom];
    for (const tick of ticksOf(vertical, 5)) {
      const at = bottom - tick.at * (bottom - margin.top);
      plot.svg.append(shape("line", { class: "grid", x1: left, x2: right, y1: at, y2: at }));
      plot.svg.append(shape("text", { class: "dim", x: left - 6, y: at + 4, "text-anchor": "end" }, tick.text));
    }
    const ticks = roundTicks(first, longest, plot.width < 500 ? 5 : 10).filter((each) => each === Math.round(each));
    for (const tick of ticks) {
      plot.svg.append(
        shape("text", { class: "dim", x: x(tick), y: bottom + 16, "text-anchor": "middle" }, String(tick)));
    }
    const name = data.fraction ? "% of a trial's schedule" : "epoch";
    plot.svg.append(
      shape("text", { class: "dim", x: (left + right) / 2, y: bottom + 33, "text-anchor": "middle" }, name));
    plot.svg.append(shape("text", { class: "dim", x: 4, y: 12 }, data.metric));
    let before = -100;
    for (const rung of data.rungs.filter((each) => each <= longest)) {
      const at = x(rung);
      plot.svg.append(shape("line", { class: "rung", x1: at, x2: at, y1: margin.top, y2: bottom }));
      if (at - before < 48) continue;
      before = at;
      const end = at > right - 60;
      plot.svg.append(shape("text", { class: "dim", x: at + (end ? -3 : 3), y: margin.top - 6,
        "text-anchor": end ? "end" : "start" }, "rung " + shortNumber(rung) + (data.fraction ? " %" : "")));
    }
  }

  /** @param {CanvasRenderingContext2D} context @param {number} index */
  function line(context, index) {
    const trial = data.trials[index];
    let pen = false;
    let drawn = 0;
    let lastX = 0;
    let lastY = 0;
    context.beginPath();
    for (let epoch = 0; epoch < trial.curve.length; epoch += 1) {
      const value = trial.curve[epoch];
      if (value === null) { pen = false; continue; }
      lastX = place(trial, epoch);
      lastY = y(value);
      if (pen) context.lineTo(lastX, lastY);
      else context.moveTo(lastX, lastY);
      pen = true;
      drawn += 1;
    }
    context.stroke();
    if (!drawn) return;
    if (drawn === 1 || trial.status === "stopped") { // a stop's tick; of a single epoch there is no line
      context.fillStyle = context.strokeStyle;
      context.fillRect(lastX - 1.5, lastY - 1.5, 3, 3);
    } else if (trial.status === "failed") {
      context.beginPath();
      context.moveTo(lastX - 4, lastY - 4);
      context.lineTo(lastX + 4, lastY + 4);
      context.moveTo(lastX - 4, lastY + 4);
      context.lineTo(lastX + 4, lastY - 4);
      context.stroke();
    }
  }

  const lines = trialLines(plot, line, 1.4);
  listeners.push(lines.those);
  return lay;
}
