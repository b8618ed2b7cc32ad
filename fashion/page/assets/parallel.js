"use strict";
/* Parallel coordinates: a line a trial, an axis a field, a brush on each axis. On a narrow screen axes lie flat. */

function parallelPanel() {
  const plot = makePlot("parallel");
  let flat = false;
  /** @type {(axis: number, at: number) => [number, number]} */
  let point = () => [0, 0];
  /** @type {Float32Array[]} */
  let along = [];
  /** @type {Float32Array} */
  let across = new Float32Array(axes.length);
  const margin = { top: 34, bottom: 10, left: 52, right: 62 };

  function lay() {
    flat = plot.box.clientWidth < 640;
    plot.box.classList.toggle("narrow", flat);
    plot.box.style.height = flat ? 50 * axes.length + 30 + "px" : "";
    fit(plot);
    const span = Math.max(axes.length - 1, 1);
    if (flat) {
      const high = plot.width - 14;
      const low = (16 - LANE * high) / (1 - LANE); // the lane lies 16 pixels from the edge
      const gap = (plot.height - 50) / span;
      across = Float32Array.from(axes, (_, axis) => 22 + gap * axis);
      point = (axis, at) => [low + at * (high - low), across[axis]];
    } else {
      const height = plot.height - margin.top - margin.bottom;
      const low = plot.height - margin.bottom - height * 0.12;
      const gap = (plot.width - margin.left - margin.right) / span;
      across = Float32Array.from(axes, (_, axis) => margin.left + gap * axis);
      point = (axis, at) => [across[axis], low - at * (low - margin.top)];
    }
    along = places.map((at, axis) => Float32Array.from(at, (each) => point(axis, each)[flat ? 0 : 1]));
    drawAxes();
    lines.all();
    drawBrushes();
  }

  /** @param {CanvasRenderingContext2D} context @param {number} trial */
  function line(context, trial) {
    context.beginPath();
    for (let axis = 0; axis < axes.length; axis += 1) {
      if (flat) context.lineTo(along[axis][trial], across[axis]);
      else context.lineTo(across[axis], along[axis][trial]);
    }
    context.stroke();
  }

  const lines = trialLines(plot, line);

  function drawAxes() {
    axes.forEach((axis, index) => {
      const [x0, y0] = point(index, 0);
      const [x1, y1] = point(index, 1);
      plot.svg.append(shape("line", { class: "axis", x1: x0, y1: y0, x2: x1, y2: y1 }));
      const room = flat ? 5 : 7;
      for (const tick of ticksOf(axis, axis.kind === "category" && flat ? 4 : room)) {
        const [x, y] = point(index, tick.at);
        const long = flat ? 11 : 16;
        const text = tick.text.length > long ? tick.text.slice(0, long - 1) + "…" : tick.text;
        plot.svg.append(flat
          ? shape("text", { class: "dim", x, y: y + 14, "text-anchor": tick.at > 0.9 ? "end" : "middle" }, text)
          : shape("text", { class: "dim", x: x + 5, y: y + 4 }, text));
      }
      const name = flat
        ? shape("text", { class: "bold", x: x0, y: y0 - 7 }, axis.name)
        : shape("text", { class: "bold", x: x0, y: 16, "text-anchor": "middle" }, axis.name);
      plot.svg.append(name);
      if (axis.values.includes(null)) {
        const [x, y] = point(index, LANE);
        const word = axis.name === data.metric ? "none" : "not set";
        plot.svg.append(flat
          ? shape("text", { class: "dim", x, y: y + 14, "text-anchor": "middle" }, flat ? "–" : word)
          : shape("text", { class: "dim", x: x + 5, y: y + 4 }, word));
      }
      listen(index);
    });
  }

  /** @param {number} axis */
  function listen(axis) {
    const [x0, y0] = point(axis, LANE - 0.03);
    const [x1, y1] = point(axis, 1.03);
    const half = flat ? 14 : 16;
    const area = shape("rect", flat
      ? { class: "brush-area", x: x0, y: y0 - half, width: x1 - x0, height: 2 * half }
      : { class: "brush-area", x: x0 - half, y: y1, width: 2 * half, height: y0 - y1 });
    let from = 0;
    let moving = false;
    const at = (/** @type {PointerEvent} */ event) => {
      const box = plot.svg.getBoundingClientRect();
      const pixel = flat ? ((event.clientX - box.left) / box.width) * plot.width
        : ((event.clientY - box.top) / box.height) * plot.height;
      const [low, high] = [point(axis, 0)[flat ? 0 : 1], point(axis, 1)[flat ? 0 : 1]];
      return (pixel - low) / (high - low);
    };
    area.addEventListener("pointerdown", (event) => {
      area.setPointerCapture(event.pointerId);
      from = at(event);
      moving = brushing.now = true;
    });
    area.addEventListener("pointermove", (event) => {
      if (moving) brush(axis, Math.min(from, at(event)), Math.max(from, at(event)));
    });
    const end = (/** @type {PointerEvent} */ event) => {
      if (!moving) return;
      moving = brushing.now = false;
      if (event.type === "pointerup" && Math.abs(at(event) - from) < 0.012) setFilter(axis, null);
      else changed(); // for the work that waited while it was brushed
    };
    area.addEventListener("pointerup", end);
    area.addEventListener("pointercancel", end);
    plot.svg.append(area);
  }

  /** @param {number} index @param {number} low @param {number} high */
  function brush(index, low, high) {
    const axis = axes[index];
    const unset = low <= LANE + 0.04;
    if (axis.kind !== "category") {
      setFilter(index, { low: Math.max(low, 0), high: Math.min(high, 1), unset });
      return;
    }
    const half = 0.5 / axis.labels.length;
    const picked = [...axis.labels.keys()].filter((each) => {
      const at = positionOf(axis, each);
      return at + half > low && at - half < high;
    });
    setFilter(index, { picked: unset ? [-1, ...picked] : picked });
  }

  function drawBrushes() {
    plot.svg.querySelectorAll(".brush").forEach((each) => each.remove());
    axes.forEach((axis, index) => {
      const filter = filterOf(index);
      if (!filter) return;
      const half = 0.5 / Math.max(axis.labels.length, 1);
      const spans = "picked" in filter
        ? filter.picked.map((each) => {
          const middle = each < 0 ? LANE : positionOf(axis, each);
          return each < 0 ? [LANE - 0.03, LANE + 0.03] : [middle - half, middle + half];
        })
        : [[filter.low, filter.high], ...(filter.unset ? [[LANE - 0.03, LANE + 0.03]] : [])];
      for (const [low, high] of spans) {
        if (high < low) continue; // the lane alone
        const [x0, y0] = point(index, low);
        const [x1, y1] = point(index, high);
        plot.svg.append(shape("rect", flat
          ? { class: "brush", x: x0, y: y0 - 6, width: Math.max(x1 - x0, 1), height: 12 }
          : { class: "brush", x: x0 - 7, y: y1, width: 14, height: Math.max(y0 - y1, 1) }));
      }
    });
  }

  listeners.push(lines.those, drawBrushes);
  return lay;
}
