"use strict";
/* A slice: the metric against one field. Categories are jittered, in a way that is the same each time. */

function slicesPanel() {
  const plot = makePlot("slices");
  const choice = element("slice", HTMLSelectElement);
  const vertical = axes[axes.length - 1];
  const fields = axes.slice(0, -1);
  choice.replaceChildren(...fields.map((axis) => new Option(axis.name, axis.name)));
  choice.value = view.slice || (fields.length ? fields[0].name : "");
  choice.addEventListener("change", () => { view.slice = choice.value; lay(); remember(); });
  element("slice-panel", HTMLElement).hidden = !fields.length; // nothing differs between the trials
  const margin = { top: 14, right: 16, bottom: 40, left: 52 };

  const chosen = () => Math.max(0, fields.findIndex((axis) => axis.name === choice.value));
  const span = () => [margin.left + 44, plot.width - margin.right];
  /** @param {number} at */
  const x = (at) => {
    const [left, right] = span();
    return at < 0 ? margin.left + 18 : left + at * (right - left);
  };
  /** @param {number} at */
  const y = (at) => {
    const bottom = plot.height - margin.bottom - 26;
    return at < 0 ? plot.height - margin.bottom - 6 : bottom - at * (bottom - margin.top);
  };

  function lay() {
    fit(plot);
    if (!fields.length) return;
    const axis = axes[chosen()];
    for (const tick of ticksOf(vertical, 5)) {
      const at = y(tick.at);
      plot.svg.append(shape("line", { class: "grid", x1: margin.left, x2: plot.width - margin.right, y1: at, y2: at }));
      plot.svg.append(shape("text", { class: "dim", x: margin.left - 6, y: at + 4, "text-anchor": "end" }, tick.text));
    }
    const bottom = plot.height - margin.bottom + 18;
    const room = (plot.width - margin.left) / Math.max(axis.labels.length, 1);
    const long = axis.kind === "category" ? Math.floor(room / 7.5) : 14; // characters side by side
    for (const tick of ticksOf(axis, axis.kind === "category" ? Math.floor(plot.width / 55) : plot.width < 450 ? 4 : 6)) {
      const text = tick.text.length > long ? tick.text.slice(0, Math.max(long - 1, 3)) + "…" : tick.text;
      plot.svg.append(shape("text", { class: "dim", x: x(tick.at), y: bottom, "text-anchor": "middle" }, text));
    }
    if (axis.values.includes(null)) {
      plot.svg.append(shape("text", { class: "dim", x: x(LANE), y: bottom, "text-anchor": "middle" }, "not set"));
    }
    if (vertical.values.includes(null)) {
      plot.svg.append(shape("text", { class: "dim", x: margin.left - 6, y: y(LANE) + 4, "text-anchor": "end" }, "none"));
    }
    plot.svg.append(shape("text", { class: "dim", x: (margin.left + plot.width) / 2, y: plot.height - 4,
      "text-anchor": "middle" }, axis.name));
    draw();
  }

  function draw() {
    if (!fields.length) return;
    const context = plot.front;
    wipe(context, plot);
    const colours = trialColours();
    const dim = colour("--dim");
    const index = chosen();
    const wide = axes[index].kind === "category" ? Math.min(60, 300 / axes[index].labels.length) : 0;
    const dot = (/** @type {number} */ trial, /** @type {number} */ radius) => {
      const jitter = ((((trial * 2654435761) >>> 0) % 1000) / 1000 - 0.5) * wide;
      context.beginPath();
      context.arc(x(places[index][trial]) + jitter, y(places[axes.length - 1][trial]), radius, 0, 7);
      context.fill();
    };
    for (const wanted of [0, 1]) {
      for (const trial of drawOrder) {
        if (passing[trial] !== wanted || trial === winner) continue;
        context.globalAlpha = wanted ? 0.75 : 0.13;
        context.fillStyle = wanted ? colours[trial] : dim;
        dot(trial, 3.6);
      }
    }
    if (winner >= 0) {
      context.globalAlpha = passing[winner] ? 1 : 0.3;
      context.fillStyle = colour("--winner");
      dot(winner, 5.5);
    }
  }

  listeners.push(draw);
  return lay;
}
